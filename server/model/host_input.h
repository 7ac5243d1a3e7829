// An input of a forward, before it goes to a device.
#ifndef RELIGHT_SERVER_MODEL_HOST_INPUT_H_
#define RELIGHT_SERVER_MODEL_HOST_INPUT_H_

#include <ATen/core/Tensor.h>

#include <cstddef>

#include "server/model/device.h"

namespace relight::model {

struct HostInput {
  at::Tensor tensor;  // Contiguous, in host memory; not to be written to.
  bool page_locked = false;
};

inline std::size_t TensorBytes(const at::Tensor& tensor) {
  return static_cast<std::size_t>(tensor.numel()) * tensor.element_size();
}

// The input in memory from which the device copies without holding up this thread: a copy where it
// is not there yet. Throws what LibTorch throws.
at::Tensor PageLocked(Device& device, const HostInput& input);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_HOST_INPUT_H_
