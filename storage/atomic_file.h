// A file that appears whole or not at all.
#ifndef RELIGHT_STORAGE_ATOMIC_FILE_H_
#define RELIGHT_STORAGE_ATOMIC_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/unique_fd.h"

namespace relight::storage {

// Written under a temporary name beside its own (".NAME.relight-RANDOM.tmp": hidden, and certainly
// ours; mode 0600, locked while this object lives), and moved there by Commit. Destroying it
// uncommitted removes the temporary.
//
// Thread-compatible.
// Errors: INVALID_ARGUMENT for a path that may not be used, ALREADY_EXISTS, RESOURCE_EXHAUSTED for
// a full disk, quota or file size limit, PERMISSION_DENIED, UNAVAILABLE for I/O errors.
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

  // After an error only destroying makes sense.
  // Takes room for `bytes` on the disk, so that nobody else does, where the file system can.
  absl::Status Reserve(std::uint64_t bytes);
  absl::Status Write(absl::Span<const std::byte> bytes);
  // Flushes to the disk what was written, leaving the file under its temporary name: the moment to
  // read it back and verify it (through `temporary_path`).
  absl::Status Sync();
  // Renames it into place and flushes the folder. Nothing can be written afterwards. Where the last
  // step alone fails, it is in place all the same.
  absl::Status Commit(unsigned mode = 0644);
  bool is_in_place() const { return is_in_place_; }
  // Instead of committing: takes the name away, so that what was written lives for as long as the
  // descriptor is open, whatever becomes of the process. Its position is at the end.
  absl::StatusOr<UniqueFd> Unlink() &&;
  // Usable with open(2) while this object lives and is not committed.
  std::string temporary_path() const;
  std::uint64_t written_bytes() const { return written_bytes_; }

 private:
  AtomicFile() = default;
  absl::Status OpenTemporary();
  // "snapshot a/b.pt: <doing>"
  std::string Describe(std::string_view doing) const;
  void Discard();

  UniqueFd parent_;
  UniqueFd file_;
  std::string path_;            // As asked for.
  std::string name_;            // Its last component.
  std::string temporary_name_;  // Empty once committed.
  bool overwrite_ = false;
  bool failed_ = false;
  bool is_in_place_ = false;
  std::uint64_t written_bytes_ = 0;
};

// Says what is wrong with a path that is to be created below a folder: absolute, empty, "." or ".."
// components, a trailing slash, a NUL, or a name of our own temporaries. OK otherwise.
absl::Status CheckRelativePath(std::string_view path);

enum class Reach { kFolder, kTree };

// Removes temporaries in `folder_fd` (of kTree in its subfolders too, through no symlinks) that no
// living AtomicFile of any process holds: what a killed process left. Returns how many went.
absl::StatusOr<int> RemoveStaleTemporaries(int folder_fd, Reach reach = Reach::kTree);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_ATOMIC_FILE_H_
