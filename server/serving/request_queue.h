// The requests of one model that wait, bounded in number and in bytes, and how many are being run.
//
// Requests that may share a batch wait in one group. A batch begins with the most urgent request of
// all and is filled up from its group, the more urgent first; groups whose most urgent requests are
// equally urgent take turns. A group is made when a new combination of shape and version appears;
// beyond that nothing is allocated under the lock.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_REQUEST_QUEUE_H_
#define RELIGHT_SERVER_SERVING_REQUEST_QUEUE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/config/model_config.h"
#include "server/serving/admission.h"
#include "server/serving/failure.h"
#include "server/serving/pending_request.h"

namespace relight::serving {

class RequestQueue {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit RequestQueue(const config::Batching& batching);

  // Admits `pending`, or leaves it with the caller: the reason given to Stop, UNAVAILABLE where the
  // queue is full, INVALID_ARGUMENT where the request alone is larger than the queue may be. Those
  // that must not be run any more are swept out of a full queue, to be handed out by the next Take.
  std::optional<Failure> Push(std::unique_ptr<PendingRequest>& pending, absl::Time now);

  struct Taken {
    PendingList batch;                    // Share a key and fit max_batch_size.
    PendingList dropped;                  // Not to be run; `drop` says why.
    bool more = false;                    // Others wait, and may be ready.
    std::optional<TimePoint> look_again;  // Others wait and are not ready before.
  };
  // Takes the next batch, and what it comes across that must not be run any more.
  Taken Take(absl::Time now, TimePoint steady_now);
  // Whether a request of `size_bytes` need not be queued, because none waits before it and it would
  // not wait for company. It then counts as taken. Not where Push would refuse it.
  bool TakeAtOnce(std::uint64_t size_bytes);
  // What was taken counts as running until this.
  void Finished(std::size_t requests);

  // From now on Push gives `reason`, nothing is taken at once, and nothing waits for company.
  void Stop(absl::Status reason);
  void Resume();
  absl::Status stop_reason() const;  // OK while admitting.
  // Waits until nothing is queued or running; false where `deadline` passes first.
  bool WaitIdle(absl::Time deadline);

  struct Level {
    std::uint64_t requests = 0;
    std::uint64_t bytes = 0;
  };
  Level level() const;

 private:
  struct Group {
    BatchKey key;
    std::vector<PendingList> waiting;  // By rank.
    std::list<Group>* home = nullptr;  // Of active_ or spare_, the list that it is in.

    // The rank of its most urgent request; waiting.size() where it has none.
    std::size_t Rank() const;
  };
  using GroupIterator = std::list<Group>::iterator;

  bool FitsLocked(const PendingRequest& pending) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SweepLocked(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SweepLocked(Group& group, std::size_t rank, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  GroupIterator GroupForLocked(const BatchKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Puts `group` at the end of the list where it belongs now, if that is another than before.
  void PlaceLocked(GroupIterator group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether `pending` is late and may be all the same.
  bool IsNowLate(const PendingRequest& pending, absl::Time now) const;
  static void AddLate(Group& group, std::unique_ptr<PendingRequest> late);
  // Drops and sets aside, until the first of `rank` may be run, or none is left of it.
  void SettleFirstLocked(Group& group, std::size_t rank, absl::Time now, PendingList& dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Moves the next batch of `group` to `taken`, or says how long to wait for one.
  absl::Duration TakeFromLocked(Group& group, absl::Time now, TimePoint steady_now, Taken& taken)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  PendingList GatherLocked(Group& group, absl::Time now, PendingList& dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountInLocked(const PendingRequest& pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountOutLocked(const PendingRequest& pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const config::Batching batching_;
  const std::size_t ranks_;

  mutable Mutex mutex_;
  CondVar idle_;
  absl::Status stopped_ ABSL_GUARDED_BY(mutex_);  // OK while admitting.
  Level level_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::int64_t> at_level_ ABSL_GUARDED_BY(mutex_);  // How many wait, by priority.
  std::size_t running_ ABSL_GUARDED_BY(mutex_) = 0;
  PendingList swept_ ABSL_GUARDED_BY(mutex_);  // Counted as running already.
  absl::Time next_sweep_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  // By their rank, those that have requests; the first is next in turn.
  std::vector<std::list<Group>> active_ ABSL_GUARDED_BY(mutex_);
  std::list<Group> spare_ ABSL_GUARDED_BY(mutex_);  // Have none; kept to be used again.
  std::map<BatchKey, GroupIterator> groups_ ABSL_GUARDED_BY(mutex_);  // Both kinds.
  std::vector<std::int64_t> rows_ ABSL_GUARDED_BY(mutex_);            // Scratch of Take.
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_REQUEST_QUEUE_H_
