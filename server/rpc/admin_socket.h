// The admin service's Unix socket: only its owner may open it from the moment it exists, and only
// one daemon listens on it.
//
// gRPC binds the socket below a folder that only the owner can enter; then it gets mode 0600 and is
// renamed to where clients look for it. (A umask would hold for every thread of the process.)
//
// Thread-compatible.
#ifndef RELIGHT_SERVER_RPC_ADMIN_SOCKET_H_
#define RELIGHT_SERVER_RPC_ADMIN_SOCKET_H_

#include <sys/types.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace relight::rpc {

class AdminSocket {
 public:
  // Makes the parent folder (mode 0700) where it is missing and a private folder in it. UNAVAILABLE
  // where another process listens at `path`; INVALID_ARGUMENT where the path is too long for a
  // socket or something else than a socket is there. A socket that nobody listens on is replaced.
  static absl::StatusOr<std::unique_ptr<AdminSocket>> Prepare(const std::string& path);

  ~AdminSocket();  // Removes what it has made, unless someone else's socket is there by now.
  AdminSocket(const AdminSocket&) = delete;
  AdminSocket& operator=(const AdminSocket&) = delete;

  // Where to bind.
  std::string grpc_target() const;
  // Call once it is bound.
  absl::Status Publish();

 private:
  AdminSocket(std::string path, std::string private_folder);

  const std::string path_;
  const std::string private_folder_;
  const std::string bound_path_;
  bool published_ = false;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_ADMIN_SOCKET_H_
