#include "server/model/host_input.h"

#include <cstring>

namespace relight::model {

at::Tensor PageLocked(Device& device, const HostInput& input) {
  if (input.page_locked) return input.tensor;
  at::Tensor copy = device.EmptyHost(input.tensor.sizes(), input.tensor.scalar_type());
  if (const std::size_t size_bytes = TensorBytes(copy); size_bytes > 0) {
    std::memcpy(copy.data_ptr(), input.tensor.data_ptr(), size_bytes);
  }
  return copy;
}

}  // namespace relight::model
