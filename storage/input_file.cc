#include "storage/input_file.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/error.h"
#include "storage/posix_error.h"

namespace relight::storage {
namespace {

// O_NONBLOCK: opening a FIFO that nobody writes to must not hang.
constexpr int kOpenFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

// Follows symlinks that stay below the folder; where the kernel cannot say, none at all.
int OpenBeneath(int folder_fd, const char* name) {
  struct open_how how = {};
  how.flags = kOpenFlags;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
  const long fd = ::syscall(SYS_openat2, folder_fd, name, &how, sizeof(how));
  const bool unknown = fd < 0 && (errno == ENOSYS || errno == EPERM);
  return unknown ? ::openat(folder_fd, name, kOpenFlags | O_NOFOLLOW) : static_cast<int>(fd);
}

std::string BaseName(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  return name.empty() ? path : name;
}

std::string_view KindOf(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "no regular file";
}

}  // namespace

absl::StatusOr<InputFile> InputFile::Open(const std::string& path, std::uint64_t max_bytes) {
  std::string shown = Escape(BaseName(path));
  // An embedded NUL would open another file than the one that was named.
  if (path.find('\0') != std::string::npos) {
    return MakeError(ErrorCode::kIoError, absl::StrCat(shown, ": the path holds a NUL byte"));
  }
  UniqueFd fd(::open(path.c_str(), kOpenFlags));
  if (!fd.valid()) {
    return MakeError(ErrorCode::kIoError,
                     absl::StrCat(shown, ": cannot be opened: ", ErrorText(errno)));
  }
  return Adopt(std::move(fd), std::move(shown), max_bytes);
}

absl::StatusOr<InputFile> InputFile::OpenInFolder(int folder_fd, const std::string& name,
                                                  std::uint64_t max_bytes) {
  std::string shown = Escape(name);
  UniqueFd fd(OpenBeneath(folder_fd, name.c_str()));
  if (!fd.valid()) {
    const int error = errno;
    if (error == EXDEV || error == ELOOP) {
      return MakeError(
          ErrorCode::kIndexInvalid,
          absl::StrCat(shown,
                       ": is a symlink that leads out of the folder of its index: put the "
                       "file itself there"));
    }
    return MakeError(error == ENOENT ? ErrorCode::kMissingRecord : ErrorCode::kIoError,
                     absl::StrCat(shown, ": cannot be opened: ", ErrorText(error)));
  }
  return Adopt(std::move(fd), std::move(shown), max_bytes);
}

absl::StatusOr<InputFile> InputFile::Adopt(UniqueFd fd, std::string shown_name,
                                           std::uint64_t max_bytes) {
  struct stat status = {};
  if (::fstat(fd.get(), &status) != 0) {
    return MakeError(ErrorCode::kIoError,
                     absl::StrCat(shown_name, ": cannot be examined: ", ErrorText(errno)));
  }
  if (!S_ISREG(status.st_mode)) {
    return MakeError(ErrorCode::kNotACheckpoint,
                     absl::StrCat(shown_name, ": is ", std::string(KindOf(status.st_mode)),
                                  ", a checkpoint must be a regular file"));
  }
  InputFile file;
  file.fd_ = std::move(fd);
  file.identity_ = IdentityOf(status);
  file.shown_name_ = std::move(shown_name);
  if (file.size_bytes() > max_bytes) {
    return MakeError(ErrorCode::kLimitExceeded,
                     absl::StrCat(file.shown_name_, ": is ", file.size_bytes(),
                                  " bytes long, the limit is ", max_bytes));
  }
  return file;
}

absl::Status InputFile::ReadAt(std::uint64_t offset, absl::Span<std::byte> destination) const {
  // Linux reads at most 2 GiB - 4 KiB per call.
  constexpr std::size_t kMaxRead = std::size_t{1} << 30;
  while (!destination.empty()) {
    const ssize_t got = ::pread(fd_.get(), destination.data(),
                                std::min(destination.size(), kMaxRead), static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      return MakeError(ErrorCode::kIoError, absl::StrCat(shown_name_, ": reading at byte ", offset,
                                                         " failed: ", ErrorText(errno)));
    }
    if (got == 0) {
      return MakeError(
          ErrorCode::kIoError,
          absl::StrCat(shown_name_, ": ends at byte ", offset, " although it was ", size_bytes(),
                       " bytes long when it was opened: it is being written to"));
    }
    destination.remove_prefix(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> InputFile::ReadText(std::uint64_t offset,
                                                std::uint64_t size_bytes) const {
  std::string text(static_cast<std::size_t>(size_bytes), '\0');
  RELIGHT_RETURN_IF_ERROR(ReadAt(offset, {reinterpret_cast<std::byte*>(text.data()), text.size()}));
  return text;
}

absl::Status InputFile::CheckUnchanged() const {
  struct stat status = {};
  if (::fstat(fd_.get(), &status) != 0) {
    return MakeError(ErrorCode::kIoError,
                     absl::StrCat(shown_name_, ": cannot be examined: ", ErrorText(errno)));
  }
  if (IdentityOf(status) == identity_) return absl::OkStatus();
  return MakeError(ErrorCode::kIoError,
                   absl::StrCat(shown_name_, ": changed while it was being read (", size_bytes(),
                                " bytes before, ", static_cast<std::uint64_t>(status.st_size),
                                " now): someone writes to it"));
}

absl::Status InputFile::CheckContentUnchanged() const {
  absl::Status unchanged = CheckUnchanged();
  struct stat status = {};
  if (unchanged.ok() || ::fstat(fd_.get(), &status) != 0) return unchanged;
  const FileIdentity now = IdentityOf(status);
  const bool same = now.size_bytes == identity_.size_bytes && now.modified == identity_.modified;
  return same ? absl::OkStatus() : unchanged;
}

}  // namespace relight::storage
