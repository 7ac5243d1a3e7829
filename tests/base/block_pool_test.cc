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
  void* const again = pool.Take(8192);  // Of the same power of two.
  EXPECT_EQ(again, block);
  std::memset(again, 2, 8192);
  pool.Give(again, 8192);
}

TEST(BlockPoolTest, KeepsNoMoreThanItMay) {
  BlockPool pool(16384);
  void* const kept = pool.Take(16384);
  void* const freed = pool.Take(4096);
  pool.Give(kept, 16384);
  pool.Give(freed, 4096);  // A sanitizer sees it if this were kept and lost, or used again.
  EXPECT_EQ(pool.Take(16384), kept);
  pool.Give(kept, 16384);
  void* const large = pool.Take(32768);
  pool.Give(large, 32768);
}

TEST(BlockPoolTest, MoreThanThereIsGivesNull) {
  BlockPool pool(1 << 20);
  EXPECT_EQ(pool.Take(std::numeric_limits<std::uint64_t>::max()), nullptr);
  EXPECT_EQ(pool.Take(std::uint64_t{1} << 61), nullptr);
}

TEST(BlockPoolTest, NothingIsABlockToo) {
  BlockPool pool(1 << 20);
  void* const block = pool.Take(0);
  EXPECT_NE(block, nullptr);
  pool.Give(block, 0);
}

}  // namespace
}  // namespace relight
