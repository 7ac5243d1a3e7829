// AdminClient: the calls of relight.v1.Admin.
#include "relight/admin.h"

#include <utility>

#include "base/status_macros.h"
#include "client/admin_messages.h"
#include "client/channel.h"
#include "client/transfer.h"
#include "relight/v1/admin.grpc.pb.h"

namespace relight::client {

using AdminStub = v1::Admin::Stub;

struct AdminClient::Impl {
  Impl(const std::shared_ptr<grpc::Channel>& channel, const ConnectOptions& connect_options)
      : options(connect_options), stub(v1::Admin::NewStub(channel)) {}

  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (AdminStub::*method)(grpc::ClientContext*,
                                                                  const Request&, Response*),
                                const Request& request, const CallOptions& call_options) {
    CallContext context(options, call_options);
    Response response;
    RELIGHT_RETURN_IF_ERROR(FromGrpc((stub.get()->*method)(context.get(), request, &response)));
    return response;
  }

  const ConnectOptions options;
  const std::unique_ptr<AdminStub> stub;
};

absl::StatusOr<AdminClient> AdminClient::Connect(const std::string& target,
                                                 const ConnectOptions& options) {
  RELIGHT_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                           OpenChannel(target, options));
  return AdminClient(std::make_unique<Impl>(channel, options));
}

AdminClient::AdminClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AdminClient::AdminClient(AdminClient&&) noexcept = default;
AdminClient& AdminClient::operator=(AdminClient&&) noexcept = default;
AdminClient::~AdminClient() = default;

absl::StatusOr<ServerStatus> AdminClient::GetStatus(const std::string& model,
                                                    const CallOptions& options) {
  v1::GetStatusRequest request;
  request.set_model(model);
  RELIGHT_ASSIGN_OR_RETURN(const auto response,
                           impl_->Call(&AdminStub::GetStatus, request, options));
  return FromMessage(response);
}

absl::StatusOr<std::vector<HistoryEntry>> AdminClient::GetHistory(const std::string& model,
                                                                  std::uint32_t limit,
                                                                  const CallOptions& options) {
  v1::GetHistoryRequest request;
  request.set_model(model);
  request.set_limit(limit);
  RELIGHT_ASSIGN_OR_RETURN(const auto response,
                           impl_->Call(&AdminStub::GetHistory, request, options));
  std::vector<HistoryEntry> entries;
  for (const v1::HistoryEntry& entry : response.entries()) entries.push_back(FromMessage(entry));
  return entries;
}

absl::Status AdminClient::Watch(const std::string& model,
                                const std::function<bool(const ModelStatus&)>& changed,
                                const CallOptions& options) {
  v1::WatchRequest request;
  request.set_model(model);
  CallContext context(impl_->options, options);
  const auto reader = impl_->stub->Watch(context.get(), request);
  v1::ModelStatus message;
  while (reader->Read(&message)) {
    if (changed(FromMessage(message))) continue;
    context.Cancel();
    reader->Finish();  // CANCELLED, by us.
    return absl::OkStatus();
  }
  return FromGrpc(reader->Finish());
}

absl::StatusOr<ReloadResult> AdminClient::Reload(const std::string& model,
                                                 const CallOptions& options) {
  v1::ReloadRequest request;
  request.set_model(model);
  RELIGHT_ASSIGN_OR_RETURN(const auto response, impl_->Call(&AdminStub::Reload, request, options));
  return ReloadResult{FromMessage(response.status()), response.swapped()};
}

absl::StatusOr<ModelStatus> AdminClient::Pin(const std::string& model, std::int64_t version,
                                             const CallOptions& options) {
  v1::PinRequest request;
  request.set_model(model);
  request.set_version(version);
  RELIGHT_ASSIGN_OR_RETURN(const auto response, impl_->Call(&AdminStub::Pin, request, options));
  return FromMessage(response.status());
}

absl::StatusOr<ModelStatus> AdminClient::Unpin(const std::string& model,
                                               const CallOptions& options) {
  v1::UnpinRequest request;
  request.set_model(model);
  RELIGHT_ASSIGN_OR_RETURN(const auto response, impl_->Call(&AdminStub::Unpin, request, options));
  return FromMessage(response.status());
}

absl::StatusOr<ModelStatus> AdminClient::RollBack(const std::string& model,
                                                  const CallOptions& options) {
  v1::RollBackRequest request;
  request.set_model(model);
  RELIGHT_ASSIGN_OR_RETURN(const auto response,
                           impl_->Call(&AdminStub::RollBack, request, options));
  return FromMessage(response.status());
}

absl::StatusOr<ModelStatus> AdminClient::Unload(const std::string& model,
                                                const CallOptions& options) {
  v1::UnloadRequest request;
  request.set_model(model);
  RELIGHT_ASSIGN_OR_RETURN(const auto response, impl_->Call(&AdminStub::Unload, request, options));
  return FromMessage(response.status());
}

absl::StatusOr<SnapshotResult> AdminClient::Snapshot(const std::string& model,
                                                     const SnapshotOptions& snapshot,
                                                     const Progress& progress,
                                                     const CallOptions& options) {
  v1::SnapshotRequest request;
  request.set_model(model);
  request.set_path(snapshot.path);
  if (snapshot.version.has_value()) request.set_version(*snapshot.version);
  request.set_overwrite(snapshot.overwrite);
  request.set_weights_only(snapshot.weights_only);
  request.set_lossless(snapshot.lossless);
  request.set_format(static_cast<v1::SnapshotFormat>(snapshot.format));
  CallContext context(impl_->options, options);
  const auto reader = impl_->stub->Snapshot(context.get(), request);
  v1::SnapshotProgress message;
  std::optional<SnapshotResult> result;
  while (reader->Read(&message)) {
    if (message.has_result()) result = FromMessage(message.result());
    if (progress) progress(message.written_bytes(), message.total_bytes());
  }
  RELIGHT_RETURN_IF_ERROR(FromGrpc(reader->Finish()));
  if (!result.has_value()) {
    return absl::InternalError("the server ended the snapshot without saying what it wrote");
  }
  return *std::move(result);
}

absl::StatusOr<SnapshotResult> AdminClient::DownloadSnapshot(const std::string& model,
                                                             const std::string& path,
                                                             const DownloadOptions& download,
                                                             const Progress& progress,
                                                             const CallOptions& options) {
  CallContext context(impl_->options, options);
  return ReceiveSnapshot(*impl_->stub, context, model, path, download, progress);
}

absl::StatusOr<PushResult> AdminClient::Push(const std::string& model, const std::string& path,
                                             const PushOptions& push, const Progress& progress,
                                             const CallOptions& options) {
  CallContext context(impl_->options, options);
  return SendCheckpoint(*impl_->stub, context, model, path, push, progress);
}

}  // namespace relight::client
