// Writing checkpoints that torch.load(weights_only=True) opens: the tree of a checkpoint, or parts
// of it, in the container layout of PyTorch 2.7 and later.
//
// Output is deterministic: the same tree and bytes give the same file. Memory use does not grow with
// the tensors: their bytes are streamed from a StorageSource.
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
};

struct WriteOptions {
  // Refuse (INVALID_ARGUMENT, listing all) instead of leaving out what cannot be written safely.
  bool lossless = false;
};

struct WriteReport {
  // "/path/in/the/tree: class" of what was left out: opaque objects, unsupported tensors.
  std::vector<std::string> left_out;
  // numpy scalars written as Python numbers, and the like.
  std::vector<std::string> converted;
};

// Writes the tree below `root` as a torch.save file to `sink`, in one pass.
absl::StatusOr<WriteReport> WriteCheckpoint(const Tree& tree, NodeId root,
                                            const StorageSource& source, const WriteOptions& options,
                                            const ByteSink& sink);

// A file that appears whole or not at all: written under a temporary name beside `path` (ending in
// ".tmp", mode 0600), and moved there by Commit. Destroying it uncommitted removes the temporary.
//
// Thread-compatible.
class AtomicFile {
 public:
  // `folder_fd` confines: `relative_path` is resolved below it, through no symlink and no "..".
  // Missing folders on the way are made. ALREADY_EXISTS where the path does and `overwrite` is
  // false; checked again, atomically, by Commit.
  static absl::StatusOr<AtomicFile> Create(int folder_fd, const std::string& relative_path,
                                           bool overwrite);
  AtomicFile(AtomicFile&&) noexcept;
  AtomicFile& operator=(AtomicFile&&) noexcept;
  ~AtomicFile();

  absl::Status Write(absl::Span<const std::byte> bytes);
  // Flushes to the disk what was written, leaving the file under its temporary name: the moment to
  // read it back and verify it (through `temporary_path`).
  absl::Status Sync();
  // Renames it into place and flushes the folder.
  absl::Status Commit(unsigned mode = 0644);
  // Usable with open(2) while this object lives.
  std::string temporary_path() const;
  std::uint64_t written_bytes() const { return written_bytes_; }

 private:
  AtomicFile() = default;
  int parent_fd_ = -1;
  int fd_ = -1;
  std::string temporary_name_;
  std::string name_;
  bool overwrite_ = false;
  std::uint64_t written_bytes_ = 0;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WRITER_H_
