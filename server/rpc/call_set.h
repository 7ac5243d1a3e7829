// The calls of a server that are open. A reactor must not outlive its server, so the server counts
// them, tells those that would stay open to end, and waits for the last.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_RPC_CALL_SET_H_
#define RELIGHT_SERVER_RPC_CALL_SET_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/mutex.h"

namespace relight::rpc {

// For calls that end by themselves.
class CallCount {
 public:
  void Enter() {
    MutexLock lock(mutex_);
    ++count_;
  }
  void Leave() {
    MutexLock lock(mutex_);
    if (--count_ == 0) none_.SignalAll();
  }
  void WaitNone() {
    MutexLock lock(mutex_);
    while (count_ > 0) none_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar none_;
  std::int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

// For calls that others speak to. The set owns each one until it removes itself (in OnDone).
template <typename Call>
class CallSet {
 public:
  // False once the set is closed: the call is in, and its owner should end it at once.
  bool Add(std::shared_ptr<Call> call) {
    MutexLock lock(mutex_);
    Call* key = call.get();
    calls_.emplace(key, std::move(call));
    return !closed_;
  }

  // May destroy `call`.
  void Remove(Call* call) {
    std::shared_ptr<Call> removed;  // Destroyed without the lock.
    MutexLock lock(mutex_);
    const auto it = calls_.find(call);
    if (it == calls_.end()) return;
    removed = std::move(it->second);
    calls_.erase(it);
    if (calls_.empty()) none_.SignalAll();
  }

  std::vector<std::shared_ptr<Call>> All() const {
    MutexLock lock(mutex_);
    std::vector<std::shared_ptr<Call>> all;
    all.reserve(calls_.size());
    for (const auto& [key, call] : calls_) all.push_back(call);
    return all;
  }

  // From now on Add says no.
  std::vector<std::shared_ptr<Call>> Close() {
    {
      MutexLock lock(mutex_);
      closed_ = true;
    }
    return All();
  }

  void WaitNone() {
    MutexLock lock(mutex_);
    while (!calls_.empty()) none_.Wait(mutex_);
  }

 private:
  mutable Mutex mutex_;
  CondVar none_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<Call*, std::shared_ptr<Call>> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_CALL_SET_H_
