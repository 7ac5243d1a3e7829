// MobileNetV2, as torchvision/models/mobilenetv2.py has it.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/network/families/expansion.h"

namespace relight::network {
namespace {

constexpr double kMostWidth = 1024;

struct Stage {
  std::int64_t expand_ratio;
  std::int64_t channels;
  std::int64_t blocks;
  std::int64_t stride;
};
constexpr Stage kStages[] = {{1, 16, 1, 1}, {6, 24, 2, 2},  {6, 32, 3, 2}, {6, 64, 4, 2},
                             {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}};

// torchvision's _make_divisible: the nearest multiple, not more than a tenth below.
std::int64_t MakeDivisible(double value, std::int64_t divisor) {
  const double half = static_cast<double>(divisor) / 2;
  const std::int64_t near = static_cast<std::int64_t>(value + half) / divisor * divisor;
  const std::int64_t rounded = std::max(divisor, near);
  return static_cast<double>(rounded) < 0.9 * value ? rounded + divisor : rounded;
}

Entries ConvNormRelu6(Conv conv) {
  return {Put("0", std::move(conv)), Put("1", BatchNorm{}),
          Put("2", Activation{.op = ActivationOp::kRelu6})};
}

Entries InvertedResidual(std::int64_t in, std::int64_t out, std::int64_t stride,
                         std::int64_t expand_ratio) {
  const std::int64_t hidden = in * expand_ratio;
  Entries conv;
  const auto next_name = [&conv] { return absl::StrCat(conv.size()); };
  if (expand_ratio != 1) {
    conv.push_back(PutBlock(next_name(), ConvNormRelu6(SquareConv(in, hidden, 1))));
  }
  conv.push_back(
      PutBlock(next_name(), ConvNormRelu6(SquareConv(hidden, hidden, 3, stride, hidden))));
  conv.push_back(Put(next_name(), SquareConv(hidden, out, 1)));
  conv.push_back(Put(next_name(), BatchNorm{}));
  Entries entries = {PutBlock("conv", std::move(conv))};
  if (stride == 1 && in == out) entries.push_back(Put("", Elementwise{}, {"input", "conv"}));
  return entries;
}

}  // namespace

std::vector<FamilyInput> InputsOf(const MobileNetV2& family) {
  return ImageInput(family.in_channels);
}

void ExpandInto(const MobileNetV2& family, Expansion& out) {
  if (family.width_mult <= 0 || family.width_mult > kMostWidth) {
    out.errors.push_back(absl::StrCat("width_mult is ", family.width_mult,
                                      ", it must be positive, and the most is ", kMostWidth));
    return;
  }
  const auto scaled = [&family](double channels, double by) {
    return MakeDivisible(channels * by, family.round_nearest);
  };
  Entries& entries = out.network.entries;
  std::int64_t in = scaled(32, family.width_mult);
  entries.push_back(
      PutBlock("features.0", ConvNormRelu6(SquareConv(family.in_channels, in, 3, 2))));
  std::int64_t position = 1;
  for (const Stage& stage : kStages) {
    const std::int64_t channels = scaled(static_cast<double>(stage.channels), family.width_mult);
    entries.push_back(PutBlock(absl::StrCat("features.", position),
                               InvertedResidual(in, channels, stage.stride, stage.expand_ratio)));
    AddRepeated("features", InvertedResidual(channels, channels, 1, stage.expand_ratio),
                stage.blocks - 1, position + 1, entries);
    position += stage.blocks;
    in = channels;
  }
  const std::int64_t last = scaled(1280, std::max(1.0, family.width_mult));
  entries.push_back(
      PutBlock(absl::StrCat("features.", position), ConvNormRelu6(SquareConv(in, last, 1))));
  entries.push_back(Put("", AdaptivePool{.output_size = {1}}));
  entries.push_back(Put("", Flatten{}));
  entries.push_back(Put("classifier.0", Identity{.dropout = true, .p = 0.2}));
  entries.push_back(
      Put("classifier.1", Linear{.in_features = last, .out_features = family.num_classes}));
}

}  // namespace relight::network
