// grpc.health.v1: "" and the inference service are SERVING once every model has served, and
// NOT_SERVING from the moment the server drains.
#ifndef RELIGHT_SERVER_RPC_HEALTH_SERVICE_H_
#define RELIGHT_SERVER_RPC_HEALTH_SERVICE_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>
#include <memory>
#include <optional>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/rpc/call_set.h"
#include "server/serving/server_core.h"

namespace relight::rpc {

class HealthService;

// One Watch: sends the status that holds when it gets to write; what changes meanwhile is
// coalesced.
class HealthWatch final : public grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse> {
 public:
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  HealthWatch(HealthService& service, bool known) : service_(service), known_(known) {}

  void Update();
  void End();

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  HealthService& service_;
  const bool known_;
  grpc::health::v1::HealthCheckResponse message_;  // gRPC's while a write is under way.

  Mutex mutex_;
  std::optional<Status> sent_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;  // The server's wish.
  // Nothing can be written any more; may come while the stream is ending.
  bool gone_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

// Thread-safe. Outlives the servers that it is registered with.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  explicit HealthService(const serving::ServerCore& core) : core_(core) {}

  // Tells the watchers, where the status has changed. Never waits.
  void Update();
  void StartDraining();
  void EndWatches();
  bool WaitWatchesInTime(absl::Time deadline) { return watches_.WaitInTime(deadline); }
  void WaitWatchesDone() { watches_.WaitNone(); }

  bool draining() const { return draining_.load(std::memory_order_acquire); }
  HealthWatch::Status status() const;

 private:
  friend class HealthWatch;

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

  const serving::ServerCore& core_;
  std::atomic<bool> draining_ = false;
  CallSet<HealthWatch> watches_;
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_HEALTH_SERVICE_H_
