#include "server/serving/compute_pool.h"

#include <pthread.h>

#include <algorithm>
#include <memory>

#include "absl/time/time.h"
#include "server/serving/request_path.h"

namespace relight::serving {

ComputePool::ComputePool(int threads) {
  threads_.reserve(static_cast<std::size_t>(std::max(threads, 1)));
  for (int i = 0; i < std::max(threads, 1); ++i) {
    threads_.emplace_back([this] { Work(); });
    pthread_setname_np(threads_.back().native_handle(), "compute");
  }
}

ComputePool::~ComputePool() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  work_.SignalAll();
  for (std::thread& thread : threads_) thread.join();
}

void ComputePool::Schedule(BatchSource& source) {
  // Whoever finds it in line may leave it at that: the thread that takes it out of line clears the
  // flag before it looks at what waits.
  if (source.in_line_.exchange(true, std::memory_order_acq_rel)) return;
  bool wake;
  {
    MutexLock lock(mutex_);
    line_.push_back(&source);
    wake = idle_ > 0 && MayRun(source);
  }
  if (wake) work_.SignalOne();
}

void ComputePool::ScheduleAt(BatchSource& source, TimePoint due) {
  {
    MutexLock lock(mutex_);
    if (!source.due_.has_value()) {
      delayed_.push_back(&source);
      source.due_ = due;
    } else if (due < *source.due_) {
      source.due_ = due;
    } else {
      return;
    }
  }
  work_.SignalOne();
}

void ComputePool::Detach(BatchSource& source) {
  MutexLock lock(mutex_);
  while (source.running_ > 0) left_.Wait(mutex_);
  line_.erase(std::remove(line_.begin(), line_.end(), &source), line_.end());
  delayed_.erase(std::remove(delayed_.begin(), delayed_.end(), &source), delayed_.end());
}

void ComputePool::AwaitIdleThread(std::chrono::nanoseconds most) {
  const TimePoint give_up = std::chrono::steady_clock::now() + most;
  MutexLock lock(mutex_);
  ++awaiting_idle_;
  while (idle_ == 0) {
    const auto left = give_up - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds::zero()) break;
    idling_.WaitFor(mutex_, absl::FromChrono(left));
  }
  --awaiting_idle_;
}

void ComputePool::Work() {
  mutex_.Lock();
  while (true) {
    BatchSource* source = NextLocked();
    if (source == nullptr) {
      if (stopping_) break;
      WaitLocked();
      continue;
    }
    ++source->running_;
    const bool more =
        idle_ > 0 && std::any_of(line_.begin(), line_.end(),
                                 [](const BatchSource* waiting) { return MayRun(*waiting); });
    mutex_.Unlock();
    if (more) work_.SignalOne();  // Several may have come due at once.
    source->in_line_.exchange(false, std::memory_order_acq_rel);
    source->RunOne();
    mutex_.Lock();
    if (--source->running_ == 0) left_.SignalAll();
  }
  mutex_.Unlock();
}

bool ComputePool::MayRun(const BatchSource& source) {
  return source.most_at_once_ == 0 || source.running_ < source.most_at_once_;
}

BatchSource* ComputePool::NextLocked() {
  LineUpDueLocked();
  const auto next = std::find_if(line_.begin(), line_.end(),
                                 [](const BatchSource* source) { return MayRun(*source); });
  if (next == line_.end()) return nullptr;
  BatchSource* source = *next;
  line_.erase(next);
  return source;
}

void ComputePool::LineUpDueLocked() {
  if (delayed_.empty()) return;
  const TimePoint now = std::chrono::steady_clock::now();
  const auto due = [this, now](BatchSource* source) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!stopping_ && *source->due_ > now) return false;
    source->due_.reset();
    if (!source->in_line_.exchange(true, std::memory_order_acq_rel)) line_.push_back(source);
    return true;
  };
  delayed_.erase(std::remove_if(delayed_.begin(), delayed_.end(), due), delayed_.end());
}

void ComputePool::WaitLocked() {
  ++idle_;
  if (awaiting_idle_ > 0) idling_.SignalAll();
  if (delayed_.empty()) {
    work_.Wait(mutex_);
  } else {
    TimePoint next = TimePoint::max();
    for (const BatchSource* source : delayed_) next = std::min(next, *source->due_);
    work_.WaitFor(mutex_, absl::FromChrono(next - std::chrono::steady_clock::now()));
  }
  --idle_;
}

std::shared_ptr<ComputePool> MakeComputePool(int threads) {
  return std::make_shared<ComputePool>(threads);
}

}  // namespace relight::serving
