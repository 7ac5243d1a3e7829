#include "server/serving/request_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <vector>

#include "absl/time/clock.h"

namespace relight::serving {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class RequestQueueTest : public ::testing::Test {
 protected:
  static config::Batching Limits() {
    config::Batching batching;
    batching.max_batch_size = 4;
    return batching;
  }
  static config::Batching WithLevels(std::size_t levels) {
    config::Batching batching = Limits();
    batching.levels.resize(levels);
    return batching;
  }
  // `priority`: from 1 on.
  static std::unique_ptr<PendingRequest> Make(std::int64_t rows, std::int64_t shape = 0,
                                              std::size_t priority = 1) {
    auto pending = std::make_unique<PendingRequest>();
    pending->admitted.rows = rows;
    pending->admitted.size_bytes = static_cast<std::uint64_t>(rows);
    pending->admitted.key.free_dims = {shape};
    pending->arrived = kStart;
    pending->rank = 2 * (priority - 1);
    return pending;
  }
  static bool Push(RequestQueue& queue, std::unique_ptr<PendingRequest> pending) {
    return !queue.Push(pending, kNow).has_value();
  }
  static std::vector<std::int64_t> RowsOf(PendingList list) {
    std::vector<std::int64_t> rows;
    while (!list.empty()) rows.push_back(list.PopFront()->admitted.rows);
    return rows;
  }
  static RequestQueue::Taken Take(RequestQueue& queue) { return queue.Take(kNow, kStart); }

  static inline const absl::Time kNow = absl::FromUnixSeconds(1000);
  static inline const RequestQueue::TimePoint kStart{std::chrono::hours(1)};
};

TEST_F(RequestQueueTest, EmptyQueueGivesNothing) {
  RequestQueue queue(Limits());
  const RequestQueue::Taken taken = Take(queue);
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_TRUE(taken.dropped.empty());
  EXPECT_FALSE(taken.more);
  EXPECT_FALSE(taken.look_again.has_value());
}

TEST_F(RequestQueueTest, TakesInOrderAndSaysThatMoreWait) {
  RequestQueue queue(Limits());
  for (const std::int64_t rows : {1, 2, 3}) EXPECT_TRUE(Push(queue, Make(rows)));
  RequestQueue::Taken first = Take(queue);
  EXPECT_TRUE(first.more);
  EXPECT_THAT(RowsOf(std::move(first.batch)), ElementsAre(1, 2));
  RequestQueue::Taken second = Take(queue);
  EXPECT_FALSE(second.more);
  EXPECT_THAT(RowsOf(std::move(second.batch)), ElementsAre(3));
}

TEST_F(RequestQueueTest, ShapesTakeTurns) {
  RequestQueue queue(Limits());
  for (const std::int64_t rows : {3, 3, 3}) EXPECT_TRUE(Push(queue, Make(rows, 1)));
  EXPECT_TRUE(Push(queue, Make(2, 2)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(3));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(2));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(3));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(3));
}

TEST_F(RequestQueueTest, AnyNumberOfShapesComesAndGoes) {
  RequestQueue queue(Limits());
  for (int round = 0; round < 3; ++round) {
    for (std::int64_t shape = 0; shape < 100; ++shape) {
      ASSERT_TRUE(Push(queue, Make(1, shape)));
      ASSERT_TRUE(Push(queue, Make(2, shape)));
    }
    for (std::int64_t shape = 0; shape < 100; ++shape) {
      ASSERT_THAT(RowsOf(Take(queue).batch), ElementsAre(1, 2));
    }
    EXPECT_EQ(queue.level().requests, 0U);
  }
}

TEST_F(RequestQueueTest, WhatMustNotRunIsSetAsideAndLeavesItsRoom) {
  RequestQueue queue(Limits());
  auto late = Make(3);
  late->request.deadline = kNow;
  auto timed_out = Make(3);
  timed_out->queue_deadline = kNow;
  auto cancelled = Make(3);
  cancelled->request.cancelled = std::make_shared<std::atomic<bool>>(true);
  EXPECT_TRUE(Push(queue, std::move(late)));
  EXPECT_TRUE(Push(queue, Make(1)));
  EXPECT_TRUE(Push(queue, std::move(timed_out)));
  EXPECT_TRUE(Push(queue, std::move(cancelled)));
  EXPECT_TRUE(Push(queue, Make(2)));
  RequestQueue::Taken taken = Take(queue);
  EXPECT_THAT(RowsOf(std::move(taken.batch)), ElementsAre(1, 2));
  std::vector<DropReason> reasons;
  while (!taken.dropped.empty()) reasons.push_back(taken.dropped.PopFront()->drop);
  EXPECT_THAT(reasons, ElementsAre(DropReason::kDeadline, DropReason::kQueueTimeout,
                                   DropReason::kCancelled));
  EXPECT_EQ(queue.level().requests, 0U);
  EXPECT_EQ(queue.level().bytes, 0U);
}

TEST_F(RequestQueueTest, DelayedBatchSaysWhenToLookAgain) {
  config::Batching limits = Limits();
  limits.max_queue_delay = absl::Milliseconds(10);
  RequestQueue queue(limits);
  EXPECT_TRUE(Push(queue, Make(1)));
  const auto steady_now = kStart + std::chrono::milliseconds(4);
  const RequestQueue::Taken early = queue.Take(kNow, steady_now);
  EXPECT_TRUE(early.batch.empty());
  EXPECT_FALSE(early.more);
  EXPECT_EQ(early.look_again, kStart + std::chrono::milliseconds(10));
  EXPECT_EQ(queue.level().requests, 1U);
  EXPECT_THAT(RowsOf(queue.Take(kNow, *early.look_again).batch), ElementsAre(1));
}

TEST_F(RequestQueueTest, ReadyShapeIsNotHeldUpByOneThatWaits) {
  config::Batching limits = Limits();
  limits.max_queue_delay = absl::Hours(1);
  RequestQueue queue(limits);
  EXPECT_TRUE(Push(queue, Make(1, 1)));
  EXPECT_TRUE(Push(queue, Make(2, 2)));
  EXPECT_TRUE(Push(queue, Make(2, 2)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(2, 2));
  EXPECT_THAT(RowsOf(Take(queue).batch), IsEmpty());
}

TEST_F(RequestQueueTest, SplitAtAPreferredSizeKeepsTheRestInOrder) {
  config::Batching limits = Limits();
  limits.max_batch_size = 8;
  limits.preferred_batch_sizes = {2};
  limits.max_queue_delay = absl::Hours(1);
  RequestQueue queue(limits);
  for (const std::int64_t rows : {2, 3, 1, 1}) EXPECT_TRUE(Push(queue, Make(rows)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(2));
  EXPECT_THAT(RowsOf(Take(queue).batch), IsEmpty());
  queue.Stop(absl::UnavailableError("draining"));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(3, 1, 1));
}

TEST_F(RequestQueueTest, RefusedRequestStaysWithTheCaller) {
  RequestQueue queue(Limits());
  queue.Stop(absl::UnavailableError("draining"));
  auto pending = Make(1);
  const std::optional<Failure> failure = queue.Push(pending, kNow);
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->reason, FailureReason::kUnavailable);
  EXPECT_EQ(failure->status, absl::UnavailableError("draining"));
  EXPECT_NE(pending, nullptr);
}

TEST_F(RequestQueueTest, IdleOnlyWhenWhatWasTakenIsFinished) {
  RequestQueue queue(Limits());
  EXPECT_TRUE(queue.WaitIdle(absl::InfinitePast()));
  EXPECT_TRUE(Push(queue, Make(1)));
  EXPECT_FALSE(queue.WaitIdle(absl::Now()));
  const RequestQueue::Taken taken = Take(queue);
  EXPECT_FALSE(queue.WaitIdle(absl::Now()));
  queue.Finished(taken.batch.size());
  EXPECT_TRUE(queue.WaitIdle(absl::InfinitePast()));
}

TEST_F(RequestQueueTest, FullQueueIsSweptOfWhatNobodyWaitsFor) {
  config::Batching batching = Limits();
  batching.max_queue_size = 2;
  batching.max_queue_delay = absl::Seconds(5);
  RequestQueue queue(batching);
  std::atomic<bool> cancelled{false};
  for (int i = 0; i < 2; ++i) {
    std::unique_ptr<PendingRequest> pending = Make(1);
    pending->request.cancelled = std::shared_ptr<const std::atomic<bool>>(&cancelled, [](auto*) {});
    EXPECT_TRUE(Push(queue, std::move(pending)));
  }
  EXPECT_FALSE(Push(queue, Make(1)));
  cancelled = true;
  std::unique_ptr<PendingRequest> pending = Make(2);
  EXPECT_TRUE(queue.Push(pending, kNow).has_value()) << "searched a moment ago";
  EXPECT_FALSE(queue.Push(pending, kNow + absl::Milliseconds(10)).has_value());
  EXPECT_FALSE(queue.WaitIdle(absl::InfinitePast()));
  RequestQueue::Taken taken = queue.Take(kNow, kStart + std::chrono::seconds(5));
  EXPECT_EQ(taken.dropped.front().drop, DropReason::kCancelled);
  EXPECT_THAT(RowsOf(std::move(taken.dropped)), ElementsAre(1, 1));
  EXPECT_THAT(RowsOf(std::move(taken.batch)), ElementsAre(2));
  queue.Finished(3);
  EXPECT_TRUE(queue.WaitIdle(absl::InfinitePast()));
}

TEST_F(RequestQueueTest, WhatWaitsForCompanyIsLookedAtWhenItsTimeIsOver) {
  config::Batching batching = Limits();
  batching.max_queue_delay = absl::Seconds(2);
  RequestQueue queue(batching);
  std::unique_ptr<PendingRequest> pending = Make(1);
  pending->queue_deadline = kNow + absl::Milliseconds(20);
  EXPECT_TRUE(Push(queue, std::move(pending)));
  const RequestQueue::Taken taken = Take(queue);
  EXPECT_TRUE(taken.batch.empty());
  EXPECT_EQ(taken.look_again, kStart + std::chrono::milliseconds(20));
}

TEST_F(RequestQueueTest, UrgentOnesGoFirstAndOthersFillUpTheirBatch) {
  RequestQueue queue(WithLevels(3));
  EXPECT_TRUE(Push(queue, Make(3, 0, 3)));
  EXPECT_TRUE(Push(queue, Make(1, 0, 2)));
  EXPECT_TRUE(Push(queue, Make(2, 0, 1)));
  EXPECT_TRUE(Push(queue, Make(1, 0, 1)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(2, 1, 1));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(3));
  EXPECT_EQ(queue.level().requests, 0U);
}

TEST_F(RequestQueueTest, UrgentOnesGoFirstWhateverTheirShape) {
  RequestQueue queue(WithLevels(2));
  for (const std::int64_t shape : {1, 2}) EXPECT_TRUE(Push(queue, Make(4, shape, 2)));
  for (const std::int64_t shape : {3, 4, 3}) EXPECT_TRUE(Push(queue, Make(shape, shape, 1)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(3));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(4)) << "shapes of one level take turns";
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(3));
  EXPECT_TRUE(Push(queue, Make(1, 2, 1)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(1)) << "its shape has become urgent";
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(4));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(4));
  EXPECT_THAT(RowsOf(Take(queue).batch), IsEmpty());
}

TEST_F(RequestQueueTest, OneThatMustNotRunMakesItsShapeNoMoreUrgent) {
  RequestQueue queue(WithLevels(3));
  auto late = Make(1, 1, 1);
  late->request.deadline = kNow;
  EXPECT_TRUE(Push(queue, std::move(late)));
  EXPECT_TRUE(Push(queue, Make(4, 1, 3)));
  EXPECT_TRUE(Push(queue, Make(3, 2, 1)));
  RequestQueue::Taken taken = Take(queue);
  EXPECT_THAT(RowsOf(std::move(taken.dropped)), ElementsAre(1));
  EXPECT_THAT(RowsOf(std::move(taken.batch)), ElementsAre(3));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(4));
}

TEST_F(RequestQueueTest, WhatIsNotTakenGoesBackToItsLevel) {
  config::Batching limits = WithLevels(2);
  limits.max_batch_size = 8;
  limits.preferred_batch_sizes = {3};
  limits.max_queue_delay = absl::Hours(1);
  RequestQueue queue(limits);
  EXPECT_TRUE(Push(queue, Make(1, 0, 2)));
  EXPECT_TRUE(Push(queue, Make(2, 0, 2)));
  EXPECT_TRUE(Push(queue, Make(3, 0, 1)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(3));
  EXPECT_TRUE(Push(queue, Make(2, 0, 1)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(2, 1));
  queue.Stop(absl::UnavailableError("draining"));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(2));
}

TEST_F(RequestQueueTest, BatchGoesWhenTheOldestHasWaitedHoweverUrgentTheFirstIs) {
  config::Batching limits = WithLevels(2);
  limits.max_queue_delay = absl::Milliseconds(10);
  RequestQueue queue(limits);
  EXPECT_TRUE(Push(queue, Make(1, 0, 2)));
  auto urgent = Make(2, 0, 1);
  urgent->arrived = kStart + std::chrono::milliseconds(9);
  EXPECT_TRUE(Push(queue, std::move(urgent)));
  const RequestQueue::Taken early = queue.Take(kNow, kStart + std::chrono::milliseconds(9));
  EXPECT_EQ(early.look_again, kStart + std::chrono::milliseconds(10));
  EXPECT_THAT(RowsOf(queue.Take(kNow, *early.look_again).batch), ElementsAre(2, 1));
}

TEST_F(RequestQueueTest, FullLevelRefusesNoOther) {
  config::Batching limits = WithLevels(2);
  limits.levels[1].max_queue_size = 2;
  RequestQueue queue(limits);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Push(queue, Make(4, 0, 2)));
  auto refused = Make(4, 0, 2);
  const std::optional<Failure> failure = queue.Push(refused, kNow);
  ASSERT_TRUE(failure.has_value());
  EXPECT_EQ(failure->reason, FailureReason::kRejected);
  EXPECT_THAT(std::string(failure->status.message()),
              ::testing::HasSubstr("2 requests of priority 2 wait, the limit is 2"));
  EXPECT_TRUE(Push(queue, Make(4, 0, 1)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(4));
  EXPECT_FALSE(Push(queue, Make(4, 0, 2))) << "the urgent one went";
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(4));
  EXPECT_TRUE(Push(queue, Make(4, 0, 2)));
}

TEST_F(RequestQueueTest, LateOnesLetOthersOfTheirLevelGoFirst) {
  config::Batching limits = WithLevels(2);
  limits.levels[0].delay_late = true;
  RequestQueue queue(limits);
  auto late = Make(4, 1, 1);
  late->queue_deadline = kNow;
  EXPECT_TRUE(Push(queue, std::move(late)));
  EXPECT_TRUE(Push(queue, Make(2, 0, 2)));
  EXPECT_TRUE(Push(queue, Make(3, 0, 1)));
  EXPECT_TRUE(Push(queue, Make(1, 2, 1)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(3));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(1));
  RequestQueue::Taken taken = Take(queue);
  EXPECT_TRUE(taken.dropped.empty());
  EXPECT_THAT(RowsOf(std::move(taken.batch)), ElementsAre(4)) << "before those of a lower level";
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(2));
}

TEST_F(RequestQueueTest, LateOneBehindAnotherIsSetAsideWhereItIsMet) {
  config::Batching limits = WithLevels(1);
  limits.levels[0].delay_late = true;
  RequestQueue queue(limits);
  EXPECT_TRUE(Push(queue, Make(1)));
  auto late = Make(2);
  late->queue_deadline = kNow;
  EXPECT_TRUE(Push(queue, std::move(late)));
  EXPECT_TRUE(Push(queue, Make(3)));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(1, 3));
  EXPECT_THAT(RowsOf(Take(queue).batch), ElementsAre(2));
}

TEST_F(RequestQueueTest, SweepKeepsWhatIsLateAndMayBe) {
  config::Batching limits = WithLevels(2);
  limits.max_queue_size = 2;
  limits.levels[1].delay_late = true;
  RequestQueue queue(limits);
  for (const std::size_t priority : {1U, 2U}) {
    auto late = Make(1, 0, priority);
    late->queue_deadline = kNow + absl::Milliseconds(1);
    EXPECT_TRUE(Push(queue, std::move(late)));
  }
  auto pending = Make(2, 0, 2);
  EXPECT_FALSE(queue.Push(pending, kNow + absl::Milliseconds(1)).has_value());
  RequestQueue::Taken taken = Take(queue);
  EXPECT_EQ(taken.dropped.size(), 1U);
  EXPECT_EQ(taken.dropped.front().drop, DropReason::kQueueTimeout);
  EXPECT_THAT(RowsOf(std::move(taken.batch)), ElementsAre(2, 1));
}

TEST_F(RequestQueueTest, OneBeforeWhichNoneWaitsIsTakenAtOnce) {
  RequestQueue queue(Limits());
  EXPECT_TRUE(queue.TakeAtOnce(1));
  EXPECT_TRUE(queue.TakeAtOnce(1)) << "that one is being run is no reason to wait";
  EXPECT_FALSE(queue.WaitIdle(absl::InfinitePast()));
  queue.Finished(1);
  EXPECT_FALSE(queue.WaitIdle(absl::InfinitePast())) << "one is being run still";
  queue.Finished(1);
  EXPECT_TRUE(queue.WaitIdle(absl::InfinitePast()));
  EXPECT_TRUE(Push(queue, Make(1)));
  EXPECT_FALSE(queue.TakeAtOnce(1)) << "one waits";
}

TEST_F(RequestQueueTest, OneThatMayWaitForCompanyIsNotTakenAtOnce) {
  config::Batching limits = Limits();
  limits.max_queue_delay = absl::Milliseconds(10);
  EXPECT_FALSE(RequestQueue(limits).TakeAtOnce(1));
}

TEST_F(RequestQueueTest, WhatIsRefusedIsNotTakenAtOnce) {
  config::Batching limits = Limits();
  limits.max_queue_bytes = 10;
  RequestQueue queue(limits);
  EXPECT_FALSE(queue.TakeAtOnce(11));
  queue.Stop(absl::UnavailableError("draining"));
  EXPECT_FALSE(queue.TakeAtOnce(1));
  queue.Resume();
  EXPECT_TRUE(queue.TakeAtOnce(1));
}

}  // namespace
}  // namespace relight::serving
