#include "server/serving/compute_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "tests/server/serving/fake_graph.h"

namespace relight::serving {
namespace {

class FakeSource final : public BatchSource {
 public:
  explicit FakeSource(std::function<void(FakeSource&)> run, int most_at_once = 0)
      : BatchSource(most_at_once), run_(std::move(run)) {}
  void RunOne() override { run_(*this); }

 private:
  const std::function<void(FakeSource&)> run_;
};

ComputePool::TimePoint InAnHour() {
  return std::chrono::steady_clock::now() + std::chrono::hours(1);
}

// Destroying a pool runs what is in line, so what a test scheduled has run after pool_.reset().
class ComputePoolTest : public ::testing::Test {
 protected:
  ~ComputePoolTest() override { gate_.Open(); }

  void HoldTheThread() {
    pool_->Schedule(blocker_);
    gate_.AwaitArrivals(1);
  }

  Gate gate_;
  FakeSource blocker_{[this](FakeSource&) { gate_.Pass(); }};
  std::optional<ComputePool> pool_{std::in_place, 1};
};

TEST_F(ComputePoolTest, RunsWhatIsScheduled) {
  Gate ran;
  FakeSource source([&](FakeSource&) { ran.Open(); });
  pool_->Schedule(source);
  ran.Pass();
  pool_->Detach(source);
}

TEST_F(ComputePoolTest, OneInLineIsNotPutInLineAgain) {
  int runs = 0;
  FakeSource source([&](FakeSource&) { ++runs; });
  HoldTheThread();
  for (int i = 0; i < 3; ++i) pool_->Schedule(source);
  gate_.Open();
  pool_.reset();
  EXPECT_EQ(runs, 1);
}

TEST_F(ComputePoolTest, SchedulingFromARunRunsAgain) {
  int runs = 0;
  FakeSource source([&](FakeSource& self) {
    if (++runs < 5) pool_->Schedule(self);
  });
  Gate all;
  FakeSource last([&](FakeSource& self) { runs < 5 ? pool_->Schedule(self) : all.Open(); });
  pool_->Schedule(source);
  pool_->Schedule(last);
  all.Pass();
  pool_.reset();
  EXPECT_EQ(runs, 5);
}

TEST_F(ComputePoolTest, SourcesTakeTurns) {
  std::string order;
  Gate all;
  const auto run = [&](char name) {
    return [&, name, left = 3](FakeSource& self) mutable {
      order += name;
      if (--left > 0) pool_->Schedule(self);
      if (order.size() == 6) all.Open();
    };
  };
  FakeSource a(run('a'));
  FakeSource b(run('b'));
  HoldTheThread();
  pool_->Schedule(a);
  pool_->Schedule(b);
  gate_.Open();
  all.Pass();
  pool_.reset();
  EXPECT_EQ(order, "ababab");
}

TEST_F(ComputePoolTest, OneSourceMayRunOnSeveralThreads) {
  pool_.emplace(2);
  Gate both;
  FakeSource source([&](FakeSource&) { both.Pass(); });
  pool_->Schedule(source);
  both.AwaitArrivals(1);
  pool_->Schedule(source);
  both.AwaitArrivals(2);
  both.Open();
  pool_->Detach(source);
}

TEST_F(ComputePoolTest, OneThatRunsAsOftenAsItMayWaitsInLineAndHoldsUpNobody) {
  pool_.emplace(2);
  Gate first, second, other_ran;
  std::atomic<int> runs{0};
  FakeSource limited(
      [&](FakeSource&) {
        if (++runs == 1) {
          first.Pass();
        } else {
          second.Open();
        }
      },
      /*most_at_once=*/1);
  pool_->Schedule(limited);
  first.AwaitArrivals(1);
  pool_->Schedule(limited);
  int runs_before_other = 0;
  FakeSource other([&](FakeSource&) {
    runs_before_other = runs;
    other_ran.Open();
  });
  pool_->Schedule(other);
  other_ran.Pass();
  EXPECT_EQ(runs_before_other, 1);
  first.Open();
  second.Pass();
  pool_->Detach(limited);
  pool_->Detach(other);
  EXPECT_EQ(runs, 2);
}

TEST_F(ComputePoolTest, DelayedSourceRunsWhenItIsDue) {
  const auto due = std::chrono::steady_clock::now() + std::chrono::milliseconds(2);
  Gate ran;
  std::atomic<bool> early{false};
  FakeSource source([&](FakeSource&) {
    early = std::chrono::steady_clock::now() < due;
    ran.Open();
  });
  pool_->ScheduleAt(source, due);
  ran.Pass();
  EXPECT_FALSE(early);
  pool_->Detach(source);
}

TEST_F(ComputePoolTest, EarlierOfTwoTimesCounts) {
  Gate ran;
  FakeSource source([&](FakeSource&) { ran.Open(); });
  pool_->ScheduleAt(source, InAnHour());
  pool_->ScheduleAt(source, std::chrono::steady_clock::now());
  pool_->ScheduleAt(source, InAnHour());
  ran.Pass();
  pool_->Detach(source);
}

TEST_F(ComputePoolTest, EndDoesNotWaitForWhatIsDelayed) {
  int runs = 0;
  FakeSource source([&](FakeSource&) { ++runs; });
  pool_->ScheduleAt(source, InAnHour());
  pool_.reset();
  EXPECT_EQ(runs, 1);
}

TEST_F(ComputePoolTest, DetachedSourceIsNotRun) {
  int runs = 0;
  FakeSource in_line([&](FakeSource&) { ++runs; });
  FakeSource delayed([&](FakeSource&) { ++runs; });
  HoldTheThread();
  pool_->Schedule(in_line);
  pool_->ScheduleAt(delayed, InAnHour());
  pool_->Detach(in_line);
  pool_->Detach(delayed);
  gate_.Open();
  pool_.reset();
  EXPECT_EQ(runs, 0);
}

TEST_F(ComputePoolTest, DetachWaitsForARun) {
  bool finished = false;
  FakeSource source([&](FakeSource&) {
    gate_.Pass();
    finished = true;
  });
  pool_->Schedule(source);
  gate_.AwaitArrivals(1);
  std::thread opener([this] { gate_.Open(); });
  pool_->Detach(source);
  EXPECT_TRUE(finished);
  opener.join();
}

}  // namespace
}  // namespace relight::serving
