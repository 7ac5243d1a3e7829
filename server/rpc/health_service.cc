#include "server/rpc/health_service.h"

#include <string>

#include "absl/status/status.h"
#include "base/escape.h"
#include "server/rpc/concat.h"
#include "server/rpc/grpc_status.h"

namespace relight::rpc {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

bool IsKnown(const std::string& service) {
  return service.empty() || service == "inference.GRPCInferenceService";
}

}  // namespace

void HealthWatch::Update() {
  MutexLock lock(mutex_);
  PumpLocked();
}

void HealthWatch::End() {
  MutexLock lock(mutex_);
  ending_ = true;
  PumpLocked();
}

void HealthWatch::PumpLocked() {
  if (writing_ || finished_) return;
  // The status before the end still goes out: a watcher learns NOT_SERVING before the stream ends.
  const Status now = known_ ? service_.status() : HealthCheckResponse::SERVICE_UNKNOWN;
  if (!gone_ && sent_ != now) {
    sent_ = now;
    message_.set_status(now);
    writing_ = true;
    StartWrite(&message_);
  } else if (gone_ || ending_) {
    finished_ = true;
    Finish(ToGrpcStatus(gone_ ? absl::CancelledError("the client has gone")
                              : absl::UnavailableError("the server is shutting down")));
  }
}

void HealthWatch::OnWriteDone(bool ok) {
  MutexLock lock(mutex_);
  writing_ = false;
  gone_ = gone_ || !ok;
  PumpLocked();
}

void HealthWatch::OnCancel() {
  MutexLock lock(mutex_);
  gone_ = true;
  PumpLocked();
}

void HealthWatch::OnDone() { service_.watches_.Remove(this); }

HealthWatch::Status HealthService::status() const {
  return core_.IsReady() && !draining() ? HealthCheckResponse::SERVING
                                        : HealthCheckResponse::NOT_SERVING;
}

void HealthService::Update() {
  for (const std::shared_ptr<HealthWatch>& watch : watches_.All()) watch->Update();
}

void HealthService::StartDraining() {
  draining_.store(true, std::memory_order_release);
  Update();
}

void HealthService::EndWatches() {
  for (const std::shared_ptr<HealthWatch>& watch : watches_.Close()) watch->End();
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (IsKnown(request->service())) {
    response->set_status(status());
    reactor->Finish(grpc::Status::OK);
  } else {
    reactor->Finish(ToGrpcStatus(absl::NotFoundError(
        Concat("service ", Escape(request->service()), " is not served here"))));
  }
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext* /*context*/, const HealthCheckRequest* request) {
  auto watch = std::make_shared<HealthWatch>(*this, IsKnown(request->service()));
  const bool open = watches_.Add(watch);
  watch->Update();
  if (!open) watch->End();
  return watch.get();
}

}  // namespace relight::rpc
