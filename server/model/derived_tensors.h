// What is derived from weights, at the same addresses for one set of weights after another.
#ifndef RELIGHT_SERVER_MODEL_DERIVED_TENSORS_H_
#define RELIGHT_SERVER_MODEL_DERIVED_TENSORS_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "absl/types/span.h"

namespace relight::model {

// Belongs to a block of weights that is used again and again: each time the same tensors are
// derived in the same order, and each is written to where the one before it was. So a swap leaves
// no memory behind, and work that was captured with these addresses stays good.
//
// Thread-compatible.
class DerivedTensors {
 public:
  // Begins anew. REQUIRES: nothing computes with what was kept before.
  void Rewind() { next_ = 0; }

  // `tensor`, or the tensor that was kept in its turn before, which now has its values: queued on
  // the current stream. Throws what LibTorch throws.
  at::Tensor Keep(at::Tensor tensor);

  // Forgets those that were kept before the last Rewind and not since.
  void Trim() { tensors_.resize(next_); }

  // Those kept since the last Rewind.
  absl::Span<const at::Tensor> kept() const { return absl::MakeConstSpan(tensors_).first(next_); }

 private:
  std::vector<at::Tensor> tensors_;
  std::size_t next_ = 0;
};

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_DERIVED_TENSORS_H_
