// Answers a unary call from a thread that may wait.
#ifndef RELIGHT_SERVER_RPC_RUN_ON_H_
#define RELIGHT_SERVER_RPC_RUN_ON_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <utility>

#include "absl/status/status.h"
#include "base/exception_fence.h"
#include "server/rpc/admin_io.h"
#include "server/rpc/grpc_status.h"

namespace relight::rpc {

// Runs `work`, which returns an absl::Status, on `io` and finishes the call with it. Where the
// client has gone meanwhile, or too many calls wait, `work` is not run.
template <typename Work>
grpc::ServerUnaryReactor* RunOn(AdminIo& io, grpc::CallbackServerContext* context, Work work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const bool accepted = io.Run([context, reactor, work = std::move(work)]() mutable {
    if (context->IsCancelled()) {
      reactor->Finish(grpc::Status::CANCELLED);
    } else {
      reactor->Finish(ToGrpcStatus(WithinFence("the call", work)));
    }
  });
  if (!accepted) reactor->Finish(ToGrpcStatus(TooBusy()));
  return reactor;
}

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_RUN_ON_H_
