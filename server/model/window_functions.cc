// Functions of images: pools, padding, scaling.
#include <ATen/Functions.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "server/model/functions.h"

namespace relight::model {
namespace {

// With the stride that follows from the others in each dimension of size 1, where any will do: a
// slice can leave another. LibTorch's adaptive pools on CUDA go from one image to the next by the
// stride of the channels (2.11, AdaptiveAveragePooling.cu), also where there is one channel, and
// then read other memory. Copies nothing.
at::Tensor WithPlainStrides(const at::Tensor& in) {
  return in.is_cuda() ? in.reshape(in.sizes()) : in;
}

// torch.nn.functional.local_response_norm.
at::Tensor LocalResponseNorm(const network::LocalResponseNorm& kind, const at::Tensor& in) {
  const std::int64_t before = kind.size / 2;
  const std::int64_t after = (kind.size - 1) / 2;
  // Channels become what the pool slides over; the rest is one row.
  const at::Tensor squares =
      at::square(in).reshape({in.size(0), 1, in.size(1), -1});  // [N, 1, C, rest].
  const at::Tensor padded = at::constant_pad_nd(squares, {0, 0, before, after});
  const at::Tensor means = at::avg_pool2d(padded, {kind.size, 1}, {1, 1});
  const at::Tensor divisor = at::pow(at::add(at::mul(means, kind.alpha), kind.k), kind.beta);
  return at::div(in, divisor.reshape(in.sizes()));
}

// Exactly one of size and scales is given.
at::Tensor Upsample(const network::Upsample& kind, const at::Tensor& in) {
  using OptionalSizes = at::OptionalIntArrayRef;
  using OptionalScales = c10::optional<at::ArrayRef<double>>;
  const OptionalSizes size =
      kind.size.empty() ? OptionalSizes() : OptionalSizes(at::IntArrayRef(kind.size));
  const OptionalScales scales = kind.scale_factor.empty()
                                    ? OptionalScales()
                                    : OptionalScales(at::ArrayRef<double>(kind.scale_factor));
  const bool corners = kind.align_corners;
  if (kind.mode == "linear") return at::upsample_linear1d(in, size, corners, scales);
  if (kind.mode == "bilinear") return at::upsample_bilinear2d(in, size, corners, scales);
  if (kind.mode == "bicubic") return at::upsample_bicubic2d(in, size, corners, scales);
  if (kind.mode == "trilinear") return at::upsample_trilinear3d(in, size, corners, scales);
  if (in.dim() == 3) return at::upsample_nearest1d(in, size, scales);
  if (in.dim() == 4) return at::upsample_nearest2d(in, size, scales);
  return at::upsample_nearest3d(in, size, scales);
}

}  // namespace

Operation MakeFunction(const network::MaxPool& kind) {
  return [kind](auto& in) {
    switch (kind.spatial_dims) {
      case 1:
        return at::max_pool1d(in[0], kind.kernel_size, kind.stride, kind.padding, kind.dilation,
                              kind.ceil_mode);
      case 2:
        return at::max_pool2d(in[0], kind.kernel_size, kind.stride, kind.padding, kind.dilation,
                              kind.ceil_mode);
      default:
        return at::max_pool3d(in[0], kind.kernel_size, kind.stride, kind.padding, kind.dilation,
                              kind.ceil_mode);
    }
  };
}
Operation MakeFunction(const network::AvgPool& kind) {
  const auto divisor =
      kind.divisor_override ? c10::optional<std::int64_t>(*kind.divisor_override) : c10::nullopt;
  return [kind, divisor](auto& in) {
    switch (kind.spatial_dims) {
      case 1:
        return at::avg_pool1d(in[0], kind.kernel_size, kind.stride, kind.padding, kind.ceil_mode,
                              kind.count_include_pad);
      case 2:
        return at::avg_pool2d(in[0], kind.kernel_size, kind.stride, kind.padding, kind.ceil_mode,
                              kind.count_include_pad, divisor);
      default:
        return at::avg_pool3d(in[0], kind.kernel_size, kind.stride, kind.padding, kind.ceil_mode,
                              kind.count_include_pad, divisor);
    }
  };
}
Operation MakeFunction(const network::AdaptivePool& kind) {
  return [kind](auto& in) {
    const at::Tensor image = WithPlainStrides(in[0]);
    const at::IntArrayRef size = kind.output_size;
    switch (kind.spatial_dims) {
      case 1:
        return kind.max ? std::get<0>(at::adaptive_max_pool1d(image, size))
                        : at::adaptive_avg_pool1d(image, size);
      case 2:
        return kind.max ? std::get<0>(at::adaptive_max_pool2d(image, size))
                        : at::adaptive_avg_pool2d(image, size);
      default:
        return kind.max ? std::get<0>(at::adaptive_max_pool3d(image, size))
                        : at::adaptive_avg_pool3d(image, size);
    }
  };
}
Operation MakeFunction(const network::LocalResponseNorm& kind) {
  return [kind](auto& in) { return LocalResponseNorm(kind, in[0]); };
}
Operation MakeFunction(const network::Pad& kind) {
  if (kind.mode == "constant") {
    return [kind](auto& in) { return at::constant_pad_nd(in[0], kind.padding, kind.value); };
  }
  return [kind](auto& in) { return at::pad(in[0], kind.padding, kind.mode); };
}
Operation MakeFunction(const network::Upsample& kind) {
  return [kind](auto& in) { return Upsample(kind, in[0]); };
}
Operation MakeFunction(const network::PixelShuffle& kind) {
  if (kind.inverse) {
    return [factor = kind.factor](auto& in) { return at::pixel_unshuffle(in[0], factor); };
  }
  return [factor = kind.factor](auto& in) { return at::pixel_shuffle(in[0], factor); };
}
Operation MakeFunction(const network::ChannelShuffle& kind) {
  return [groups = kind.groups](auto& in) { return at::channel_shuffle(in[0], groups); };
}

}  // namespace relight::model
