// PushCheckpoint: a file from a client, chunk by chunk.
#ifndef RELIGHT_SERVER_RPC_PUSH_CALL_H_
#define RELIGHT_SERVER_RPC_PUSH_CALL_H_

#include <grpcpp/support/server_callback.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "relight/v1/admin.pb.h"
#include "server/rpc/call_set.h"
#include "server/rpc/stall_timer.h"
#include "server/rpc/transfer.h"
#include "server/serving/server_core.h"

namespace relight::rpc {

// Each message is worked on by a thread that may wait, while the next one, and no more, is read. No
// thread waits for the client. What was written is let go of before the client hears the outcome.
class PushCall final : public grpc::ServerReadReactor<v1::PushRequest>,
                       public std::enable_shared_from_this<PushCall> {
 public:
  PushCall(const TransferEnvironment& environment, CallSet<PushCall>& calls,
           v1::PushResponse& response);

  void Begin();
  // Ends it with UNAVAILABLE, unless it is being committed.
  void End();

 private:
  void OnReadDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void Work(std::uint64_t turn);  // On a thread that may wait.
  void Release();                 // Likewise.
  absl::Status Take(const v1::PushRequest& part);
  absl::Status Commit(const v1::PushCommit& commit);
  bool Wanted();
  void Stalled();
  void ConcludeLocked(absl::Status outcome) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void HandOverLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const TransferEnvironment& environment_;
  CallSet<PushCall>& calls_;
  v1::PushResponse& response_;
  std::shared_ptr<StallTimer> timer_;
  v1::PushRequest message_;  // gRPC's while a read is under way.
  // Of whoever works on the call; one does at a time.
  v1::PushRequest part_;
  std::unique_ptr<serving::IncomingCheckpoint> incoming_;

  Mutex mutex_;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool arrived_ ABSL_GUARDED_BY(mutex_) = false;     // `message_` waits to be worked on.
  bool all_read_ ABSL_GUARDED_BY(mutex_) = false;    // The commit, or the end of the stream.
  bool committing_ ABSL_GUARDED_BY(mutex_) = false;  // The commit is being worked on.
  bool working_ ABSL_GUARDED_BY(mutex_) = false;     // Or a thread was asked for that.
  bool begun_ ABSL_GUARDED_BY(mutex_) = false;       // It has begun.
  std::uint64_t turn_ ABSL_GUARDED_BY(mutex_) = 0;   // What is asked for; others are not done.
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> outcome_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_PUSH_CALL_H_
