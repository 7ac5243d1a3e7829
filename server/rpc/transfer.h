// What pushes and downloads have in common.
#ifndef RELIGHT_SERVER_RPC_TRANSFER_H_
#define RELIGHT_SERVER_RPC_TRANSFER_H_

#include <cstddef>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/rpc/admin_io.h"
#include "server/serving/server_core.h"

namespace relight::rpc {

inline constexpr std::size_t kMaxChunkBytes = std::size_t{1} << 20;

// Outlives the calls.
struct TransferEnvironment {
  serving::ServerCore& core;
  AdminPools& pools;
  // A peer that lets the server wait for longer is cut off.
  absl::Duration stall_limit;
};

inline absl::Status ClientGone() { return absl::CancelledError("the client has gone"); }
inline absl::Status ShuttingDown() { return absl::UnavailableError("the server is shutting down"); }

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_TRANSFER_H_
