#include "server/rpc/stall_timer.h"

#include <utility>

#include "absl/time/clock.h"

namespace relight::rpc {

std::shared_ptr<StallTimer> StallTimer::Create(absl::Duration limit,
                                               std::function<void()> stalled) {
  return std::shared_ptr<StallTimer>(new StallTimer(limit, std::move(stalled)));
}

StallTimer::StallTimer(absl::Duration limit, std::function<void()> stalled)
    : limit_(limit), stalled_(std::move(stalled)) {}

void StallTimer::WaitBegins() {
  MutexLock lock(mutex_);
  if (ended_) return;
  waiting_ = true;
  give_up_ = absl::Now() + limit_;
  if (alarm_ == nullptr) ArmLocked();
}

void StallTimer::WaitEnds() {
  MutexLock lock(mutex_);
  waiting_ = false;
}

void StallTimer::End() {
  std::unique_ptr<grpc::Alarm> last;  // Destroyed without the lock: then it rings once more.
  MutexLock lock(mutex_);
  ended_ = true;
  waiting_ = false;
  last = std::move(alarm_);
}

void StallTimer::ArmLocked() {
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(absl::ToChronoTime(give_up_), [self = shared_from_this()](bool) { self->Ring(); });
}

void StallTimer::Ring() {
  {
    MutexLock lock(mutex_);
    if (ended_) return;
    alarm_.reset();
    if (!waiting_) return;
    if (absl::Now() < give_up_) return ArmLocked();
    ended_ = true;
  }
  stalled_();
}

}  // namespace relight::rpc
