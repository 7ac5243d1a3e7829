#include "server/model/convolution.h"

#include <ATen/Functions.h>

#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

#include "server/model/layer_tensors.h"

namespace relight::model {
namespace {

Operation MakePacked(const network::Conv2d& conv, const std::vector<std::int64_t>& shape,
                     const ConvolutionWeights& weights) {
  const at::Tensor packed =
      at::mkldnn_reorder_conv2d_weight(weights.weight.contiguous().to_mkldnn(), Sizes(conv.padding),
                                       Sizes(conv.stride), Sizes(conv.dilation), conv.groups);
  const at::Tensor bias =
      weights.bias.defined() ? weights.bias.contiguous().to_mkldnn() : at::Tensor();
  std::vector<std::int64_t> no_rows = shape;
  no_rows.front() = 0;
  return [conv, packed, bias, no_rows](auto& in) {
    at::Tensor& image = in[0];
    if (image.numel() == 0) return at::empty(no_rows, at::TensorOptions(at::kFloat));
    if (!image.is_mkldnn()) image = image.to(at::kFloat).contiguous().to_mkldnn();
    return at::mkldnn_convolution(image, packed, bias, Sizes(conv.padding), Sizes(conv.stride),
                                  Sizes(conv.dilation), conv.groups);
  };
}

}  // namespace

ConvolutionWeights TakeIn(const BatchNormWeights& norm, const ConvolutionWeights& convolution) {
  const at::ScalarType type = convolution.weight.scalar_type();
  at::Tensor scale = at::rsqrt(at::add(norm.variance.to(at::kDouble), norm.eps));
  if (norm.weight.defined()) scale = at::mul(scale, norm.weight);
  at::Tensor shift = norm.mean.to(at::kDouble).neg();
  if (convolution.bias.defined()) shift = at::add(shift, convolution.bias);
  shift = at::mul(shift, scale);
  if (norm.bias.defined()) shift = at::add(shift, norm.bias);
  // Rounded once: half-width weights have no bits to lose.
  const at::ScalarType exact = type == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor scaled =
      at::mul(convolution.weight.to(exact), scale.to(exact).reshape({-1, 1, 1, 1}));
  return {scaled.to(type), shift.to(type)};
}

Operation MakeConvolution(const network::Step& step, ConvolutionWeights weights, bool packed) {
  const auto& conv = std::get<network::Conv2d>(step.layer.kind);
  if (packed) return MakePacked(conv, step.shape, weights);
  return [conv, weight = std::move(weights.weight), bias = std::move(weights.bias)](auto& in) {
    return at::conv2d(InTypeOf(in[0], weight), weight, bias, Sizes(conv.stride),
                      Sizes(conv.padding), Sizes(conv.dilation), conv.groups);
  };
}

}  // namespace relight::model
