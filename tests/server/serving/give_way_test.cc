#include "server/serving/give_way.h"

#include <gtest/gtest.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "server/serving/compute_pool.h"
#include "tests/server/serving/fake_graph.h"

namespace relight::serving {
namespace {

class HoldsAThread final : public BatchSource {
 public:
  void RunOne() override { gate.Pass(); }
  Gate gate;
};

class GiveWayTest : public ::testing::Test {
 protected:
  ~GiveWayTest() override {
    source_.gate.Open();
    pool_.Detach(source_);
  }
  void KeepAThreadBusy() {
    pool_.Schedule(source_);
    source_.gate.AwaitArrivals(1);
  }
  // Works until the longest wait is earned, then gives way. How long that took.
  std::chrono::nanoseconds Waited() {
    GiveWay(pool_);
    timespec start = {};
    timespec now = {};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    do {
      ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    } while ((now.tv_sec - start.tv_sec) * 1'000'000'000 + now.tv_nsec - start.tv_nsec <
             kLongestWait.count() / kMostWaiting);
    const auto before = std::chrono::steady_clock::now();
    GiveWay(pool_);
    return std::chrono::steady_clock::now() - before;
  }

  ComputePool pool_{1};
  HoldsAThread source_;
};

TEST_F(GiveWayTest, WaitsForAsLongAsWorkHasEarned) {
  KeepAThreadBusy();
  EXPECT_GE(Waited(), kLongestWait);
  for (int i = 0; i < 10; ++i) GiveWay(pool_);  // Returns, though requests never pause.
}

TEST_F(GiveWayTest, ComesBackWhenAThreadIsIdle) {
  KeepAThreadBusy();
  std::atomic<bool> came_back{false};
  std::thread waits([&] {
    pool_.AwaitIdleThread(std::chrono::hours(1));
    came_back = true;
  });
  EXPECT_FALSE(came_back);
  source_.gate.Open();
  waits.join();  // Within the hour.
}

}  // namespace
}  // namespace relight::serving
