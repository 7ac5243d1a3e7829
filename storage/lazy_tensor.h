// Tensors whose conjugation or negation PyTorch has only noted.
#ifndef RELIGHT_STORAGE_LAZY_TENSOR_H_
#define RELIGHT_STORAGE_LAZY_TENSOR_H_

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/tree.h"
#include "storage/writer.h"

namespace relight::storage {

// The values of `tensor`, conjugated and negated as it says: dense, row-major, little-endian. Holds
// the tensor, and the run of its storage that it views, in memory.
absl::StatusOr<std::vector<std::byte>> ResolveTensor(const TensorInfo& tensor,
                                                     const StorageSource& source);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_LAZY_TENSOR_H_
