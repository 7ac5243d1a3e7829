#include "server/model/tensor_memory.h"

#include <ATen/Functions.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>
#include <sys/resource.h>

#include <cstdint>
#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/torch_error.h"

namespace relight::model {
namespace {

std::int64_t PageFaults() {
  rusage usage = {};
  EXPECT_EQ(::getrusage(RUSAGE_THREAD, &usage), 0);
  return usage.ru_minflt;
}

class TensorMemoryTest : public ::testing::Test {
 protected:
  TensorMemoryTest() { KeepTensorMemory(); }
};

TEST_F(TensorMemoryTest, LargeTensorsFaultTheirPagesInOnce) {
  // More than glibc keeps: 48 MiB.
  const auto compute = [] { return at::ones({48, 1024, 256}).data_ptr<float>()[0]; };
  const std::int64_t before = PageFaults();
  EXPECT_EQ(compute(), 1);
  const std::int64_t first = PageFaults() - before;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(compute(), 1);
  EXPECT_LT(PageFaults() - before - first, 20);  // Huge pages would be 24 at each.
}

TEST_F(TensorMemoryTest, DataIsAligned) {
  for (const std::int64_t size : {1, 63, 4096, (1 << 20) - 1, 1 << 20, 3 << 20}) {
    const at::Tensor tensor = at::zeros({size}, at::kByte);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data_ptr()) % 64, 0U) << size;
  }
}

TEST_F(TensorMemoryTest, AnEmptyTensorHasNone) { EXPECT_EQ(at::empty({0}).data_ptr(), nullptr); }

// oneDNN's scratch memory comes this way.
TEST_F(TensorMemoryTest, RawBlocksGoBackToo) {
  for (const std::size_t size : {std::size_t{100}, std::size_t{2} << 20}) {
    void* const block = c10::GetCPUAllocator()->raw_allocate(size);
    std::memset(block, 1, size);
    c10::GetCPUAllocator()->raw_deallocate(block);
  }
}

TEST_F(TensorMemoryTest, TooMuchIsSaidToBe) {
  absl::Status status;
  try {
    at::empty({std::int64_t{1} << 58}, at::kByte);
  } catch (...) {
    status = StatusOfCurrentException("the test", absl::StatusCode::kInternal);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("not enough memory"));
}

}  // namespace
}  // namespace relight::model
