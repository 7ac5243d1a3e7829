#include "server/rpc/status_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/escape.h"

namespace relight::rpc {
namespace {

TEST(StatusTextTest, ShortTextStaysAsItIs) { EXPECT_EQ(FitTrailer("a\nb €"), "a\nb €"); }

TEST(StatusTextTest, LongTextIsCutAtACharacter) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += "€";
  const std::string fit = FitTrailer("x" + text);
  EXPECT_LT(fit.size(), 2100U);
  EXPECT_TRUE(IsUtf8(fit));
  EXPECT_THAT(fit, testing::EndsWith("(cut)"));
}

TEST(StatusTextTest, BytesThatAreNotUtf8AreEscaped) {
  EXPECT_EQ(FitTrailer("a\xff"), "a\\xff");
  EXPECT_EQ(Utf8("\xff"), "\\xff");
}

}  // namespace
}  // namespace relight::rpc
