#include "server/config/acceptance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "storage/error.h"
#include "tests/paths.h"

namespace relight::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<ParameterSpec>& SimpleNet() {
  static const auto* const kParameters = new std::vector<ParameterSpec>{
      {"fc1.weight", {5, 10}}, {"fc1.bias", {5}}, {"fc2.weight", {2, 5}}, {"fc2.bias", {2}}};
  return *kParameters;
}

storage::Checkpoint Open(const std::string& name) {
  absl::StatusOr<storage::Checkpoint> opened =
      storage::Checkpoint::Open(std::string(RELIGHT_TEST_DATA) + "/good/" + name);
  EXPECT_TRUE(opened.ok()) << opened.status();
  return *std::move(opened);
}

TEST(AcceptanceTest, StripsPrefixesWhereThatMakesTheKeysMatch) {
  for (const char* name : {"model_state.pth", "ddp_prefixed.pth", "compiled_prefixed.pth"}) {
    const storage::Checkpoint checkpoint = Open(name);
    const auto found = FindWeights(checkpoint, {}, SimpleNet());
    ASSERT_TRUE(found.ok()) << name << ": " << found.status();
    const auto plan = PlanFor(checkpoint, *found, SimpleNet());
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->tensors.size(), 4u);
  }
}

TEST(AcceptanceTest, ComparingKeepsWhatFindingRefuses) {
  const storage::Checkpoint checkpoint = Open("model_state.pth");
  std::vector<ParameterSpec> parameters = SimpleNet();
  parameters[0].shape = {8, 10};
  parameters.push_back({"fc3.weight", {1, 2}});
  const auto compared = CompareWeights(checkpoint, {}, parameters);
  ASSERT_TRUE(compared.ok()) << compared.status();
  EXPECT_THAT(compared->mismatch.missing, ElementsAre("fc3.weight"));
  EXPECT_EQ(compared->mismatch.misshaped.size(), 1u);
  EXPECT_EQ(compared->state_dict.entries.size(), 4u);
  const auto found = FindWeights(checkpoint, {}, parameters);
  EXPECT_EQ(found.status(), ToStatus(compared->mismatch));
  EXPECT_FALSE(found.ok());
}

TEST(AcceptanceTest, AConfigThatPointsNowhereFindsNothing) {
  const storage::Checkpoint checkpoint = Open("model_state.pth");
  Checkpoints where;
  where.state_dict_key = "ema";
  EXPECT_EQ(storage::GetErrorCode(CompareWeights(checkpoint, where, SimpleNet()).status()),
            storage::ErrorCode::kNoStateDict);
}

TEST(AcceptanceTest, AGraphWithoutParametersPlansNothing) {
  const storage::Checkpoint checkpoint = Open("model_state.pth");
  const auto plan = PlanFor(checkpoint, {}, {});
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(plan->tensors.empty());
}

TEST(AcceptanceTest, TheConfigSaysHowFilesAreRead) {
  Checkpoints checkpoints;
  EXPECT_FALSE(ReadOptionsOf(checkpoints).require_crc);
  EXPECT_FALSE(ReadOptionsOf(checkpoints).reject_unknown_globals);
  checkpoints.require_crc = true;
  checkpoints.reject_unknown_classes = true;
  EXPECT_TRUE(ReadOptionsOf(checkpoints).require_crc);
  EXPECT_TRUE(ReadOptionsOf(checkpoints).reject_unknown_globals);
  checkpoints.limits.max_nodes = 3;
  EXPECT_EQ(storage::GetErrorCode(
                storage::Checkpoint::Open(std::string(RELIGHT_TEST_DATA) + "/good/model_state.pth",
                                          ReadOptionsOf(checkpoints))
                    .status()),
            storage::ErrorCode::kLimitExceeded);
}

// A graph whose parameters are called otherwise, and the rules that lead there.
TEST(AcceptanceTest, RulesRenameKeysAlsoBehindAPrefix) {
  const std::vector<ParameterSpec> parameters = {{"net.0.weight", {5, 10}},
                                                 {"net.0.bias", {5}},
                                                 {"net.1.weight", {2, 5}},
                                                 {"net.1.bias", {2}}};
  Checkpoints where;
  where.rename = {{"^fc1\\.", "net.0."}, {"^fc(\\d)\\.", "net.\\1."}, {"^net\\.2", "net.1"}};
  for (const char* name : {"model_state.pth", "ddp_prefixed.pth", "compiled_prefixed.pth"}) {
    const storage::Checkpoint checkpoint = Open(name);
    EXPECT_FALSE(FindWeights(checkpoint, {}, parameters).ok());
    const auto found = FindWeights(checkpoint, where, parameters);
    ASSERT_TRUE(found.ok()) << name << ": " << found.status();
    EXPECT_EQ(PlanFor(checkpoint, *found, parameters)->tensors.size(), 4u);
    EXPECT_EQ(found->entries[0].key, "net.0.weight");
    EXPECT_THAT(found->entries[0].original_key, ::testing::EndsWith("fc1.weight"));
  }
}

TEST(AcceptanceTest, RulesThatMakeTwoKeysOneAreRefused) {
  Checkpoints where;
  where.rename = {{"fc\\d", "fc"}};
  const auto compared = CompareWeights(Open("model_state.pth"), where, SimpleNet());
  EXPECT_EQ(storage::GetErrorCode(compared.status()), storage::ErrorCode::kPickleDuplicateKey);
  EXPECT_THAT(std::string(compared.status().message()), HasSubstr("as the rules rename them"));
}

TEST(AcceptanceTest, WhereNotStrictWhatTheGraphDoesNotKnowIsLeftAside) {
  const storage::Checkpoint checkpoint = Open("model_state.pth");
  const std::vector<ParameterSpec> first(SimpleNet().begin(), SimpleNet().begin() + 2);
  EXPECT_FALSE(FindWeights(checkpoint, {}, first).ok());
  Checkpoints where;
  where.strict = false;
  const auto compared = CompareWeights(checkpoint, where, first);
  ASSERT_TRUE(compared.ok()) << compared.status();
  EXPECT_TRUE(compared->mismatch.empty());
  EXPECT_THAT(compared->left_aside, ElementsAre("fc2.weight", "fc2.bias"));
  EXPECT_EQ(PlanFor(checkpoint, compared->state_dict, first)->tensors.size(), 2u);
}

TEST(AcceptanceTest, IgnoredKeysAreLeftAsideAlsoWhereStrict) {
  const storage::Checkpoint checkpoint = Open("model_state.pth");
  const std::vector<ParameterSpec> first(SimpleNet().begin(), SimpleNet().begin() + 2);
  Checkpoints where;
  where.ignore = {"^fc2"};
  const auto compared = CompareWeights(checkpoint, where, first);
  ASSERT_TRUE(compared.ok()) << compared.status();
  EXPECT_TRUE(compared->mismatch.empty());
  EXPECT_TRUE(compared->left_aside.empty());
  where.ignore = {"weight$"};
  EXPECT_THAT(CompareWeights(checkpoint, where, first)->mismatch.unexpected,
              ElementsAre("fc2.bias"));
  // Those that the graph knows are needed all the same.
  where.ignore = {"."};
  const auto all = CompareWeights(checkpoint, where, SimpleNet());
  EXPECT_TRUE(all->mismatch.empty());
  EXPECT_EQ(PlanFor(checkpoint, all->state_dict, SimpleNet())->tensors.size(), 4u);
}

TEST(AcceptanceTest, NotEvenThenMayAValueBeMissingOrMisshaped) {
  const storage::Checkpoint checkpoint = Open("model_state.pth");
  Checkpoints where;
  where.strict = false;
  std::vector<ParameterSpec> parameters = SimpleNet();
  parameters[3].name = "fc2.bais";
  const auto compared = CompareWeights(checkpoint, where, parameters);
  EXPECT_THAT(compared->mismatch.missing, ElementsAre("fc2.bais"));
  EXPECT_THAT(compared->mismatch.unexpected, ElementsAre("fc2.bias")) << "it may be that one";
  parameters = SimpleNet();
  parameters[3].shape = {3};
  EXPECT_EQ(CompareWeights(checkpoint, where, parameters)->mismatch.misshaped.size(), 1u);
}

TEST(AcceptanceTest, ValuesMustBeFiniteUnlessTheConfigOrABufferAllowsIt) {
  storage::WeightPlan plan;
  for (const char* key : {"w", "mask"}) {
    storage::WeightTensor tensor;
    tensor.key = key;
    tensor.original_key = key;
    tensor.shape = {2, 2};
    plan.tensors.push_back(tensor);
  }
  const std::vector<ParameterSpec> parameters = {{.name = "w", .shape = {2, 2}},
                                                 {.name = "mask", .shape = {2, 2}, .buffer = true}};
  const std::vector<storage::NonFinite> nan = {{.tensor = 0, .nans = 1, .first_nan = 3}};
  const std::vector<storage::NonFinite> infinite_buffer = {{.tensor = 1, .infinities = 4}};
  ModelConfig config;
  EXPECT_TRUE(CheckValues(config, parameters, plan, {}).ok());
  EXPECT_TRUE(CheckValues(config, parameters, plan, infinite_buffer).ok());
  const absl::Status refused = CheckValues(config, parameters, plan, nan);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("w: 1 NaN, the first at [1, 1]"));
  config.allow_non_finite = true;
  EXPECT_TRUE(CheckValues(config, parameters, plan, nan).ok());
}

}  // namespace
}  // namespace relight::config
