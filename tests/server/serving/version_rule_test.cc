#include "server/serving/version_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace relight::serving {
namespace {

using ::testing::HasSubstr;

const absl::Time kModified = absl::FromUnixMillis(1'600'000'000'123);

VersionReader Choose(config::VersionSource from, const std::string& pattern,
                     const std::vector<std::string>& stems) {
  return VersionReader::Choose(config::VersionRule{from, pattern}, stems);
}

VersionReader Auto(const std::vector<std::string>& stems) {
  return Choose(config::VersionSource::kAuto, "", stems);
}

TEST(VersionRuleTest, AutoTakesTheNameWhenEveryNameEndsInDigits) {
  const VersionReader reader = Auto({"step-000100", "200", "epoch_3"});
  EXPECT_EQ(reader.words(), "name: every candidate's name ends in digits");
  EXPECT_EQ(*reader.Read("step-000100", kModified), 100);
  EXPECT_EQ(*reader.Read("200", kModified), 200);
  EXPECT_EQ(*reader.Read("epoch_3", kModified), 3);
}

TEST(VersionRuleTest, AutoTakesTheTimeForAllWhenOneNameHasNoDigits) {
  const VersionReader reader = Auto({"step-000100", "best"});
  EXPECT_EQ(reader.words(), "mtime: the name best does not end in digits");
  EXPECT_EQ(*reader.Read("step-000100", kModified), 1'600'000'000'123);
  EXPECT_EQ(*reader.Read("best", kModified), 1'600'000'000'123);
}

TEST(VersionRuleTest, AutoTakesTheTimeForALoneFileWithoutDigits) {
  EXPECT_EQ(Auto({"model_state"}).words(), "mtime: the name model_state does not end in digits");
}

TEST(VersionRuleTest, AutoCountsEighteenDigitsAndNotNineteen) {
  EXPECT_EQ(*Auto({"999999999999999999"}).Read("999999999999999999", kModified),
            999'999'999'999'999'999);
  EXPECT_THAT(Auto({"1234567890123456789"}).words(), HasSubstr("more than 18 digits"));
}

TEST(VersionRuleTest, EscapesNamesInItsWords) {
  EXPECT_THAT(Auto({"be\nst"}).words(), HasSubstr("be\\x0ast"));
}

TEST(VersionRuleTest, NamePassesOverWhatHasNoDigitsOrTooMany) {
  const VersionReader reader = Choose(config::VersionSource::kName, "", {"step-1", "best"});
  EXPECT_EQ(*reader.Read("step-1", kModified), 1);
  EXPECT_EQ(reader.Read("best", kModified).status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status many = reader.Read("1234567890123456789", kModified).status();
  EXPECT_EQ(many.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(many.message()), HasSubstr("19 digits"));
}

TEST(VersionRuleTest, MtimeIgnoresDigitsInNames) {
  const VersionReader reader = Choose(config::VersionSource::kMtime, "", {"step-1"});
  EXPECT_EQ(*reader.Read("step-1", kModified), 1'600'000'000'123);
}

TEST(VersionRuleTest, PatternTakesItsFirstGroup) {
  const VersionReader reader =
      Choose(config::VersionSource::kAuto, "step-(\\d+)-loss", {"step-7-loss0.5"});
  EXPECT_EQ(reader.words(), "pattern step-(\\\\d+)-loss: as configured");
  EXPECT_EQ(*reader.Read("step-7-loss0.5", kModified), 7);
  EXPECT_THAT(std::string(reader.Read("best", kModified).status().message()),
              HasSubstr("does not match the pattern"));
}

TEST(VersionRuleTest, PatternWhoseGroupIsNoNumberPassesTheFileOver) {
  const VersionReader reader = Choose(config::VersionSource::kName, "([a-z]+)", {"abc"});
  EXPECT_EQ(reader.Read("abc", kModified).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(VersionRuleTest, PatternThatIsNoRegularExpressionPassesAllOver) {
  const VersionReader reader = Choose(config::VersionSource::kName, "(", {"abc1"});
  EXPECT_THAT(std::string(reader.Read("abc1", kModified).status().message()),
              HasSubstr("not a regular expression"));
}

}  // namespace
}  // namespace relight::serving
