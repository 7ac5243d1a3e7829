#include "server/config/config_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/unique_fd.h"

namespace relight::config {
namespace {

std::string ErrorText(int error) { return std::generic_category().message(error); }

absl::Status OpenError(const std::string& name, int error) {
  const std::string message = absl::StrCat(name, ": ", ErrorText(error));
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  if (error == ELOOP || error == ENXIO || error == ENAMETOOLONG) {
    return absl::InvalidArgumentError(message);
  }
  return absl::UnavailableError(message);
}

}  // namespace

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, std::size_t max_bytes) {
  const std::string name = Escape(path, 512);
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (!fd.valid()) return OpenError(name, errno);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return OpenError(name, errno);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": not a regular file"));
  }
  std::string content;
  char buffer[16384];
  while (content.size() <= max_bytes) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof(buffer));
    if (n == 0) return content;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return absl::UnavailableError(absl::StrCat(name, ": ", ErrorText(errno)));
    }
    content.append(buffer, static_cast<std::size_t>(n));
  }
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": more than ", max_bytes, " bytes, the most that is read"));
}

}  // namespace relight::config
