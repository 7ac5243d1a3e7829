// The listeners: inference (public), admin (Unix socket, and TCP where asked for), metrics (HTTP).
#ifndef RELIGHT_SERVER_RPC_RPC_SERVER_H_
#define RELIGHT_SERVER_RPC_RPC_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/serving/server_core.h"

namespace relight::rpc {

struct RpcOptions {
  std::string grpc_address = "0.0.0.0";
  int grpc_port = 8001;  // 0: any free one.
  std::string metrics_address = "0.0.0.0";
  int metrics_port = 8002;   // 0: any free one; negative: none.
  std::string admin_socket;  // Path; made with mode 0600. Empty: none.
  int admin_port = -1;       // On loopback; 0: any free one; negative: none.
  bool allow_model_control = false;
  // The largest request. 0: what the core's models need at the start, and at least 64 MiB, so that
  // a model whose config changes later seldom needs a restart.
  std::uint64_t max_message_bytes = 0;
  // A client that sends nothing of a push, or takes nothing of a download, for longer is cut off.
  absl::Duration transfer_stall_limit = absl::Seconds(60);
  std::string server_name = "relight";
  std::string server_version;
};

// Thread-safe.
class RpcServer {
 public:
  virtual ~RpcServer() = default;

  virtual int grpc_port() const = 0;
  virtual int metrics_port() const = 0;  // Negative: none.
  virtual int admin_port() const = 0;    // Negative: none.

  // Health says NOT_SERVING, the core drains, requests in flight finish, streams are ended, then
  // the listeners close. Returns when done; at `deadline` what is left is cut off. Whether nothing
  // was that had come in time. Call once.
  virtual bool DrainAndStop(absl::Time deadline) = 0;
};

// `core` must outlive the server. UNAVAILABLE where a port or socket is in use, naming it and the
// flag that changes it.
absl::StatusOr<std::unique_ptr<RpcServer>> StartRpcServer(const RpcOptions& options,
                                                          serving::ServerCore& core);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_RPC_SERVER_H_
