#include "base/log_fields.h"

#include <gtest/gtest.h>

#include <thread>

namespace relight {
namespace {

TEST(LogScopeTest, HoldsUntilItEndsAndHidesTheOneAround) {
  EXPECT_EQ(LogScope::Current(), nullptr);
  {
    const LogScope outer({.model = "m", .version = 7});
    {
      const LogScope inner({.event = "served"});
      EXPECT_EQ(LogScope::Current()->event, "served");
      EXPECT_EQ(LogScope::Current()->model, "");
    }
    ASSERT_NE(LogScope::Current(), nullptr);
    EXPECT_EQ(LogScope::Current()->model, "m");
    EXPECT_EQ(LogScope::Current()->version, 7);
    EXPECT_EQ(LogScope::Current()->generation, std::nullopt);
  }
  EXPECT_EQ(LogScope::Current(), nullptr);
}

TEST(LogScopeTest, IsItsThreadsAlone) {
  const LogScope mine({.model = "m"});
  const LogFields* seen = LogScope::Current();
  std::thread([&seen] { seen = LogScope::Current(); }).join();
  EXPECT_EQ(seen, nullptr);
}

}  // namespace
}  // namespace relight
