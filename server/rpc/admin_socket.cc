#include "server/rpc/admin_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_replace.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "server/rpc/concat.h"

namespace relight::rpc {
namespace {

constexpr std::size_t kMaxPathBytes = sizeof(sockaddr_un{}.sun_path) - 1;
constexpr std::string_view kPrivateTemplate = ".rXXXXXX";
constexpr std::string_view kBoundName = "/s";

std::string Subject(const std::string& path) { return Concat("admin socket ", Escape(path)); }

absl::Status SystemError(const std::string& subject, std::string_view what, int error) {
  const std::string message =
      Concat(subject, ": cannot ", what, ": ", std::strerror(error), " (--admin-socket)");
  if (error == EACCES || error == EPERM) return absl::PermissionDeniedError(message);
  if (error == ENOENT || error == ENOTDIR) return absl::NotFoundError(message);
  return absl::UnavailableError(message);
}

std::string ParentOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status CheckLength(const std::string& path) {
  const std::size_t private_size =
      ParentOf(path).size() + 1 + kPrivateTemplate.size() + kBoundName.size();
  const std::size_t longest = std::max(path.size(), private_size);
  if (longest <= kMaxPathBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(Concat(Subject(path), ": the path is ", longest - kMaxPathBytes,
                                           " bytes too long, a socket's has at most ",
                                           kMaxPathBytes,
                                           "; choose a shorter folder (--admin-socket)"));
}

absl::Status MakeFolders(const std::string& path) {
  const std::string parent = ParentOf(path);
  for (std::size_t at = 0; at != std::string::npos;) {
    at = parent.find('/', at + 1);
    const std::string folder = parent.substr(0, at);
    if (::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST) continue;
    // On the way down a folder may be out of our hands and still lead to one that is not.
    if (at == std::string::npos || (errno != EACCES && errno != EROFS && errno != EPERM)) {
      return SystemError(Subject(path), Concat("make the folder ", Escape(folder)), errno);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckNobodyListens(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return SystemError(Subject(path), "look at it", errno);
  }
  if (!S_ISSOCK(info.st_mode)) {
    return absl::InvalidArgumentError(
        Concat(Subject(path), ": there is something else than a socket (--admin-socket)"));
  }
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return SystemError(Subject(path), "make a socket", errno);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const bool connected =
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  // EAGAIN: someone listens, and its queue is full.
  if (connected || errno == EAGAIN) {
    return absl::UnavailableError(
        Concat(Subject(path), ": in use by another process (--admin-socket)"));
  }
  if (errno == ECONNREFUSED || errno == ENOENT) return absl::OkStatus();
  return SystemError(Subject(path), "tell whether it is in use", errno);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AdminSocket>> AdminSocket::Prepare(const std::string& path) {
  RELIGHT_RETURN_IF_ERROR(CheckLength(path));
  RELIGHT_RETURN_IF_ERROR(MakeFolders(path));
  RELIGHT_RETURN_IF_ERROR(CheckNobodyListens(path));
  std::string folder = Concat(ParentOf(path), "/", kPrivateTemplate);
  if (::mkdtemp(folder.data()) == nullptr) {
    return SystemError(Subject(path), "make a folder beside it", errno);
  }
  return std::unique_ptr<AdminSocket>(new AdminSocket(path, std::move(folder)));
}

AdminSocket::AdminSocket(std::string path, std::string private_folder)
    : path_(std::move(path)),
      private_folder_(std::move(private_folder)),
      bound_path_(Concat(private_folder_, kBoundName)) {}

AdminSocket::~AdminSocket() {
  ::unlink(bound_path_.c_str());
  ::rmdir(private_folder_.c_str());
  struct stat info {};
  if (published_ && ::lstat(path_.c_str(), &info) == 0 && info.st_dev == device_ &&
      info.st_ino == inode_) {
    ::unlink(path_.c_str());
  }
}

std::string AdminSocket::grpc_target() const {
  // gRPC takes the target for an URI and decodes it.
  return Concat("unix:", absl::StrReplaceAll(bound_path_, {{"%", "%25"}}));
}

absl::Status AdminSocket::Publish() {
  struct stat info {};
  if (::chmod(bound_path_.c_str(), 0600) != 0 || ::lstat(bound_path_.c_str(), &info) != 0 ||
      std::rename(bound_path_.c_str(), path_.c_str()) != 0) {
    return SystemError(Subject(path_), "put it in place", errno);
  }
  device_ = info.st_dev;
  inode_ = info.st_ino;
  published_ = true;
  ::rmdir(private_folder_.c_str());
  return absl::OkStatus();
}

}  // namespace relight::rpc
