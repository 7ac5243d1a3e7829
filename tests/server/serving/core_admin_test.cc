// What an operator asks of a model, and what a changed repository does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/server/serving/core_harness.h"

namespace relight::serving {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CoreAdminTest : public CoreTest {};

TEST_F(CoreAdminTest, ReloadWaitsForTheOutcome) {
  Start();
  Save("step-1.pt", 10);
  const absl::StatusOr<ReloadResult> result = core_->Reload("m");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->swapped);
  EXPECT_EQ(result->status.loaded[0].version, 1);
  EXPECT_FALSE(core_->Reload("m")->swapped);
  EXPECT_EQ(core_->Reload("nobody").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CoreAdminTest, ReloadSaysWhyTheNewestCheckpointWasRefused) {
  Save("step-1.pt", 10);
  Start();
  ReplaceFile(In("step-2.pt"), CheckpointBytes({1, 2}));
  const absl::Status status = core_->Reload("m").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step-2.pt"));
  EXPECT_EQ(Ask(), 10);
}

TEST_F(CoreAdminTest, ReloadOfAnEmptyFolderSaysThatThereIsNoCheckpoint) {
  Start();
  const absl::Status status = core_->Reload("m").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no checkpoint yet"));
}

TEST_F(CoreAdminTest, ReloadDoesNotWaitForStillness) {
  Start();
  root_.Write(In("step-1.safetensors"), SafetensorsBytes(4));
  EXPECT_TRUE(core_->Reload("m").ok());
  EXPECT_EQ(Ask(), 4);
}

TEST_F(CoreAdminTest, RequestsThatNoQueueHasSeenAreInTheStatistics) {
  Start();
  EXPECT_THAT(core_->GetModelStatistics(), ::testing::SizeIs(1)) << "nothing was refused yet";
  EXPECT_EQ(AskStatus(RowsOf(1), "nobody").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(AskStatus().code(), absl::StatusCode::kUnavailable);
  core_->CountInvalidRequest("m");
  core_->CountInvalidRequest("somebody");
  const std::vector<ModelStatistics> rows = core_->GetModelStatistics();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].model, "m");
  EXPECT_EQ(rows[0].requests_failed.at("unavailable"), 1U);
  EXPECT_EQ(rows[0].requests_failed.at("invalid"), 1U);
  EXPECT_EQ(rows[1].model, "");
  EXPECT_THAT(rows[1].requests_failed, ElementsAre(::testing::Pair("invalid", 2U)));
}

TEST_F(CoreAdminTest, PinHoldsAgainstNewerCheckpoints) {
  Save("step-1.pt", 10);
  Save("step-2.pt", 20);
  Start();
  const absl::StatusOr<ModelStatus> pinned = core_->Pin("m", 1);
  ASSERT_TRUE(pinned.ok()) << pinned.status();
  EXPECT_EQ(pinned->pinned_version, 1);
  EXPECT_EQ(Ask(), 10);
  Save("step-3.pt", 30);
  Look();
  EXPECT_EQ(Ask(), 10);
  EXPECT_EQ(core_->Unpin("m")->pinned_version, std::nullopt);
  EXPECT_EQ(Ask(), 30);
  EXPECT_THAT(Events(), Contains(HistoryEvent::kPinned));
  EXPECT_THAT(Events(), Contains(HistoryEvent::kUnpinned));
}

TEST_F(CoreAdminTest, PinToWhatIsLoadedSwapsWithoutLoading) {
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 20);
  Look();
  std::filesystem::remove(root_.Path(In("step-1.pt")));
  ASSERT_TRUE(core_->Pin("m", 1).ok());
  EXPECT_EQ(Ask(), 10);
  EXPECT_EQ(StatusOf().generation, 1u);
}

TEST_F(CoreAdminTest, PinToAVersionThatHoldsTheServedWeightsIsServedUnderItsOwnNumber) {
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 10);
  Look();
  ASSERT_EQ(Served(), 1);
  ASSERT_TRUE(core_->Pin("m", 2).ok());
  EXPECT_EQ(Served(), 2);
}

TEST_F(CoreAdminTest, PinToAVersionThatIsNowhereIsNotFoundAndChangesNothing) {
  Save("step-1.pt", 10);
  Start();
  EXPECT_EQ(core_->Pin("m", 99).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(StatusOf().pinned_version, std::nullopt);
}

TEST_F(CoreAdminTest, PinToABadFileFailsAndChangesNothing) {
  Save("step-2.pt", 20);
  Start();
  ReplaceFile(In("step-1.pt"), CheckpointBytes({1, 2}));
  const absl::Status status = core_->Pin("m", 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("[2]"));
  EXPECT_EQ(StatusOf().pinned_version, std::nullopt);
  EXPECT_EQ(Ask(), 20);
}

TEST_F(CoreAdminTest, PinsSurviveARestart) {
  Save("step-1.pt", 10);
  Save("step-2.pt", 20);
  Start();
  ASSERT_TRUE(core_->Pin("m", 1).ok());
  Start();
  EXPECT_EQ(Ask(), 10);
  EXPECT_EQ(StatusOf().pinned_version, 1);
  ASSERT_TRUE(core_->Unpin("m").ok());
  Start();
  EXPECT_EQ(Ask(), 20);
}

TEST_F(CoreAdminTest, BrokenPinFileFailsTheStart) {
  root_.Write("state/pins.json", "{");
  EXPECT_EQ(TryStart().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CoreAdminTest, RollBackServesTheVersionBeforeAndPinsIt) {
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 20);
  Look();
  const absl::StatusOr<ModelStatus> status = core_->RollBack("m");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->pinned_version, 1);
  EXPECT_EQ(Ask(), 10);
  EXPECT_THAT(Events(), Contains(HistoryEvent::kRolledBack));
}

TEST_F(CoreAdminTest, RollBackLoadsTheVersionBeforeFromTheFolder) {
  Save("step-1.pt", 10);
  Save("step-2.pt", 20);
  Start();
  ASSERT_TRUE(core_->RollBack("m").ok());
  EXPECT_EQ(Ask(), 10);
}

TEST_F(CoreAdminTest, RollBackToTheGenerationBeforeOfTheSameVersion) {
  Save("step-1.pt", 10);
  Start();
  Save("step-1.pt", 20);
  Look();
  ASSERT_EQ(Ask(), 20);
  ASSERT_TRUE(core_->RollBack("m").ok());
  EXPECT_EQ(Ask(), 10);
  Look();
  EXPECT_EQ(Ask(), 10);
  // Who names the version means the generation that serves, not the one that was given up.
  EXPECT_EQ(Ask(ForVersion(1, RowsOf(1))), 10);
  SnapshotRequest request;
  request.model = "m";
  request.version = 1;
  EXPECT_EQ(core_->Snapshot(request, {})->generation, 1u);
}

TEST_F(CoreAdminTest, RollBackWithNothingBeforeFails) {
  Start();
  EXPECT_EQ(core_->RollBack("m").status().code(), absl::StatusCode::kFailedPrecondition);
  Save("step-1.pt", 10);
  Look();
  EXPECT_EQ(core_->RollBack("m").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Ask(), 10);
}

TEST_F(CoreAdminTest, UnloadStopsServingUntilReload) {
  Save("step-1.pt", 10);
  Start();
  const absl::StatusOr<ModelStatus> status = core_->Unload("m");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->state, ModelState::kUnloaded);
  EXPECT_EQ(AskStatus().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(world_->live_models(), 0u);
  Save("step-2.pt", 20);
  Look();
  EXPECT_EQ(Served(), 0);
  EXPECT_TRUE(core_->IsReady()) << "readiness stays";
  ASSERT_TRUE(core_->Reload("m").ok());
  EXPECT_EQ(Ask(), 20);
}

TEST_F(CoreAdminTest, SubscribersHearOfChangesAndOfReadiness) {
  Start();
  std::vector<std::string> heard;
  const auto subscription =
      core_->Subscribe([&](const std::string& model) { heard.push_back(model); });
  Look();
  EXPECT_THAT(heard, ElementsAre());
  Save("step-1.pt", 10);
  Look();
  EXPECT_THAT(heard, ElementsAre("", "m"));
}

TEST_F(CoreAdminTest, CommandsAreAnsweredByThreadsToo) {
  Save("step-1.pt", 10);
  Save("step-2.pt", 20);
  ASSERT_TRUE(TryStart(Core::Threads::kOwn).ok());
  ASSERT_TRUE(core_->Reload("m").ok());
  EXPECT_EQ(Ask(), 20);
  ASSERT_TRUE(core_->Pin("m", 1).ok());
  EXPECT_EQ(Ask(), 10);
  ASSERT_TRUE(core_->Unload("m").ok());
  EXPECT_EQ(AskStatus().code(), absl::StatusCode::kUnavailable);
}

// --- the repository ---

TEST_F(CoreAdminTest, MissingRepositoryFailsTheStart) {
  options_.model_repository = "/nowhere/at/all";
  EXPECT_EQ(TryStart().code(), absl::StatusCode::kNotFound);
}

TEST_F(CoreAdminTest, AllErrorsOfAllConfigsFailTheStart) {
  AddModel("bad", "no_such_field: 1");
  AddModel("worse", "arenas: 7");
  const absl::Status status = TryStart();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no_such_field"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("arenas"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("model worse"));
}

TEST_F(CoreAdminTest, GraphThatCannotBeMadeFailsTheStart) {
  factory_.on_create = [](const config::ModelConfig&) {
    return absl::FailedPreconditionError("there is no CUDA here");
  };
  EXPECT_THAT(std::string(TryStart().message()), HasSubstr("no CUDA"));
}

TEST_F(CoreAdminTest, NewModelFolderIsPickedUp) {
  Start();
  AddModel("n", kConfig);
  ReplaceFile("models/n/checkpoints/step-1.pt", CheckpointBytes({5}));
  Look();
  Look();
  EXPECT_EQ(Ask(RowsOf(1), "n"), 5);
  EXPECT_THAT(core_->ModelNames(), ElementsAre("m", "n"));
}

TEST_F(CoreAdminTest, NewModelWithABrokenConfigIsShownAsFailed) {
  Start();
  AddModel("n", "no_such_field: 1");
  Look();
  Look();
  EXPECT_EQ(StatusOf("n").state, ModelState::kFailed);
  EXPECT_THAT(StatusOf("n").reason, HasSubstr("no_such_field"));
  EXPECT_EQ(AskStatus(RowsOf(1), "n").code(), absl::StatusCode::kUnavailable);
  WriteConfig("n", kConfig);
  Look();
  Look();
  EXPECT_EQ(StatusOf("n").state, ModelState::kWaiting);
}

TEST_F(CoreAdminTest, RemovedModelIsServedUntilItsRemovalCounts) {
  Save("step-1.pt", 10);
  Start();
  std::filesystem::remove_all(root_.Path("models/m"));
  Look();
  Look(absl::Seconds(4));
  EXPECT_EQ(Ask(), 10);
  Look(absl::Seconds(1));
  EXPECT_EQ(AskStatus().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(LookUntilModelsLeft(0));
}

TEST_F(CoreAdminTest, ChangedConfigIsServedTogetherWithItsWeights) {
  Save("step-1.pt", 10);
  Start();
  WriteConfig("m", std::string(kConfig) + "batching { max_batch_size: 4 }");
  Look();
  Look();
  EXPECT_EQ((*core_->GetModelInfo("m"))->max_batch_size, 4);
  EXPECT_EQ(StatusOf().generation, 2u);
  EXPECT_EQ(Ask(), 10);
  EXPECT_THAT(Events(), Contains(HistoryEvent::kConfigChanged));
  EXPECT_TRUE(LookUntilModelsLeft(1));
}

TEST_F(CoreAdminTest, BrokenConfigLeavesTheOldOneServing) {
  Save("step-1.pt", 10);
  Start();
  WriteConfig("m", "no_such_field: 1");
  Look();
  Look();
  EXPECT_EQ(Ask(), 10);
  EXPECT_THAT(StatusOf().last_error, HasSubstr("no_such_field"));
  EXPECT_THAT(Events(), Contains(HistoryEvent::kConfigRefused));
  Save("step-2.pt", 20);
  Look();
  EXPECT_EQ(Ask(), 20) << "new checkpoints are still taken";
  EXPECT_EQ(core_->Reload("m").status().code(), absl::StatusCode::kFailedPrecondition);
  WriteConfig("m", kConfig);
  Look();
  Look();
  EXPECT_EQ(StatusOf().last_error, "");
}

TEST_F(CoreAdminTest, ChangedConfigThatNoCheckpointFitsLeavesTheOldOneServing) {
  Save("step-1.pt", 10);
  Start();
  world_->on_bind = [](float weight) {
    return weight == 10 ? absl::InvalidArgumentError("does not fit") : absl::OkStatus();
  };
  WriteConfig("m", std::string(kConfig) + "batching { max_batch_size: 4 }");
  Look();
  Look();
  EXPECT_EQ(Ask(), 10);
  EXPECT_EQ((*core_->GetModelInfo("m"))->max_batch_size, 32);
  EXPECT_THAT(StatusOf().reason, HasSubstr("changed config is not in use yet"));
  EXPECT_THAT(StatusOf().last_error, HasSubstr("does not fit"));
  EXPECT_THAT(std::string(core_->Reload("m").status().message()), HasSubstr("does not fit"));
  Save("step-2.pt", 20);
  Look();
  EXPECT_EQ(Ask(), 20);
  EXPECT_EQ((*core_->GetModelInfo("m"))->max_batch_size, 4);
  EXPECT_EQ(StatusOf().reason, "");
  EXPECT_EQ(StatusOf().last_error, "");
}

TEST_F(CoreAdminTest, DrainingRefusesNewRequests) {
  Save("step-1.pt", 10);
  Start();
  EXPECT_TRUE(core_->Drain(absl::Now() + absl::Minutes(1)));
  const absl::Status status = AskStatus();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("draining"));
}

}  // namespace
}  // namespace relight::serving
