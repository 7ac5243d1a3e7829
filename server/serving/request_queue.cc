#include "server/serving/request_queue.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/serving/batch_former.h"

namespace relight::serving {
namespace {

constexpr std::size_t kSpareGroups = 16;
// A queue that stays full is not searched again and again.
constexpr absl::Duration kBetweenSweeps = absl::Milliseconds(10);

std::size_t LevelOf(const PendingRequest& pending) { return pending.rank / 2; }

Failure QueueFull(const PendingRequest& pending, const RequestQueue::Level& level,
                  std::int64_t at_level, const config::Batching& batching) {
  const std::size_t priority = LevelOf(pending);
  const std::int64_t most_at_level = batching.levels[priority].max_queue_size;
  std::string what;
  if (level.requests >= static_cast<std::uint64_t>(batching.max_queue_size)) {
    what = absl::StrCat(level.requests, " requests wait, the limit is ", batching.max_queue_size,
                        " (batching.max_queue_size)");
  } else if (at_level >= most_at_level) {
    what = absl::StrCat(at_level, " requests of priority ", priority + 1, " wait, the limit is ",
                        most_at_level, " (max_queue_size of the queue policy)");
  } else {
    what =
        absl::StrCat(level.bytes, " bytes wait and this request has ", pending.admitted.size_bytes,
                     ", the limit is ", batching.max_queue_bytes, " (batching.max_queue_bytes)");
  }
  return {FailureReason::kRejected,
          absl::UnavailableError(absl::StrCat("queue is full: ", what, "; try again later"))};
}

}  // namespace

std::size_t RequestQueue::Group::Rank() const {
  std::size_t rank = 0;
  while (rank < waiting.size() && waiting[rank].empty()) ++rank;
  return rank;
}

RequestQueue::RequestQueue(const config::Batching& batching)
    : batching_(batching), ranks_(2 * batching.levels.size()) {
  constexpr std::int64_t kReserve = 1024;
  MutexLock lock(mutex_);
  rows_.reserve(static_cast<std::size_t>(std::min(batching.max_batch_size, kReserve)) + 2);
  at_level_.resize(batching.levels.size());
  active_.resize(ranks_);
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
  std::int64_t at_level = 0;
  {
    MutexLock lock(mutex_);
    if (!stopped_.ok()) return Failure{FailureReason::kUnavailable, stopped_};
    if (!FitsLocked(*pending) && now >= next_sweep_) SweepLocked(now);
    level = level_;
    at_level = at_level_[LevelOf(*pending)];
    if (FitsLocked(*pending)) {
      CountInLocked(*pending);
      const GroupIterator group = GroupForLocked(pending->admitted.key);
      group->waiting[pending->rank].PushBack(std::move(pending));
      PlaceLocked(group);
      return std::nullopt;
    }
  }
  return QueueFull(*pending, level, at_level, batching_);
}

bool RequestQueue::FitsLocked(const PendingRequest& pending) const {
  const std::size_t level = LevelOf(pending);
  return level_.requests < static_cast<std::uint64_t>(batching_.max_queue_size) &&
         level_.bytes <= batching_.max_queue_bytes - pending.admitted.size_bytes &&
         at_level_[level] < batching_.levels[level].max_queue_size;
}

void RequestQueue::SweepLocked(absl::Time now) {
  next_sweep_ = now + kBetweenSweeps;
  for (std::list<Group>& groups : active_) {
    for (auto group = groups.begin(); group != groups.end();) {
      const auto next = std::next(group);
      for (std::size_t rank = 0; rank < ranks_; ++rank) SweepLocked(*group, rank, now);
      PlaceLocked(group);
      group = next;
    }
  }
}

void RequestQueue::SweepLocked(Group& group, std::size_t rank, absl::Time now) {
  PendingList all = std::move(group.waiting[rank]);
  while (!all.empty()) {
    std::unique_ptr<PendingRequest> pending = all.PopFront();
    if (IsNowLate(*pending, now)) {
      AddLate(group, std::move(pending));
      continue;
    }
    pending->drop = ReasonToDrop(*pending, now);
    if (pending->drop == DropReason::kNone) {
      group.waiting[rank].PushBack(std::move(pending));
      continue;
    }
    CountOutLocked(*pending);
    ++running_;
    swept_.PushBack(std::move(pending));
  }
}

bool RequestQueue::IsNowLate(const PendingRequest& pending, absl::Time now) const {
  return pending.queue_deadline <= now && batching_.levels[LevelOf(pending)].delay_late;
}

void RequestQueue::AddLate(Group& group, std::unique_ptr<PendingRequest> late) {
  late->queue_deadline = absl::InfiniteFuture();
  ++late->rank;
  group.waiting[late->rank].PushBack(std::move(late));
}

void RequestQueue::SettleFirstLocked(Group& group, std::size_t rank, absl::Time now,
                                     PendingList& dropped) {
  PendingList& waiting = group.waiting[rank];
  while (!waiting.empty()) {
    if (IsNowLate(waiting.front(), now)) {
      AddLate(group, waiting.PopFront());
      continue;
    }
    const DropReason reason = ReasonToDrop(waiting.front(), now);
    if (reason == DropReason::kNone) return;
    CountOutLocked(waiting.front());
    std::unique_ptr<PendingRequest> late = waiting.PopFront();
    late->drop = reason;
    dropped.PushBack(std::move(late));
  }
}

RequestQueue::Taken RequestQueue::Take(absl::Time now, TimePoint steady_now) {
  MutexLock lock(mutex_);
  Taken taken;
  absl::Duration wait = absl::InfiniteDuration();
  for (std::size_t rank = 0; rank < ranks_ && taken.batch.empty(); ++rank) {
    std::list<Group>& groups = active_[rank];
    for (auto group = groups.begin(); group != groups.end() && taken.batch.empty();) {
      const auto next = std::next(group);
      SettleFirstLocked(*group, rank, now, taken.dropped);
      if (group->Rank() == rank) {
        wait = std::min(wait, TakeFromLocked(*group, now, steady_now, taken));
        if (!taken.batch.empty()) groups.splice(groups.end(), groups, group);
      }
      PlaceLocked(group);
      group = next;
    }
  }
  running_ += taken.batch.size() + taken.dropped.size();
  while (!swept_.empty()) taken.dropped.PushBack(swept_.PopFront());
  if (!taken.batch.empty()) {
    taken.more = level_.requests > 0;
  } else if (level_.requests > 0) {
    taken.look_again = steady_now + absl::ToChronoNanoseconds(wait);
  }
  return taken;
}

bool RequestQueue::TakeAtOnce(std::uint64_t size_bytes) {
  const bool waits = batching_.max_queue_delay > absl::ZeroDuration();
  if (waits || size_bytes > batching_.max_queue_bytes) return false;
  MutexLock lock(mutex_);
  if (!stopped_.ok() || level_.requests > 0) return false;
  ++running_;
  return true;
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

RequestQueue::GroupIterator RequestQueue::GroupForLocked(const BatchKey& key) {
  const auto found = groups_.find(key);
  if (found != groups_.end()) return found->second;
  spare_.push_back({key, std::vector<PendingList>(ranks_), &spare_});
  return groups_.emplace(key, std::prev(spare_.end())).first->second;
}

void RequestQueue::PlaceLocked(GroupIterator group) {
  const std::size_t rank = group->Rank();
  std::list<Group>& home = rank < ranks_ ? active_[rank] : spare_;
  if (group->home == &home) return;
  home.splice(home.end(), *group->home, group);
  group->home = &home;
  if (&home != &spare_ || spare_.size() <= kSpareGroups) return;
  groups_.erase(spare_.front().key);
  spare_.pop_front();
}

absl::Duration RequestQueue::TakeFromLocked(Group& group, absl::Time now, TimePoint steady_now,
                                            Taken& taken) {
  PendingList gathered = GatherLocked(group, now, taken.dropped);
  if (gathered.empty()) return absl::InfiniteDuration();
  const absl::Duration waited = stopped_.ok() ? absl::FromChrono(steady_now - FirstToCome(gathered))
                                              : absl::InfiniteDuration();
  const BatchDecision decision = DecideBatch(batching_, rows_, waited);
  for (std::size_t i = 0; i < decision.take; ++i) {
    CountOutLocked(gathered.front());
    taken.batch.PushBack(gathered.PopFront());
  }
  absl::Duration wait = decision.wait;
  if (decision.take == 0) wait = std::min(wait, FirstToGoStale(gathered) - now);
  while (!gathered.empty()) {
    const std::size_t rank = gathered.front().rank;
    PendingList of_rank;
    while (!gathered.empty() && gathered.front().rank == rank) {
      of_rank.PushBack(gathered.PopFront());
    }
    group.waiting[rank].Prepend(std::move(of_rank));
  }
  return std::max(wait, absl::ZeroDuration());
}

// Those that may be run and go first, as many as may fit, with rows_ of those and of the one after.
PendingList RequestQueue::GatherLocked(Group& group, absl::Time now, PendingList& dropped) {
  const std::int64_t limit = std::max<std::int64_t>(batching_.max_batch_size, 1);
  PendingList gathered;
  rows_.clear();
  std::int64_t sum = 0;
  for (std::size_t rank = group.Rank(); rank < ranks_; ++rank) {
    PendingList& waiting = group.waiting[rank];
    while (sum < limit) {
      SettleFirstLocked(group, rank, now, dropped);
      if (waiting.empty()) break;
      const std::int64_t rows = waiting.front().admitted.rows;
      rows_.push_back(rows);
      if (rows > limit - sum) return gathered;
      sum += rows;
      gathered.PushBack(waiting.PopFront());
    }
  }
  return gathered;
}

void RequestQueue::CountInLocked(const PendingRequest& pending) {
  ++level_.requests;
  level_.bytes += pending.admitted.size_bytes;
  ++at_level_[LevelOf(pending)];
}

void RequestQueue::CountOutLocked(const PendingRequest& pending) {
  --level_.requests;
  level_.bytes -= pending.admitted.size_bytes;
  --at_level_[LevelOf(pending)];
}

}  // namespace relight::serving
