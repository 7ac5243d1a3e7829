// Writing checkpoints that torch.load(weights_only=True) opens: the tree of a checkpoint, or parts
// of it, in the container layout of PyTorch 2.7 and later.
//
// Output is deterministic: the same tree and bytes give the same file. Memory use does not grow
// with the tensors: their bytes are streamed from a StorageSource.
#ifndef RELIGHT_STORAGE_WRITER_H_
#define RELIGHT_STORAGE_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "storage/atomic_file.h"  // IWYU pragma: export: where a checkpoint is written to.
#include "storage/dtype.h"
#include "storage/tree.h"

namespace relight::storage {

// Takes the bytes of a file in order.
using ByteSink = std::function<absl::Status(absl::Span<const std::byte>)>;

// Where the bytes of the tree's storages come from.
class StorageSource {
 public:
  virtual ~StorageSource() = default;
  // Streams storage `index` (Checkpoint::storages() of the checkpoint that the tree is from) in
  // order, exactly its size_bytes, little-endian.
  virtual absl::Status Stream(std::uint32_t index, const ByteSink& sink) const = 0;
  virtual std::uint64_t SizeBytes(std::uint32_t index) const = 0;
  virtual DType ElementType(std::uint32_t index) const = 0;
  // Matters only where the storage itself, without a tensor, is a value in the tree.
  virtual bool IsUntyped(std::uint32_t /*index*/) const { return false; }
};

struct WriteOptions {
  // Refuse (INVALID_ARGUMENT, listing all) instead of leaving out what cannot be written safely.
  bool lossless = false;
};

struct WriteReport {
  // "/path/in/the/tree: class" of what was left out: opaque objects, unsupported tensors. A list or
  // tuple that holds such a value goes as a whole, up to the nearest dict entry around it.
  std::vector<std::string> left_out;
  // numpy scalars written as Python numbers, and the like.
  std::vector<std::string> converted;
};

// Writes the tree below `root` as a torch.save file to `sink`, in one pass. Of a storage much
// larger than what its tensors view, only that part is written. Nothing reaches the sink before it
// is known what can be written.
//
// Errors: INVALID_ARGUMENT where the root cannot be written (or, lossless, anything), PICKLE_CYCLE,
// LIMIT_EXCEEDED, DATA_LOSS where the source gives more or fewer bytes than it said, and whatever
// the source or the sink says.
absl::StatusOr<WriteReport> WriteCheckpoint(const Tree& tree, NodeId root,
                                            const StorageSource& source,
                                            const WriteOptions& options, const ByteSink& sink);

// How many bytes WriteCheckpoint would give to its sink. Reads no tensors.
absl::StatusOr<std::uint64_t> PredictCheckpointBytes(const Tree& tree, NodeId root,
                                                     const StorageSource& source);

// The storages whose bytes WriteCheckpoint asks `source` for, in ascending order.
absl::StatusOr<std::vector<std::uint32_t>> NeededStorages(const Tree& tree, NodeId root);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WRITER_H_
