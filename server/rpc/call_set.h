// The calls of a server that are open. A reactor must not outlive its server, so the server counts
// them, tells those that would stay open to end, and waits for the last.
//
// Once closed, those that come are late: a drain does not wait for them, so that clients that keep
// asking cannot draw it out.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_RPC_CALL_SET_H_
#define RELIGHT_SERVER_RPC_CALL_SET_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace relight::rpc {

// For calls that end by themselves.
class CallCount {
 public:
  // Whether the call is in time: what Leave wants to know.
  [[nodiscard]] bool Enter() {
    MutexLock lock(mutex_);
    ++(closed_ ? late_ : in_time_);
    return !closed_;
  }
  void Leave(bool in_time) {
    MutexLock lock(mutex_);
    if (--(in_time ? in_time_ : late_) == 0) none_.SignalAll();
  }
  void Close() {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  // False where `deadline` passes before those that are in time have left.
  bool WaitInTime(absl::Time deadline) {
    MutexLock lock(mutex_);
    while (in_time_ > 0) {
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) return false;
      none_.WaitFor(mutex_, left);
    }
    return true;
  }
  void WaitNone() {
    MutexLock lock(mutex_);
    while (in_time_ > 0 || late_ > 0) none_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar none_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::int64_t in_time_ ABSL_GUARDED_BY(mutex_) = 0;
  std::int64_t late_ ABSL_GUARDED_BY(mutex_) = 0;
};

// For calls that others speak to. The set owns each one until it removes itself (in OnDone).
template <typename Call>
class CallSet {
 public:
  // False once the set is closed: the call is in, and its owner should end it at once.
  bool Add(std::shared_ptr<Call> call) {
    MutexLock lock(mutex_);
    Call* key = call.get();
    (closed_ ? late_ : calls_).emplace(key, std::move(call));
    return !closed_;
  }

  // May destroy `call`.
  void Remove(Call* call) {
    std::shared_ptr<Call> removed;  // Destroyed without the lock.
    MutexLock lock(mutex_);
    Calls& calls = calls_.contains(call) ? calls_ : late_;
    const auto it = calls.find(call);
    if (it == calls.end()) return;
    removed = std::move(it->second);
    calls.erase(it);
    if (calls.empty()) none_.SignalAll();
  }

  std::vector<std::shared_ptr<Call>> All() const {
    MutexLock lock(mutex_);
    std::vector<std::shared_ptr<Call>> all;
    all.reserve(calls_.size());
    for (const auto& [key, call] : calls_) all.push_back(call);
    return all;
  }

  // From now on Add says no. Gives those that were in time.
  std::vector<std::shared_ptr<Call>> Close() {
    {
      MutexLock lock(mutex_);
      closed_ = true;
    }
    return All();
  }

  // False where `deadline` passes before those that are in time are gone.
  bool WaitInTime(absl::Time deadline) {
    MutexLock lock(mutex_);
    while (!calls_.empty()) {
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) return false;
      none_.WaitFor(mutex_, left);
    }
    return true;
  }

  void WaitNone() {
    MutexLock lock(mutex_);
    while (!calls_.empty() || !late_.empty()) none_.Wait(mutex_);
  }

 private:
  using Calls = std::map<Call*, std::shared_ptr<Call>>;

  mutable Mutex mutex_;
  CondVar none_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  Calls calls_ ABSL_GUARDED_BY(mutex_);
  Calls late_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_CALL_SET_H_
