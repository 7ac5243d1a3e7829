#include "server/serving/give_way.h"

#include <time.h>

#include <algorithm>

#include "absl/time/time.h"
#include "server/serving/compute_pool.h"

namespace relight::serving {
namespace {

// Whoever waits must also hear that nobody wants its work any more.
constexpr absl::Duration kLongest = absl::Milliseconds(10);

absl::Duration ProcessorTimeOfThread() {
  timespec time = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

}  // namespace

void GiveWay(ComputePool& pool) {
  static thread_local absl::Duration before = absl::ZeroDuration();
  const absl::Duration worked = ProcessorTimeOfThread() - before;
  pool.AwaitIdleThread(std::min(worked * kMostWaiting, kLongest));
  before = ProcessorTimeOfThread();
}

}  // namespace relight::serving
