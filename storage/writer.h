// Writing checkpoints that torch.load(weights_only=True) opens: the tree of a checkpoint, or parts
// of it, in the container layout of PyTorch 2.7 and later.
//
// Output is deterministic: the same tree and bytes give the same file. Memory use does not grow
// with the tensors: their bytes are streamed from a StorageSource.
#ifndef RELIGHT_STORAGE_WRITER_H_
#define RELIGHT_STORAGE_WRITER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/atomic_file.h"     // IWYU pragma: export: where a checkpoint is written to.
#include "storage/storage_source.h"  // IWYU pragma: export
#include "storage/tree.h"
#include "storage/write_report.h"  // IWYU pragma: export

namespace relight::storage {

// Writes the tree below `root` as a torch.save file to `sink`, in one pass. Of a storage much
// larger than what its tensors view, only that part is written. Nothing reaches the sink before it
// is known what can be written.
//
// left_out lists opaque objects, unsupported tensors and the metadata of a safetensors file. A list
// or tuple that holds such a value goes as a whole, up to the nearest dict entry around it.
// converted lists numpy scalars, which are written as Python numbers.
//
// Errors: INVALID_ARGUMENT where the root cannot be written (or, lossless, anything), PICKLE_CYCLE,
// LIMIT_EXCEEDED, DATA_LOSS where the source gives more or fewer bytes than it said, and whatever
// the source or the sink says.
absl::StatusOr<WriteReport> WriteCheckpoint(const Tree& tree, NodeId root,
                                            const StorageSource& source,
                                            const WriteOptions& options, const ByteSink& sink);

// How many bytes WriteCheckpoint would give to its sink. Reads no tensors.
absl::StatusOr<std::uint64_t> PredictCheckpointBytes(const Tree& tree, NodeId root,
                                                     const StorageSource& source,
                                                     const WriteOptions& options = {});

// The storages whose bytes WriteCheckpoint asks `source` for, in ascending order.
absl::StatusOr<std::vector<std::uint32_t>> NeededStorages(const Tree& tree, NodeId root);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WRITER_H_
