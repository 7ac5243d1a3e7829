#include "server/rpc/rpc_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "server/rpc/admin_io.h"
#include "server/rpc/concat.h"
#include "server/rpc/health_service.h"
#include "server/rpc/infer_call.h"
#include "server/rpc/inference_service.h"

namespace relight::rpc {
namespace {

constexpr std::uint64_t kMinMessageBytes = std::uint64_t{64} << 20;
// What a message has beside its tensors: names, shapes, parameters.
constexpr std::uint64_t kMessageSlackBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kMaxMessageBytes = std::numeric_limits<std::int32_t>::max();

std::uint64_t MessageLimit(const RpcOptions& options, const serving::ServerCore& core) {
  if (options.max_message_bytes > 0) return std::min(options.max_message_bytes, kMaxMessageBytes);
  const std::uint64_t needed = std::min(core.MaxRequestBytes(), kMaxMessageBytes);
  return std::clamp(needed + kMessageSlackBytes, kMinMessageBytes, kMaxMessageBytes);
}

std::string JoinAddress(const std::string& host, int port) {
  const bool bare_v6 = host.find(':') != std::string::npos && host.front() != '[';
  return bare_v6 ? Concat("[", host, "]:", port) : Concat(host, ":", port);
}

std::chrono::system_clock::time_point ToGrpcDeadline(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return std::chrono::system_clock::time_point::max();
  return absl::ToChronoTime(deadline);
}

void PrepareLibrary() {
  static const bool once = [] {
    grpc::EnableDefaultHealthCheckService(false);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  static_cast<void>(once);
}

class RpcServerImpl final : public RpcServer {
 public:
  RpcServerImpl(const RpcOptions& options, serving::ServerCore& core)
      : options_(options),
        core_(core),
        environment_{core, MessageLimit(options, core), {}},
        health_(core),
        queries_(1),
        actions_(2),
        public_service_({options.allow_model_control, options.server_name, options.server_version},
                        environment_, health_, queries_, actions_) {}

  ~RpcServerImpl() override {
    if (!stopped_) DrainAndStop(absl::Now());
  }

  absl::Status Start() {
    PrepareLibrary();
    RELIGHT_RETURN_IF_ERROR(StartPublic());
    subscription_ = core_.Subscribe([this](const std::string&) { health_.Update(); });
    health_.Update();
    return absl::OkStatus();
  }

  int grpc_port() const override { return grpc_port_; }
  int metrics_port() const override { return metrics_port_; }
  int admin_port() const override { return admin_port_; }

  void DrainAndStop(absl::Time deadline) override {
    stopped_ = true;
    health_.StartDraining();
    core_.Drain(deadline);
    subscription_.reset();
    public_service_.EndStreams();
    health_.EndWatches();
    if (public_server_ != nullptr) public_server_->Shutdown(ToGrpcDeadline(deadline));
    queries_.Stop();
    actions_.Stop();
    environment_.calls.WaitNone();
    public_service_.WaitStreamsDone();
    health_.WaitWatchesDone();
    public_server_.reset();
  }

 private:
  void Configure(grpc::ServerBuilder& builder) const {
    // Without this a second daemon would silently share the port.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    // Clients may keep connections alive as often as this.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    // Up to twice the limit reaches our own check, whose message names the flag; gRPC cuts off what
    // is larger still.
    builder.SetMaxReceiveMessageSize(
        static_cast<int>(std::min(2 * environment_.max_message_bytes, kMaxMessageBytes)));
    builder.SetMaxSendMessageSize(-1);
  }

  absl::Status StartPublic() {
    grpc::ServerBuilder builder;
    Configure(builder);
    const std::string address = JoinAddress(options_.grpc_address, options_.grpc_port);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &grpc_port_);
    builder.RegisterService(&public_service_);
    builder.RegisterService(&health_);
    public_server_ = builder.BuildAndStart();
    if (public_server_ != nullptr && grpc_port_ > 0) return absl::OkStatus();
    return absl::UnavailableError(Concat(
        "cannot listen on ", address,
        ": the port is in use or the address is not this machine's (--grpc-address, --grpc-port)"));
  }

  const RpcOptions options_;
  serving::ServerCore& core_;
  InferEnvironment environment_;
  HealthService health_;
  AdminIo queries_;  // Short ones, which must not wait behind a snapshot.
  AdminIo actions_;
  InferenceService public_service_;
  std::unique_ptr<serving::ServerCore::Subscription> subscription_;
  std::unique_ptr<grpc::Server> public_server_;
  int grpc_port_ = 0;
  int metrics_port_ = -1;
  int admin_port_ = -1;
  bool stopped_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> StartRpcServer(const RpcOptions& options,
                                                          serving::ServerCore& core) {
  auto server = std::make_unique<RpcServerImpl>(options, core);
  RELIGHT_RETURN_IF_ERROR(server->Start());
  return server;
}

}  // namespace relight::rpc
