#include "server/rpc/stall_timer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"

namespace relight::rpc {
namespace {

constexpr absl::Duration kLimit = absl::Milliseconds(200);

TEST(StallTimerTest, OneLongWaitIsNoticed) {
  absl::Notification stalled;
  const auto timer = StallTimer::Create(kLimit, [&] { stalled.Notify(); });
  timer->WaitBegins();
  stalled.WaitForNotification();
  timer->End();
}

TEST(StallTimerTest, ManyShortWaitsThatBringNothingAreNoticed) {
  std::atomic<bool> stalled = false;
  const auto timer = StallTimer::Create(kLimit, [&] { stalled = true; });
  while (!stalled) {
    timer->WaitBegins();
    std::this_thread::yield();
    timer->WaitEnds(0);
  }
  timer->End();
}

TEST(StallTimerTest, ManyShortWaitsThatBringSomethingAreNot) {
  std::atomic<bool> stalled = false;
  const auto timer = StallTimer::Create(kLimit, [&] { stalled = true; });
  const absl::Time end = absl::Now() + 3 * kLimit;
  while (absl::Now() < end) {
    timer->WaitBegins();
    timer->WaitEnds(1 << 20);
  }
  timer->End();
  EXPECT_FALSE(stalled);
}

TEST(StallTimerTest, AnEndedOneNoticesNothing) {
  std::atomic<bool> stalled = false;
  {
    const auto timer = StallTimer::Create(absl::ZeroDuration(), [&] { stalled = true; });
    timer->End();
    timer->WaitBegins();
    timer->WaitEnds(0);
  }
  EXPECT_FALSE(stalled);
}

}  // namespace
}  // namespace relight::rpc
