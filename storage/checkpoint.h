// An open checkpoint file: its tree of values, and a way to the bytes of its tensors.
//
// Opening parses and validates everything but the tensor bytes; nothing in the file is ever
// executed (a pickle is data for a small stack machine of ours). The file is opened once, without
// blocking, must be a regular file, and is read with pread alone: never mapped, so that another
// process cannot truncate it under us.
//
//   RELIGHT_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(path, {}));
//   RELIGHT_ASSIGN_OR_RETURN(StateDict weights, FindStateDict(checkpoint, {}));
//
// Thread-safety: const methods may be called from several threads at once.
// Errors: storage/error.h has the codes.
#ifndef RELIGHT_STORAGE_CHECKPOINT_H_
#define RELIGHT_STORAGE_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "storage/dtype.h"
#include "storage/file_identity.h"
#include "storage/tree.h"

namespace relight::storage {

// Bounds on what a file may ask for. All are checked before anything of that size is allocated.
struct ReadLimits {
  std::uint64_t max_file_bytes = std::uint64_t{256} << 30;
  std::uint64_t max_entries = 1'048'576;
  std::uint64_t max_pickle_bytes = std::uint64_t{256} << 20;
  std::uint64_t max_nodes = 20'000'000;
  std::uint64_t max_stack_items = 1'000'000;
  std::uint64_t max_open_marks = 2'100;  // A value of max_depth takes one a level, and two more.
  std::uint64_t max_depth = 2'000;
  std::uint64_t max_expanded_nodes = 40'000'000;
  // Protocol 2 has no bytes: they travel as text, which takes up to two bytes for one.
  std::uint64_t max_string_bytes = std::uint64_t{128} << 20;
  std::uint64_t max_blob_bytes = std::uint64_t{64} << 20;
  std::uint64_t max_global_line_bytes = 1'024;
  std::uint64_t max_long_bytes = 256;
  std::uint64_t max_rank = 64;
  std::uint64_t max_tensor_bytes = std::uint64_t{1} << 40;
  // Logical bytes beyond what the storages hold, summed over the file: zero-stride bombs.
  std::uint64_t max_expanded_bytes = std::uint64_t{1} << 30;
};

struct ReadOptions {
  ReadLimits limits = {};
  bool require_crc = false;
  // Accept zip files with unlisted bytes between entries.
  bool zip_allow_gaps = false;
  // Refuse any class outside of what a state dict needs, as weights_only does.
  bool reject_unknown_globals = false;
};

enum class Format { kZip, kLegacyStream, kSafetensors, kShardedIndex };
std::string_view Name(Format format);

// One storage: a run of bytes in the file that tensors are views of.
struct StorageInfo {
  std::string key;              // "0", "1", ...
  DType dtype = DType::kUInt8;  // kUInt8 where untyped.
  bool untyped = false;
  std::uint64_t size_bytes = 0;
  // What follows size_bytes in the file: less than an element, covered by crc32, never read out.
  std::uint64_t tail_bytes = 0;
  std::string location;    // "cpu", "cuda:0", ...: where it lived when it was saved.
  std::uint32_t file = 0;  // Which of the checkpoint's files holds it: 0 unless it is sharded.
  std::uint64_t file_offset = 0;
  // How long the runs of bytes are that have to be reversed to be little-endian; 1: none.
  std::uint32_t swap_unit_bytes = 1;
  std::optional<std::uint32_t> crc32;  // Absent where the format or the writer gives none.
};

struct Summary {
  Format format = Format::kZip;
  std::optional<Format> shard_format;  // Of an index's first shard.
  std::string torch_version_guess;     // ">= 2.7", "1.6 to 2.0", ...
  bool crc_absent = false;             // Some record in use carries no CRC-32.
  bool big_endian = false;
  std::vector<std::string> locations;       // Distinct, in order of appearance.
  std::vector<std::string> opaque_classes;  // Distinct classes that were read as inert data.
  std::vector<std::string> notes;           // Whatever else an operator may want to know.

  // Of the file that holds the tensors.
  Format tensors_format() const { return shard_format.value_or(format); }
};

class InputFile;

class Checkpoint {
 public:
  static absl::StatusOr<Checkpoint> Open(const std::string& path, const ReadOptions& options = {});

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  const std::string& path() const;
  const Tree& tree() const;
  // The same tree, for who needs it after the file is closed (snapshots).
  std::shared_ptr<const Tree> shared_tree() const;
  const std::vector<StorageInfo>& storages() const;
  const Summary& summary() const;
  // Of the descriptors, taken when the files were opened (IdentityOfAll where it is sharded).
  const FileIdentity& identity() const;

  // Sees each chunk (a fraction of a MiB, in order) while it is still warm in the cache. A status
  // other than OK stops the read and is returned.
  using ChunkHook = std::function<absl::Status(std::uint64_t offset, absl::Span<const std::byte>)>;

  // Reads the whole of storage `index` into `destination` (exactly size_bytes), as little-endian
  // elements whatever the file's byte order, and verifies its CRC-32. `on_chunk` may be empty.
  absl::Status ReadStorage(std::size_t index, absl::Span<std::byte> destination,
                           const ChunkHook& on_chunk = {}) const;

  // The same in chunks of at most `buffer.size()` bytes (at least 64), for who needs no copy.
  absl::Status StreamStorage(std::size_t index, absl::Span<std::byte> buffer,
                             const ChunkHook& on_chunk) const;

  // IO_ERROR if the descriptor's file is not what it was when it was opened: someone writes to it.
  absl::Status CheckUnchanged() const;
  // The same, but for what leaves the contents alone: trainers that keep only the last few
  // checkpoints delete, rename and link them all the time.
  absl::Status CheckContentUnchanged() const;

  // The open files (storage/input_file.h): the one that was named and, behind an index, its shards.
  const std::vector<InputFile>& files() const;
  // The open descriptor of one of the files (StorageInfo::file), for copying parts of it elsewhere.
  // Stays owned by this object.
  int fd(std::uint32_t file = 0) const;

 private:
  struct Impl;
  explicit Checkpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_CHECKPOINT_H_
