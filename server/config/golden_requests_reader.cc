#include "server/config/golden_requests_reader.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "server/network/nearest_name.h"

namespace relight::config {
namespace {

void CheckDistance(const char* field, double value, const Place& place, ConfigErrors& errors) {
  if (std::isfinite(value) && value >= 0) return;
  errors.Add(place.Line(field),
             absl::StrCat("request: ", field, " is ", value,
                          ", it must be a number from 0 on: a part of the largest value expected"));
}

std::vector<std::string> NamesOf(const std::vector<TensorSpec>& specs) {
  std::vector<std::string> names;
  for (const TensorSpec& spec : specs) names.push_back(spec.name);
  return names;
}

void AppendQuoted(std::string* text, const std::string& name) {
  absl::StrAppend(text, "\"", Escape(name), "\"");
}

OutputRange ReadRange(const v1::OutputRange& range, const Place& place,
                      const std::vector<std::string>& outputs, ConfigErrors& errors) {
  OutputRange out{.name = range.name(), .allow_non_finite = range.allow_non_finite()};
  if (range.has_min()) out.min = range.min();
  if (range.has_max()) out.max = range.max();
  // Of a network that did not build nothing is known.
  if (!outputs.empty() && std::find(outputs.begin(), outputs.end(), out.name) == outputs.end()) {
    errors.Add(place.Line("name"),
               absl::StrCat("request: output \"", Escape(out.name), "\" is none of the model's, ",
                            absl::StrJoin(outputs, ", ", AppendQuoted),
                            network::DidYouMean(out.name, outputs)));
  }
  for (const auto& [field, limit] : {std::pair{"min", out.min}, std::pair{"max", out.max}}) {
    if (limit && std::isnan(*limit)) {
      errors.Add(place.Line(field), absl::StrCat("request: ", field, " is nan, give a number"));
    }
  }
  if (out.min && out.max && *out.min > *out.max) {
    errors.Add(place.Line("min"),
               absl::StrCat("request: no value is from min ", *out.min, " to max ", *out.max));
  }
  return out;
}

GoldenRequest ReadRequest(const v1::GoldenRequest& request, const Place& place,
                          const ModelConfig& config, ConfigErrors& errors) {
  GoldenRequest out;
  if (request.file().empty()) {
    errors.Add(place.line(),
               "request: file is missing: a dict of the inputs' tensors, and of the "
               "outputs' that are known, saved with torch.save or as safetensors");
  }
  out.file = (std::filesystem::path(config.folder) / request.file()).string();
  if (request.has_tolerance()) out.tolerance = request.tolerance();
  CheckDistance("tolerance", out.tolerance, place, errors);
  if (request.has_max_change()) {
    out.max_change = request.max_change();
    CheckDistance("max_change", *out.max_change, place, errors);
  }
  const std::vector<std::string> outputs = NamesOf(config.outputs);
  for (int i = 0; i < request.output_size(); ++i) {
    const v1::OutputRange& range = request.output(i);
    const Place at = place.In("output", range, i);
    OutputRange read = ReadRange(range, at, outputs, errors);
    const bool twice = std::any_of(out.ranges.begin(), out.ranges.end(),
                                   [&](const auto& other) { return other.name == read.name; });
    if (twice) {
      errors.Add(at.Line("name"),
                 absl::StrCat("request: output \"", Escape(read.name), "\" is there twice"));
    }
    out.ranges.push_back(std::move(read));
  }
  return out;
}

}  // namespace

void ReadGoldenRequests(const v1::Acceptance& accept, const Place& place, ModelConfig& config,
                        ConfigErrors& errors) {
  const auto count = static_cast<std::size_t>(accept.request_size());
  if (count > kMaxGoldenRequests) {
    errors.Add(place.Line("request"),
               absl::StrCat("accept: has ", count, " requests, the most is ", kMaxGoldenRequests));
    return;
  }
  if (count > 0 && config.arenas == 1) {
    errors.Add(
        place.Line("request"),
        "accept: a request is asked while the version before serves on, which with arenas: 1 "
        "has made way already: set arenas: 2, or leave the requests out");
  }
  for (int i = 0; i < accept.request_size(); ++i) {
    const v1::GoldenRequest& request = accept.request(i);
    config.golden_requests.push_back(
        ReadRequest(request, place.In("request", request, i), config, errors));
  }
}

}  // namespace relight::config
