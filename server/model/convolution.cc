#include "server/model/convolution.h"

#include <ATen/Functions.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "server/model/layer_tensors.h"

namespace relight::model {
namespace {

at::Tensor EmptyAnswer(const network::Conv2d& conv, const at::Tensor& in) {
  std::vector<std::int64_t> shape = in.sizes().vec();
  shape[1] = conv.out_channels;
  for (std::size_t i = 0; i < 2; ++i) {
    const std::int64_t reach = conv.dilation[i] * (conv.kernel_size[i] - 1) + 1;
    shape[i + 2] = (shape[i + 2] + 2 * conv.padding[i] - reach) / conv.stride[i] + 1;
  }
  return at::empty(shape, at::TensorOptions(at::kFloat));
}

Operation MakePacked(const network::Conv2d& conv, const ConvolutionWeights& weights) {
  const at::Tensor packed =
      at::mkldnn_reorder_conv2d_weight(weights.weight.contiguous().to_mkldnn(), Sizes(conv.padding),
                                       Sizes(conv.stride), Sizes(conv.dilation), conv.groups);
  const at::Tensor bias =
      weights.bias.defined() ? weights.bias.contiguous().to_mkldnn() : at::Tensor();
  return [conv, packed, bias](auto& in) {
    at::Tensor& image = in[0];
    if (image.numel() == 0) return EmptyAnswer(conv, image);
    if (!image.is_mkldnn()) image = image.to(at::kFloat).contiguous().to_mkldnn();
    return at::mkldnn_convolution(image, packed, bias, Sizes(conv.padding), Sizes(conv.stride),
                                  Sizes(conv.dilation), conv.groups);
  };
}

}  // namespace

ConvolutionWeights TakeIn(const BatchNormWeights& norm, const ConvolutionWeights& convolution) {
  const at::ScalarType type = convolution.weight.scalar_type();
  const at::ScalarType wide = type == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor scale = at::rsqrt(at::add(norm.variance.to(at::kDouble), norm.eps));
  if (norm.weight.defined()) scale = at::mul(scale, norm.weight);
  at::Tensor shift = norm.mean.to(at::kDouble).neg();
  if (convolution.bias.defined()) shift = at::add(shift, convolution.bias);
  shift = at::mul(shift, scale);
  if (norm.bias.defined()) shift = at::add(shift, norm.bias);
  const at::Tensor scaled =
      at::mul(convolution.weight.to(wide), scale.to(wide).reshape({-1, 1, 1, 1}));
  return {scaled.to(type), shift.to(type)};
}

Operation MakeConvolution(const network::Conv2d& conv, ConvolutionWeights weights, bool packed) {
  if (packed) return MakePacked(conv, weights);
  return [conv, weight = std::move(weights.weight), bias = std::move(weights.bias)](auto& in) {
    return at::conv2d(InTypeOf(in[0], weight), weight, bias, Sizes(conv.stride),
                      Sizes(conv.padding), Sizes(conv.dilation), conv.groups);
  };
}

}  // namespace relight::model
