// DownloadSnapshot: a snapshot to a client, chunk by chunk.
#ifndef RELIGHT_SERVER_RPC_DOWNLOAD_CALL_H_
#define RELIGHT_SERVER_RPC_DOWNLOAD_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "relight/v1/admin.pb.h"
#include "server/rpc/call_set.h"
#include "server/rpc/stall_timer.h"
#include "server/rpc/transfer.h"
#include "server/serving/server_core.h"

namespace relight::rpc {

// The snapshot is made on a thread that may wait, which then goes: each chunk is read on one of its
// own, while the one before, and no other, is being sent. No thread waits for the client.
class DownloadCall final : public grpc::ServerWriteReactor<v1::DownloadResponse>,
                           public std::enable_shared_from_this<DownloadCall> {
 public:
  // Without a request it answers with the reason.
  DownloadCall(const TransferEnvironment& environment, CallSet<DownloadCall>& calls,
               grpc::CallbackServerContext& context,
               absl::StatusOr<serving::SnapshotRequest> request);

  void Begin();

 private:
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void Make();     // On a thread that may wait.
  void ReadOn();   // Likewise.
  void Release();  // Likewise.
  bool Progress(std::uint64_t written, std::uint64_t total);
  void Stalled();
  void ConcludeLocked(absl::Status outcome) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const TransferEnvironment& environment_;
  CallSet<DownloadCall>& calls_;
  grpc::CallbackServerContext& context_;  // Lives until OnDone.
  const absl::StatusOr<serving::SnapshotRequest> request_;
  std::shared_ptr<StallTimer> timer_;
  v1::DownloadResponse message_;  // gRPC's while a write is under way.
  // Of whoever works on the call; one does at a time.
  std::unique_ptr<serving::OutgoingSnapshot> outgoing_;

  Mutex mutex_;
  std::optional<v1::DownloadResponse> pending_ ABSL_GUARDED_BY(mutex_);
  bool made_ ABSL_GUARDED_BY(mutex_) = false;
  bool working_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> outcome_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_DOWNLOAD_CALL_H_
