// A regular file opened once for reading, and whether it is still the same.
#ifndef RELIGHT_STORAGE_INPUT_FILE_H_
#define RELIGHT_STORAGE_INPUT_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/unique_fd.h"
#include "storage/file_identity.h"

namespace relight::storage {

// Thread-safety: const methods may be called from several threads at once.
class InputFile {
 public:
  // Never blocks: a FIFO, device or folder of that name is refused (IO_ERROR).
  static absl::StatusOr<InputFile> Open(const std::string& path, std::uint64_t max_bytes);
  // `name` is a single component in the folder `folder_fd`; a symlink of that name is followed as
  // far as it stays in that folder (INDEX_INVALID where it leaves it).
  static absl::StatusOr<InputFile> OpenInFolder(int folder_fd, const std::string& name,
                                                std::uint64_t max_bytes);

  int fd() const { return fd_.get(); }
  const FileIdentity& identity() const { return identity_; }
  std::uint64_t size_bytes() const { return identity_.size_bytes; }
  // The base name, escaped: how messages call the file.
  const std::string& shown_name() const { return shown_name_; }

  // Fills all of `destination`; IO_ERROR where the file ends first or cannot be read.
  absl::Status ReadAt(std::uint64_t offset, absl::Span<std::byte> destination) const;
  absl::StatusOr<std::string> ReadText(std::uint64_t offset, std::uint64_t size_bytes) const;

  // IO_ERROR if the file behind the descriptor is not what it was when it was opened.
  absl::Status CheckUnchanged() const;
  // The same, but for what does not touch its contents: being deleted, renamed or linked.
  absl::Status CheckContentUnchanged() const;

 private:
  static absl::StatusOr<InputFile> Adopt(UniqueFd fd, std::string shown_name,
                                         std::uint64_t max_bytes);

  UniqueFd fd_;
  FileIdentity identity_;
  std::string shown_name_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_INPUT_FILE_H_
