#include "server/config/draft_family.h"

#include <cmath>
#include <cstdint>
#include <unordered_map>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "server/config/acceptance.h"
#include "server/network/blocks.h"

namespace relight::config {
namespace {

using Shape = std::vector<std::int64_t>;
using Candidates = std::vector<RecognizedFamily>;

// Sizes by key.
class Shapes {
 public:
  Shapes(const storage::Tree& tree, const storage::StateDict& weights) : tree_(tree) {
    for (const storage::StateDictEntry& entry : weights.entries) {
      nodes_.emplace(entry.key, entry.node);
    }
  }

  bool Has(const std::string& key) const { return nodes_.contains(key); }

  // 0 where there is no such tensor, or dimension.
  std::int64_t Size(const std::string& key, std::size_t dim) const {
    const auto found = nodes_.find(key);
    if (found == nodes_.end()) return 0;
    const Shape& shape = tree_.tensor(found->second).shape;
    return dim < shape.size() ? shape[dim] : 0;
  }

  // How many of BEFORE0AFTER, BEFORE1AFTER, ... there are.
  std::int64_t Count(const std::string& before, const std::string& after) const {
    std::int64_t count = 0;
    while (Has(absl::StrCat(before, count, after))) ++count;
    return count;
  }

  // Whether one of the two is not there, or both are the same bytes.
  bool Tied(const std::string& key, const std::string& other) const {
    const auto a = nodes_.find(key);
    const auto b = nodes_.find(other);
    if (a == nodes_.end() || b == nodes_.end()) return true;
    const storage::TensorInfo& first = tree_.tensor(a->second);
    const storage::TensorInfo& second = tree_.tensor(b->second);
    return first.storage == second.storage && first.offset_elements == second.offset_elements;
  }

 private:
  const storage::Tree& tree_;
  std::unordered_map<std::string, storage::NodeId> nodes_;
};

std::int64_t Ratio(std::int64_t a, std::int64_t b) { return b > 0 ? a / b : 0; }

// Attention heads are not in any shape; 64 numbers each are usual.
std::int64_t UsualHeads(std::int64_t width) {
  constexpr std::int64_t kUsualWidth = 64;
  return width > 0 && width % kUsualWidth == 0 ? width / kUsualWidth : 1;
}

std::string HeadsCheck(const char* argument, const char* width, std::int64_t heads,
                       const char* and_also) {
  return absl::StrCat(
      argument, and_also, " not in a state dict; ", argument, " ", heads,
      heads == 1 ? std::string(" is a guess") : absl::StrCat(" is ", width, " / 64, as usual"));
}

void AddResNets(const Shapes& shapes, Candidates& out) {
  if (!shapes.Has("layer1.0.conv1.weight")) return;
  network::ResNet family{.num_classes = shapes.Size("fc.weight", 0),
                         .in_channels = shapes.Size("conv1.weight", 1)};
  const bool bottleneck = shapes.Has("layer1.0.conv3.weight");
  if (bottleneck) {
    family.width_per_group = shapes.Size("layer1.0.conv2.weight", 1);
    family.groups = Ratio(shapes.Size("layer1.0.conv2.weight", 0), family.width_per_group);
  }
  const std::int64_t third_stage = shapes.Count("layer3.", ".conv1.weight");
  const std::int64_t second_stage = shapes.Count("layer2.", ".conv1.weight");
  if (!bottleneck) {
    family.depth = third_stage == 2 ? 18 : 34;
  } else {
    family.depth = third_stage == 6 ? 50 : second_stage == 4 ? 101 : 152;
  }
  out.push_back({family, {}});
}

void AddVggs(const Shapes& shapes, Candidates& out) {
  if (!shapes.Has("features.0.weight") || !shapes.Has("classifier.6.weight")) return;
  for (const std::int64_t depth : {11, 13, 16, 19}) {
    out.push_back({network::Vgg{.depth = depth,
                                .batch_norm = shapes.Has("features.1.running_mean"),
                                .num_classes = shapes.Size("classifier.6.weight", 0),
                                .in_channels = shapes.Size("features.0.weight", 1)},
                   {}});
  }
}

// The first convolution has 32 channels times width_mult; the last one 1280 times that, where it is
// more than 1. Either is rounded.
void AddMobileNets(const Shapes& shapes, Candidates& out) {
  const auto first = static_cast<double>(shapes.Size("features.0.0.weight", 0));
  const auto last = static_cast<double>(shapes.Size("features.18.0.weight", 0));
  if (first == 0 || last == 0) return;
  for (const double width_mult : {first / 32, last / 1280}) {
    out.push_back({network::MobileNetV2{.num_classes = shapes.Size("classifier.1.weight", 0),
                                        .width_mult = width_mult,
                                        .in_channels = shapes.Size("features.0.0.weight", 1)},
                   {}});
  }
}

void AddVisionTransformers(const Shapes& shapes, Candidates& out) {
  if (!shapes.Has("class_token") || !shapes.Has("conv_proj.weight")) return;
  const std::int64_t patches = shapes.Size("encoder.pos_embedding", 1) - 1;
  const auto along = static_cast<std::int64_t>(
      std::llround(std::sqrt(static_cast<double>(std::max<std::int64_t>(patches, 0)))));
  network::VisionTransformer family{
      .patch_size = shapes.Size("conv_proj.weight", 2),
      .num_layers = shapes.Count("encoder.layers.encoder_layer_", ".ln_1.weight"),
      .hidden_dim = shapes.Size("conv_proj.weight", 0),
      .mlp_dim = shapes.Size("encoder.layers.encoder_layer_0.mlp.0.weight", 0),
      .num_classes = shapes.Size("heads.head.weight", 0),
      .in_channels = shapes.Size("conv_proj.weight", 1)};
  family.image_size = CheckedMul(family.patch_size, along).value_or(0);
  family.num_heads = UsualHeads(family.hidden_dim);
  if (shapes.Has("heads.pre_logits.weight")) {
    family.representation_size = shapes.Size("heads.pre_logits.weight", 0);
  }
  out.push_back({family, {HeadsCheck("num_heads", "hidden_dim", family.num_heads, " is")}});
}

// What stands on the encoder says which class it is.
std::string BertArchitecture(const Shapes& shapes) {
  if (shapes.Has("qa_outputs.weight")) return "BertForQuestionAnswering";
  if (shapes.Has("cls.predictions.bias")) return "BertForMaskedLM";
  if (!shapes.Has("classifier.weight")) return "BertModel";
  return shapes.Has("bert.pooler.dense.weight") ? "BertForSequenceClassification"
                                                : "BertForTokenClassification";
}

void AddBerts(const Shapes& shapes, Candidates& out) {
  const std::string prefix = shapes.Has("bert.embeddings.word_embeddings.weight") ? "bert." : "";
  const auto size = [&](const char* key, std::size_t dim) {
    return shapes.Size(prefix + key, dim);
  };
  const std::string words = prefix + "embeddings.word_embeddings.weight";
  if (!shapes.Has(words)) return;
  network::Bert family{
      .architecture = BertArchitecture(shapes),
      .vocab_size = shapes.Size(words, 0),
      .hidden_size = shapes.Size(words, 1),
      .num_hidden_layers = shapes.Count(prefix + "encoder.layer.", ".attention.self.query.weight"),
      .intermediate_size = size("encoder.layer.0.intermediate.dense.weight", 0),
      .max_position_embeddings = size("embeddings.position_embeddings.weight", 0),
      .type_vocab_size = size("embeddings.token_type_embeddings.weight", 0),
      .tie_word_embeddings = shapes.Tied(words, "cls.predictions.decoder.weight")};
  family.num_attention_heads = UsualHeads(family.hidden_size);
  if (family.architecture == "BertModel") {
    family.add_pooling_layer = shapes.Has("pooler.dense.weight");
  }
  if (shapes.Has("classifier.weight")) family.num_labels = shapes.Size("classifier.weight", 0);
  out.push_back({family,
                 {HeadsCheck("num_attention_heads", "hidden_size", family.num_attention_heads,
                             ", hidden_act and layer_norm_eps are")}});
}

void AddGpt2s(const Shapes& shapes, Candidates& out) {
  const std::string prefix = shapes.Has("transformer.wte.weight") ? "transformer." : "";
  const std::string words = prefix + "wte.weight";
  if (!shapes.Has(words)) return;
  network::Gpt2 family{.architecture = prefix.empty() ? "GPT2Model" : "GPT2LMHeadModel",
                       .vocab_size = shapes.Size(words, 0),
                       .n_positions = shapes.Size(prefix + "wpe.weight", 0),
                       .n_embd = shapes.Size(words, 1),
                       .n_layer = shapes.Count(prefix + "h.", ".ln_1.weight"),
                       .tie_word_embeddings = shapes.Tied(words, "lm_head.weight")};
  family.n_head = UsualHeads(family.n_embd);
  const std::int64_t inner = shapes.Size(prefix + "h.0.mlp.c_fc.weight", 1);
  if (inner % 4 != 0 || inner / 4 != family.n_embd) family.n_inner = inner;
  out.push_back({family,
                 {HeadsCheck("n_head", "n_embd", family.n_head,
                             ", activation_function and layer_norm_epsilon are")}});
}

// Whether the family needs what there is, no more and no less.
bool Fits(const network::Family& family, const storage::Tree& tree,
          const storage::StateDict& weights) {
  const absl::StatusOr<network::WrittenNetwork> written = network::Expand(family);
  if (!written.ok()) return false;
  const absl::StatusOr<network::Network> network = network::Build(*written);
  if (!network.ok()) return false;
  return CompareStateDict(tree, weights, written->ignored_keys, network->parameters()).empty();
}

}  // namespace

std::optional<RecognizedFamily> RecognizeFamily(const storage::Tree& tree,
                                                const storage::StateDict& weights) {
  const Shapes shapes(tree, weights);
  Candidates candidates;
  AddResNets(shapes, candidates);
  AddVggs(shapes, candidates);
  AddMobileNets(shapes, candidates);
  AddVisionTransformers(shapes, candidates);
  AddBerts(shapes, candidates);
  AddGpt2s(shapes, candidates);
  for (RecognizedFamily& candidate : candidates) {
    if (Fits(candidate.family, tree, weights)) return std::move(candidate);
  }
  return std::nullopt;
}

}  // namespace relight::config
