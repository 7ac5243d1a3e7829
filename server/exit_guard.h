// Ends the process where an orderly end takes longer than it may: a forward that cannot be
// interrupted, a disk that does not answer. Whoever waits for the daemon to stop is promised a
// limit.
#ifndef RELIGHT_SERVER_EXIT_GUARD_H_
#define RELIGHT_SERVER_EXIT_GUARD_H_

#include <functional>
#include <thread>

#include "absl/time/time.h"
#include "base/mutex.h"

namespace relight {

// Thread-compatible.
class ExitGuard {
 public:
  // Calls `expired` on a thread of its own where this is not destroyed before `limit` has passed.
  ExitGuard(absl::Duration limit, std::function<void()> expired);
  ~ExitGuard();
  ExitGuard(const ExitGuard&) = delete;
  ExitGuard& operator=(const ExitGuard&) = delete;

 private:
  Mutex mutex_;
  CondVar changed_;
  bool disarmed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace relight

#endif  // RELIGHT_SERVER_EXIT_GUARD_H_
