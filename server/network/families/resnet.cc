// ResNet, ResNeXt and wide ResNets, as torchvision/models/resnet.py has them.
#include <array>
#include <map>

#include "absl/strings/str_cat.h"
#include "server/network/families/expansion.h"

namespace relight::network {
namespace {

struct Stages {
  bool bottleneck = false;
  std::array<std::int64_t, 4> blocks = {};
};

const std::map<std::int64_t, Stages>& StagesByDepth() {
  static const auto* const kStages = new std::map<std::int64_t, Stages>{
      {18, {false, {2, 2, 2, 2}}},  {34, {false, {3, 4, 6, 3}}},  {50, {true, {3, 4, 6, 3}}},
      {101, {true, {3, 4, 23, 3}}}, {152, {true, {3, 8, 36, 3}}},
  };
  return *kStages;
}

constexpr std::int64_t kExpansion = 4;  // Of a bottleneck.

// The residual blocks of one depth.
class Residual {
 public:
  Residual(const ResNet& family, bool bottleneck) : family_(family), bottleneck_(bottleneck) {}

  std::int64_t out_channels(std::int64_t planes) const {
    return bottleneck_ ? kExpansion * planes : planes;
  }

  // Ends in relu(out + identity).
  Entries Make(std::int64_t in, std::int64_t planes, std::int64_t stride) const {
    Entries entries = bottleneck_ ? Bottleneck(in, planes, stride) : Basic(in, planes, stride);
    const std::string last = bottleneck_ ? "bn3" : "bn2";
    const std::int64_t out = out_channels(planes);
    std::string identity = "input";
    if (stride != 1 || in != out) {
      identity = "downsample";
      entries.push_back(PutBlock(
          identity, {Put("0", SquareConv(in, out, 1, stride)), Put("1", BatchNorm{})}, {"input"}));
    }
    entries.push_back(Put("", Elementwise{}, {last, identity}));
    entries.push_back(Put("relu", Activation{}));
    return entries;
  }

 private:
  static Entries Basic(std::int64_t in, std::int64_t planes, std::int64_t stride) {
    return {Put("conv1", SquareConv(in, planes, 3, stride)), Put("bn1", BatchNorm{}),
            Put("", Activation{}), Put("conv2", SquareConv(planes, planes, 3)),
            Put("bn2", BatchNorm{})};
  }

  Entries Bottleneck(std::int64_t in, std::int64_t planes, std::int64_t stride) const {
    const std::int64_t width = planes * family_.width_per_group / 64 * family_.groups;
    return {Put("conv1", SquareConv(in, width, 1)),
            Put("bn1", BatchNorm{}),
            Put("", Activation{}),
            Put("conv2", SquareConv(width, width, 3, stride, family_.groups)),
            Put("bn2", BatchNorm{}),
            Put("", Activation{}),
            Put("conv3", SquareConv(width, kExpansion * planes, 1)),
            Put("bn3", BatchNorm{})};
  }

  const ResNet& family_;
  const bool bottleneck_;
};

bool CheckResNet(const ResNet& family, std::vector<std::string>& errors) {
  const auto found = StagesByDepth().find(family.depth);
  if (found == StagesByDepth().end()) {
    std::vector<std::int64_t> depths;
    for (const auto& [depth, stages] : StagesByDepth()) depths.push_back(depth);
    errors.push_back(NotAmong("depth", family.depth, depths));
    return false;
  }
  if (found->second.bottleneck) return true;
  const auto only = [&](const char* argument, std::int64_t value, std::int64_t possible) {
    if (value == possible) return;
    errors.push_back(absl::StrCat(argument, " is ", value, ", but depth ", family.depth,
                                  " is made of basic blocks, in which it is ", possible,
                                  ": give depth 50, 101 or 152"));
  };
  only("groups", family.groups, 1);
  only("width_per_group", family.width_per_group, 64);
  return errors.empty();
}

}  // namespace

std::vector<FamilyInput> InputsOf(const ResNet& family) { return ImageInput(family.in_channels); }

void ExpandInto(const ResNet& family, Expansion& out) {
  if (!CheckResNet(family, out.errors)) return;
  const Stages& stages = StagesByDepth().at(family.depth);
  const Residual residual(family, stages.bottleneck);
  Entries& entries = out.network.entries;
  entries = {Put("conv1", SquareConv(family.in_channels, 64, 7, 2)), Put("bn1", BatchNorm{}),
             Put("relu", Activation{}),
             Put("maxpool", MaxPool{.kernel_size = {3}, .stride = {2}, .padding = {1}})};
  std::int64_t in = 64;
  std::int64_t planes = 64;
  for (std::size_t i = 0; i < stages.blocks.size(); ++i) {
    const std::string name = absl::StrCat("layer", i + 1);
    entries.push_back(PutBlock(name + ".0", residual.Make(in, planes, i == 0 ? 1 : 2)));
    in = residual.out_channels(planes);
    AddRepeated(name, residual.Make(in, planes, 1), stages.blocks[i] - 1, 1, entries);
    planes *= 2;
  }
  entries.push_back(Put("avgpool", AdaptivePool{.output_size = {1}}));
  entries.push_back(Put("", Flatten{}));
  entries.push_back(Put("fc", Linear{.in_features = in, .out_features = family.num_classes}));
}

}  // namespace relight::network
