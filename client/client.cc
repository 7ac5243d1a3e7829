// Client: the calls of the inference and the health service.
#include "relight/client.h"

#include <grpcpp/support/client_callback.h>

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/channel.h"
#include "client/infer_messages.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "inference/grpc_service.grpc.pb.h"

namespace relight::client {
namespace {

using inference::GRPCInferenceService;
namespace health = grpc::health::v1;

std::string VersionText(const std::optional<std::int64_t>& version) {
  return version.has_value() ? absl::StrCat(*version) : std::string();
}

Health FromMessage(const health::HealthCheckResponse& message) {
  switch (message.status()) {
    case health::HealthCheckResponse::SERVING:
      return Health::kServing;
    case health::HealthCheckResponse::NOT_SERVING:
      return Health::kNotServing;
    case health::HealthCheckResponse::SERVICE_UNKNOWN:
      return Health::kServiceUnknown;
    default:
      return Health::kUnknown;
  }
}

struct AsyncCall {
  AsyncCall(const ConnectOptions& connection, const CallOptions& options)
      : context(connection, options) {}

  CallContext context;
  inference::ModelInferRequest request;
  inference::ModelInferResponse response;
  std::function<void(absl::StatusOr<InferResponse>)> done;
};

absl::StatusOr<InferResponse> Outcome(const grpc::Status& status,
                                      inference::ModelInferResponse response) {
  RELIGHT_RETURN_IF_ERROR(FromGrpc(status));
  return client::FromMessage(std::move(response));
}

}  // namespace

struct Client::Impl {
  Impl(std::shared_ptr<grpc::Channel> open_channel, const ConnectOptions& connect_options)
      : channel(std::move(open_channel)),
        options(connect_options),
        inference(GRPCInferenceService::NewStub(channel)),
        health(health::Health::NewStub(channel)) {}

  ~Impl() {
    // Cancelling may finish a call on this very thread, so not under the lock.
    for (const std::shared_ptr<AsyncCall>& call : UnderWay()) call->context.Cancel();
    MutexLock lock(mutex);
    while (!calls.empty()) calls_changed.Wait(mutex);
  }

  std::vector<std::shared_ptr<AsyncCall>> UnderWay() {
    MutexLock lock(mutex);
    std::vector<std::shared_ptr<AsyncCall>> list;
    for (const auto& [key, call] : calls) list.push_back(call);
    return list;
  }

  // One unary call through a generated method of a stub.
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(Stub& stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                const Request& request, const CallOptions& call_options) {
    CallContext context(options, call_options);
    Response response;
    RELIGHT_RETURN_IF_ERROR(FromGrpc((stub.*method)(context.get(), request, &response)));
    return response;
  }

  // On a thread of gRPC's, which must not be left with the last that holds the channel: that ends
  // when this object does, and then gRPC waits for its threads.
  void Finish(AsyncCall* call, const grpc::Status& status) {
    std::exchange(call->done, {})(Outcome(status, std::move(call->response)));
    MutexLock lock(mutex);
    calls.erase(call);
    calls_changed.SignalAll();
  }

  const std::shared_ptr<grpc::Channel> channel;
  const ConnectOptions options;
  const std::unique_ptr<GRPCInferenceService::Stub> inference;
  const std::unique_ptr<health::Health::Stub> health;

  Mutex mutex;
  CondVar calls_changed;
  // Under way.
  std::map<AsyncCall*, std::shared_ptr<AsyncCall>> calls ABSL_GUARDED_BY(mutex);
};

absl::StatusOr<Client> Client::Connect(const std::string& target, const ConnectOptions& options) {
  RELIGHT_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel, OpenChannel(target, options));
  return Client(std::make_unique<Impl>(std::move(channel), options));
}

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

absl::StatusOr<InferResponse> Client::Infer(InferRequest request, const CallOptions& options) {
  RELIGHT_ASSIGN_OR_RETURN(const inference::ModelInferRequest message,
                           ToMessage(std::move(request)));
  CallContext context(impl_->options, options);
  inference::ModelInferResponse response;
  const grpc::Status status = impl_->inference->ModelInfer(context.get(), message, &response);
  return Outcome(status, std::move(response));
}

void Client::InferAsync(InferRequest request,
                        std::function<void(absl::StatusOr<InferResponse>)> done,
                        const CallOptions& options) {
  absl::StatusOr<inference::ModelInferRequest> message = ToMessage(std::move(request));
  if (!message.ok()) {
    done(message.status());
    return;
  }
  auto call = std::make_shared<AsyncCall>(impl_->options, options);
  call->request = *std::move(message);
  call->done = std::move(done);
  {
    MutexLock lock(impl_->mutex);
    impl_->calls.emplace(call.get(), call);
  }
  Impl* const impl = impl_.get();
  impl->inference->async()->ModelInfer(
      call->context.get(), &call->request, &call->response,
      [impl, key = call.get()](const grpc::Status& status) { impl->Finish(key, status); });
}

absl::StatusOr<bool> Client::ServerLive(const CallOptions& options) {
  RELIGHT_ASSIGN_OR_RETURN(const auto response,
                           impl_->Call(*impl_->inference, &GRPCInferenceService::Stub::ServerLive,
                                       inference::ServerLiveRequest(), options));
  return response.live();
}

absl::StatusOr<bool> Client::ServerReady(const CallOptions& options) {
  RELIGHT_ASSIGN_OR_RETURN(const auto response,
                           impl_->Call(*impl_->inference, &GRPCInferenceService::Stub::ServerReady,
                                       inference::ServerReadyRequest(), options));
  return response.ready();
}

absl::StatusOr<bool> Client::ModelReady(const std::string& model,
                                        std::optional<std::int64_t> version,
                                        const CallOptions& options) {
  inference::ModelReadyRequest request;
  request.set_name(model);
  request.set_version(VersionText(version));
  RELIGHT_ASSIGN_OR_RETURN(
      const auto response,
      impl_->Call(*impl_->inference, &GRPCInferenceService::Stub::ModelReady, request, options));
  return response.ready();
}

absl::StatusOr<client::ServerMetadata> Client::ServerMetadata(const CallOptions& options) {
  RELIGHT_ASSIGN_OR_RETURN(
      const auto response,
      impl_->Call(*impl_->inference, &GRPCInferenceService::Stub::ServerMetadata,
                  inference::ServerMetadataRequest(), options));
  return client::ServerMetadata{response.name(),
                                response.version(),
                                {response.extensions().begin(), response.extensions().end()}};
}

absl::StatusOr<client::ModelMetadata> Client::ModelMetadata(const std::string& model,
                                                            std::optional<std::int64_t> version,
                                                            const CallOptions& options) {
  inference::ModelMetadataRequest request;
  request.set_name(model);
  request.set_version(VersionText(version));
  RELIGHT_ASSIGN_OR_RETURN(
      const auto response,
      impl_->Call(*impl_->inference, &GRPCInferenceService::Stub::ModelMetadata, request, options));
  return client::FromMessage(response);
}

absl::StatusOr<std::vector<VersionStatistics>> Client::Statistics(const std::string& model,
                                                                  const CallOptions& options) {
  inference::ModelStatisticsRequest request;
  request.set_name(model);
  RELIGHT_ASSIGN_OR_RETURN(
      const auto response,
      impl_->Call(*impl_->inference, &GRPCInferenceService::Stub::ModelStatistics, request,
                  options));
  return client::FromMessage(response);
}

absl::StatusOr<std::vector<IndexEntry>> Client::RepositoryIndex(bool only_ready,
                                                                const CallOptions& options) {
  inference::RepositoryIndexRequest request;
  request.set_ready(only_ready);
  RELIGHT_ASSIGN_OR_RETURN(
      const auto response,
      impl_->Call(*impl_->inference, &GRPCInferenceService::Stub::RepositoryIndex, request,
                  options));
  std::vector<IndexEntry> entries;
  for (const auto& model : response.models()) {
    entries.push_back({model.name(), model.version(), model.state(), model.reason()});
  }
  return entries;
}

absl::StatusOr<Health> Client::CheckHealth(const std::string& service, const CallOptions& options) {
  health::HealthCheckRequest request;
  request.set_service(service);
  RELIGHT_ASSIGN_OR_RETURN(
      const auto response,
      impl_->Call(*impl_->health, &health::Health::Stub::Check, request, options));
  return FromMessage(response);
}

absl::Status Client::WatchHealth(const std::string& service,
                                 const std::function<bool(Health)>& changed,
                                 const CallOptions& options) {
  health::HealthCheckRequest request;
  request.set_service(service);
  CallContext context(impl_->options, options);
  const auto reader = impl_->health->Watch(context.get(), request);
  health::HealthCheckResponse response;
  while (reader->Read(&response)) {
    if (changed(FromMessage(response))) continue;
    context.Cancel();
    reader->Finish();  // CANCELLED, by us.
    return absl::OkStatus();
  }
  return FromGrpc(reader->Finish());
}

}  // namespace relight::client
