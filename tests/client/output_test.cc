#include "client/ctl/output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "client/ctl/arguments.h"
#include "client/ctl/session.h"

namespace relight::ctl {
namespace {

TEST(OutputTest, ColumnsAlignAndLinesEndInNoBlanks) {
  Table table({"NAME", "STATE", "NOTE"});
  table.Add({std::string("caf\u00e9"), std::string("ok"), std::string("")});
  table.Add({std::string("b"), std::string("waiting"), std::string("why")});
  EXPECT_EQ(table.Render(false), "NAME  STATE    NOTE\ncaf\u00e9  ok\nb     waiting  why\n");
}

TEST(OutputTest, ColoursDoNotMoveColumns) {
  Table table({"A", "B"});
  table.Add({{"x", Color::kRed}, std::string("y")});
  EXPECT_EQ(table.Render(true), "\x1b[1mA\x1b[0m  \x1b[1mB\x1b[0m\n\x1b[31mx\x1b[0m  y\n");
}

TEST(OutputTest, NumbersAlignRight) {
  Table table({"NAME", "SIZE", "NOTE"});
  table.AlignRight(1);
  table.Add({std::string("a"), std::string("200 bytes"), std::string("x")});
  table.Add({std::string("long"), std::string("8 bytes"), std::string("")});
  EXPECT_EQ(table.Render(false), "NAME       SIZE  NOTE\na     200 bytes  x\nlong    8 bytes\n");
  EXPECT_EQ(table.Width(), 21u);
}

TEST(OutputTest, LongTextIsBrokenAtBlanks) {
  EXPECT_EQ(Wrap("one two three four", 2, 12), "one two\n  three four");
  EXPECT_EQ(Wrap("one two three four", 2, 0), "one two three four");
  EXPECT_EQ(Wrap("unbreakable", 2, 5), "unbreakable");
  EXPECT_EQ(Wrap("", 2, 5), "");
  EXPECT_EQ(WrapWords({"a b,", "c d"}, 0, 6), "a b,\nc d");
}

TEST(OutputTest, ControlCharactersDoNotReachTheTerminal) {
  EXPECT_EQ(Printable("a\x1b[2Jb"), "a\\x1b[2Jb");
  EXPECT_EQ(Printable("two\nlines"), "two\nlines");
  EXPECT_EQ(OneLine("two\nlines"), "two lines");
  // U+009B begins a terminal's sequence as ESC [ does; what follows the C1 controls is text.
  EXPECT_EQ(Printable("a\u009b2Jb"), "a\\xc2\\x9b2Jb");
  EXPECT_EQ(Printable("\u0080"), "\\xc2\\x80");
  EXPECT_EQ(Printable("caf\u00e9 \u00a0\u6f22"), "caf\u00e9 \u00a0\u6f22");
  // What the server has escaped stays as it is.
  EXPECT_EQ(Printable("a\\xFFb"), "a\\xFFb");
}

TEST(OutputTest, SizesAndAgesReadWell) {
  EXPECT_EQ(FormatBytes(1023), "1023 bytes");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(3ULL << 30), "3.0 GiB");
  EXPECT_EQ(FormatAge(absl::Seconds(-5)), "now");
  EXPECT_EQ(FormatAge(absl::Seconds(90)), "90s");
  EXPECT_EQ(FormatAge(absl::Minutes(90)), "90m");
  EXPECT_EQ(FormatAge(absl::Hours(30)), "30h");
  EXPECT_EQ(FormatAge(absl::Hours(72)), "3d");
}

TEST(TimeoutTest, ReadsTimesWithAndWithoutUnits) {
  EXPECT_EQ(*ParseTimeout("30"), absl::Seconds(30));
  EXPECT_EQ(*ParseTimeout("1.5"), absl::Seconds(1.5));
  EXPECT_EQ(*ParseTimeout("500ms"), absl::Milliseconds(500));
  EXPECT_EQ(*ParseTimeout("0"), absl::InfiniteDuration());
  for (const char* text : {"", "soon", "-1", "-1s", "nan", "3 s"}) {
    EXPECT_TRUE(IsUsageError(ParseTimeout(text).status())) << text;
  }
}

}  // namespace
}  // namespace relight::ctl
