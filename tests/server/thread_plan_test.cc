#include "server/thread_plan.h"

#include <gtest/gtest.h>

namespace relight {
namespace {

TEST(PlanThreadsTest, FillsTheMachineByDefault) {
  for (const int cores : {1, 2, 3, 4, 8, 16, 64, 192}) {
    const ThreadPlan plan = PlanThreads({}, cores);
    EXPECT_GE(plan.compute, 1) << cores;
    EXPECT_GE(plan.intra_op, 1) << cores;
    EXPECT_LE(plan.compute * plan.intra_op, cores) << cores;
    EXPECT_GT(plan.compute * (plan.intra_op + 1), cores / 2) << cores;
  }
}

TEST(PlanThreadsTest, TwoCoresComputeTwoBatches) {
  const ThreadPlan plan = PlanThreads({}, 2);
  EXPECT_EQ(plan.compute, 2);
  EXPECT_EQ(plan.intra_op, 1);
  EXPECT_EQ(plan.load, 2);
}

TEST(PlanThreadsTest, FlagsWin) {
  config::ServerOptions options;
  options.compute_threads = 3;
  options.intra_op_threads = 5;
  options.load_threads = 7;
  const ThreadPlan plan = PlanThreads(options, 2);
  EXPECT_EQ(plan.compute, 3);
  EXPECT_EQ(plan.intra_op, 5);
  EXPECT_EQ(plan.load, 7);
}

TEST(PlanThreadsTest, OneFlagShapesTheOther) {
  config::ServerOptions options;
  options.intra_op_threads = 4;
  EXPECT_EQ(PlanThreads(options, 16).compute, 4);
  options = {};
  options.compute_threads = 2;
  EXPECT_EQ(PlanThreads(options, 16).intra_op, 8);
}

TEST(PlanThreadsTest, SurvivesAMachineThatCountsNoCores) {
  EXPECT_EQ(PlanThreads({}, 0).compute, 1);
}

}  // namespace
}  // namespace relight
