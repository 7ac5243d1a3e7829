#include "server/serving/batch_buffers.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

namespace relight::serving {
namespace {

TEST(BatchBuffersTest, BuffersAreAlignedAndTheirOwn) {
  const auto buffers = BatchBuffers::Create();
  const auto one = buffers->Acquire(10'000);
  const auto two = buffers->Acquire(10'000);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(one.get()) % 64, 0U);
  EXPECT_NE(one, two);
  std::memset(one.get(), 1, 10'000);
  std::memset(two.get(), 2, 10'000);
  EXPECT_EQ(one.get()[9'999], std::byte{1});
}

TEST(BatchBuffersTest, BufferIsUsedAgain) {
  const auto buffers = BatchBuffers::Create();
  auto buffer = buffers->Acquire(10'000);
  const std::byte* address = buffer.get();
  buffer.reset();
  EXPECT_EQ(buffers->Acquire(9'900).get(), address);
}

TEST(BatchBuffersTest, EmptyTensorHasAnAddress) {
  EXPECT_NE(BatchBuffers::Create()->Acquire(0), nullptr);
}

TEST(BatchBuffersTest, SizeThatNoMachineHasGivesNull) {
  EXPECT_EQ(BatchBuffers::Create()->Acquire(std::numeric_limits<std::uint64_t>::max()), nullptr);
}

TEST(BatchBuffersTest, BufferOutlivesWhatAcquiredIt) {
  auto buffers = BatchBuffers::Create();
  const auto buffer = buffers->Acquire(100);
  buffers.reset();
  std::memset(buffer.get(), 1, 100);
  EXPECT_EQ(buffer.get()[99], std::byte{1});
}

}  // namespace
}  // namespace relight::serving
