#include "base/escape.h"

#include <gtest/gtest.h>

namespace relight {
namespace {

TEST(EscapeTest, KeepsPlainTextAndUtf8) {
  EXPECT_EQ(Escape("fc1.weight"), "fc1.weight");
  EXPECT_EQ(Escape("größe 重み"), "größe 重み");
}

TEST(EscapeTest, EscapesWhatIsNotUtf8) {
  EXPECT_EQ(Escape("a\xff"
                   "b"),
            "a\\xffb");
  EXPECT_EQ(Escape("\xc3"), "\\xc3");                    // Cut sequence.
  EXPECT_EQ(Escape("\xc0\xaf"), "\\xc0\\xaf");           // Overlong.
  EXPECT_EQ(Escape("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // Surrogate.
}

TEST(EscapeTest, EscapesControlCharactersAndBackslash) {
  EXPECT_EQ(Escape(std::string_view("a\n\0\x7f", 4)), "a\\x0a\\x00\\x7f");
  EXPECT_EQ(Escape("\xc2\x85"), "\\xc2\\x85");
  EXPECT_EQ(Escape("a\\n"), "a\\\\n");
}

TEST(EscapeTest, CutsAtACharacterBoundary) {
  EXPECT_EQ(Escape("aaaa", 3), "aaa...");
  EXPECT_EQ(Escape("aaä", 3), "aa...");
  EXPECT_EQ(Escape("aaa", 3), "aaa");
}

TEST(EscapeTest, ResultIsAlwaysUtf8) {
  std::string all;
  for (int i = 0; i < 65536; ++i) all += {static_cast<char>(i >> 8), static_cast<char>(i)};
  EXPECT_TRUE(IsUtf8(Escape(all, all.size() * 4)));
  EXPECT_FALSE(IsUtf8(all));
}

TEST(EscapeListTest, NamesTheFirstAndCountsTheRest) {
  EXPECT_EQ(EscapeList({}, 2), "");
  EXPECT_EQ(EscapeList({"a", "b\n"}, 2), "a, b\\x0a");
  EXPECT_EQ(EscapeList({"a", "b", "c", "d"}, 2), "a, b and 2 more");
}

}  // namespace
}  // namespace relight
