// What an operator asks of a model, and what a changed repository does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <thread>
#include <utility>

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
  EXPECT_EQ(StatusOf().generation, 3u);
  EXPECT_EQ(Reloads("served"), 2u);
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
  EXPECT_EQ(core_->Snapshot(request, {})->generation, 3u);
}

TEST_F(CoreAdminTest, GoingBackIsASwapToo) {
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 20);
  Look();
  ASSERT_TRUE(core_->RollBack("m").ok());
  EXPECT_EQ(StatusOf().generation, 3u) << "a generation never repeats";
  const std::vector<HistoryEntry> history = *core_->GetHistory("m", 0);
  const auto again = std::find_if(history.begin(), history.end(), [](const HistoryEntry& entry) {
    return entry.event == HistoryEvent::kServed;
  });
  ASSERT_NE(again, history.end());
  EXPECT_EQ(again->generation, 3u);
  EXPECT_EQ(again->version, 1);
  EXPECT_EQ(again->file_sha256.size(), 64u);

  Look();
  EXPECT_EQ(StatusOf().generation, 3u) << "looking again swaps nothing";
  ASSERT_TRUE(core_->Unpin("m").ok());
  EXPECT_EQ(Ask(), 20);
  EXPECT_EQ(StatusOf().generation, 4u);
  EXPECT_EQ(Reloads("served"), 2u) << "from memory, not from the folder";
}

TEST_F(CoreAdminTest, GoingBackTwiceIsNotGoingForthAgain) {
  for (const int step : {1, 2, 3}) {
    Save("step-" + std::to_string(step) + ".pt", static_cast<float>(10 * step));
    step == 1 ? Start() : Look();
  }
  ASSERT_TRUE(core_->RollBack("m").ok());
  EXPECT_EQ(Ask(), 20);
  ASSERT_TRUE(core_->RollBack("m").ok());
  EXPECT_EQ(Ask(), 10);
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
  AddModel("other", kConfig);
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

TEST_F(CoreAdminTest, RepositoryThatIsSeenEmptyUnloadsNothing) {
  Save("step-1.pt", 10);
  Start();
  std::filesystem::rename(root_.Path("models"), root_.Path("unmounted"));
  root_.MakeFolder("models");
  for (int i = 0; i < 10; ++i) Look(absl::Seconds(3));
  EXPECT_EQ(Ask(), 10);
}

TEST_F(CoreAdminTest, ModelThatReturnsCountsItsGenerationsOn) {
  AddModel("other", kConfig);
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 20);
  Look();
  ASSERT_EQ(StatusOf().generation, 2u);
  std::filesystem::rename(root_.Path("models/m"), root_.Path("away"));
  for (int i = 0; i < 4; ++i) Look(absl::Seconds(3));
  ASSERT_EQ(AskStatus().code(), absl::StatusCode::kNotFound);
  std::filesystem::rename(root_.Path("away"), root_.Path("models/m"));
  for (int i = 0; i < 3; ++i) Look();
  EXPECT_EQ(Ask(), 20);
  EXPECT_EQ(StatusOf().generation, 3u);
}

TEST_F(CoreAdminTest, ChangedConfigIsServedTogetherWithItsWeights) {
  Save("step-1.pt", 10);
  Start();
  WriteConfig("m", std::string(kConfig) + "batching { max_batch_size: 4 }");
  Look();
  Look();
  EXPECT_EQ((*core_->GetModelInfo("m"))->batching.max_batch_size, 4);
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
  EXPECT_EQ((*core_->GetModelInfo("m"))->batching.max_batch_size, 32);
  EXPECT_THAT(StatusOf().reason, HasSubstr("changed config is not in use yet"));
  EXPECT_THAT(StatusOf().last_error, HasSubstr("does not fit"));
  EXPECT_THAT(std::string(core_->Reload("m").status().message()), HasSubstr("does not fit"));
  Save("step-2.pt", 20);
  Look();
  EXPECT_EQ(Ask(), 20);
  EXPECT_EQ((*core_->GetModelInfo("m"))->batching.max_batch_size, 4);
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

TEST_F(CoreAdminTest, ConfigSavedWhileTheOneBeforeIsReadIsNoticed) {
  Save("step-1.pt", 10);
  Start();
  bool saved = false;
  factory_.on_create = [&](const config::ModelConfig&) {
    if (!std::exchange(saved, true)) {
      WriteConfig("m", std::string(kConfig) + "batching { max_batch_size: 8 }");
    }
    return absl::OkStatus();
  };
  WriteConfig("m", std::string(kConfig) + "batching { max_batch_size: 4 }");
  for (int i = 0; i < 6; ++i) Look();
  EXPECT_TRUE(saved);
  EXPECT_EQ((*core_->GetModelInfo("m"))->batching.max_batch_size, 8);
}

TEST_F(CoreAdminTest, ChangedConfigDoesNotGoBackToAnOlderCheckpoint) {
  Save("step-1.pt", 10);
  Save("step-2.pt", 20);
  Start();
  ASSERT_EQ(Ask(), 20);
  ReplaceFile(In("step-2.pt"), CheckpointBytes({std::nanf("")}));
  Look();
  WriteConfig("m", std::string(kConfig) + "batching { max_batch_size: 4 }");
  for (int i = 0; i < 4; ++i) Look();
  EXPECT_EQ(Ask(), 20) << "a bad file leaves what serves in its place";
  EXPECT_EQ((*core_->GetModelInfo("m"))->batching.max_batch_size, 32);
  EXPECT_THAT(StatusOf().last_error, HasSubstr("step-2.pt"));

  std::filesystem::remove(root_.Path(In("step-2.pt")));
  for (int i = 0; i < 4; ++i) Look(absl::Seconds(3));
  EXPECT_EQ(Ask(), 20);
  EXPECT_THAT(StatusOf().reason, HasSubstr("as new as version 2"));

  Save("step-3.pt", 30);
  Look();
  EXPECT_EQ(Ask(), 30);
  EXPECT_EQ((*core_->GetModelInfo("m"))->batching.max_batch_size, 4);
}

TEST_F(CoreAdminTest, ConfigThatChangesWhileNothingServesIsDescribedAtOnce) {
  Start();
  WriteConfig("m", std::string(kConfig) + "batching { max_batch_size: 4 }");
  for (int i = 0; i < 3; ++i) Look();
  EXPECT_EQ((*core_->GetModelInfo("m"))->batching.max_batch_size, 4);
}

TEST_F(CoreAdminTest, BrokenConfigOfANewModelIsToldOnce) {
  Start();
  int told = 0;
  const auto subscription = core_->Subscribe([&](const std::string&) { ++told; });
  AddModel("n", "no_such_field: 1");
  for (int i = 0; i < 4; ++i) Look();
  const int before = told;
  EXPECT_GT(before, 0);
  for (int i = 0; i < 20; ++i) Look();
  EXPECT_EQ(told, before);
}

TEST_F(CoreAdminTest, UnloadedModelSaysHowToGetItBack) {
  Save("step-1.pt", 10);
  Start();
  ASSERT_TRUE(core_->Unload("m").ok());
  EXPECT_THAT(std::string(AskStatus().message()), HasSubstr("unloaded by an admin; reload"));
  ASSERT_TRUE(core_->Reload("m").ok());
  EXPECT_EQ(Ask(), 10);
}

TEST_F(CoreAdminTest, PinThatFailsLeavesAnUnloadedModelUnloaded) {
  Save("step-1.pt", 10);
  ReplaceFile(In("step-2.pt"), CheckpointBytes({1, 2}));
  Start();
  ASSERT_TRUE(core_->Unload("m").ok());
  EXPECT_EQ(core_->Pin("m", 2).status().code(), absl::StatusCode::kFailedPrecondition);
  Look();
  EXPECT_EQ(AskStatus().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(StatusOf().state, ModelState::kUnloaded);
}

TEST_F(CoreAdminTest, ReloadIsAnsweredAlthoughTheTrainerSavesFasterThanLoadsEnd) {
  Start();
  Save("step-0.pt", 1);
  int saves = 0;
  world_->on_bind = [&](float) {
    ++saves;
    Save("step-" + std::to_string(saves) + ".pt", static_cast<float>(saves + 1));
    return absl::OkStatus();
  };
  const absl::StatusOr<ReloadResult> result = core_->Reload("m");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->swapped);
  world_->on_bind = nullptr;
}

TEST_F(CoreAdminTest, OverwrittenVersionCountsOn) {
  Save("step-1.pt", 10);
  Start();
  EXPECT_EQ(Ask(), 10);
  for (const float weight : {20.0F, 30.0F, 40.0F}) {
    Save("step-1.pt", weight);
    Look();
    EXPECT_EQ(Ask(), weight);
  }
  const auto rows = *core_->GetStatistics("m", std::nullopt);
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].second.success.count, 4u) << "a counter never goes back";
}

// --- with threads of its own ---

class CoreThreadsTest : public CoreTest {
 protected:
  Gate load_;
};

TEST_F(CoreThreadsTest, RollBackDoesNotWaitForAReload) {
  Save("step-0.pt", 5);
  Save("step-1.pt", 10);
  std::atomic<bool> reloading{false};
  world_->on_bind = [&](float weight) -> absl::Status {
    if (weight != 20) return absl::OkStatus();
    if (!reloading) return absl::FailedPreconditionError("not before it is asked for");
    load_.Pass();
    return absl::OkStatus();
  };
  ASSERT_TRUE(TryStart(Core::Threads::kOwn).ok());
  while (!core_->IsReady()) std::this_thread::yield();
  Save("step-2.pt", 20);
  while (Candidate("step-2.pt").state != VersionState::kRefused) std::this_thread::yield();
  reloading = true;
  absl::Status reloaded;
  std::thread reload([&] { reloaded = core_->Reload("m").status(); });
  load_.AwaitArrivals(1);
  absl::Status rolled_back = absl::UnknownError("not yet");
  std::thread roll_back([&] { rolled_back = core_->RollBack("m").status(); });
  reload.join();  // Although what it waits for is still held.
  EXPECT_EQ(reloaded.code(), absl::StatusCode::kAborted);
  load_.Open();
  roll_back.join();
  EXPECT_TRUE(rolled_back.ok()) << rolled_back;
  EXPECT_EQ(Ask(), 5) << "not the version that was being loaded";
}

TEST_F(CoreThreadsTest, DrainAnswersThoseWhoWaitForALoad) {
  world_->on_bind = [this](float) {
    load_.Pass();
    return absl::OkStatus();
  };
  Save("step-1.pt", 10);
  ASSERT_TRUE(TryStart(Core::Threads::kOwn).ok());
  absl::Status reloaded;
  std::thread reload([&] { reloaded = core_->Reload("m").status(); });
  load_.AwaitArrivals(1);
  core_->Drain(absl::Now());
  reload.join();
  EXPECT_EQ(reloaded.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(core_->Pin("m", 1).status().code(), absl::StatusCode::kUnavailable);
  load_.Open();
}

TEST_F(CoreThreadsTest, EndsWhileALoadIsUnderWay) {
  world_->on_bind = [this](float weight) {
    if (weight == 30) load_.Pass();
    return absl::OkStatus();
  };
  Save("step-1.pt", 10);
  ASSERT_TRUE(TryStart(Core::Threads::kOwn).ok());
  ASSERT_TRUE(core_->Reload("m").ok());
  Save("step-2.pt", 20);
  ASSERT_TRUE(core_->Reload("m").ok());
  Save("step-3.pt", 30);
  std::thread reload([&] { EXPECT_FALSE(core_->Reload("m").ok()); });
  load_.AwaitArrivals(1);
  core_->Drain(absl::Now());
  reload.join();
  std::thread open([this] { load_.Open(); });
  core_.reset();
  open.join();
  EXPECT_EQ(world_->live_models(), 0u);
}

TEST_F(CoreThreadsTest, SnapshotsAreTakenWhileConfigsChange) {
  Save("step-1.pt", 10);
  ASSERT_TRUE(TryStart(Core::Threads::kOwn).ok());
  while (!core_->IsReady()) std::this_thread::yield();
  std::atomic<bool> done{false};
  std::thread snapshots([&] {
    for (int i = 0; i < 40 || !done; ++i) {
      SnapshotRequest request;
      request.model = "m";
      request.overwrite = true;
      request.weights_only = true;
      EXPECT_TRUE(core_->Snapshot(request, {}).ok());
    }
  });
  for (int size = 2; size < 6; ++size) {
    WriteConfig("m",
                std::string(kConfig) + "batching { max_batch_size: " + std::to_string(size) + " }");
    while ((*core_->GetModelInfo("m"))->batching.max_batch_size != size) {
      clock_.Advance(absl::Milliseconds(200));
      std::this_thread::yield();
    }
  }
  done = true;
  snapshots.join();
}

}  // namespace
}  // namespace relight::serving
