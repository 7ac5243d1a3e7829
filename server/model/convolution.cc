#include "server/model/convolution.h"

#include <ATen/Functions.h>

#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

#include "server/model/layer_tensors.h"

namespace relight::model {
namespace {

Operation MakePacked(const network::Conv& conv, const std::vector<std::int64_t>& shape,
                     const ConvolutionWeights& weights) {
  const at::Tensor packed =
      at::mkldnn_reorder_conv2d_weight(weights.weight.contiguous().to_mkldnn(), conv.padding,
                                       conv.stride, conv.dilation, conv.groups);
  const at::Tensor bias =
      weights.bias.defined() ? weights.bias.contiguous().to_mkldnn() : at::Tensor();
  std::vector<std::int64_t> no_rows = shape;
  no_rows.front() = 0;
  return [conv, packed, bias, no_rows](auto& in) {
    at::Tensor& image = in[0];
    if (image.numel() == 0) return at::empty(no_rows, at::TensorOptions(at::kFloat));
    if (!image.is_mkldnn()) image = image.to(at::kFloat).contiguous().to_mkldnn();
    return at::mkldnn_convolution(image, packed, bias, conv.padding, conv.stride, conv.dilation,
                                  conv.groups);
  };
}

// On the CPU, LibTorch 1.13 takes a transposed convolution of bfloat16 for an ordinary one.
Operation MakeWide(const network::Conv& conv, const ConvolutionWeights& weights) {
  const at::Tensor weight = weights.weight.to(at::kFloat);
  const c10::optional<at::Tensor> bias =
      weights.bias.defined() ? c10::optional<at::Tensor>(weights.bias.to(at::kFloat))
                             : c10::nullopt;
  return [conv, weight, bias, type = weights.weight.scalar_type()](auto& in) {
    return at::convolution(in[0].to(at::kFloat), weight, bias, conv.stride, conv.padding,
                           conv.dilation, conv.transposed, conv.output_padding, conv.groups)
        .to(type);
  };
}

Operation MakePlain(const network::Conv& conv, ConvolutionWeights weights) {
  const bool half = weights.weight.scalar_type() == at::kBFloat16;
  if (conv.transposed && half && weights.weight.is_cpu()) return MakeWide(conv, weights);
  return [conv, weight = std::move(weights.weight), bias = std::move(weights.bias)](auto& in) {
    return at::convolution(InTypeOf(in[0], weight), weight,
                           bias.defined() ? c10::optional<at::Tensor>(bias) : c10::nullopt,
                           conv.stride, conv.padding, conv.dilation, conv.transposed,
                           conv.output_padding, conv.groups);
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
  std::vector<std::int64_t> per_channel(static_cast<std::size_t>(convolution.weight.dim()), 1);
  per_channel.front() = -1;
  const at::Tensor scaled =
      at::mul(convolution.weight.to(exact), scale.to(exact).reshape(per_channel));
  return {scaled.to(type), shift.to(type)};
}

Operation MakeConvolution(const network::Step& step, ConvolutionWeights weights, bool packed) {
  const auto& conv = std::get<network::Conv>(step.layer.kind);
  if (packed) return MakePacked(conv, step.shape(), weights);
  if (conv.padding_mode == "zeros") return MakePlain(conv, std::move(weights));
  // Padded first, the last dimension leading.
  std::vector<std::int64_t> pads;
  for (auto size = conv.padding.rbegin(); size != conv.padding.rend(); ++size) {
    pads.insert(pads.end(), {*size, *size});
  }
  network::Conv unpadded = conv;
  unpadded.padding.assign(conv.padding.size(), 0);
  return [pads, mode = conv.padding_mode,
          convolve = MakePlain(unpadded, std::move(weights))](std::vector<at::Tensor>& in) {
    in[0] = at::pad(in[0], pads, mode);
    return convolve(in);
  };
}

}  // namespace relight::model
