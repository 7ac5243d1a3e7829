#include "base/exception_fence.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "absl/status/statusor.h"

namespace relight {
namespace {

TEST(ExceptionFenceTest, LetsResultsThrough) {
  EXPECT_EQ(*WithinFence("counting", []() -> absl::StatusOr<int> { return 3; }), 3);
  EXPECT_EQ(WithinFence("counting", [] { return absl::AbortedError("no"); }),
            absl::AbortedError("no"));
}

TEST(ExceptionFenceTest, MakesAStatusOfWhatIsThrown) {
  const absl::Status status =
      WithinFence("reading a.pt", []() -> absl::Status { throw std::bad_alloc(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "reading a.pt ran out of memory: std::bad_alloc");
  // What is not memory must not look as if more of it would help.
  EXPECT_EQ(
      WithinFence("x", []() -> absl::StatusOr<int> { throw std::length_error("long"); }).status(),
      absl::InternalError("x failed: long"));
}

}  // namespace
}  // namespace relight
