#include "client/ctl/progress.h"

#include <gtest/gtest.h>

namespace relight::ctl {
namespace {

TEST(ProgressTest, ShowsShareAndSizesWhereTheTotalIsKnown) {
  EXPECT_EQ(RenderShare("snapshot", 512, 1024),
            "snapshot  [###############               ]   50%  512 bytes of 1.0 KiB");
  EXPECT_EQ(RenderShare("snapshot", 2048, 1024),
            "snapshot  [##############################]  100%  2.0 KiB of 1.0 KiB");
}

TEST(ProgressTest, TurnsAndCountsWhereItIsNot) {
  EXPECT_EQ(RenderElapsed("waiting for m", absl::Seconds(3), 0), "waiting for m  |  3s");
  EXPECT_EQ(RenderElapsed("waiting for m", absl::Minutes(3), 5), "waiting for m  /  3m");
}

}  // namespace
}  // namespace relight::ctl
