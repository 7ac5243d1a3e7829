// VGG, as torchvision/models/vgg.py has it.
#include <map>

#include "absl/strings/str_cat.h"
#include "server/network/families/expansion.h"

namespace relight::network {
namespace {

// How many convolutions each of the five stages has.
const std::map<std::int64_t, std::vector<std::int64_t>>& StagesByDepth() {
  static const auto* const kStages = new std::map<std::int64_t, std::vector<std::int64_t>>{
      {11, {1, 1, 2, 2, 2}},
      {13, {2, 2, 2, 2, 2}},
      {16, {2, 2, 3, 3, 3}},
      {19, {2, 2, 4, 4, 4}},
  };
  return *kStages;
}

constexpr std::int64_t kChannels[] = {64, 128, 256, 512, 512};
constexpr std::int64_t kPooled = 7;
constexpr std::int64_t kHiddenFeatures = 4096;

// Numbered as the children of a Sequential are.
class Sequential {
 public:
  void Add(LayerKind kind) {
    entries_.push_back(Put(absl::StrCat(entries_.size()), std::move(kind)));
  }
  Entries entries() && { return std::move(entries_); }

 private:
  Entries entries_;
};

Entries Features(const Vgg& family, const std::vector<std::int64_t>& stages) {
  Sequential features;
  std::int64_t in = family.in_channels;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    for (std::int64_t j = 0; j < stages[i]; ++j) {
      Conv conv = SquareConv(in, kChannels[i], 3);
      conv.bias = true;
      features.Add(std::move(conv));
      if (family.batch_norm) features.Add(BatchNorm{});
      features.Add(Activation{});
      in = kChannels[i];
    }
    features.Add(MaxPool{.kernel_size = {2}});
  }
  return std::move(features).entries();
}

Entries Classifier(const Vgg& family) {
  Sequential classifier;
  std::int64_t in = kChannels[4] * kPooled * kPooled;
  for (int i = 0; i < 2; ++i) {
    classifier.Add(Linear{.in_features = in, .out_features = kHiddenFeatures});
    classifier.Add(Activation{});
    classifier.Add(Identity{.dropout = true});
    in = kHiddenFeatures;
  }
  classifier.Add(Linear{.in_features = in, .out_features = family.num_classes});
  return std::move(classifier).entries();
}

}  // namespace

std::vector<FamilyInput> InputsOf(const Vgg& family) { return ImageInput(family.in_channels); }

void ExpandInto(const Vgg& family, Expansion& out) {
  const auto found = StagesByDepth().find(family.depth);
  if (found == StagesByDepth().end()) {
    std::vector<std::int64_t> depths;
    for (const auto& [depth, stages] : StagesByDepth()) depths.push_back(depth);
    out.errors.push_back(NotAmong("depth", family.depth, depths));
    return;
  }
  out.network.entries = {PutBlock("features", Features(family, found->second)),
                         Put("avgpool", AdaptivePool{.output_size = {kPooled}}), Put("", Flatten{}),
                         PutBlock("classifier", Classifier(family))};
}

}  // namespace relight::network
