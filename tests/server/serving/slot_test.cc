#include "server/serving/slot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <utility>

#include "tests/server/serving/fake_graph.h"

namespace relight::serving {
namespace {

using ::testing::ElementsAre;

class SlotTest : public ::testing::Test {
 protected:
  Slot::Handle Make(std::int64_t version, std::uint64_t generation) {
    auto served = std::make_shared<ServedVersion>();
    served->version = version;
    served->generation = generation;
    served->model = std::make_shared<FakeBoundModel>(world_, 1.0F, 1);
    return served;
  }
  std::vector<std::uint64_t> Generations() const {
    std::vector<std::uint64_t> generations;
    for (const Slot::Handle& handle : slot_.Loaded()) generations.push_back(handle->generation);
    return generations;
  }

  std::shared_ptr<FakeGraphWorld> world_ = std::make_shared<FakeGraphWorld>();
  Slot slot_;
};

TEST_F(SlotTest, ServesNothingBeforeTheFirstVersion) {
  EXPECT_EQ(slot_.Find(std::nullopt), nullptr);
  EXPECT_EQ(slot_.Find(1), nullptr);
  EXPECT_TRUE(slot_.Loaded().empty());
}

TEST_F(SlotTest, PublishMakesCurrentAndKeepsTheOneBefore) {
  slot_.Publish(Make(100, 1));
  slot_.Publish(Make(200, 2));
  EXPECT_EQ(slot_.Find(std::nullopt)->version, 200);
  EXPECT_EQ(slot_.Find(100)->generation, 1U);
  EXPECT_NE(slot_.Find(std::nullopt), nullptr);
  EXPECT_NE(slot_.Find(100), nullptr);
  EXPECT_EQ(slot_.Find(300), nullptr);
  EXPECT_THAT(Generations(), ElementsAre(2, 1));
}

TEST_F(SlotTest, FindsTheNewestGenerationOfAnOverwrittenVersion) {
  slot_.Publish(Make(100, 1));
  slot_.Publish(Make(100, 2));
  EXPECT_EQ(slot_.Find(100)->generation, 2U);
  EXPECT_THAT(slot_.LoadedVersions(), ElementsAre(100));
}

TEST_F(SlotTest, GoingBackGivesANewGenerationAndKeepsTheOrderOfLoads) {
  slot_.Publish(Make(100, 1));
  slot_.Publish(Make(200, 2));
  EXPECT_TRUE(slot_.MakeCurrent(1, 3));
  EXPECT_EQ(slot_.Find(std::nullopt)->version, 100);
  EXPECT_EQ(slot_.Find(std::nullopt)->generation, 3U);
  EXPECT_THAT(Generations(), ElementsAre(2, 3));
  EXPECT_THAT(slot_.LoadedVersions(), ElementsAre(200, 100));
  EXPECT_EQ(slot_.Remove(1), nullptr);
}

TEST_F(SlotTest, DestroyWaitsForABatchThatBeganBeforeTheVersionCameBack) {
  slot_.Publish(Make(100, 1));
  Slot::Handle in_use = slot_.Find(std::nullopt);
  slot_.Publish(Make(200, 2));
  slot_.MakeCurrent(1, 3);
  Slot::Handle removed = slot_.Remove(3);
  EXPECT_FALSE(Slot::DestroyWhenUnused(removed, absl::ZeroDuration()));
  in_use.reset();
  EXPECT_EQ(world_->live_models(), 2U);
  EXPECT_TRUE(Slot::DestroyWhenUnused(removed, absl::ZeroDuration()));
  EXPECT_EQ(world_->live_models(), 1U);
}

TEST_F(SlotTest, MakingAnUnloadedGenerationCurrentChangesNothing) {
  slot_.Publish(Make(100, 1));
  EXPECT_FALSE(slot_.MakeCurrent(7, 8));
  EXPECT_EQ(slot_.Find(std::nullopt)->generation, 1U);
}

TEST_F(SlotTest, RemovedGenerationIsNoLongerFound) {
  slot_.Publish(Make(100, 1));
  slot_.Publish(Make(200, 2));
  const Slot::Handle removed = slot_.Remove(1);
  ASSERT_NE(removed, nullptr);
  EXPECT_EQ(removed->version, 100);
  EXPECT_EQ(slot_.Find(100), nullptr);
  EXPECT_EQ(slot_.Find(std::nullopt)->version, 200);
  EXPECT_EQ(slot_.Remove(1), nullptr);
}

TEST_F(SlotTest, RemovingTheCurrentOneLeavesNoneCurrent) {
  slot_.Publish(Make(100, 1));
  slot_.Publish(Make(200, 2));
  EXPECT_NE(slot_.Remove(2), nullptr);
  EXPECT_EQ(slot_.Find(std::nullopt), nullptr);
  EXPECT_NE(slot_.Find(100), nullptr);
}

TEST_F(SlotTest, DestroyWaitsForTheLastHandleAndFreesOnTheCallersThread) {
  slot_.Publish(Make(100, 1));
  Slot::Handle in_use = slot_.Find(std::nullopt);
  Slot::Handle removed = slot_.Remove(1);
  EXPECT_FALSE(Slot::DestroyWhenUnused(removed, absl::ZeroDuration()));
  ASSERT_NE(removed, nullptr);
  EXPECT_EQ(world_->live_models(), 1U);

  Gate gate;
  std::thread batch([&gate, handle = std::move(in_use)]() mutable {
    gate.Pass();
    handle.reset();
  });
  gate.AwaitArrivals(1);
  gate.Open();
  EXPECT_TRUE(Slot::DestroyWhenUnused(removed, absl::InfiniteDuration()));
  batch.join();
  EXPECT_EQ(removed, nullptr);
  EXPECT_EQ(world_->live_models(), 0U);
  EXPECT_THAT(world_->destroyed_on(), ElementsAre(std::this_thread::get_id()));
}

TEST_F(SlotTest, DestroyingNothingIsDoneAtOnce) {
  Slot::Handle none;
  EXPECT_TRUE(Slot::DestroyWhenUnused(none, absl::ZeroDuration()));
}

}  // namespace
}  // namespace relight::serving
