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
