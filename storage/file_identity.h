// Tells whether a path still leads to the bytes that were read. Pure values, but for IdentifyFile.
#ifndef RELIGHT_STORAGE_FILE_IDENTITY_H_
#define RELIGHT_STORAGE_FILE_IDENTITY_H_

#include <sys/stat.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace relight::storage {

struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size_bytes = 0;
  absl::Time modified;
  absl::Time changed;       // ctime
  std::uint64_t parts = 0;  // A hash over the identities of several files; 0 of a single one.

  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

FileIdentity IdentityOf(const struct stat& info);

// stat of `path` as it is now (following symlinks). IO_ERROR.
absl::StatusOr<FileIdentity> IdentifyFile(const std::string& path);

// Of a checkpoint in several files, of which `files` has the index first and the others in any
// order: device and inode are the index's, the size is that of all, `modified` is the latest. It
// looks as if it had come by rename (changed after it was modified) only where each file does.
// REQUIRES: `files` is not empty.
FileIdentity IdentityOfAll(absl::Span<const FileIdentity> files);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_FILE_IDENTITY_H_
