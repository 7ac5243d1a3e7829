#include "server/serving/worker_pool.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <utility>

namespace relight::serving {
namespace {

// For good: raising it again would need a privilege. Best effort: a thread that keeps its priority
// loads just as well.
void LowerPriority(int niceness) {
  const auto thread = static_cast<id_t>(::syscall(SYS_gettid));
  const int of_process = ::getpriority(PRIO_PROCESS, thread);
  ::setpriority(PRIO_PROCESS, thread, std::max(niceness, of_process));
  sched_param parameters = {};
  ::sched_setscheduler(0, SCHED_BATCH, &parameters);
}

// One ParallelFor. Helpers that come late find no index left and never touch `body`.
struct Loop {
  Loop(std::size_t count, const std::function<void(std::size_t)>& function)
      : n(count), body(function) {}

  void Work() {
    std::size_t done_here = 0;
    for (std::size_t i = next++; i < n; i = next++) {
      Call(i);
      ++done_here;
    }
    if (done_here == 0) return;
    MutexLock lock(mutex);
    done += done_here;
    if (done == n) finished.SignalAll();
  }
  // Throws what a call has thrown.
  void Await() {
    MutexLock lock(mutex);
    while (done < n) finished.Wait(mutex);
    if (thrown) std::rethrow_exception(thrown);
  }
  void Call(std::size_t i) {
    try {
      body(i);
    } catch (...) {
      MutexLock lock(mutex);
      thrown = std::current_exception();
    }
  }

  const std::size_t n;
  const std::function<void(std::size_t)>& body;
  std::atomic<std::size_t> next{0};
  Mutex mutex;
  CondVar finished;
  std::size_t done ABSL_GUARDED_BY(mutex) = 0;
  std::exception_ptr thrown ABSL_GUARDED_BY(mutex);
};

}  // namespace

WorkerPool::WorkerPool(const std::string& name, int threads, int niceness) {
  for (int i = 0; i < std::max(threads, 1); ++i) {
    threads_.emplace_back([this, name, niceness] { Run(name, niceness); });
  }
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Submit(std::function<void()> job) {
  MutexLock lock(mutex_);
  jobs_.push_back(std::move(job));
  changed_.SignalOne();
}

storage::ParallelFor WorkerPool::parallel_for() {
  if (threads_.size() == 1) return storage::SerialFor;
  return [this](std::size_t n, const std::function<void(std::size_t)>& body) {
    if (n == 0) return;
    const auto loop = std::make_shared<Loop>(n, body);
    const std::size_t helpers = std::min(threads_.size() - 1, n - 1);
    for (std::size_t i = 0; i < helpers; ++i) Submit([loop] { loop->Work(); });
    loop->Work();
    loop->Await();
  };
}

void WorkerPool::Run(const std::string& name, int niceness) {
  ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
  LowerPriority(niceness);
  while (true) {
    std::function<void()> job;
    {
      MutexLock lock(mutex_);
      while (jobs_.empty() && !stopping_) changed_.Wait(mutex_);
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

}  // namespace relight::serving
