// What the writer wrote is what the reader read: over all good fixtures.
#include <filesystem>
#include <fstream>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/checkpoint.h"
#include "storage/checkpoint_source.h"
#include "storage/error.h"
#include "storage/write_plan.h"
#include "storage/writer.h"
#include "tests/paths.h"
#include "tests/storage/temp_folder.h"
#include "tests/storage/tree_comparison.h"

namespace relight::storage {
namespace {

constexpr char kGood[] = RELIGHT_TEST_DATA "/good/";

// Whole modules, which a snapshot replaces by their state dict, and archives of the C++ API.
const std::set<std::string>& NeverWritten() {
  static const std::set<std::string> names = {"conv_bn_entire.pth",      "cpp_adam.pt",
                                              "cpp_module.pt",           "cpp_tensor.pt",
                                              "entire_model.pth",        "entire_model_legacy.pth",
                                              "syn_entire_model_2_x.pt", "syn_opaque_reduce.pt",
                                              "tied_entire.pth",         "torchscript.pt"};
  return names;
}

std::vector<std::string> WrittenFiles() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGood)) {
    const std::string name = entry.path().filename();
    if (entry.is_regular_file() && NeverWritten().count(name) == 0) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<WriteReport> Rewrite(const Checkpoint& checkpoint, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  return WriteCheckpoint(checkpoint.tree(), checkpoint.tree().root(), CheckpointSource(checkpoint),
                         {}, [&](absl::Span<const std::byte> bytes) {
                           file.write(reinterpret_cast<const char*>(bytes.data()),
                                      static_cast<std::streamsize>(bytes.size()));
                           return absl::OkStatus();
                         });
}

class RewriteTest : public ::testing::TestWithParam<std::string> {};

TEST_P(RewriteTest, GivesTheSameTreeAndThenTheSameFile) {
  const auto before = Checkpoint::Open(kGood + GetParam());
  ASSERT_TRUE(before.ok()) << before.status();
  const auto plan = WritePlan::Make(before->tree(), before->tree().root());
  ASSERT_TRUE(plan.ok()) << plan.status();
  TempFolder folder;
  const auto report = Rewrite(*before, folder.Path("once.pt"));
  ASSERT_TRUE(report.ok()) << report.status();
  const auto after = Checkpoint::Open(folder.Path("once.pt"));
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->summary().torch_version_guess, ">= 2.7");
  EXPECT_FALSE(after->summary().crc_absent);
  const CheckpointSource old_bytes(*before);
  const CheckpointSource new_bytes(*after);
  TreeComparison comparison(before->tree(), after->tree(), *plan,
                            CompareValues(old_bytes, new_bytes));
  EXPECT_EQ(comparison.Difference(before->tree().root(), after->tree().root()), "");

  const auto again = Rewrite(*after, folder.Path("twice.pt"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(again->left_out, ::testing::IsEmpty());
  EXPECT_THAT(again->converted, ::testing::IsEmpty());
  EXPECT_TRUE(folder.Read("once.pt") == folder.Read("twice.pt"));
  const auto predicted =
      PredictCheckpointBytes(before->tree(), before->tree().root(), CheckpointSource(*before));
  ASSERT_TRUE(predicted.ok());
  EXPECT_EQ(*predicted, folder.Read("once.pt").size());
}

INSTANTIATE_TEST_SUITE_P(Good, RewriteTest, ::testing::ValuesIn(WrittenFiles()),
                         [](const auto& file) {
                           std::string name = file.param;
                           for (char& c : name) {
                             if (c == '.') c = '_';
                           }
                           return name;
                         });

TEST(RewriteRefusalTest, WholeModulesCannotBeWrittenAsTheyAre) {
  for (const std::string& name : NeverWritten()) {
    const auto checkpoint = Checkpoint::Open(kGood + name);
    if (!checkpoint.ok()) {
      EXPECT_EQ(GetErrorCode(checkpoint.status()), ErrorCode::kTorchScriptArchive) << name;
      continue;
    }
    TempFolder folder;
    EXPECT_EQ(Rewrite(*checkpoint, folder.Path("x")).status().code(),
              absl::StatusCode::kInvalidArgument)
        << name;
    EXPECT_EQ(folder.Read("x"), "") << name;
  }
}

}  // namespace
}  // namespace relight::storage
