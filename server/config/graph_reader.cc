#include "server/config/graph_reader.h"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/config/network_reader.h"
#include "server/network/layer_rules.h"

namespace relight::config {
namespace {

using network::kMaxRank;
using network::kMaxSize;

class GraphReader {
 public:
  GraphReader(const v1::ModelConfig& proto, const Place& place, ModelConfig& config,
              ConfigErrors& errors)
      : proto_(proto), place_(place), config_(config), errors_(errors) {}

  void Read();

 private:
  void ReadNetwork();
  absl::StatusOr<network::Network> BuildNetwork(
      const std::vector<network::BlockEntry>& entries) const;
  void ReadTorchScript();
  void CheckTensors(const std::vector<TensorSpec>& specs, const char* what);

  const v1::ModelConfig& proto_;
  const Place& place_;
  ModelConfig& config_;
  ConfigErrors& errors_;
};

void GraphReader::Read() {
  config_.inputs = ReadTensors(proto_, place_, TensorRole::kInput, errors_);
  config_.outputs = ReadTensors(proto_, place_, TensorRole::kOutput, errors_);
  switch (proto_.graph_case()) {
    case v1::ModelConfig::kNetwork:
      return ReadNetwork();
    case v1::ModelConfig::kTorchscript:
      return ReadTorchScript();
    case v1::ModelConfig::GRAPH_NOT_SET:
      errors_.Add(1,
                  "there is no graph: describe it as network { layer { name: \"fc1\" linear { "
                  "in_features: 10 out_features: 5 } } ... }, or name an exported one as "
                  "torchscript { file: \"graph.pt\" }");
  }
}

absl::StatusOr<network::Network> GraphReader::BuildNetwork(
    const std::vector<network::BlockEntry>& entries) const {
  const std::string first = config_.inputs.empty() ? "input" : config_.inputs.front().name;
  RELIGHT_ASSIGN_OR_RETURN(std::vector<network::Layer> layers,
                           network::ExpandBlocks(entries, first));
  return network::Network::Build(
      {.inputs = config_.inputs, .outputs = config_.outputs, .layers = std::move(layers)});
}

void GraphReader::ReadNetwork() {
  const Place place = place_.In("network", proto_.network());
  const absl::StatusOr<network::Network> network =
      BuildNetwork(ReadLayers(proto_.network(), place, errors_));
  if (network.ok()) {
    config_.inputs = network->inputs();
    config_.outputs = network->outputs();
    config_.graph = *network;
    return;
  }
  for (const absl::string_view text : absl::StrSplit(network.status().message(), '\n')) {
    // "line 7: what"; without a number it concerns the whole network.
    constexpr std::size_t kPrefix = sizeof("line ") - 1;
    const std::string line(text);
    int number = 0;
    const auto parsed =
        line.starts_with("line ")
            ? std::from_chars(line.data() + kPrefix, line.data() + line.size(), number)
            : std::from_chars_result{};
    if (number > 0) {
      errors_.Add(number, line.substr(static_cast<std::size_t>(parsed.ptr - line.data()) + 2));
    } else {
      errors_.Add(place.line(), line);
    }
  }
}

void GraphReader::ReadTorchScript() {
  const Place place = place_.In("torchscript", proto_.torchscript());
  const std::string& file = proto_.torchscript().file();
  if (file.empty()) {
    errors_.Add(place.line(), "torchscript: file is missing");
  } else if (file == "." || file == ".." ||
             file.find_first_of(std::string("/\0", 2)) != std::string::npos) {
    errors_.Add(place.Line("file"),
                absl::StrCat("torchscript: file \"", Escape(file),
                             "\" must be the plain name of a file beside model.textproto"));
  }
  CheckTensors(config_.inputs, "input");
  CheckTensors(config_.outputs, "output");
  config_.graph = TorchScriptGraph{.path = (std::filesystem::path(config_.folder) / file).string(),
                                   .inputs = config_.inputs,
                                   .outputs = config_.outputs};
}

void GraphReader::CheckTensors(const std::vector<TensorSpec>& specs, const char* what) {
  if (specs.empty()) {
    errors_.Add(place_.Line("torchscript"),
                absl::StrCat("a torchscript graph does not say its ", what, "s: declare ", what,
                             " { name: ... datatype: ... shape: [...] }, in the order of forward"));
  }
  std::set<std::string_view> names;
  for (const TensorSpec& spec : specs) {
    const std::string subject = absl::StrCat(what, " \"", Escape(spec.name), "\"");
    if (spec.name.empty()) errors_.Add(spec.line, absl::StrCat("an ", what, " has no name"));
    if (!names.insert(spec.name).second) {
      errors_.Add(spec.line, absl::StrCat(subject, " is declared twice"));
    }
    if (spec.shape.empty()) {
      errors_.Add(spec.line,
                  absl::StrCat(subject, " has no shape: give one, such as shape: [-1, 10]"));
    }
    if (spec.shape.size() > kMaxRank) {
      errors_.Add(spec.line, absl::StrCat(subject, " has ", spec.shape.size(),
                                          " dimensions, the most is ", kMaxRank));
    }
    for (const std::int64_t size : spec.shape) {
      if (size == -1 || (size >= 1 && size <= kMaxSize)) continue;
      errors_.Add(spec.line, absl::StrCat(subject, " has a dimension of ", size,
                                          ": it must be -1 (free) or from 1 to ", kMaxSize));
    }
  }
}

}  // namespace

void ReadGraph(const v1::ModelConfig& proto, const Place& place, ModelConfig& config,
               ConfigErrors& errors) {
  GraphReader(proto, place, config, errors).Read();
}

}  // namespace relight::config
