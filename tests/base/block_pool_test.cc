#include "base/block_pool.h"

#include <cstdint>
#include <cstring>
#include <limits>

#include "gtest/gtest.h"

namespace relight {
namespace {

TEST(BlockPoolTest, KeepsWhatIsGivenBack) {
  BlockPool pool(1 << 20);
  void* const block = pool.Take(5000);
  ASSERT_NE(block, nullptr);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % BlockPool::kAlignment, 0U);
  std::memset(block, 1, 5000);
  pool.Give(block, 5000);
  void* const again = pool.Take(5100);  // Of the same class.
  EXPECT_EQ(again, block);
  std::memset(again, 2, 5100);
  pool.Give(again, 5100);
}

TEST(BlockPoolTest, BlocksHoldWhatTheyAreFor) {
  BlockPool pool(0);
  for (std::uint64_t power = 12; power < 22; ++power) {
    for (const int beside : {-1, 0, 1}) {
      const std::uint64_t size = (std::uint64_t{1} << power) + static_cast<std::uint64_t>(beside);
      void* const block = pool.Take(size);
      ASSERT_NE(block, nullptr);
      std::memset(block, 1, size);  // A sanitizer sees it where it is too small.
      pool.Give(block, size);
    }
  }
  EXPECT_EQ(pool.kept_bytes(), 0U);
}

TEST(BlockPoolTest, KeepsNoMoreThanItMay) {
  BlockPool pool(16384);
  void* const first = pool.Take(8192);
  void* const second = pool.Take(8192);
  void* const third = pool.Take(8192);
  pool.Give(first, 8192);
  pool.Give(second, 8192);
  EXPECT_EQ(pool.kept_bytes(), 16384U);
  pool.Give(third, 8192);
  EXPECT_EQ(pool.kept_bytes(), 16384U);
  void* const large = pool.Take(32768);
  pool.Give(large, 32768);
  EXPECT_EQ(pool.kept_bytes(), 16384U);
  pool.Trim();
  EXPECT_EQ(pool.kept_bytes(), 0U);
}

TEST(BlockPoolTest, WhatNobodyAsksForAnyMoreMakesRoom) {
  BlockPool pool(16384);
  pool.Give(pool.Take(16384), 16384);
  void* const wanted = pool.Take(8192);
  pool.Give(wanted, 8192);
  EXPECT_EQ(pool.kept_bytes(), 8192U);
  EXPECT_EQ(pool.Take(8192), wanted);
  pool.Give(wanted, 8192);
}

TEST(BlockPoolTest, MoreThanThereIsGivesNull) {
  BlockPool pool(1 << 20);
  EXPECT_EQ(pool.Take(std::numeric_limits<std::uint64_t>::max()), nullptr);
  EXPECT_EQ(pool.Take((std::uint64_t{1} << 47) + 1), nullptr);
}

TEST(BlockPoolTest, NothingIsABlockToo) {
  BlockPool pool(1 << 20);
  void* const block = pool.Take(0);
  EXPECT_NE(block, nullptr);
  pool.Give(block, 0);
}

}  // namespace
}  // namespace relight
