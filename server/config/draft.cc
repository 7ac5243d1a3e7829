#include "server/config/draft.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/escape.h"
#include "server/config/acceptance.h"
#include "server/config/draft_family.h"
#include "server/config/draft_parts.h"
#include "server/config/layer_text.h"
#include "server/config/model_config.h"
#include "server/network/layer_rules.h"
#include "server/network/parameters.h"

namespace relight::config {
namespace {

constexpr std::size_t kMaxEntries = 10'000;

bool IsWeighted(const network::LayerKind& kind) {
  return std::holds_alternative<network::Linear>(kind) ||
         std::holds_alternative<network::Conv>(kind);
}

// Layers that change numbers one by one, so that no activation is missing after them.
bool IsActivation(const network::LayerKind& kind) {
  return std::holds_alternative<network::Activation>(kind) ||
         std::holds_alternative<network::Gelu>(kind) ||
         std::holds_alternative<network::LeakyRelu>(kind) ||
         std::holds_alternative<network::Elu>(kind) ||
         std::holds_alternative<network::Softplus>(kind) ||
         std::holds_alternative<network::Hardtanh>(kind) ||
         std::holds_alternative<network::Prelu>(kind) ||
         std::holds_alternative<network::Shrink>(kind) ||
         std::holds_alternative<network::Threshold>(kind);
}

// Writes the parts down as layers and fills in between them what a checkpoint does not show.
class Composer {
 public:
  explicit Composer(bool from_module) : from_module_(from_module) {}

  std::string Compose(std::vector<DraftPart> parts) {
    WriteInput(parts);
    text_ += "network {\n";
    for (DraftPart& part : parts) Write(part);
    text_ += "}\n";
    return std::move(text_);
  }

  bool has_checks() const { return has_checks_; }

 private:
  // Only where it does not follow from the first layer.
  void WriteInput(const std::vector<DraftPart>& parts) {
    bool first = true;
    for (const DraftPart& part : parts) {
      if (!part.kind.has_value()) continue;
      const std::string shape = InputShape(*part.kind);
      if (!shape.empty()) {
        if (first && IsWeighted(*part.kind)) return;
        Check("the shape is a guess, from the first layer with weights", "");
        const bool indices = std::holds_alternative<network::Embedding>(*part.kind);
        absl::StrAppend(&text_, "input { name: \"input\" datatype: \"", indices ? "INT64" : "FP32",
                        "\" shape: ", shape, " }\n\n");
        return;
      }
      first = false;
    }
  }

  // What a layer shows of the shape of its input; empty where nothing.
  static std::string InputShape(const network::LayerKind& kind) {
    network::Sizes shape = {-1};
    if (const auto* linear = std::get_if<network::Linear>(&kind)) {
      shape.push_back(linear->in_features.value_or(-1));
    } else if (const auto* conv = std::get_if<network::Conv>(&kind)) {
      shape.push_back(conv->in_channels.value_or(-1));
      shape.resize(2 + static_cast<std::size_t>(conv->spatial_dims), -1);
    } else if (const auto* norm = std::get_if<network::BatchNorm>(&kind)) {
      shape.push_back(norm->num_features.value_or(-1));
      if (norm->spatial_dims > 1) {
        shape.resize(2 + static_cast<std::size_t>(norm->spatial_dims), -1);
      }
    } else if (std::holds_alternative<network::Embedding>(kind)) {
      shape.push_back(-1);
    } else if (const auto* recurrent = std::get_if<network::Recurrent>(&kind)) {
      shape = {-1, -1, recurrent->input_size.value_or(-1)};
    } else if (const auto* attention = std::get_if<network::MultiheadAttention>(&kind)) {
      shape = {-1, -1, attention->embed_dim.value_or(-1)};
    } else {
      return "";
    }
    return ShapeText(shape);
  }

  void Write(DraftPart& part) {
    if (!part.kind.has_value()) {
      for (const std::string& check : part.checks) Check(check);
      return;
    }
    if (auto* conv = std::get_if<network::Conv>(&*part.kind)) GuessGroups(*conv, part);
    if (IsWeighted(*part.kind)) Bridge(part);
    for (const std::string& check : part.checks) Check(check);
    WriteLayer(part.name, LayerKindText(*part.kind));
    Follow(*part.kind);
  }

  // A state dict shows in_channels / groups; more channels than that arrive.
  void GuessGroups(network::Conv& conv, DraftPart& part) const {
    if (from_module_ || !is_image_ || !width_ || !conv.in_channels) return;
    const std::int64_t per_group = *conv.in_channels;
    if (per_group < 1 || *width_ == per_group || *width_ % per_group != 0) return;
    const std::int64_t groups = *width_ / per_group;
    if (conv.out_channels % groups != 0) return;
    conv.groups = groups;
    conv.in_channels = width_;
    part.checks.push_back(absl::StrCat("groups is a guess: ", *width_,
                                       " channels come in, the weight has ", per_group));
  }

  // What stands between the layers before and a weighted one.
  void Bridge(const DraftPart& part) {
    if (awaits_activation_ && !part.follows) {
      Check(from_module_ ? "forward may apply another activation here, or none"
                         : "the activation is not in a state dict");
      WriteLayer("", "relu {}");
    }
    const auto* linear = std::get_if<network::Linear>(&*part.kind);
    if (linear != nullptr && is_image_) BridgeImageToVector(*linear);
  }

  void BridgeImageToVector(const network::Linear& linear) {
    const std::int64_t features = linear.in_features.value_or(0);
    const std::int64_t channels = width_.value_or(0);
    const std::int64_t area = channels > 0 ? features / channels : 0;
    if (channels > 0 && features == channels && !pooled_) {
      Check("as many features as channels, so the image was probably averaged");
      WriteLayer("", absl::StrCat("adaptive_avg_pool", image_dims_, "d { output_size: 1 }"));
    } else if (!pooled_) {
      Check(channels > 0 && features % channels == 0
                ? absl::StrCat(features, " features from ", channels,
                               " channels: the image must have ", area,
                               " pixels here; a pooling layer may be missing")
                : "how the image becomes a vector is not in a checkpoint");
    }
    WriteLayer("", "flatten {}");
  }

  void Follow(const network::LayerKind& kind) {
    if (const auto* linear = std::get_if<network::Linear>(&kind)) {
      is_image_ = false;
      width_ = linear->out_features;
    } else if (const auto* conv = std::get_if<network::Conv>(&kind)) {
      is_image_ = true;
      image_dims_ = conv->spatial_dims;
      width_ = conv->out_channels;
    } else if (std::holds_alternative<network::Flatten>(kind)) {
      is_image_ = false;
      width_.reset();
    }
    if (IsWeighted(kind)) awaits_activation_ = true;
    if (IsActivation(kind)) awaits_activation_ = false;
    pooled_ = std::holds_alternative<network::AdaptivePool>(kind) || (pooled_ && !IsWeighted(kind));
  }

  void WriteLayer(const std::string& name, const std::string& kind) {
    absl::StrAppend(&text_, "  layer { ");
    if (!name.empty()) absl::StrAppend(&text_, "name: ", QuotedText(name), " ");
    absl::StrAppend(&text_, kind, " }\n");
  }

  void Check(const std::string& what, const char* indent = "  ") {
    absl::StrAppend(&text_, indent, "# check: ", what, "\n");
    has_checks_ = true;
  }

  const bool from_module_;
  std::string text_;
  bool has_checks_ = false;
  bool is_image_ = false;              // What flows is [N, C, H, W], ...
  int image_dims_ = 2;                 // ... of so many spatial dimensions, ...
  bool pooled_ = false;                // ... of known sizes.
  bool awaits_activation_ = false;     // A weighted layer ran, and no activation since.
  std::optional<std::int64_t> width_;  // Channels or features, where known.
};

void AppendComment(const char* heading, absl::string_view lines, std::string& text) {
  absl::StrAppend(&text, "\n# ", heading, "\n");
  for (const absl::string_view line : absl::StrSplit(lines, '\n')) {
    absl::StrAppend(&text, "#   ", line, "\n");
  }
}

std::string TensorText(const TensorSpec& spec) {
  return absl::StrCat("\"", Escape(spec.name), "\" ", std::string(ProtocolName(spec.dtype)), " ",
                      ShapeText(spec.shape));
}

std::string CheckpointsText(const DraftOptions& options) {
  std::vector<std::string> fields;
  if (!options.state_dict_key.empty()) {
    fields.push_back("state_dict_key: " + QuotedText(options.state_dict_key));
  }
  if (!options.strip_prefix.empty()) {
    fields.push_back("strip_prefix: " + QuotedText(options.strip_prefix));
  }
  if (fields.empty()) return "";
  return absl::StrCat("\ncheckpoints { ", absl::StrJoin(fields, " "), " }\n");
}

// The graph, and whether something in it has to be looked at.
struct GraphDraft {
  std::string text = {};
  bool of_family = false;
  bool has_checks = false;
};

GraphDraft FamilyDraft(const RecognizedFamily& recognized) {
  GraphDraft draft{.of_family = true, .has_checks = !recognized.checks.empty()};
  for (const std::string& check : recognized.checks) {
    absl::StrAppend(&draft.text, "# check: ", check, "\n");
  }
  absl::StrAppend(&draft.text, FamilyText(recognized.family), "\n");
  return draft;
}

GraphDraft DraftGraph(const storage::Tree& tree, const storage::StateDict& weights) {
  if (const auto recognized = RecognizeFamily(tree, weights)) return FamilyDraft(*recognized);
  Composer composer(weights.from_module);
  GraphDraft draft{.text = composer.Compose(weights.from_module ? PartsFromModule(tree, weights)
                                                                : PartsFromKeys(tree, weights))};
  draft.has_checks = composer.has_checks();
  return draft;
}

std::string Heading(const storage::StateDict& weights, const GraphDraft& graph,
                    const DraftOptions& options) {
  const std::string file = options.file_name.empty() ? "a checkpoint" : Escape(options.file_name);
  if (graph.of_family) {
    return absl::StrCat("# Drafted from the names and shapes in ", file,
                        ", which are those of a family:\n# what they do not show, such as strides, "
                        "is the family's. relightctl describe prints its layers.\n");
  }
  if (!weights.from_module) {
    return absl::StrCat("# Drafted from the names and shapes in ", file, ", a state dict.\n");
  }
  return absl::StrCat("# Drafted from ", file, ", a whole module of class ",
                      Escape(weights.module_class), ".\n# Its forward() is not in the ",
                      "file: the layers stand in the order in which __init__ made them.\n");
}

}  // namespace

absl::StatusOr<std::string> DraftModelConfig(const storage::Tree& tree,
                                             const storage::StateDict& weights,
                                             const DraftOptions& options) {
  if (weights.entries.empty()) {
    return absl::InvalidArgumentError("the checkpoint's state dict has no tensors to draft from");
  }
  if (weights.entries.size() > kMaxEntries) {
    return absl::InvalidArgumentError(
        absl::StrCat("the checkpoint's state dict has ", weights.entries.size(),
                     " tensors, the most that is drafted from is ", kMaxEntries));
  }
  const GraphDraft graph = DraftGraph(tree, weights);
  const std::string body = graph.text + CheckpointsText(options);
  std::string head = Heading(weights, graph, options);
  if (graph.has_checks) head += "# Lines with \"check:\" are above what is guessed.\n";

  // One more line of heading says how it went, so errors name the lines of the final text.
  absl::StatusOr<ModelConfig> config = ParseModelConfig(absl::StrCat(head, "#\n\n", body), "draft");
  if (!config.ok()) {
    std::string text =
        absl::StrCat(head, "# It is not complete: the end of this file says why.\n\n", body);
    const std::string message(config.status().message());
    AppendComment("What is wrong:", message, text);
    return text;
  }
  std::vector<std::string> tensors;
  for (const TensorSpec& spec : config->inputs) tensors.push_back(TensorText(spec));
  std::string text = absl::StrCat(head, "# Clients send ", absl::StrJoin(tensors, ", "));
  tensors.clear();
  for (const TensorSpec& spec : config->outputs) tensors.push_back(TensorText(spec));
  absl::StrAppend(&text, " and get ", absl::StrJoin(tensors, ", "), ".\n\n", body);
  const absl::Status fit =
      ToStatus(CompareStateDict(tree, weights, config->checkpoints.ignore,
                                std::get<network::Network>(config->graph).parameters()));
  if (!fit.ok()) {
    AppendComment("check: what the layers above leave over or lack:", fit.message(), text);
  }
  return text;
}

}  // namespace relight::config
