#include "storage/file_identity.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "storage/error.h"
#include "storage/posix_error.h"

namespace relight::storage {
namespace {

std::uint64_t Hash(const FileIdentity& file) {
  const std::array<std::uint64_t, 5> fields = {
      file.device, file.inode, file.size_bytes,
      static_cast<std::uint64_t>(absl::ToUnixNanos(file.modified)),
      static_cast<std::uint64_t>(absl::ToUnixNanos(file.changed))};
  return XXH3_64bits(fields.data(), sizeof(fields));
}

}  // namespace

FileIdentity IdentityOf(const struct stat& info) {
  return {.device = info.st_dev,
          .inode = info.st_ino,
          .size_bytes = static_cast<std::uint64_t>(std::max<off_t>(info.st_size, 0)),
          .modified = absl::TimeFromTimespec(info.st_mtim),
          .changed = absl::TimeFromTimespec(info.st_ctim)};
}

absl::StatusOr<FileIdentity> IdentifyFile(const std::string& path) {
  struct stat info = {};
  if (::stat(path.c_str(), &info) == 0) return IdentityOf(info);
  const int error = errno;
  const std::string name = path.substr(path.find_last_of('/') + 1);
  return MakeError(ErrorCode::kIoError, absl::StrCat(Escape(name.empty() ? path : name),
                                                     ": cannot be examined: ", ErrorText(error)));
}

FileIdentity IdentityOfAll(absl::Span<const FileIdentity> files) {
  FileIdentity all = files.front();
  if (files.size() == 1) return all;
  all.size_bytes = 0;
  bool each_came_whole = true;
  for (const FileIdentity& file : files) {
    all.size_bytes += file.size_bytes;
    all.modified = std::max(all.modified, file.modified);
    all.changed = std::max(all.changed, file.changed);
    // A sum, so that the order does not matter.
    all.parts += Hash(file);
    each_came_whole = each_came_whole && file.changed > file.modified;
  }
  if (!each_came_whole) all.changed = all.modified;
  return all;
}

}  // namespace relight::storage
