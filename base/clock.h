// Wall time behind an interface, so that tests own it.
#ifndef RELIGHT_BASE_CLOCK_H_
#define RELIGHT_BASE_CLOCK_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace relight {

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;

  // The machine's clock; lives for the whole process.
  static const Clock& Real();
};

class RealClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

inline const Clock& Clock::Real() {
  static const RealClock clock;
  return clock;
}

// A clock that stands still until told.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time now = absl::FromUnixSeconds(1'600'000'000)) : now_(now) {}
  absl::Time Now() const override {
    MutexLock lock(mutex_);
    return now_;
  }
  void Advance(absl::Duration by) {
    MutexLock lock(mutex_);
    now_ += by;
  }

 private:
  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight

#endif  // RELIGHT_BASE_CLOCK_H_
