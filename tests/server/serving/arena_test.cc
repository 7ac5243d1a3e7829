#include "server/serving/arena.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>

#include "tests/server/serving/fake_graph.h"

namespace relight::serving {
namespace {

class CountingFactory final : public model::GraphFactory {
 public:
  absl::StatusOr<std::unique_ptr<model::Graph>> Create(const config::ModelConfig&) override {
    return absl::UnimplementedError("no graphs here");
  }
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(const std::string& device,
                                                          std::size_t size_bytes) override {
    if (!refuse.ok()) return refuse;
    ++allocations;
    return memory_.AllocateHost(device, size_bytes);
  }

  absl::Status refuse;
  int allocations = 0;

 private:
  FakeGraphFactory memory_{nullptr};
};

class ArenaTest : public ::testing::Test {
 protected:
  CountingFactory factory_;
  Arena arena_{factory_, "cpu", 2};
};

TEST_F(ArenaTest, TwoBlocksAreUsedInTurnWithoutAllocatingAgain) {
  auto first = *arena_.Acquire(100, absl::ZeroDuration());
  for (int i = 0; i < 10; ++i) {
    auto next = *arena_.Acquire(100, absl::ZeroDuration());
    EXPECT_NE(next->index(), first->index());
    EXPECT_NE(next->bytes().data(), first->bytes().data());
    first = next;
  }
  EXPECT_EQ(factory_.allocations, 2);
}

TEST_F(ArenaTest, LeasesAreAsLargeAsAskedAndAligned) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{5000}}) {
    const auto lease = *arena_.Acquire(size, absl::ZeroDuration());
    EXPECT_GE(lease->bytes().size(), size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(lease->bytes().data()) % 64, 0u);
  }
}

TEST_F(ArenaTest, BlockGrowsWhenMoreIsNeeded) {
  arena_.Acquire(100, absl::ZeroDuration())->reset();
  const auto lease = *arena_.Acquire(1000, absl::ZeroDuration());
  EXPECT_GE(lease->bytes().size(), 1000u);
}

TEST_F(ArenaTest, ThirdLeaseIsUnavailableWhileBothAreHeld) {
  const auto one = *arena_.Acquire(1, absl::ZeroDuration());
  const auto two = *arena_.Acquire(1, absl::ZeroDuration());
  EXPECT_EQ(arena_.Acquire(1, absl::ZeroDuration()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(ArenaTest, WaitsForALeaseToBeGivenBack) {
  auto one = *arena_.Acquire(1, absl::ZeroDuration());
  const auto two = *arena_.Acquire(1, absl::ZeroDuration());
  std::thread other([&] { one.reset(); });
  EXPECT_TRUE(arena_.Acquire(1, absl::Minutes(1)).ok());
  other.join();
}

TEST_F(ArenaTest, MemoryThatCannotBeHadLeavesTheBlockFree) {
  factory_.refuse = absl::ResourceExhaustedError("no memory");
  EXPECT_EQ(arena_.Acquire(1, absl::ZeroDuration()).status().code(),
            absl::StatusCode::kResourceExhausted);
  factory_.refuse = absl::OkStatus();
  const auto one = arena_.Acquire(1, absl::ZeroDuration());
  const auto two = arena_.Acquire(1, absl::ZeroDuration());
  EXPECT_TRUE(one.ok() && two.ok());
}

TEST_F(ArenaTest, LeaseOutlivesItsArena) {
  auto arena = std::make_unique<Arena>(factory_, "cpu", 1);
  const auto lease = *arena->Acquire(8, absl::ZeroDuration());
  arena.reset();
  lease->bytes()[0] = std::byte{1};
  EXPECT_EQ(lease->bytes()[0], std::byte{1});
}

}  // namespace
}  // namespace relight::serving
