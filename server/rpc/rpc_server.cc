#include "server/rpc/rpc_server.h"

#include <google/protobuf/stubs/common.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/rpc/admin_io.h"
#include "server/rpc/admin_service.h"
#include "server/rpc/admin_socket.h"
#include "server/rpc/concat.h"
#include "server/rpc/grpc_log.h"
#include "server/rpc/health_service.h"
#include "server/rpc/infer_call.h"
#include "server/rpc/inference_service.h"
#include "server/rpc/malformed_calls.h"
#include "server/rpc/metrics_endpoint.h"

namespace relight::rpc {
namespace {

constexpr std::uint64_t kMinMessageBytes = std::uint64_t{64} << 20;
// What a message has beside its tensors: names, shapes, parameters.
constexpr std::uint64_t kMessageSlackBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kMaxMessageBytes = std::numeric_limits<std::int32_t>::max();

// A connection that has said nothing by then is closed.
constexpr int kHandshakeTimeoutMs = 5'000;
// How often a silent peer is asked whether it is still there. gRPC waits 20 s for the answer.
constexpr int kKeepaliveMs = 60'000;
// How long clients are still told that the server drains. Once gRPC shuts down it answers what
// arrives with CANCELLED, which nobody takes for "ask another".
constexpr absl::Duration kRefusing = absl::Milliseconds(250);
// For last bytes and farewells, when everybody has been answered.
constexpr absl::Duration kGoodbye = absl::Seconds(1);

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
    TakeOverGrpcLog();
    grpc::EnableDefaultHealthCheckService(false);
#if GOOGLE_PROTOBUF_VERSION < 4022000
    // It would write a line of its own to stderr for every malformed message that a client sends;
    // the client is told, and newer versions are silent.
    google::protobuf::SetLogHandler(nullptr);
#endif
    // Debian builds Abseil with its search for deadlocks on: each lock that gRPC takes while it
    // holds another would go through one graph of all locks, behind one spin lock.
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
    // Reflection can only describe what is linked.
    grpc::health::v1::HealthCheckRequest::descriptor();
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
        public_service_({options.allow_model_control, options.server_name, options.server_version},
                        environment_, health_, pools_),
        local_service_({/*allow_model_control=*/true, options.server_name, options.server_version},
                       environment_, health_, pools_),
        admin_service_(core, options.server_version, absl::Now(), pools_,
                       options.transfer_stall_limit) {}

  ~RpcServerImpl() override {
    if (!stopped_) DrainAndStop(absl::Now());
  }

  absl::Status Start() {
    PrepareLibrary();
    RELIGHT_RETURN_IF_ERROR(StartMetrics());
    RELIGHT_RETURN_IF_ERROR(StartAdmin());
    RELIGHT_RETURN_IF_ERROR(StartPublic());
    subscription_ = core_.Subscribe([this](const std::string& model) {
      health_.Update();
      admin_service_.ModelChanged(model);
    });
    started_ = true;
    // What changed before the subscription.
    health_.Update();
    for (const std::string& model : core_.ModelNames()) admin_service_.ModelChanged(model);
    return absl::OkStatus();
  }

  int grpc_port() const override { return grpc_port_; }
  int metrics_port() const override { return metrics_port_; }
  int admin_port() const override { return admin_port_; }

  bool DrainAndStop(absl::Time deadline) override {
    stopped_ = true;
    health_.StartDraining();
    if (started_) core_.Drain(deadline);
    EndOpenCalls();
    const bool answered = WaitForAnswers(deadline);
    absl::SleepFor(std::clamp(deadline - absl::Now(), absl::ZeroDuration(), kRefusing));
    // gRPC would wait 20 s for peers that are gone or have nothing to say.
    const absl::Time end = answered ? std::min(deadline, absl::Now() + kGoodbye) : deadline;
    ShutDown(public_server_.get(), end);
    ShutDown(admin_server_.get(), end);
    WaitForCalls();
    public_server_.reset();
    admin_server_.reset();
    admin_socket_.reset();
    metrics_.reset();
    return answered;
  }

 private:
  // For a server of `services`, by their full names.
  void Configure(grpc::ServerBuilder& builder, const std::vector<std::string>& services) const {
    // Without this a second daemon would silently share the port.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    // Clients may keep connections alive as often as this.
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    // gRPC would inflate a message before it looks at its size: one of a megabyte could
    // ask for a gigabyte.
    builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
    builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
    builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    // Up to twice the limit reaches our own check, whose message names the flag; gRPC cuts off what
    // is larger still.
    builder.SetMaxReceiveMessageSize(
        static_cast<int>(std::min(2 * environment_.max_message_bytes, kMaxMessageBytes)));
    builder.SetMaxSendMessageSize(-1);
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
    creators.push_back(std::make_unique<MalformedCalls>(services));
    builder.experimental().SetInterceptorCreators(std::move(creators));
  }

  // Those that would not end by themselves. From here on calls are late.
  void EndOpenCalls() {
    subscription_.reset();
    environment_.calls.Close();
    public_service_.EndStreams();
    local_service_.EndStreams();
    health_.EndWatches();
    admin_service_.EndOpenCalls();
  }

  // Whether all who were in time have their answer.
  bool WaitForAnswers(absl::Time deadline) {
    return environment_.calls.WaitInTime(deadline) && public_service_.WaitStreamsInTime(deadline) &&
           local_service_.WaitStreamsInTime(deadline) && health_.WaitWatchesInTime(deadline) &&
           pools_.WaitIdle(deadline) && admin_service_.WaitCallsInTime(deadline);
  }

  // Calls that are open at the deadline are cancelled.
  static void ShutDown(grpc::Server* server, absl::Time deadline) {
    if (server != nullptr) server->Shutdown(ToGrpcDeadline(deadline));
  }

  // Every reactor must be gone before its server is; cancelled ones wait only for work under way.
  void WaitForCalls() {
    pools_.Stop();
    environment_.calls.WaitNone();
    public_service_.WaitStreamsDone();
    local_service_.WaitStreamsDone();
    health_.WaitWatchesDone();
    admin_service_.WaitCallsDone();
  }

  absl::Status StartMetrics() {
    if (options_.metrics_port < 0) return absl::OkStatus();
    RELIGHT_ASSIGN_OR_RETURN(
        metrics_, StartMetricsEndpoint(JoinAddress(options_.metrics_address, options_.metrics_port),
                                       [this] { return CollectMetrics(); }));
    metrics_port_ = metrics_->port();
    return absl::OkStatus();
  }

  MetricsInput CollectMetrics() const {
    MetricsInput input;
    input.models = core_.GetModelStatistics();
    if (auto versions = core_.GetStatistics("", std::nullopt); versions.ok()) {
      input.versions = *std::move(versions);
    }
    input.ready = core_.IsReady() && !health_.draining();
    input.server_version = options_.server_version;
    return input;
  }

  absl::Status StartAdmin() {
    const bool tcp = options_.admin_port >= 0;
    if (!tcp && options_.admin_socket.empty()) return absl::OkStatus();
    grpc::ServerBuilder builder;
    Configure(builder, {v1::Admin::service_full_name(), InferenceProtocol::service_full_name(),
                        grpc::health::v1::Health::service_full_name()});
    int socket_bound = 0;
    if (!options_.admin_socket.empty()) {
      RELIGHT_ASSIGN_OR_RETURN(admin_socket_, AdminSocket::Prepare(options_.admin_socket));
      builder.AddListeningPort(admin_socket_->grpc_target(), grpc::InsecureServerCredentials(),
                               &socket_bound);
    }
    const std::string address = JoinAddress("127.0.0.1", options_.admin_port);
    if (tcp) {
      builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &admin_port_);
    }
    builder.RegisterService(&admin_service_);
    builder.RegisterService(&local_service_);
    builder.RegisterService(&health_);
    admin_server_ = builder.BuildAndStart();
    if (tcp && (admin_server_ == nullptr || admin_port_ <= 0)) {
      return CannotListen(address, "--admin-port");
    }
    if (admin_socket_ == nullptr) return absl::OkStatus();
    if (admin_server_ == nullptr || socket_bound <= 0) {
      return CannotListen(Escape(options_.admin_socket), "--admin-socket");
    }
    return admin_socket_->Publish();
  }

  static absl::Status CannotListen(const std::string& address, std::string_view flags) {
    return absl::UnavailableError(Concat("cannot listen on ", address,
                                         ": it is in use, or the address is not this machine's (",
                                         flags, ")"));
  }

  absl::Status StartPublic() {
    grpc::ServerBuilder builder;
    Configure(builder, {InferenceProtocol::service_full_name(),
                        grpc::health::v1::Health::service_full_name()});
    const std::string address = JoinAddress(options_.grpc_address, options_.grpc_port);
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &grpc_port_);
    builder.RegisterService(&public_service_);
    builder.RegisterService(&health_);
    public_server_ = builder.BuildAndStart();
    if (public_server_ != nullptr && grpc_port_ > 0) return absl::OkStatus();
    return CannotListen(address, "--grpc-address, --grpc-port");
  }

  const RpcOptions options_;
  serving::ServerCore& core_;
  InferEnvironment environment_;
  HealthService health_;
  AdminPools pools_;
  InferenceService public_service_;
  InferenceService local_service_;
  AdminService admin_service_;
  std::unique_ptr<serving::ServerCore::Subscription> subscription_;
  std::unique_ptr<MetricsEndpoint> metrics_;
  std::unique_ptr<AdminSocket> admin_socket_;
  std::unique_ptr<grpc::Server> admin_server_;
  std::unique_ptr<grpc::Server> public_server_;
  int grpc_port_ = 0;
  int metrics_port_ = -1;
  int admin_port_ = -1;
  bool started_ = false;
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
