// Small things that layers do with tensors.
#ifndef RELIGHT_SERVER_MODEL_LAYER_TENSORS_H_
#define RELIGHT_SERVER_MODEL_LAYER_TENSORS_H_

#include <ATen/core/Tensor.h>

#include <utility>

#include "server/model/step_plan.h"
#include "server/network/network.h"

namespace relight::model {

// Layers with parameters compute in the parameters' type.
inline at::Tensor InTypeOf(const at::Tensor& tensor, const at::Tensor& parameter) {
  return tensor.scalar_type() == parameter.scalar_type() ? tensor
                                                         : tensor.to(parameter.scalar_type());
}

// A value that was planned to be in `layout`, with the shape that the net gives it.
inline at::Tensor RowMajor(at::Tensor tensor, Layout layout) {
  if (!tensor.is_mkldnn()) return tensor;
  const at::Tensor dense = tensor.to_dense();
  if (layout != Layout::kRows) return dense;
  return dense.view({dense.size(1), dense.size(3)}).t();
}

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_LAYER_TENSORS_H_
