#include "server/serving/request_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/serving/batch_former.h"

namespace relight::serving {
namespace {

constexpr std::size_t kSpareGroups = 16;
// A queue that stays full is not searched again and again.
constexpr absl::Duration kBetweenSweeps = absl::Milliseconds(10);

Failure QueueFull(const RequestQueue::Level& level, std::uint64_t size_bytes,
                  const config::Batching& batching) {
  const bool by_number = level.requests >= static_cast<std::uint64_t>(batching.max_queue_size);
  return {
      FailureReason::kRejected,
      absl::UnavailableError(
          by_number
              ? absl::StrCat("queue is full: ", level.requests, " requests wait, the limit is ",
                             batching.max_queue_size, " (batching.max_queue_size); try again later")
              : absl::StrCat("queue is full: ", level.bytes, " bytes wait and this request has ",
                             size_bytes, ", the limit is ", batching.max_queue_bytes,
                             " (batching.max_queue_bytes); try again later"))};
}

}  // namespace

RequestQueue::RequestQueue(const config::Batching& batching) : batching_(batching) {
  constexpr std::int64_t kReserve = 1024;
  MutexLock lock(mutex_);
  rows_.reserve(static_cast<std::size_t>(std::min(batching.max_batch_size, kReserve)) + 2);
}

std::optional<Failure> RequestQueue::Push(std::unique_ptr<PendingRequest>& pending,
                                          absl::Time now) {
  const std::uint64_t size_bytes = pending->admitted.size_bytes;
  if (size_bytes > batching_.max_queue_bytes) {
    return Failure{FailureReason::kInvalid,
                   absl::InvalidArgumentError(absl::StrCat(
                       "request of ", size_bytes, " bytes is larger than the queue may be: ",
                       batching_.max_queue_bytes, " bytes (batching.max_queue_bytes)"))};
  }
  Level level;
  {
    MutexLock lock(mutex_);
    if (!stopped_.ok()) return Failure{FailureReason::kUnavailable, stopped_};
    if (!FitsLocked(size_bytes) && now >= next_sweep_) SweepLocked(now);
    level = level_;
    if (FitsLocked(size_bytes)) {
      GroupForLocked(pending->admitted.key).waiting.PushBack(std::move(pending));
      ++level_.requests;
      level_.bytes += size_bytes;
      return std::nullopt;
    }
  }
  return QueueFull(level, size_bytes, batching_);
}

bool RequestQueue::FitsLocked(std::uint64_t size_bytes) const {
  return level_.requests < static_cast<std::uint64_t>(batching_.max_queue_size) &&
         level_.bytes <= batching_.max_queue_bytes - size_bytes;
}

void RequestQueue::SweepLocked(absl::Time now) {
  next_sweep_ = now + kBetweenSweeps;
  for (auto group = active_.begin(); group != active_.end();) {
    const auto next = std::next(group);
    PendingList kept;
    while (!group->waiting.empty()) {
      std::unique_ptr<PendingRequest> pending = group->waiting.PopFront();
      pending->drop = ReasonToDrop(*pending, now);
      if (pending->drop == DropReason::kNone) {
        kept.PushBack(std::move(pending));
        continue;
      }
      CountOutLocked(*pending);
      ++running_;
      swept_.PushBack(std::move(pending));
    }
    group->waiting = std::move(kept);
    if (group->waiting.empty()) RetireLocked(group);
    group = next;
  }
}

RequestQueue::Taken RequestQueue::Take(absl::Time now, TimePoint steady_now) {
  Taken taken;
  MutexLock lock(mutex_);
  absl::Duration wait = absl::InfiniteDuration();
  for (auto group = active_.begin(); group != active_.end() && taken.batch.empty();) {
    const auto next = std::next(group);
    wait = std::min(wait, TakeFromLocked(*group, now, steady_now, taken));
    if (group->waiting.empty()) {
      RetireLocked(group);
    } else if (!taken.batch.empty()) {
      active_.splice(active_.end(), active_, group);
    }
    group = next;
  }
  running_ += taken.batch.size() + taken.dropped.size();
  while (!swept_.empty()) taken.dropped.PushBack(swept_.PopFront());
  if (!taken.batch.empty()) {
    taken.more = !active_.empty();
  } else if (!active_.empty()) {
    taken.look_again = steady_now + absl::ToChronoNanoseconds(wait);
  }
  return taken;
}

void RequestQueue::Finished(std::size_t requests) {
  MutexLock lock(mutex_);
  running_ -= requests;
  if (running_ == 0 && level_.requests == 0) idle_.SignalAll();
}

void RequestQueue::Stop(absl::Status reason) {
  MutexLock lock(mutex_);
  stopped_ = std::move(reason);
}

void RequestQueue::Resume() {
  MutexLock lock(mutex_);
  stopped_ = absl::OkStatus();
}

absl::Status RequestQueue::stop_reason() const {
  MutexLock lock(mutex_);
  return stopped_;
}

bool RequestQueue::WaitIdle(absl::Time deadline) {
  MutexLock lock(mutex_);
  while (running_ > 0 || level_.requests > 0) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    idle_.WaitFor(mutex_, left);
  }
  return true;
}

RequestQueue::Level RequestQueue::level() const {
  MutexLock lock(mutex_);
  return level_;
}

RequestQueue::Group& RequestQueue::GroupForLocked(const BatchKey& key) {
  const auto found = groups_.find(key);
  if (found == groups_.end()) {
    active_.push_back({key, {}});
    groups_.emplace(key, std::prev(active_.end()));
    return active_.back();
  }
  Group& group = *found->second;
  if (group.waiting.empty()) active_.splice(active_.end(), spare_, found->second);
  return group;
}

void RequestQueue::RetireLocked(GroupIterator group) {
  spare_.splice(spare_.end(), active_, group);
  if (spare_.size() <= kSpareGroups) return;
  groups_.erase(spare_.front().key);
  spare_.pop_front();
}

absl::Duration RequestQueue::TakeFromLocked(Group& group, absl::Time now, TimePoint steady_now,
                                            Taken& taken) {
  PendingList gathered = GatherLocked(group, now, taken.dropped);
  if (gathered.empty()) return absl::InfiniteDuration();
  const absl::Duration waited = stopped_.ok()
                                    ? absl::FromChrono(steady_now - gathered.front().arrived)
                                    : absl::InfiniteDuration();
  const BatchDecision decision = DecideBatch(batching_, rows_, waited);
  for (std::size_t i = 0; i < decision.take; ++i) {
    CountOutLocked(gathered.front());
    taken.batch.PushBack(gathered.PopFront());
  }
  absl::Duration wait = decision.wait;
  if (decision.take == 0) wait = std::min(wait, FirstToGoStale(gathered) - now);
  group.waiting.Prepend(std::move(gathered));
  return std::max(wait, absl::ZeroDuration());
}

// The oldest that may still be run, as many as may fit, with rows_ of those and of the one after.
PendingList RequestQueue::GatherLocked(Group& group, absl::Time now, PendingList& dropped) {
  const std::int64_t limit = std::max<std::int64_t>(batching_.max_batch_size, 1);
  PendingList gathered;
  rows_.clear();
  std::int64_t sum = 0;
  while (sum < limit && !group.waiting.empty()) {
    const DropReason reason = ReasonToDrop(group.waiting.front(), now);
    if (reason != DropReason::kNone) {
      CountOutLocked(group.waiting.front());
      std::unique_ptr<PendingRequest> late = group.waiting.PopFront();
      late->drop = reason;
      dropped.PushBack(std::move(late));
      continue;
    }
    const std::int64_t rows = group.waiting.front().admitted.rows;
    rows_.push_back(rows);
    if (rows > limit - sum) break;
    sum += rows;
    gathered.PushBack(group.waiting.PopFront());
  }
  return gathered;
}

void RequestQueue::CountOutLocked(const PendingRequest& pending) {
  --level_.requests;
  level_.bytes -= pending.admitted.size_bytes;
}

}  // namespace relight::serving
