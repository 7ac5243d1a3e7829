#include "server/serving/version_state.h"

#include <gtest/gtest.h>

namespace relight::serving {
namespace {

using enum VersionState;

TEST(VersionStateTest, FollowsTheLifeOfAVersion) {
  EXPECT_TRUE(MayFollow(kFound, kLoading));
  EXPECT_TRUE(MayFollow(kLoading, kServing));
  EXPECT_TRUE(MayFollow(kServing, kLoaded));
  EXPECT_TRUE(MayFollow(kLoaded, kRetired));
  EXPECT_TRUE(MayFollow(kLoaded, kServing));
}

TEST(VersionStateTest, ForbidsShortcuts) {
  EXPECT_FALSE(MayFollow(kServing, kWaiting));
  EXPECT_FALSE(MayFollow(kServing, kRefused));
  EXPECT_FALSE(MayFollow(kLoaded, kRetrying));
  EXPECT_FALSE(MayFollow(kWaiting, kRetired));
  EXPECT_FALSE(MayFollow(kRefused, kRetired));
}

TEST(VersionStateTest, AnyStateMayBeginAnewWithAnotherFile) {
  for (const VersionState from : {kFound, kWaiting, kLoading, kServing, kLoaded, kRetired, kRefused,
                                  kRetrying, kPassedOver}) {
    EXPECT_TRUE(MayFollow(from, kFound));
    EXPECT_TRUE(MayFollow(from, kPassedOver));
    EXPECT_TRUE(MayFollow(from, from));
  }
}

}  // namespace
}  // namespace relight::serving
