#include "server/model/torch_error.h"

#include <new>
#include <stdexcept>

#include "gtest/gtest.h"

namespace relight::model {
namespace {

TEST(TorchSentenceTest, IsTheFirstLine) {
  EXPECT_EQ(TorchSentence("mat1 and mat2 do not match\nframe #0: ..."),
            "mat1 and mat2 do not match");
}

TEST(TorchSentenceTest, IsTheReasonBelowATraceback) {
  EXPECT_EQ(TorchSentence("The following operation failed in the TorchScript interpreter.\n"
                          "Traceback of TorchScript (most recent call last):\n"
                          "RuntimeError: sizes differ\n"),
            "sizes differ");
}

TEST(TorchSentenceTest, IsEscaped) { EXPECT_EQ(TorchSentence("a\x01z"), "a\\x01z"); }

TEST(TorchSentenceTest, SurvivesSilence) { EXPECT_EQ(TorchSentence(" \n"), "no message"); }

absl::Status ForwardStatusOf(const std::string& what, bool has_free_dimensions) {
  try {
    throw std::runtime_error(what);
  } catch (...) {
    return StatusOfForwardException(has_free_dimensions);
  }
}

TEST(ForwardExceptionTest, BlamesTheRequestOnlyForWhatItCanChoose) {
  using absl::StatusCode;
  EXPECT_EQ(ForwardStatusOf("shapes differ", true).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(ForwardStatusOf("shapes differ", false).code(), StatusCode::kInternal);
  EXPECT_EQ(ForwardStatusOf("index out of range in self", false).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(ForwardStatusOf("INTERNAL ASSERT FAILED: sizes", true).code(), StatusCode::kInternal);
  EXPECT_EQ(ForwardStatusOf("kernel of this shape not implemented", true).code(),
            StatusCode::kInternal);
}

TEST(ForwardExceptionTest, OutOfMemoryIsSaidSo) {
  EXPECT_EQ(ForwardStatusOf("CUDA out of memory. Tried to", true).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(WithoutExceptionsTest, TurnsThemIntoStatuses) {
  const absl::Status status =
      WithoutExceptions("loading", absl::StatusCode::kInvalidArgument,
                        []() -> absl::Status { throw std::runtime_error("no"); });
  EXPECT_EQ(status, absl::InvalidArgumentError("loading: no"));
  EXPECT_EQ(WithoutExceptions("loading", absl::StatusCode::kInvalidArgument,
                              []() -> absl::Status { throw std::bad_alloc(); })
                .code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace relight::model
