#include "server/config/graph_reader.h"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/escape.h"
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
  void ReadNetwork(int line);
  void ReadTorchScript();
  void CheckTensors(const std::vector<TensorSpec>& specs, const char* what);

  const v1::ModelConfig& proto_;
  const Place& place_;
  ModelConfig& config_;
  ConfigErrors& errors_;
};

// Adds what is wrong with a network, a line of the message each: "line 7: what", or at the line of
// the whole where it has no number.
void AddErrors(const absl::Status& status, int line_of_all, ConfigErrors& errors) {
  for (const absl::string_view text : absl::StrSplit(status.message(), '\n')) {
    constexpr std::size_t kPrefix = sizeof("line ") - 1;
    const std::string line(text);
    int number = 0;
    const auto parsed =
        line.starts_with("line ")
            ? std::from_chars(line.data() + kPrefix, line.data() + line.size(), number)
            : std::from_chars_result{};
    if (number > 0) {
      errors.Add(number, line.substr(static_cast<std::size_t>(parsed.ptr - line.data()) + 2));
    } else {
      errors.Add(line_of_all, line);
    }
  }
}

// The field that says what the graph is.
const char* GraphField(const v1::ModelConfig& proto) {
  return v1::ModelConfig::descriptor()->FindFieldByNumber(proto.graph_case())->name().c_str();
}

void GraphReader::Read() {
  switch (proto_.graph_case()) {
    default:
      return ReadNetwork(place_.Line(GraphField(proto_)));
    case v1::ModelConfig::kTorchscript:
      return ReadTorchScript();
    case v1::ModelConfig::GRAPH_NOT_SET:
      errors_.Add(
          1,
          "there is no graph: describe it as network { layer { name: \"fc1\" linear { "
          "in_features: 10 out_features: 5 } } ... } or as a family, such as resnet { depth: "
          "50 }, or name an exported one as torchscript { file: \"graph.pt\" }");
  }
}

void GraphReader::ReadNetwork(int line) {
  const network::WrittenNetwork written = ReadDescription(proto_, place_, errors_);
  config_.inputs = written.inputs;
  config_.outputs = written.outputs;
  config_.checkpoints.ignore = written.ignored_keys;
  if (written.entries.empty() && !proto_.has_network()) return;  // The errors say why.
  const absl::StatusOr<network::Network> network = network::Build(written);
  if (!network.ok()) return AddErrors(network.status(), line, errors_);
  config_.inputs = network->inputs();
  config_.outputs = network->outputs();
  config_.graph = *network;
}

void GraphReader::ReadTorchScript() {
  config_.inputs = ReadTensors(proto_, place_, TensorRole::kInput, errors_);
  config_.outputs = ReadTensors(proto_, place_, TensorRole::kOutput, errors_);
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

network::WrittenNetwork ReadDescription(const v1::ModelConfig& proto, const Place& place,
                                        ConfigErrors& errors) {
  network::WrittenNetwork written;
  written.inputs = ReadTensors(proto, place, TensorRole::kInput, errors);
  written.outputs = ReadTensors(proto, place, TensorRole::kOutput, errors);
  if (proto.has_network()) {
    written.entries = ReadLayers(proto.network(), place.In("network", proto.network()), errors);
    return written;
  }
  const std::optional<network::Family> family = ReadFamily(proto, place, errors);
  if (!family.has_value()) return written;
  absl::StatusOr<network::WrittenNetwork> expanded = network::Expand(*family, written.inputs);
  if (!expanded.ok()) {
    AddErrors(expanded.status(), place.Line(GraphField(proto)), errors);
    return written;
  }
  if (!written.outputs.empty()) expanded->outputs = std::move(written.outputs);
  return *std::move(expanded);
}

void ReadGraph(const v1::ModelConfig& proto, const Place& place, ModelConfig& config,
               ConfigErrors& errors) {
  GraphReader(proto, place, config, errors).Read();
}

}  // namespace relight::config
