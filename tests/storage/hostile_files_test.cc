// Every file under tests/data/hostile is refused with a code that expected.json lists.
#include <filesystem>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "storage/checkpoint.h"
#include "storage/error.h"
#include "storage/state_dict.h"
#include "storage/weights.h"
#include "tests/storage/fixtures.h"

namespace relight::storage {
namespace {

// What a server does with a file, up to serving it.
absl::Status LoadAll(const std::string& path) {
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(path);
  if (!opened.ok()) return opened.status();
  const absl::StatusOr<StateDict> found = FindStateDict(*opened);
  if (!found.ok()) return found.status();
  const absl::StatusOr<WeightPlan> plan = PlanWeights(*opened, *found, {});
  if (!plan.ok()) return plan.status();
  std::vector<std::byte> memory(plan->total_bytes + kWeightAlignment);
  const std::size_t skip =
      (kWeightAlignment - reinterpret_cast<std::uintptr_t>(memory.data()) % kWeightAlignment) %
      kWeightAlignment;
  return LoadWeights(*opened, *plan, {memory.data() + skip, plan->total_bytes}).status();
}

class HostileFile : public testing::TestWithParam<std::string> {};

TEST_P(HostileFile, IsRefusedWithAListedCode) {
  const absl::Status status = LoadAll(DataPath(GetParam()));
  ASSERT_FALSE(status.ok());
  const std::optional<ErrorCode> code = GetErrorCode(status);
  ASSERT_TRUE(code.has_value()) << status;
  const auto listed =
      ExpectedFixtures().at("hostile").at(GetParam()).at("error").get<std::vector<std::string>>();
  const std::string name(Name(*code));
  EXPECT_NE(std::find(listed.begin(), listed.end(), name), listed.end()) << status;
  if (name != listed[0]) {
    std::cout << GetParam() << ": " << name << " where " << listed[0] << " is preferred\n";
  }
  EXPECT_LT(status.message().size(), 8192u);
  EXPECT_FALSE(std::filesystem::exists("relight_pickle_executed.marker"));
}

INSTANTIATE_TEST_SUITE_P(All, HostileFile, testing::ValuesIn(FixtureNames("hostile")),
                         [](const auto& tested) { return TestNameOf(tested.param); });

}  // namespace
}  // namespace relight::storage
