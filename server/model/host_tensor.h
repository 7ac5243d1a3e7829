// A dense tensor in host memory, without LibTorch.
#ifndef RELIGHT_SERVER_MODEL_HOST_TENSOR_H_
#define RELIGHT_SERVER_MODEL_HOST_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "storage/dtype.h"

namespace relight::model {

struct HostTensor {
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;  // No free dimensions.
  // Row-major, little-endian. Keeps the bytes alive; whoever holds a copy may read them.
  std::shared_ptr<const std::byte> data;
  std::uint64_t size_bytes = 0;
  bool page_locked = false;  // `data` is from BoundModel::AllocateInput.
};

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_HOST_TENSOR_H_
