// relight.v1.Admin. Whatever may wait runs on the admin I/O threads.
#ifndef RELIGHT_SERVER_RPC_ADMIN_SERVICE_H_
#define RELIGHT_SERVER_RPC_ADMIN_SERVICE_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "relight/v1/admin.grpc.pb.h"
#include "server/rpc/admin_io.h"
#include "server/rpc/call_set.h"
#include "server/rpc/download_call.h"
#include "server/rpc/push_call.h"
#include "server/rpc/transfer.h"
#include "server/serving/server_core.h"

namespace relight::rpc {

class AdminService;

// One Watch: the status of each model whose status changed, as it is when it is written. What
// changes while a slow client reads is coalesced.
class AdminWatch final : public grpc::ServerWriteReactor<v1::ModelStatus>,
                         public std::enable_shared_from_this<AdminWatch> {
 public:
  // `model` empty: all.
  AdminWatch(AdminService& service, std::string model);

  void Begin(bool open);
  void Changed(const std::string& model);
  void End();

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void Fetch(const std::string& model);
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CloseLocked(absl::Status reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  AdminService& service_;
  const std::string model_;
  v1::ModelStatus message_;  // gRPC's while a write is under way.

  Mutex mutex_;
  std::set<std::string> changed_ ABSL_GUARDED_BY(mutex_);
  bool fetching_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status reason_ ABSL_GUARDED_BY(mutex_);
};

// One Snapshot: progress, coalesced while the client reads, and then the result.
class SnapshotCall final : public grpc::ServerWriteReactor<v1::SnapshotProgress>,
                           public std::enable_shared_from_this<SnapshotCall> {
 public:
  // Without a request it answers with the reason.
  SnapshotCall(AdminService& service, absl::StatusOr<serving::SnapshotRequest> request);

  void Begin();

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;
  void Run();  // On an admin I/O thread.
  bool Progress(std::uint64_t written, std::uint64_t total);
  void Complete(absl::StatusOr<serving::SnapshotResult> result);
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  AdminService& service_;
  const absl::StatusOr<serving::SnapshotRequest> request_;
  v1::SnapshotProgress message_;  // gRPC's while a write is under way.

  Mutex mutex_;
  std::optional<v1::SnapshotProgress> pending_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool completed_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);
};

// Thread-safe. Everything given must outlive the service, and the service its server.
class AdminService final : public v1::Admin::CallbackService {
 public:
  AdminService(serving::ServerCore& core, std::string server_version, absl::Time started_at,
               AdminPools& pools, absl::Duration transfer_stall_limit);

  // Tells the watchers that a model's status changed. Never waits.
  void ModelChanged(const std::string& model);
  // Ends the watches, and the pushes that are not being committed. Who comes from now on is late.
  void EndOpenCalls();
  // False where `deadline` passes before the calls that were open are done.
  bool WaitCallsInTime(absl::Time deadline);
  void WaitCallsDone();

 private:
  friend class AdminWatch;
  friend class SnapshotCall;
  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;

  Unary* GetStatus(Context* context, const v1::GetStatusRequest* request,
                   v1::GetStatusResponse* response) override;
  Unary* GetHistory(Context* context, const v1::GetHistoryRequest* request,
                    v1::GetHistoryResponse* response) override;
  grpc::ServerWriteReactor<v1::ModelStatus>* Watch(Context* context,
                                                   const v1::WatchRequest* request) override;
  Unary* Reload(Context* context, const v1::ReloadRequest* request,
                v1::ReloadResponse* response) override;
  Unary* Pin(Context* context, const v1::PinRequest* request, v1::PinResponse* response) override;
  Unary* Unpin(Context* context, const v1::UnpinRequest* request,
               v1::UnpinResponse* response) override;
  Unary* RollBack(Context* context, const v1::RollBackRequest* request,
                  v1::RollBackResponse* response) override;
  Unary* Unload(Context* context, const v1::UnloadRequest* request,
                v1::UnloadResponse* response) override;
  grpc::ServerWriteReactor<v1::SnapshotProgress>* Snapshot(
      Context* context, const v1::SnapshotRequest* request) override;
  grpc::ServerWriteReactor<v1::DownloadResponse>* DownloadSnapshot(
      Context* context, const v1::DownloadRequest* request) override;
  grpc::ServerReadReactor<v1::PushRequest>* PushCheckpoint(Context* context,
                                                           v1::PushResponse* response) override;

  absl::Status FillStatus(const std::string& model, v1::GetStatusResponse& response) const;

  serving::ServerCore& core_;
  const std::string server_version_;
  const absl::Time started_at_;
  AdminPools& pools_;
  const TransferEnvironment transfers_;
  CallSet<AdminWatch> watches_;
  CallSet<SnapshotCall> snapshots_;
  CallSet<DownloadCall> downloads_;
  CallSet<PushCall> pushes_;
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_ADMIN_SERVICE_H_
