#include "server/config/describe.h"

#include <google/protobuf/text_format.h>

#include <filesystem>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "relight/v1/model_config.pb.h"
#include "server/config/config_errors.h"
#include "server/config/graph_reader.h"
#include "server/config/layer_text.h"
#include "server/config/text_proto.h"

namespace relight::config {
namespace {

std::string TensorsText(const char* field, const std::vector<TensorSpec>& specs) {
  std::string text;
  for (const TensorSpec& spec : specs) {
    absl::StrAppend(&text, field, " { name: ", QuotedText(spec.name), " datatype: \"",
                    std::string(ProtocolName(spec.dtype)), "\" shape: ", ShapeText(spec.shape),
                    " }\n");
  }
  return text;
}

// All that is neither the graph nor its signature.
std::string RestText(v1::ModelConfig proto, const std::vector<std::string>& ignored_keys) {
  const auto* const graphs = v1::ModelConfig::descriptor()->FindOneofByName("graph");
  proto.GetReflection()->ClearOneof(&proto, graphs);
  proto.clear_input();
  proto.clear_output();
  for (const std::string& pattern : ignored_keys) proto.mutable_checkpoints()->add_ignore(pattern);
  std::string text;
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseUtf8StringEscaping(true);
  printer.PrintToString(proto, &text);
  return text.empty() ? "" : "\n" + text;
}

}  // namespace

absl::StatusOr<std::string> DescribeModelConfig(std::string_view text, const std::string& folder,
                                                std::string_view file_name) {
  RELIGHT_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(text, folder, file_name));
  if (std::holds_alternative<TorchScriptGraph>(config.graph)) {
    return absl::FailedPreconditionError(
        absl::StrCat(Escape(file_name),
                     ": the graph is a TorchScript archive, into which only the "
                     "server looks: there are no layers to describe"));
  }
  ConfigErrors errors;  // There are none, or it would not have parsed.
  v1::ModelConfig proto;
  Locations locations;
  ParseTextProto(text, proto, locations, errors);
  const network::WrittenNetwork written = ReadDescription(proto, Place(proto, &locations), errors);
  return absl::StrCat(TensorsText("input", config.inputs), TensorsText("output", config.outputs),
                      "\nnetwork {\n", EntriesText(written.entries, "  "), "}\n",
                      RestText(std::move(proto), written.ignored_keys));
}

absl::StatusOr<std::string> DescribeModelConfigAt(const std::string& path) {
  RELIGHT_ASSIGN_OR_RETURN(const ModelConfigFile file, ReadModelConfigAt(path));
  return DescribeModelConfig(file.text, file.folder, file.name);
}

}  // namespace relight::config
