// gRPC's own log lines, in the process's log. They quote what peers send: they pass the escape like
// every name from a client, or a client could write lines of its own.
#ifndef RELIGHT_SERVER_RPC_GRPC_LOG_H_
#define RELIGHT_SERVER_RPC_GRPC_LOG_H_

#include <grpc/support/log.h>

#include <string>

namespace relight::rpc {

// From now on gRPC logs here. Call before anything else of gRPC; thread-safe.
void TakeOverGrpcLog();

// What a line says, on one line. Pure.
std::string GrpcLogText(const gpr_log_func_args& line);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_GRPC_LOG_H_
