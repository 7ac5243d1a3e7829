// Notices a peer that lets the server wait for too long, at once or little by little, without a
// thread that waits with it.
#ifndef RELIGHT_SERVER_RPC_STALL_TIMER_H_
#define RELIGHT_SERVER_RPC_STALL_TIMER_H_

#include <grpcpp/alarm.h>

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

#include "absl/time/time.h"
#include "base/mutex.h"

namespace relight::rpc {

// Thread-safe. Lives on until gRPC has let go of its alarm, which may be after its owner's end.
class StallTimer final : public std::enable_shared_from_this<StallTimer> {
 public:
  // `stalled` is called at most once, on a thread of gRPC's and with no lock held, when one wait
  // has taken `limit`, or all together that and a second for each 64 KiB that came of them. It may
  // come after End, and should keep nothing alive that waits for its end.
  static std::shared_ptr<StallTimer> Create(absl::Duration limit, std::function<void()> stalled);

  void WaitBegins();
  void WaitEnds(std::size_t bytes);
  // Nothing begins any more.
  void End();

 private:
  StallTimer(absl::Duration limit, std::function<void()> stalled);
  void ArmLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration LeftLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Ring();

  const absl::Duration limit_;
  const std::function<void()> stalled_;
  Mutex mutex_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool waiting_ ABSL_GUARDED_BY(mutex_) = false;
  std::chrono::steady_clock::time_point wait_began_ ABSL_GUARDED_BY(mutex_);
  absl::Duration patience_ ABSL_GUARDED_BY(mutex_);  // What is left for all waits.
  // One alarm for many short waits: it looks when it rings, and is set again where that is too
  // early. Null while none is set.
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_STALL_TIMER_H_
