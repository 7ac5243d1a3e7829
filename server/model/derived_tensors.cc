#include "server/model/derived_tensors.h"

#include <utility>

namespace relight::model {

at::Tensor DerivedTensors::Keep(at::Tensor tensor) {
  if (next_ == tensors_.size()) tensors_.emplace_back();
  at::Tensor& kept = tensors_[next_++];
  const bool alike = kept.defined() && kept.sizes() == tensor.sizes() &&
                     kept.strides() == tensor.strides() &&
                     kept.options().type_equal(tensor.options());
  if (alike) {
    kept.copy_(tensor, /*non_blocking=*/true);
  } else {
    kept = std::move(tensor);
  }
  return kept;
}

}  // namespace relight::model
