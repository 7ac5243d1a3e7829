#include "server/exit_guard.h"

#include <gtest/gtest.h>

#include <future>

namespace relight {
namespace {

TEST(ExitGuardTest, CallsOnceTheLimitHasPassed) {
  std::promise<void> called;
  const ExitGuard guard(absl::ZeroDuration(), [&] { called.set_value(); });
  called.get_future().wait();
}

TEST(ExitGuardTest, LeavingInTimeCallsNothing) {
  bool called = false;
  {
    const ExitGuard guard(absl::Hours(1), [&] { called = true; });
  }
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace relight
