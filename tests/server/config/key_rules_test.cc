#include "server/config/key_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace relight::config {
namespace {

using ::testing::HasSubstr;

std::string Renamed(std::vector<RenameRule> rules, std::string key) {
  for (const RenameRule& rule : rules) EXPECT_TRUE(CheckKeyRule(rule).ok()) << rule.pattern;
  return KeyRules(rules)(std::move(key));
}

TEST(KeyRulesTest, ReplacesEveryMatchInTheOrderOfTheRules) {
  EXPECT_EQ(Renamed({{"^encoder\\.", ""}}, "encoder.encoder.weight"), "encoder.weight");
  EXPECT_EQ(Renamed({{"\\.", "_"}}, "a.b.c"), "a_b_c");
  EXPECT_EQ(Renamed({{"a", "b"}, {"b", "c"}}, "ab"), "cc");
  EXPECT_EQ(Renamed({{"layer(\\d+)", "blocks.\\1"}}, "layer12.weight"), "blocks.12.weight");
  EXPECT_EQ(Renamed({{"gamma$", "weight"}}, "norm.gamma"), "norm.weight");
  EXPECT_EQ(Renamed({{"x", "y"}}, "fc.weight"), "fc.weight");
}

TEST(KeyRulesTest, TakesAnyBytes) {
  EXPECT_EQ(Renamed({{"a.c", "x"}},
                    "a\xff"
                    "c"),
            "x");
}

TEST(KeyRulesTest, LongKeysStayAsTheyAre) {
  const std::string long_key(KeyRules::kMaxKeyBytes + 1, 'a');
  EXPECT_EQ(Renamed({{"a", "bbbb"}}, long_key), long_key);
  // Nor does a key grow without end, however many rules there are.
  EXPECT_LT(Renamed(std::vector<RenameRule>(64, {"a", "aaaa"}), "a").size(),
            5 * KeyRules::kMaxKeyBytes);
}

TEST(KeyPatternsTest, FindAPatternAnywhereInAKey) {
  const std::vector<std::string> patterns = {R"(^h\.\d+\.attn\.bias$)", "position_ids"};
  for (const std::string& pattern : patterns) EXPECT_TRUE(CheckKeyPattern(pattern).ok());
  const KeyPatterns ignored(patterns);
  EXPECT_TRUE(ignored.Matches("h.11.attn.bias"));
  EXPECT_TRUE(ignored.Matches("bert.embeddings.position_ids"));
  EXPECT_FALSE(ignored.Matches("h.11.attn.c_attn.bias"));
  EXPECT_FALSE(ignored.Matches("x.h.1.attn.bias"));
  EXPECT_FALSE(ignored.Matches("position_ids" + std::string(KeyRules::kMaxKeyBytes, 'a')));
  EXPECT_FALSE(KeyPatterns({}).Matches("fc.weight"));
}

TEST(KeyRulesTest, RulesThatCannotBeAreRefused) {
  EXPECT_THAT(std::string(CheckKeyRule({"(", ""}).message()), HasSubstr("no regular expression"));
  EXPECT_THAT(std::string(CheckKeyRule({"", "x"}).message()), HasSubstr("is missing or empty"));
  EXPECT_THAT(std::string(CheckKeyRule({"(a)", "\\2"}).message()), HasSubstr("does not go with"));
  EXPECT_FALSE(CheckKeyRule({"((a{1000}){1000}){1000}", ""}).ok());
}

}  // namespace
}  // namespace relight::config
