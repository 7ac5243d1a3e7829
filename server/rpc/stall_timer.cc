#include "server/rpc/stall_timer.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace relight::rpc {
namespace {

constexpr double kSlowestBytesPerSecond = 64 << 10;

using Clock = std::chrono::steady_clock;

}  // namespace

std::shared_ptr<StallTimer> StallTimer::Create(absl::Duration limit,
                                               std::function<void()> stalled) {
  return std::shared_ptr<StallTimer>(new StallTimer(limit, std::move(stalled)));
}

StallTimer::StallTimer(absl::Duration limit, std::function<void()> stalled)
    : limit_(limit), stalled_(std::move(stalled)), patience_(limit) {}

void StallTimer::WaitBegins() {
  MutexLock lock(mutex_);
  if (ended_) return;
  waiting_ = true;
  wait_began_ = Clock::now();
  if (alarm_ == nullptr) ArmLocked();
}

void StallTimer::WaitEnds(std::size_t bytes) {
  MutexLock lock(mutex_);
  if (!waiting_) return;
  waiting_ = false;
  patience_ += absl::Seconds(static_cast<double>(bytes) / kSlowestBytesPerSecond) -
               absl::FromChrono(Clock::now() - wait_began_);
}

void StallTimer::End() {
  std::unique_ptr<grpc::Alarm> last;  // Destroyed without the lock: then it rings once more.
  MutexLock lock(mutex_);
  ended_ = true;
  waiting_ = false;
  last = std::move(alarm_);
}

absl::Duration StallTimer::LeftLocked() const {
  return std::min(limit_, patience_) - absl::FromChrono(Clock::now() - wait_began_);
}

void StallTimer::ArmLocked() {
  alarm_ = std::make_unique<grpc::Alarm>();
  alarm_->Set(absl::ToChronoTime(absl::Now() + LeftLocked()),
              [self = shared_from_this()](bool) { self->Ring(); });
}

void StallTimer::Ring() {
  {
    MutexLock lock(mutex_);
    if (ended_) return;
    alarm_.reset();
    if (!waiting_) return;
    if (LeftLocked() > absl::ZeroDuration()) return ArmLocked();
    ended_ = true;
  }
  stalled_();
}

}  // namespace relight::rpc
