// absl::Status for gRPC: the same code, and a message that fits into a trailer.
#ifndef RELIGHT_SERVER_RPC_GRPC_STATUS_H_
#define RELIGHT_SERVER_RPC_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "server/rpc/concat.h"
#include "server/rpc/status_text.h"

namespace relight::rpc {

inline grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), FitTrailer(MessageOf(status))};
}

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_GRPC_STATUS_H_
