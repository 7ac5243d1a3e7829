// The threads that run batches, shared by all models.
//
// A model that has requests waiting puts itself in line, at most once; a thread that comes to it
// takes one batch, and the model goes to the end of the line where more is waiting. So models take
// turns, and one model may use several threads at the same time. A model that runs as many batches
// as it may keeps its place in line.
//
// Thread-safe. Destroying the pool runs what is in line first.
#ifndef RELIGHT_SERVER_SERVING_COMPUTE_POOL_H_
#define RELIGHT_SERVER_SERVING_COMPUTE_POOL_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <optional>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace relight::serving {

// Something that has batches to run. Must be detached before it is destroyed.
class BatchSource {
 public:
  // `most_at_once`: of batches; 0: as many as there are threads.
  explicit BatchSource(int most_at_once = 0) : most_at_once_(most_at_once) {}
  virtual ~BatchSource() = default;

  // Runs one batch of what is waiting now, or finds that there is none. Called by several threads
  // at a time, with no lock held.
  virtual void RunOne() = 0;

 private:
  friend class ComputePool;
  const int most_at_once_;
  std::atomic<bool> in_line_{false};
  // Guarded by the pool's mutex.
  std::optional<std::chrono::steady_clock::time_point> due_;
  int running_ = 0;
};

class ComputePool {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit ComputePool(int threads);
  ~ComputePool();
  ComputePool(const ComputePool&) = delete;
  ComputePool& operator=(const ComputePool&) = delete;

  // RunOne of `source` is entered after this call began. Cheap where it is in line already.
  void Schedule(BatchSource& source);
  // The same, but not before `due`. Of several, the earliest counts.
  void ScheduleAt(BatchSource& source, TimePoint due);
  // Takes `source` out of line and waits until no thread runs it.
  // REQUIRES: nothing schedules it any more; not called from RunOne.
  void Detach(BatchSource& source);

  // Waits while every thread has a batch, but no longer than `most`.
  void AwaitIdleThread(std::chrono::nanoseconds most);

 private:
  void Work();
  static bool MayRun(const BatchSource& source);  // With the pool's mutex held.
  // Out of line; null where nobody in line may run another batch now.
  BatchSource* NextLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LineUpDueLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WaitLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  CondVar work_;
  CondVar left_;    // A source has no thread in it any more.
  CondVar idling_;  // A thread has nothing to do.
  std::deque<BatchSource*> line_ ABSL_GUARDED_BY(mutex_);
  std::vector<BatchSource*> delayed_ ABSL_GUARDED_BY(mutex_);  // Those with a due_.
  int idle_ ABSL_GUARDED_BY(mutex_) = 0;
  int awaiting_idle_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // Constant after construction.
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_COMPUTE_POOL_H_
