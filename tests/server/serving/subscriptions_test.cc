#include "server/serving/subscriptions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/server/serving/fake_graph.h"

namespace relight::serving {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(SubscriptionsTest, EveryoneHearsOfEachModelUntilTheyLeave) {
  Subscriptions subscriptions;
  std::vector<std::string> one, two;
  auto first = subscriptions.Add([&](const std::string& model) { one.push_back(model); });
  const auto second = subscriptions.Add([&](const std::string& model) { two.push_back(model); });
  subscriptions.Notify({"a", "b"});
  first.reset();
  subscriptions.Notify({"c"});
  EXPECT_THAT(one, ElementsAre("a", "b"));
  EXPECT_THAT(two, ElementsAre("a", "b", "c"));
}

TEST(SubscriptionsTest, MayLeaveFromWithinItsOwnCall) {
  Subscriptions subscriptions;
  std::unique_ptr<ServerCore::Subscription> subscription;
  int calls = 0;
  subscription = subscriptions.Add([&](const std::string&) {
    ++calls;
    subscription.reset();
  });
  subscriptions.Notify({"a", "b"});
  EXPECT_EQ(calls, 1);
}

TEST(SubscriptionsTest, LeavingWaitsForACallUnderWay) {
  Subscriptions subscriptions;
  Gate gate;
  std::atomic<bool> finished{false};
  auto subscription = subscriptions.Add([&](const std::string&) {
    gate.Pass();
    finished = true;
  });
  std::thread notifier([&] { subscriptions.Notify({"a"}); });
  gate.AwaitArrivals(1);
  std::thread opener([&] { gate.Open(); });
  subscription.reset();
  EXPECT_TRUE(finished);
  notifier.join();
  opener.join();
}

}  // namespace
}  // namespace relight::serving
