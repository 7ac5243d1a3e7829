// PartsFromKeys: guesses the layers from the names and shapes of a state dict.
#include <algorithm>
#include <cstdint>
#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "server/config/draft_parts.h"

namespace relight::config {
namespace {

using Shape = std::vector<std::int64_t>;

// The tensors of one module: "weight" -> shape.
struct Group {
  std::string name;
  std::map<std::string, Shape> tensors;

  const Shape* Find(const std::string& tensor) const {
    const auto found = tensors.find(tensor);
    return found == tensors.end() ? nullptr : &found->second;
  }
};

std::vector<Group> GroupByModule(const storage::Tree& tree, const storage::StateDict& weights) {
  std::vector<Group> groups;
  std::map<std::string, std::size_t> index;
  for (const storage::StateDictEntry& entry : weights.entries) {
    const std::size_t dot = entry.key.rfind('.');
    const std::string module = dot == std::string::npos ? "" : entry.key.substr(0, dot);
    const auto [at, is_new] = index.emplace(module, groups.size());
    if (is_new) groups.push_back({module, {}});
    const std::string tensor = dot == std::string::npos ? entry.key : entry.key.substr(dot + 1);
    groups[at->second].tensors[tensor] = tree.tensor(entry.node).shape;
  }
  return groups;
}

std::string LastName(const std::string& name) { return name.substr(name.rfind('.') + 1); }

bool LooksLikeEmbedding(const std::string& name) {
  const std::string last = LastName(name);
  return last.find("emb") != std::string::npos || last == "wte" || last == "wpe";
}

class KeyReader {
 public:
  // `image_dims`: spatial dimensions of what flows, 0 where it is no image.
  KeyReader(const Group& group, int image_dims) : group_(group), image_dims_(image_dims) {}

  DraftPart Read() const {
    const Shape* weight = group_.Find("weight");
    if (const Shape* mean = group_.Find("running_mean")) return Norm(*mean, weight != nullptr);
    if (group_.Find("weight_ih_l0") != nullptr) return RecurrentLayer();
    if (const Shape* projection = group_.Find("in_proj_weight")) return Attention(*projection);
    if (weight == nullptr) return Unknown("is no layer that relight knows by its keys");
    switch (weight->size()) {
      case 1:
        return LayerNorm(*weight);
      case 2:
        return LooksLikeEmbedding(group_.name) && !HasBias() ? EmbeddingLayer(*weight)
                                                             : LinearLayer(*weight);
      case 3:
      case 4:
      case 5:
        return Conv(*weight);
      default:
        return Unknown(absl::StrCat("has a weight of ", weight->size(),
                                    " dimensions, for which relight has no layer"));
    }
  }

 private:
  bool HasBias() const { return group_.Find("bias") != nullptr; }

  DraftPart Part(network::LayerKind kind, std::vector<std::string> checks = {}) const {
    return {.name = group_.name, .kind = std::move(kind), .checks = std::move(checks)};
  }

  DraftPart Unknown(const std::string& why) const {
    return {.name = group_.name,
            .kind = std::nullopt,
            .checks = {absl::StrCat(group_.name.empty() ? "the top level" : Escape(group_.name),
                                    " ", why)}};
  }

  DraftPart LinearLayer(const Shape& weight) const {
    return Part(
        network::Linear{.in_features = weight[1], .out_features = weight[0], .bias = HasBias()});
  }

  DraftPart EmbeddingLayer(const Shape& weight) const {
    return Part(network::Embedding{.num_embeddings = weight[0], .embedding_dim = weight[1]},
                {"an embedding by its name; a linear layer without bias looks the same"});
  }

  DraftPart Conv(const Shape& weight) const {
    network::Conv conv{.spatial_dims = static_cast<int>(weight.size()) - 2,
                       .in_channels = weight[1],
                       .out_channels = weight[0],
                       .kernel_size = {weight.begin() + 2, weight.end()},
                       .padding = {},
                       .bias = HasBias()};
    // "Same" padding is what most nets use; the shapes cannot tell.
    for (const std::int64_t size : conv.kernel_size) conv.padding.push_back(size / 2);
    return Part(std::move(conv), {"stride, padding, dilation and groups are not in a state dict"});
  }

  DraftPart Norm(const Shape& mean, bool affine) const {
    network::BatchNorm norm{.spatial_dims = std::max(image_dims_, 1), .affine = affine};
    if (mean.size() == 1) norm.num_features = mean[0];
    return Part(norm, {"eps is not in a state dict; this is PyTorch's default, 1e-5"});
  }

  DraftPart LayerNorm(const Shape& weight) const {
    if (!HasBias()) {
      return Part(network::RmsNorm{.normalized_shape = weight},
                  {"a root mean square norm by its shapes; eps is not in a state dict"});
    }
    return Part(network::LayerNorm{.normalized_shape = weight},
                {"a layer norm by its shapes; a group norm looks the same. eps is not in a state "
                 "dict; this is PyTorch's default, 1e-5"});
  }

  DraftPart RecurrentLayer() const {
    const Shape& in = *group_.Find("weight_ih_l0");
    const Shape* const hidden = group_.Find("weight_hh_l0");
    if (in.size() != 2 || hidden == nullptr || hidden->size() != 2 || (*hidden)[1] < 1) {
      return Unknown("has weights of a recurrent layer that do not belong together");
    }
    const Shape* const projection = group_.Find("weight_hr_l0");
    network::Recurrent layer{.input_size = in[1], .hidden_size = (*hidden)[1]};
    if (projection != nullptr && projection->size() == 2) {
      layer.hidden_size = (*projection)[1];
      layer.proj_size = (*projection)[0];
    }
    const std::int64_t gates = layer.hidden_size > 0 ? in[0] / layer.hidden_size : 0;
    layer.op = gates == 4   ? network::RecurrentOp::kLstm
               : gates == 3 ? network::RecurrentOp::kGru
                            : network::RecurrentOp::kRnn;
    layer.bias = group_.Find("bias_ih_l0") != nullptr;
    layer.bidirectional = group_.Find("weight_ih_l0_reverse") != nullptr;
    while (group_.Find(absl::StrCat("weight_ih_l", layer.num_layers)) != nullptr) {
      ++layer.num_layers;
    }
    return Part(layer, {"batch_first is not in a state dict"});
  }

  DraftPart Attention(const Shape& projection) const {
    network::MultiheadAttention layer{.num_heads = 1};
    if (projection.size() == 2) layer.embed_dim = projection[1];
    layer.bias = group_.Find("in_proj_bias") != nullptr;
    layer.add_bias_kv = group_.Find("bias_k") != nullptr;
    return Part(layer, {"num_heads and batch_first are not in a state dict"});
  }

  const Group& group_;
  const int image_dims_;
};

}  // namespace

std::vector<DraftPart> PartsFromKeys(const storage::Tree& tree, const storage::StateDict& weights) {
  std::vector<DraftPart> parts;
  int image_dims = 0;
  std::string attention;  // The last one's name.
  for (const Group& group : GroupByModule(tree, weights)) {
    if (!attention.empty() && group.name == attention + ".out_proj") continue;  // A part of it.
    parts.push_back(KeyReader(group, image_dims).Read());
    const auto& kind = parts.back().kind;
    if (!kind.has_value()) continue;
    if (const auto* conv = std::get_if<network::Conv>(&*kind)) image_dims = conv->spatial_dims;
    if (std::holds_alternative<network::Linear>(*kind)) image_dims = 0;
    if (std::holds_alternative<network::MultiheadAttention>(*kind)) attention = group.name;
  }
  return parts;
}

}  // namespace relight::config
