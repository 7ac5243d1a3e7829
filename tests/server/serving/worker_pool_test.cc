#include "server/serving/worker_pool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <new>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/server/serving/fake_graph.h"

namespace relight::serving {
namespace {

constexpr int kNiceness = 15;

TEST(WorkerPoolTest, RunsWhatWasSubmittedBeforeItEnds) {
  std::atomic<int> ran{0};
  {
    WorkerPool pool("test", 2, kNiceness);
    for (int i = 0; i < 100; ++i) pool.Submit([&] { ++ran; });
  }
  EXPECT_EQ(ran, 100);
}

TEST(WorkerPoolTest, ParallelForCallsEachIndexOnce) {
  for (const int threads : {1, 4}) {
    WorkerPool pool("test", threads, kNiceness);
    std::vector<std::atomic<int>> calls(1000);
    pool.parallel_for()(calls.size(), [&](std::size_t i) { ++calls[i]; });
    for (const auto& count : calls) EXPECT_EQ(count, 1);
    pool.parallel_for()(0, [](std::size_t) { FAIL(); });
  }
}

TEST(WorkerPoolTest, WhatACallThrowsReachesTheCallerAndEndsNothingElse) {
  for (const int threads : {1, 4}) {
    WorkerPool pool("test", threads, kNiceness);
    std::vector<std::atomic<int>> calls(1000);
    const auto body = [&](std::size_t i) {
      ++calls[i];
      if (i % 10 == 7) throw std::bad_alloc();
    };
    EXPECT_THROW(pool.parallel_for()(calls.size(), body), std::bad_alloc);
    for (const auto& count : calls) EXPECT_LE(count, 1);
    std::atomic<int> again{0};
    pool.parallel_for()(100, [&](std::size_t) { ++again; });
    EXPECT_EQ(again, 100);
  }
}

TEST(WorkerPoolTest, ParallelForWorksOnAThreadOfThePoolWhileTheOthersAreBusy) {
  WorkerPool pool("test", 2, kNiceness);
  Gate busy;
  pool.Submit([&] { busy.Pass(); });
  std::atomic<int> sum{0};
  Gate done;
  pool.Submit([&] {
    pool.parallel_for()(10, [&](std::size_t i) { sum += static_cast<int>(i); });
    done.Open();
    busy.Open();
  });
  done.Pass();
  EXPECT_EQ(sum, 45);
}

int NicenessOfLoaders(int niceness_of_process) {
  int niceness = 0;
  std::thread([&] {
    ::setpriority(PRIO_PROCESS, 0, niceness_of_process);
    WorkerPool pool("test", 1, kNiceness);
    pool.Submit([&] { niceness = ::getpriority(PRIO_PROCESS, 0); });
  }).join();
  return niceness;
}

TEST(WorkerPoolTest, IsNeverBeforeTheRestOfTheProcess) {
  EXPECT_EQ(NicenessOfLoaders(0), kNiceness);
  EXPECT_EQ(NicenessOfLoaders(17), 17);
}

}  // namespace
}  // namespace relight::serving
