#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "server/serving/failure.h"
#include "server/serving/histogram.h"
#include "server/serving/model_counters.h"
#include "server/serving/version_counters.h"

namespace relight::serving {
namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using ::testing::ElementsAre;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(HistogramTest, CountsAreCumulativeAndBoundsInclusive) {
  Histogram histogram({1, 2, 4});
  for (const double value : {0.5, 1.0, 1.5, 4.0, 5.0}) histogram.Observe(value);
  const HistogramSnapshot snapshot = histogram.Read();
  EXPECT_THAT(snapshot.bounds, ElementsAre(1, 2, 4));
  EXPECT_THAT(snapshot.counts, ElementsAre(2, 3, 4, 5));
  EXPECT_EQ(snapshot.sum, 12);
}

TEST(HistogramTest, NothingObservedIsAllZeros) {
  const HistogramSnapshot snapshot = Histogram({1}).Read();
  EXPECT_THAT(snapshot.counts, ElementsAre(0, 0));
  EXPECT_EQ(snapshot.sum, 0);
}

TEST(HistogramTest, LatencyBoundsReachFromTensOfMicrosecondsToSeconds) {
  const std::vector<double> bounds = Histogram::LatencyBounds();
  EXPECT_EQ(bounds.front(), 50e-6);
  EXPECT_EQ(bounds.back(), 10);
  EXPECT_TRUE(std::is_sorted(bounds.begin(), bounds.end()));
}

TEST(HistogramTest, BatchSizeBoundsCoverTheLargestBatch) {
  EXPECT_THAT(Histogram::BatchSizeBounds(0), ElementsAre(1));
  EXPECT_THAT(Histogram::BatchSizeBounds(5), ElementsAre(1, 2, 4, 8));
  EXPECT_EQ(Histogram::BatchSizeBounds(std::int64_t{1} << 40).back(), 65536);
}

TEST(VersionCountersTest, EachRequestOfABatchHasTheBatchsTimes) {
  VersionCounters counters;
  const BatchTimes times{milliseconds(1), milliseconds(2), milliseconds(3)};
  counters.AddBatch(2, 5, times, absl::FromUnixSeconds(7));
  counters.AddSuccess(milliseconds(10), milliseconds(20));
  counters.AddSuccess(milliseconds(30), milliseconds(40));
  counters.AddFailure(milliseconds(1));
  const VersionStatistics read = counters.Read();
  EXPECT_EQ(read.inference_count, 5U);
  EXPECT_EQ(read.execution_count, 1U);
  EXPECT_EQ(read.last_inference, absl::FromUnixSeconds(7));
  EXPECT_EQ(read.compute_infer.count, 2U);
  EXPECT_EQ(read.compute_infer.nanoseconds, 4'000'000U);
  EXPECT_EQ(read.queue.count, 2U);
  EXPECT_EQ(read.queue.nanoseconds, 40'000'000U);
  EXPECT_EQ(read.success.nanoseconds, 60'000'000U);
  EXPECT_EQ(read.fail.count, 1U);
  ASSERT_EQ(read.batches.size(), 1U);
  EXPECT_EQ(read.batches[0].batch_size, 5U);
  EXPECT_EQ(read.batches[0].compute_output.count, 1U);
  EXPECT_EQ(read.batches[0].compute_output.nanoseconds, 3'000'000U);
}

TEST(VersionCountersTest, BatchSizesAreToldApartAndSorted) {
  VersionCounters counters;
  for (const std::uint64_t rows : {130U, 2U, 66U, 2U}) {  // 2, 66 and 130 share a bucket.
    counters.AddBatch(1, rows, {}, absl::UnixEpoch());
  }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> seen;
  for (const BatchTotal& batch : counters.Read().batches) {
    seen.emplace_back(batch.batch_size, batch.compute_infer.count);
  }
  EXPECT_THAT(seen, ElementsAre(Pair(2, 2), Pair(66, 1), Pair(130, 1)));
}

TEST(VersionCountersTest, NothingIsLostBetweenThreads) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 5000;
  VersionCounters counters;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&counters] {
      for (int round = 0; round < kRounds; ++round) {
        counters.AddBatch(1, static_cast<std::uint64_t>(round % 300), {nanoseconds(1), {}, {}},
                          absl::UnixEpoch());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const VersionStatistics read = counters.Read();
  EXPECT_EQ(read.execution_count, static_cast<std::uint64_t>(kThreads * kRounds));
  EXPECT_EQ(read.batches.size(), 300U);
  std::uint64_t executions = 0;
  for (const BatchTotal& batch : read.batches) executions += batch.compute_input.count;
  EXPECT_EQ(executions, static_cast<std::uint64_t>(kThreads * kRounds));
}

TEST(VersionCountersTest, MergeAddsAndKeepsTheLaterTime) {
  VersionCounters older;
  VersionCounters newer;
  older.AddBatch(1, 2, {milliseconds(1), {}, {}}, absl::FromUnixSeconds(1));
  newer.AddBatch(1, 2, {milliseconds(1), {}, {}}, absl::FromUnixSeconds(2));
  newer.AddBatch(1, 4, {milliseconds(1), {}, {}}, absl::FromUnixSeconds(2));
  VersionStatistics merged = newer.Read();
  merged.version = 9;
  Merge(older.Read(), merged);
  EXPECT_EQ(merged.version, 9);
  EXPECT_EQ(merged.inference_count, 8U);
  EXPECT_EQ(merged.last_inference, absl::FromUnixSeconds(2));
  ASSERT_EQ(merged.batches.size(), 2U);
  EXPECT_EQ(merged.batches[0].compute_input.count, 2U);
  EXPECT_EQ(merged.batches[1].compute_input.count, 1U);
}

TEST(ModelCountersTest, EveryReasonIsPresentFromTheStart) {
  ModelCounters counters(4);
  counters.AddFailure(FailureReason::kRejected);
  ModelStatistics read;
  read.generation = 5;
  counters.Read(read);
  EXPECT_THAT(
      read.requests_failed,
      UnorderedElementsAre(Pair("rejected", 1), Pair("cancelled", 0), Pair("deadline", 0),
                           Pair("invalid", 0), Pair("unavailable", 0), Pair("internal", 0)));
  EXPECT_EQ(read.generation, 5U);
}

TEST(FailureTest, ReasonFollowsTheCode) {
  EXPECT_EQ(ReasonOf(absl::CancelledError("")), FailureReason::kCancelled);
  EXPECT_EQ(ReasonOf(absl::DeadlineExceededError("")), FailureReason::kDeadline);
  EXPECT_EQ(ReasonOf(absl::InvalidArgumentError("")), FailureReason::kInvalid);
  EXPECT_EQ(ReasonOf(absl::NotFoundError("")), FailureReason::kInvalid);
  EXPECT_EQ(ReasonOf(absl::UnavailableError("")), FailureReason::kUnavailable);
  EXPECT_EQ(ReasonOf(absl::InternalError("")), FailureReason::kInternal);
  EXPECT_EQ(ReasonOf(absl::UnknownError("")), FailureReason::kInternal);
}

}  // namespace
}  // namespace relight::serving
