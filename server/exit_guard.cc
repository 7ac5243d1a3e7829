#include "server/exit_guard.h"

#include <utility>

#include "absl/time/clock.h"

namespace relight {

ExitGuard::ExitGuard(absl::Duration limit, std::function<void()> expired)
    : thread_([this, give_up = absl::Now() + limit, call = std::move(expired)] {
        {
          MutexLock lock(mutex_);
          while (!disarmed_) {
            const absl::Duration left = give_up - absl::Now();
            if (left <= absl::ZeroDuration()) break;
            changed_.WaitFor(mutex_, left);
          }
          if (disarmed_) return;
        }
        call();
      }) {}

ExitGuard::~ExitGuard() {
  {
    MutexLock lock(mutex_);
    disarmed_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

}  // namespace relight
