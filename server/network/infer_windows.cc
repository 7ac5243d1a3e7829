// Outputs of what looks at images through windows: convolutions, pools, padding, scaling.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "server/network/inference.h"
#include "server/network/tensor_spec.h"

namespace relight::network {
namespace {

// Windows of a convolution or pool along one dimension; the formula of PyTorch's documentation.
// Less than 1 where not one fits.
struct Window {
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t dilation = 1;
  bool ceil_mode = false;

  std::int64_t Span() const { return dilation * (kernel - 1) + 1; }

  std::int64_t Count(std::int64_t size) const {
    // With ceil_mode the last window may hang over the right padding.
    const std::int64_t room = size + 2 * padding - Span() + (ceil_mode ? stride - 1 : 0);
    if (room < 0) return 0;
    std::int64_t count = room / stride + 1;
    // The last window must start inside the input or the left padding.
    if (ceil_mode && (count - 1) * stride >= size + padding) --count;
    return count;
  }
};

// "height" of a spatial dimension.
const char* DimensionName(int spatial_dims, std::size_t i) {
  static constexpr const char* kNames[] = {"depth", "height", "width"};
  return spatial_dims == 1 ? "length" : kNames[3 - static_cast<std::size_t>(spatial_dims) + i];
}

// Rows in another dimension than the first would be taken for channels or pixels.
Rows OfImage(const Value& value) {
  return value.rows.state == Rows::State::kAlong && value.rows.dim != 0 ? Rows::Mixed()
                                                                        : value.rows;
}

template <typename Kind>
std::optional<Value> Slide(const Kind& layer, const Sizes& dilation, bool ceil_mode,
                           Inference& inference) {
  Value out = inference.in();
  for (std::size_t i = 0; i < layer.kernel_size.size(); ++i) {
    const Window window{.kernel = layer.kernel_size[i],
                        .stride = layer.stride[i],
                        .padding = layer.padding[i],
                        .dilation = dilation[i],
                        .ceil_mode = ceil_mode};
    std::int64_t& size = out.shape[2 + i];
    if (size < 0) continue;
    const std::int64_t count = window.Count(size);
    if (count < 1) {
      inference.Refuse(absl::StrCat("its windows of ", window.Span(), " do not fit an input of ",
                                    size, " padded by ", window.padding, " (",
                                    DimensionName(layer.spatial_dims, i), ")"));
      return std::nullopt;
    }
    size = count;
  }
  out.rows = OfImage(out);
  return out;
}

std::optional<Value> SlideBack(const Conv& layer, Inference& inference) {
  Value out = inference.in();
  for (std::size_t i = 0; i < layer.kernel_size.size(); ++i) {
    std::int64_t& size = out.shape[2 + i];
    if (size < 0) continue;
    const Window window{.kernel = layer.kernel_size[i], .dilation = layer.dilation[i]};
    const auto strides = CheckedMul(size - 1, layer.stride[i]);
    const std::int64_t count =
        strides.value_or(kMaxSize) - 2 * layer.padding[i] + window.Span() + layer.output_padding[i];
    if (count < 1 || count > kMaxSize) {
      inference.Refuse(absl::StrCat("its output would have ", count, " elements (",
                                    DimensionName(layer.spatial_dims, i), ")"));
      return std::nullopt;
    }
    size = count;
  }
  out.rows = OfImage(out);
  return out;
}

// Whether padding by what the image has itself is possible: less than there is of it.
bool CheckReflection(std::int64_t size, std::int64_t padding, const std::string& mode,
                     Inference& inference) {
  if (size < 0 || padding <= 0) return true;
  const std::int64_t most = mode == "reflect" ? size - 1 : size;
  if (mode == "constant" || mode == "zeros" || mode == "replicate" || padding <= most) return true;
  inference.Refuse(absl::StrCat("pads by ", padding, " in mode \"", mode, "\", the most is ", most,
                                " for an input of ", size));
  return false;
}

}  // namespace

Values Infer(Conv& layer, Inference& inference) {
  if (!inference.RequireFloat() || !inference.RequireImage(layer.spatial_dims)) return {};
  const Sizes& shape = inference.in().shape;
  if (inference.Settle("in_channels", shape[1], layer.in_channels) &&
      *layer.in_channels % layer.groups != 0) {
    inference.Refuse(absl::StrCat("its input has ", *layer.in_channels, " channels, which groups ",
                                  layer.groups, " does not divide"));
  }
  if (layer.in_channels) {
    const auto kernel = Product(layer.kernel_size).value_or(kMaxSize);
    inference.CheckElements({*layer.in_channels / layer.groups, layer.out_channels, kernel});
  }
  for (std::size_t i = 0; i < layer.padding.size(); ++i) {
    if (!CheckReflection(shape[2 + i], layer.padding[i], layer.padding_mode, inference)) return {};
  }
  std::optional<Value> out = layer.transposed ? SlideBack(layer, inference)
                                              : Slide(layer, layer.dilation, false, inference);
  if (!out) return {};
  out->shape[1] = layer.out_channels;
  return {*std::move(out)};
}

Values Infer(MaxPool& layer, Inference& inference) {
  if (!inference.RequireFloat() || !inference.RequireImage(layer.spatial_dims)) return {};
  std::optional<Value> out = Slide(layer, layer.dilation, layer.ceil_mode, inference);
  return out ? Values{*std::move(out)} : Values{};
}

Values Infer(AvgPool& layer, Inference& inference) {
  if (!inference.RequireFloat() || !inference.RequireImage(layer.spatial_dims)) return {};
  const Sizes undilated(layer.kernel_size.size(), 1);
  std::optional<Value> out = Slide(layer, undilated, layer.ceil_mode, inference);
  return out ? Values{*std::move(out)} : Values{};
}

Values Infer(AdaptivePool& layer, Inference& inference) {
  if (!inference.RequireFloat() || !inference.RequireImage(layer.spatial_dims)) return {};
  Value out = inference.in();
  std::copy(layer.output_size.begin(), layer.output_size.end(), out.shape.begin() + 2);
  out.rows = OfImage(out);
  return {out};
}

Values Infer(LocalResponseNorm&, Inference& inference) {
  if (!inference.RequireFloat() || !inference.RequireRank(3, kMaxRank, "[N, C, ...]")) return {};
  Value out = inference.in();
  out.rows = OfImage(out);
  return {out};
}

Values Infer(Pad& layer, Inference& inference) {
  Value out = inference.in();
  const std::size_t pairs = layer.padding.size() / 2;
  if (pairs > out.shape.size()) {
    return inference.Refuse(
        absl::StrCat("padding is for ", pairs, " dimensions, its input is ", ShapeText(out.shape)));
  }
  if (layer.mode != "constant") {
    if (!inference.RequireFloat()) return {};
    if (pairs > 3 || out.shape.size() != pairs + 2) {
      return inference.Refuse(absl::StrCat("mode \"", layer.mode, "\" pads the last ", pairs,
                                           " dimensions of an input of two more (of 3 to 5), got ",
                                           ShapeText(out.shape)));
    }
  }
  for (std::size_t i = 0; i < pairs; ++i) {
    const std::size_t dim = out.shape.size() - 1 - i;
    const std::int64_t before = layer.padding[2 * i];
    const std::int64_t after = layer.padding[2 * i + 1];
    if (before == 0 && after == 0) continue;
    if (out.rows.along(dim)) out.rows = Rows::Mixed();
    std::int64_t& size = out.shape[dim];
    if (!CheckReflection(size, std::max(before, after), layer.mode, inference)) return {};
    if (size < 0) continue;
    if (size + before + after < 1 || size + before + after > kMaxSize) {
      return inference.Refuse(absl::StrCat("padding ", before, " and ", after, " leaves ",
                                           size + before + after, " of an input of ", size));
    }
    size += before + after;
  }
  return {out};
}

Values Infer(Upsample& layer, Inference& inference) {
  if (!inference.RequireFloat() || !inference.RequireRank(3, 5, "[N, C, L] to [N, C, D, H, W]")) {
    return {};
  }
  Value out = inference.in();
  const std::size_t dims = out.shape.size() - 2;
  const std::size_t needed = layer.mode == "linear"                                ? 1
                             : layer.mode == "bilinear" || layer.mode == "bicubic" ? 2
                             : layer.mode == "trilinear"                           ? 3
                                                                                   : dims;
  if (dims != needed) {
    return inference.Refuse(absl::StrCat("mode \"", layer.mode, "\" is for inputs of ", needed + 2,
                                         " dimensions, got ", ShapeText(out.shape)));
  }
  if (layer.size.size() > 1 && layer.size.size() != dims) {
    return inference.Refuse(
        absl::StrCat("size has ", layer.size.size(), " values for ", dims, " spatial dimensions"));
  }
  if (layer.scale_factor.size() > 1 && layer.scale_factor.size() != dims) {
    return inference.Refuse(absl::StrCat("scale_factor has ", layer.scale_factor.size(),
                                         " values for ", dims, " spatial dimensions"));
  }
  if (layer.size.size() == 1) layer.size.resize(dims, layer.size[0]);
  if (layer.scale_factor.size() == 1) layer.scale_factor.resize(dims, layer.scale_factor[0]);
  for (std::size_t i = 0; i < dims; ++i) {
    std::int64_t& size = out.shape[2 + i];
    if (!layer.size.empty()) {
      size = layer.size[i];
    } else if (size >= 0) {
      const double scaled = std::floor(static_cast<double>(size) * layer.scale_factor[i]);
      if (scaled < 1 || scaled > static_cast<double>(kMaxSize)) {
        return inference.Refuse(absl::StrCat("scale_factor ", layer.scale_factor[i], " makes ",
                                             scaled, " of an input of ", size));
      }
      size = static_cast<std::int64_t>(scaled);
    }
  }
  out.rows = OfImage(out);
  return {out};
}

Values Infer(PixelShuffle& layer, Inference& inference) {
  if (!inference.RequireFloat() || !inference.RequireRank(3, kMaxRank, "[..., C, H, W]")) {
    return {};
  }
  Value out = inference.in();
  const std::size_t channels = out.shape.size() - 3;
  const std::int64_t factor = layer.factor;
  const auto square = CheckedMul(factor, factor);
  if (!square || *square > kMaxSize) return inference.Refuse("its factor is too large");
  for (std::size_t dim = channels; dim < out.shape.size(); ++dim) {
    std::int64_t& size = out.shape[dim];
    if (size < 0) continue;
    const std::int64_t by = dim == channels ? *square : factor;
    const bool grows = (dim == channels) == layer.inverse;
    if (!grows && size % by != 0) {
      return inference.Refuse(absl::StrCat("its input has ", size, " ",
                                           dim == channels ? "channels" : "pixels", ", which ", by,
                                           " does not divide"));
    }
    const auto scaled = grows ? CheckedMul(size, by) : std::optional<std::int64_t>(size / by);
    if (!scaled || *scaled > kMaxSize) return inference.Refuse("its output would be too large");
    size = *scaled;
  }
  if (out.rows.state == Rows::State::kAlong && out.rows.dim >= channels) out.rows = Rows::Mixed();
  return {out};
}

Values Infer(ChannelShuffle& layer, Inference& inference) {
  if (!inference.RequireRank(3, kMaxRank, "[N, C, ...]")) return {};
  Value out = inference.in();
  if (out.shape[1] >= 0 && out.shape[1] % layer.groups != 0) {
    return inference.Refuse(absl::StrCat("its input has ", out.shape[1], " channels, which groups ",
                                         layer.groups, " does not divide"));
  }
  out.rows = OfImage(out);
  return {out};
}

}  // namespace relight::network
