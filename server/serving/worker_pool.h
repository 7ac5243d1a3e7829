// Threads for work beside the requests: loading, and what follows a swap. They run at a lower
// priority than requests do.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_WORKER_POOL_H_
#define RELIGHT_SERVER_SERVING_WORKER_POOL_H_

#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "storage/parallel_for.h"

namespace relight::serving {

class WorkerPool {
 public:
  // `name` is that of its threads (at most 15 bytes count). `niceness` is 0 (as requests) to 19;
  // that of the process counts where it is higher.
  WorkerPool(const std::string& name, int threads, int niceness);
  // Runs what was submitted, then ends the threads.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void Submit(std::function<void()> job);

  // Spreads calls over the threads that have nothing else to do; the caller takes part, so it may
  // be one of them.
  storage::ParallelFor parallel_for();

 private:
  void Run(const std::string& name, int niceness);

  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_WORKER_POOL_H_
