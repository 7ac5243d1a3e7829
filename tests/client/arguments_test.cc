#include "client/ctl/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace relight::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<FlagSpec> kFlags = {
    {"json", "", "a switch"}, {"timeout", "TIME", "a value"}, {"input", "VALUE", "repeats", true}};

absl::StatusOr<Arguments> Parse(const std::vector<std::string>& words) {
  return ParseArguments(words, kFlags);
}

TEST(ArgumentsTest, FlagsAndPositionalsMix) {
  const absl::StatusOr<Arguments> arguments =
      Parse({"model", "--timeout", "3s", "--json", "path", "--input=a=b", "--input", "c"});
  ASSERT_TRUE(arguments.ok()) << arguments.status();
  EXPECT_THAT(arguments->positionals(), ElementsAre("model", "path"));
  EXPECT_EQ(arguments->Get("timeout"), "3s");
  EXPECT_TRUE(arguments->Has("json"));
  EXPECT_THAT(arguments->All("input"), ElementsAre("a=b", "c"));
  EXPECT_FALSE(arguments->Has("version"));
}

TEST(ArgumentsTest, TwoDashesEndTheFlags) {
  EXPECT_THAT(Parse({"--", "--json", "-"})->positionals(), ElementsAre("--json", "-"));
}

TEST(ArgumentsTest, AValueMayLookLikeAFlag) {
  EXPECT_EQ(Parse({"--timeout", "-3"})->Get("timeout"), "-3");
}

TEST(ArgumentsTest, ReportsAllThatIsWrongAtOnce) {
  const absl::Status status =
      Parse({"--jsn", "--json=1", "--timeout", "1", "--timeout=2", "--input"}).status();
  EXPECT_TRUE(IsUsageError(status));
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("unknown flag --jsn (did you mean --json?)"));
  EXPECT_THAT(message, HasSubstr("--json takes no value"));
  EXPECT_THAT(message, HasSubstr("--timeout is given twice"));
  EXPECT_THAT(message, HasSubstr("--input needs a value"));
}

TEST(ArgumentsTest, FindsTheCommandBehindFlagsAndTheirValues) {
  const std::vector<std::string> words = {"--timeout", "3s", "--json", "status", "m"};
  EXPECT_EQ(FindFirstPositional(words, kFlags), 3U);
  const std::vector<std::string> none = {"--timeout", "3s"};
  EXPECT_EQ(FindFirstPositional(none, kFlags), std::nullopt);
}

TEST(ArgumentsTest, SuggestsOnlyWhatIsNear) {
  const std::vector<std::string> known = {"status", "snapshot", "history"};
  EXPECT_EQ(Nearest("statsu", known), "status");
  EXPECT_EQ(Nearest("snap", known), "snapshot");
  EXPECT_EQ(Nearest("hisotry", known), "history");
  EXPECT_EQ(Nearest("frobnicate", known), "");
}

}  // namespace
}  // namespace relight::ctl
