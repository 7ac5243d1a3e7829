// What Client and AdminClient share: a channel, and the context of one call.
#ifndef RELIGHT_CLIENT_CHANNEL_H_
#define RELIGHT_CLIENT_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "relight/options.h"

namespace relight::client {

// See Client::Connect.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& target,
                                                           const ConnectOptions& options);

absl::Status FromGrpc(const grpc::Status& status);

// A ClientContext that knows its deadline and who may stop it. One per call.
class CallContext {
 public:
  CallContext(const ConnectOptions& connection, const CallOptions& call);
  CallContext(const CallContext&) = delete;
  CallContext& operator=(const CallContext&) = delete;

  grpc::ClientContext* get() { return &context_; }
  void Cancel() { context_.TryCancel(); }

 private:
  struct Canceller {
    grpc::ClientContext* context;
    void operator()() const { context->TryCancel(); }
  };

  grpc::ClientContext context_;
  std::stop_callback<Canceller> on_stop_;
};

}  // namespace relight::client

#endif  // RELIGHT_CLIENT_CHANNEL_H_
