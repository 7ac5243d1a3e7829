// The bytes of tensors out of a StorageSource, in bounded memory.
#ifndef RELIGHT_STORAGE_TENSOR_STREAM_H_
#define RELIGHT_STORAGE_TENSOR_STREAM_H_

#include <cstdint>

#include "absl/status/status.h"
#include "storage/storage_source.h"
#include "storage/tree.h"

namespace relight::storage {

// Streams `size_bytes` of a storage from `begin_bytes` on, as they are. DATA_LOSS where the source
// gives more or fewer bytes than it said.
absl::Status StreamRun(const StorageSource& source, std::uint32_t storage,
                       std::uint64_t begin_bytes, std::uint64_t size_bytes, const ByteSink& sink);

// Streams the values of `tensor`, conjugated and negated as it says, bools as 0 and 1: dense,
// row-major, little-endian. One pass over the storage where the elements lie there in that order,
// or all of it lies in memory; else a pass for every 16 MiB of the tensor, which is the most that
// is held. Errors as StreamRun.
absl::Status StreamDense(const TensorInfo& tensor, const StorageSource& source,
                         const ByteSink& sink);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_TENSOR_STREAM_H_
