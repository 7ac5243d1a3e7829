#include "server/serving/give_way.h"

#include <time.h>

#include <algorithm>
#include <chrono>

#include "server/serving/compute_pool.h"

namespace relight::serving {
namespace {

std::chrono::nanoseconds ProcessorTimeOfThread() {
  timespec time = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

void GiveWay(ComputePool& pool) {
  static thread_local std::chrono::nanoseconds before{0};
  const std::chrono::nanoseconds worked = ProcessorTimeOfThread() - before;
  pool.AwaitIdleThread(std::min(worked * kMostWaiting, kLongestWait));
  before = ProcessorTimeOfThread();
}

}  // namespace relight::serving
