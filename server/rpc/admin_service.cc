#include "server/rpc/admin_service.h"

#include <utility>

#include "base/status_macros.h"
#include "server/rpc/admin_messages.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/run_on.h"

namespace relight::rpc {
namespace {

// The outcome of an action, whose response is the model's new status.
template <typename Response>
absl::Status Report(const absl::StatusOr<serving::ModelStatus>& status, Response& response) {
  if (status.ok()) *response.mutable_status() = ToMessage(*status);
  return status.status();
}

}  // namespace

// --- AdminWatch ---

AdminWatch::AdminWatch(AdminService& service, std::string model)
    : service_(service), model_(std::move(model)) {}

void AdminWatch::Begin(bool open) {
  MutexLock lock(mutex_);
  if (!open) CloseLocked(ShuttingDown());
  PumpLocked();
}

void AdminWatch::Changed(const std::string& model) {
  if (!model_.empty() && model != model_) return;
  MutexLock lock(mutex_);
  changed_.insert(model);
  PumpLocked();
}

void AdminWatch::End() {
  MutexLock lock(mutex_);
  CloseLocked(ShuttingDown());
}

void AdminWatch::CloseLocked(absl::Status reason) {
  if (closing_) return;
  closing_ = true;
  reason_ = std::move(reason);
  PumpLocked();
}

void AdminWatch::PumpLocked() {
  if (fetching_ || writing_ || finished_) return;
  if (!closing_ && !changed_.empty()) {
    const std::string model = *changed_.begin();
    changed_.erase(changed_.begin());
    fetching_ =
        service_.pools_.queries.Run([self = shared_from_this(), model] { self->Fetch(model); });
    if (fetching_) return;
    closing_ = true;
    reason_ = TooBusy();
  }
  if (!closing_) return;
  finished_ = true;
  Finish(ToGrpcStatus(reason_));
}

void AdminWatch::Fetch(const std::string& model) {
  const absl::StatusOr<serving::ModelStatus> status = service_.core_.GetStatus(model);
  MutexLock lock(mutex_);
  fetching_ = false;
  if (status.ok() && !closing_) {
    message_ = ToMessage(*status);
    writing_ = true;
    StartWrite(&message_);
    return;
  }
  // A model that was removed ends only the watch that asked for it by name.
  if (!status.ok() && !model_.empty()) CloseLocked(status.status());
  PumpLocked();
}

void AdminWatch::OnWriteDone(bool ok) {
  MutexLock lock(mutex_);
  writing_ = false;
  if (!ok) CloseLocked(ClientGone());
  PumpLocked();
}

void AdminWatch::OnCancel() {
  MutexLock lock(mutex_);
  CloseLocked(ClientGone());
}

void AdminWatch::OnDone() { service_.watches_.Remove(this); }

// --- SnapshotCall ---

SnapshotCall::SnapshotCall(AdminService& service, absl::StatusOr<serving::SnapshotRequest> request)
    : service_(service), request_(std::move(request)) {}

void SnapshotCall::Begin() {
  if (!request_.ok()) return Complete(request_.status());
  const bool accepted = service_.pools_.long_work.Run([self = shared_from_this()] { self->Run(); });
  if (!accepted) Complete(TooBusy());
}

void SnapshotCall::Run() {
  const auto progress = [this](std::uint64_t written, std::uint64_t total) {
    return Progress(written, total);
  };
  Complete(service_.core_.Snapshot(*request_, progress));
}

bool SnapshotCall::Progress(std::uint64_t written, std::uint64_t total) {
  MutexLock lock(mutex_);
  if (cancelled_) return false;
  pending_.emplace();
  pending_->set_written_bytes(written);
  pending_->set_total_bytes(total);
  PumpLocked();
  return true;
}

void SnapshotCall::Complete(absl::StatusOr<serving::SnapshotResult> result) {
  MutexLock lock(mutex_);
  completed_ = true;
  outcome_ = result.status();
  pending_.reset();
  if (result.ok()) {
    pending_.emplace();
    pending_->set_written_bytes(result->size_bytes);
    pending_->set_total_bytes(result->size_bytes);
    *pending_->mutable_result() = ToMessage(*result);
  }
  PumpLocked();
}

void SnapshotCall::PumpLocked() {
  if (writing_ || finished_) return;
  if (pending_ && !cancelled_) {
    message_ = *std::move(pending_);
    pending_.reset();
    writing_ = true;
    StartWrite(&message_);
  } else if (completed_) {
    finished_ = true;
    Finish(ToGrpcStatus(cancelled_ ? ClientGone() : outcome_));
  }
}

void SnapshotCall::OnWriteDone(bool ok) {
  MutexLock lock(mutex_);
  writing_ = false;
  cancelled_ = cancelled_ || !ok;
  PumpLocked();
}

void SnapshotCall::OnCancel() {
  MutexLock lock(mutex_);
  cancelled_ = true;
  PumpLocked();
}

void SnapshotCall::OnDone() { service_.snapshots_.Remove(this); }

// --- AdminService ---

AdminService::AdminService(serving::ServerCore& core, std::string server_version,
                           absl::Time started_at, AdminPools& pools,
                           absl::Duration transfer_stall_limit)
    : core_(core),
      server_version_(std::move(server_version)),
      started_at_(started_at),
      pools_(pools),
      transfers_{core, pools, transfer_stall_limit} {}

void AdminService::ModelChanged(const std::string& model) {
  if (model.empty()) return;
  for (const std::shared_ptr<AdminWatch>& watch : watches_.All()) watch->Changed(model);
}

void AdminService::EndOpenCalls() {
  for (const std::shared_ptr<AdminWatch>& watch : watches_.Close()) watch->End();
  for (const std::shared_ptr<PushCall>& push : pushes_.Close()) push->End();
  downloads_.Close();
}

bool AdminService::WaitCallsInTime(absl::Time deadline) {
  return watches_.WaitInTime(deadline) && snapshots_.WaitInTime(deadline) &&
         downloads_.WaitInTime(deadline) && pushes_.WaitInTime(deadline);
}

void AdminService::WaitCallsDone() {
  watches_.WaitNone();
  snapshots_.WaitNone();
  downloads_.WaitNone();
  pushes_.WaitNone();
}

absl::Status AdminService::FillStatus(const std::string& model,
                                      v1::GetStatusResponse& response) const {
  if (model.empty()) {
    for (const serving::ModelStatus& status : core_.GetStatus()) {
      *response.add_models() = ToMessage(status);
    }
  } else {
    RELIGHT_ASSIGN_OR_RETURN(const serving::ModelStatus status, core_.GetStatus(model));
    *response.add_models() = ToMessage(status);
  }
  response.set_server_version(server_version_);
  SetTimestamp(started_at_, *response.mutable_started_at());
  response.set_ready(core_.IsReady());
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* AdminService::GetStatus(Context* context,
                                                  const v1::GetStatusRequest* request,
                                                  v1::GetStatusResponse* response) {
  return RunOn(pools_.queries, context,
               [=, this] { return FillStatus(request->model(), *response); });
}

grpc::ServerUnaryReactor* AdminService::GetHistory(Context* context,
                                                   const v1::GetHistoryRequest* request,
                                                   v1::GetHistoryResponse* response) {
  return RunOn(pools_.queries, context, [=, this]() -> absl::Status {
    RELIGHT_ASSIGN_OR_RETURN(const auto entries,
                             core_.GetHistory(request->model(), request->limit()));
    for (const serving::HistoryEntry& entry : entries) *response->add_entries() = ToMessage(entry);
    return absl::OkStatus();
  });
}

grpc::ServerWriteReactor<v1::ModelStatus>* AdminService::Watch(Context* /*context*/,
                                                               const v1::WatchRequest* request) {
  auto watch = std::make_shared<AdminWatch>(*this, request->model());
  const bool open = watches_.Add(watch);
  if (request->model().empty()) {
    for (const std::string& model : core_.ModelNames()) watch->Changed(model);
  } else {
    watch->Changed(request->model());
  }
  watch->Begin(open);
  return watch.get();
}

grpc::ServerUnaryReactor* AdminService::Reload(Context* context, const v1::ReloadRequest* request,
                                               v1::ReloadResponse* response) {
  return RunOn(pools_.long_work, context, [=, this]() -> absl::Status {
    RELIGHT_ASSIGN_OR_RETURN(const serving::ReloadResult result, core_.Reload(request->model()));
    *response->mutable_status() = ToMessage(result.status);
    response->set_swapped(result.swapped);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::Pin(Context* context, const v1::PinRequest* request,
                                            v1::PinResponse* response) {
  return RunOn(pools_.orders, context, [=, this] {
    return Report(core_.Pin(request->model(), request->version()), *response);
  });
}

grpc::ServerUnaryReactor* AdminService::Unpin(Context* context, const v1::UnpinRequest* request,
                                              v1::UnpinResponse* response) {
  return RunOn(pools_.orders, context,
               [=, this] { return Report(core_.Unpin(request->model()), *response); });
}

grpc::ServerUnaryReactor* AdminService::RollBack(Context* context,
                                                 const v1::RollBackRequest* request,
                                                 v1::RollBackResponse* response) {
  return RunOn(pools_.orders, context,
               [=, this] { return Report(core_.RollBack(request->model()), *response); });
}

grpc::ServerUnaryReactor* AdminService::Unload(Context* context, const v1::UnloadRequest* request,
                                               v1::UnloadResponse* response) {
  return RunOn(pools_.orders, context,
               [=, this] { return Report(core_.Unload(request->model()), *response); });
}

grpc::ServerWriteReactor<v1::SnapshotProgress>* AdminService::Snapshot(
    Context* /*context*/, const v1::SnapshotRequest* request) {
  auto call = std::make_shared<SnapshotCall>(*this, FromMessage(*request));
  snapshots_.Add(call);
  call->Begin();
  return call.get();
}

grpc::ServerWriteReactor<v1::DownloadResponse>* AdminService::DownloadSnapshot(
    Context* context, const v1::DownloadRequest* request) {
  const auto call =
      std::make_shared<DownloadCall>(transfers_, downloads_, *context, FromMessage(*request));
  call->Begin();
  return call.get();
}

grpc::ServerReadReactor<v1::PushRequest>* AdminService::PushCheckpoint(Context* /*context*/,
                                                                       v1::PushResponse* response) {
  const auto call = std::make_shared<PushCall>(transfers_, pushes_, *response);
  call->Begin();
  return call.get();
}

}  // namespace relight::rpc
