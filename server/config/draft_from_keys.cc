// PartsFromKeys: guesses the layers from the names and shapes of a state dict.
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

bool LooksLikeEmbedding(const std::string& name) {
  const std::string last = name.substr(name.rfind('.') + 1);
  return last.find("emb") != std::string::npos || last == "wte" || last == "wpe";
}

class KeyReader {
 public:
  explicit KeyReader(const Group& group, bool after_image)
      : group_(group), after_image_(after_image) {}

  DraftPart Read() const {
    const Shape* weight = group_.Find("weight");
    if (const Shape* mean = group_.Find("running_mean")) return Norm(*mean, weight != nullptr);
    if (weight == nullptr) return Unknown("is no layer that relight knows by its keys");
    if (weight->size() == 2 && LooksLikeEmbedding(group_.name)) {
      return Unknown("looks like an embedding, which relight does not have yet");
    }
    if (weight->size() == 2) return LinearLayer(*weight);
    if (weight->size() == 4) return Conv(*weight);
    if (weight->size() == 1) {
      return Unknown("looks like a layer norm or group norm, which relight does not have yet");
    }
    return Unknown(absl::StrCat("has a weight of ", weight->size(),
                                " dimensions, for which relight has no layer"));
  }

 private:
  bool HasBias() const { return group_.Find("bias") != nullptr; }

  DraftPart Unknown(const std::string& why) const {
    return {.name = group_.name,
            .kind = std::nullopt,
            .checks = {absl::StrCat(group_.name.empty() ? "the top level" : Escape(group_.name),
                                    " ", why)}};
  }

  DraftPart LinearLayer(const Shape& weight) const {
    return {.name = group_.name,
            .kind = network::Linear{
                .in_features = weight[1], .out_features = weight[0], .bias = HasBias()}};
  }

  DraftPart Conv(const Shape& weight) const {
    // "Same" padding is what most nets use; the shapes cannot tell.
    const network::Pair padding = {weight[2] / 2, weight[3] / 2};
    return {.name = group_.name,
            .kind = network::Conv2d{.in_channels = weight[1],
                                    .out_channels = weight[0],
                                    .kernel_size = {weight[2], weight[3]},
                                    .padding = padding,
                                    .bias = HasBias()},
            .checks = {"stride, padding, dilation and groups are not in a state dict"}};
  }

  DraftPart Norm(const Shape& mean, bool affine) const {
    network::BatchNorm norm{.spatial_dims = after_image_ ? 2 : 1, .affine = affine};
    if (mean.size() == 1) norm.num_features = mean[0];
    return {.name = group_.name,
            .kind = norm,
            .checks = {"eps is not in a state dict; this is PyTorch's default, 1e-5"}};
  }

  const Group& group_;
  bool after_image_;
};

}  // namespace

std::vector<DraftPart> PartsFromKeys(const storage::Tree& tree, const storage::StateDict& weights) {
  std::vector<DraftPart> parts;
  bool after_image = false;
  for (const Group& group : GroupByModule(tree, weights)) {
    parts.push_back(KeyReader(group, after_image).Read());
    const auto& kind = parts.back().kind;
    if (!kind.has_value()) continue;
    if (std::holds_alternative<network::Conv2d>(*kind)) after_image = true;
    if (std::holds_alternative<network::Linear>(*kind)) after_image = false;
  }
  return parts;
}

}  // namespace relight::config
