// What is done after a swap, and what becomes of it where it cannot be done.
#include "server/serving/aftercare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <new>

#include "storage/state_dict.h"
#include "storage/weights.h"
#include "tests/server/serving/checkpoint_files.h"
#include "tests/storage/temp_folder.h"

namespace relight::serving {
namespace {

using config::TrainingState;
using ::testing::HasSubstr;

class AftercareTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.MakeFolder("spool");
    folder_.Write("a.pt", CheckpointBytes({10}, {1, 2, 3}));
    source_ = std::make_shared<const storage::Checkpoint>(
        *storage::Checkpoint::Open(folder_.Path("a.pt")));
    record_.tree = source_->shared_tree();
    record_.storages = source_->storages();
    record_.state_dict = *storage::FindStateDict(*source_);
    record_.plan = *storage::PlanWeights(*source_, record_.state_dict, {});
  }
  Aftermath After(TrainingState how, const std::function<absl::Status()>& pace) {
    TakeCareOf(record_, source_, how, folder_.Path("spool"), pace);
    return record_.aftermath();
  }

  storage::TempFolder folder_;
  std::shared_ptr<const storage::Checkpoint> source_;
  VersionRecord record_;
};

absl::Status Continue() { return absl::OkStatus(); }

TEST_F(AftercareTest, SetsTheTrainingStateAsideAndDigestsTheFile) {
  const Aftermath aftermath = After(TrainingState::kSpool, Continue);
  EXPECT_TRUE(aftermath.complete);
  EXPECT_TRUE(aftermath.training_state);
  EXPECT_NE(aftermath.spool, nullptr);
  EXPECT_EQ(aftermath.source, nullptr);
  EXPECT_EQ(aftermath.file_sha256.size(), 64u);
}

TEST_F(AftercareTest, KeepsTheFileOpenInstead) {
  const Aftermath aftermath = After(TrainingState::kOpenFile, Continue);
  EXPECT_TRUE(aftermath.training_state);
  EXPECT_EQ(aftermath.spool, nullptr);
  EXPECT_EQ(aftermath.source, source_);
}

TEST_F(AftercareTest, SaysWhyThereIsNone) {
  EXPECT_THAT(After(TrainingState::kNone, Continue).training_state_reason, HasSubstr("NONE"));
  const Aftermath aftermath =
      After(TrainingState::kSpool, [] { return absl::CancelledError("the server stops"); });
  EXPECT_TRUE(aftermath.complete);
  EXPECT_FALSE(aftermath.training_state);
  EXPECT_THAT(aftermath.training_state_reason, HasSubstr("the server stops"));
}

TEST_F(AftercareTest, IsCompleteAlsoWhenMemoryRunsOut) {
  const Aftermath aftermath =
      After(TrainingState::kSpool, []() -> absl::Status { throw std::bad_alloc(); });
  EXPECT_TRUE(aftermath.complete) << "a snapshot would wait for ever";
  EXPECT_FALSE(aftermath.training_state);
  EXPECT_THAT(aftermath.training_state_reason, HasSubstr("out of memory"));
  EXPECT_EQ(aftermath.file_sha256, "");
}

}  // namespace
}  // namespace relight::serving
