#include "server/rpc/admin_io.h"

#include <utility>

#include "absl/time/clock.h"

namespace relight::rpc {

AdminIo::AdminIo(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
}

bool AdminIo::Run(Task task) {
  MutexLock lock(mutex_);
  if (stopping_ || tasks_.size() >= kMaxWaiting) return false;
  tasks_.push_back(std::move(task));
  wake_.SignalOne();
  return true;
}

bool AdminIo::WaitIdle(absl::Time deadline) {
  MutexLock lock(mutex_);
  while (!tasks_.empty() || running_ > 0) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    idle_.WaitFor(mutex_, left);
  }
  return true;
}

void AdminIo::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    wake_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void AdminIo::Loop() {
  while (true) {
    Task task;
    {
      MutexLock lock(mutex_);
      while (tasks_.empty() && !stopping_) wake_.Wait(mutex_);
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
      ++running_;
    }
    task();
    MutexLock lock(mutex_);
    if (--running_ == 0 && tasks_.empty()) idle_.SignalAll();
  }
}

}  // namespace relight::rpc
