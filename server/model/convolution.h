// A convolution as it is computed: with the batch norm after it in its weights, and with these
// packed for oneDNN where that is planned.
#ifndef RELIGHT_SERVER_MODEL_CONVOLUTION_H_
#define RELIGHT_SERVER_MODEL_CONVOLUTION_H_

#include <ATen/core/Tensor.h>

#include "server/model/operations.h"
#include "server/network/network.h"

namespace relight::model {

struct ConvolutionWeights {
  at::Tensor weight;  // [out_channels, in_channels / groups, kernel...].
  at::Tensor bias;    // [out_channels]; undefined where there is none.
};

struct BatchNormWeights {  // [channels] each.
  at::Tensor weight;       // Undefined: ones.
  at::Tensor bias;         // Undefined: zeros.
  at::Tensor mean;
  at::Tensor variance;
  double eps = 1e-5;
};

// Weights with which the convolution alone gives what it and an evaluating batch norm give: each
// output channel scaled by weight / sqrt(variance + eps), as torch.nn.utils.fusion does it, with
// the scale taken in float64. In memory of their own, in the convolution's type.
ConvolutionWeights TakeIn(const BatchNormWeights& norm, const ConvolutionWeights& convolution);

// `packed`: float32 on the CPU; keeps a packed copy of the weights, takes
// images in either layout and answers in Layout::kImages, an empty batch aside.
// `step` is the convolution's.
Operation MakeConvolution(const network::Step& step, ConvolutionWeights weights, bool packed);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_CONVOLUTION_H_
