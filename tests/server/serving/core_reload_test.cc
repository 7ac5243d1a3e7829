// Checkpoints arriving in every way that they do, through the whole serving layer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "tests/server/serving/core_harness.h"

namespace relight::serving {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class CoreReloadTest : public CoreTest {};

TEST_F(CoreReloadTest, ModelWithoutACheckpointIsKnownAndUnavailable) {
  Start();
  EXPECT_EQ(StatusOf().state, ModelState::kWaiting);
  EXPECT_THAT(StatusOf().reason, HasSubstr("no checkpoint yet"));
  EXPECT_EQ(AskStatus().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(core_->IsReady());
  EXPECT_FALSE(*core_->IsModelReady("m", std::nullopt));
  EXPECT_EQ(AskStatus(RowsOf(1), "nobody").code(), absl::StatusCode::kNotFound);
}

TEST_F(CoreReloadTest, ServesTheNewestCheckpointThatIsThereAtStart) {
  Save("step-1.pt", 10);
  Save("step-2.pt", 20);
  Start();
  EXPECT_EQ(Served(), 2);
  EXPECT_EQ(Ask(), 20);
  EXPECT_TRUE(core_->IsReady());
  EXPECT_TRUE(*core_->IsModelReady("m", 2));
  EXPECT_FALSE(*core_->IsModelReady("m", 1));
  const ModelStatus status = StatusOf();
  EXPECT_EQ(status.state, ModelState::kServing);
  EXPECT_EQ(status.generation, 1u);
  EXPECT_EQ(status.version_rule, "name: every candidate's name ends in digits");
  EXPECT_EQ(status.loaded[0].file, "step-2.pt");
  EXPECT_EQ(status.loaded[0].file_sha256.size(), 64u);
  EXPECT_EQ(status.loaded[0].weights_digest.size(), 32u);
  EXPECT_EQ(Reloads("served"), 1u);
  EXPECT_EQ(core_->GetModelStatistics().front().served_version, 2);
}

TEST_F(CoreReloadTest, TheSha256OfAnIndexIsThatOfTheIndexAlone) {
  root_.Write(In("part.bin"), CheckpointBytes({10}));
  root_.Write(In("step-1.index.json"), R"({"weight_map": {"w": "part.bin"}})");
  Start();
  EXPECT_EQ(Ask(), 10);
  EXPECT_EQ(StatusOf().loaded[0].file, "step-1.index.json");
  EXPECT_EQ(StatusOf().loaded[0].file_sha256,
            "db95a709f887f4b2059166e0b20c284232ce062b277252b857a44d5af5d0983c");
}

TEST_F(CoreReloadTest, FileThatArrivesByRenameIsSwappedInAndTheOneBeforeStaysLoaded) {
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 20);
  Look();
  EXPECT_EQ(Ask(), 20);
  EXPECT_EQ(Ask(ForVersion(1, RowsOf(1))), 10);
  Save("step-3.pt", 30);
  Look();
  EXPECT_EQ(Ask(), 30);
  EXPECT_EQ(AskStatus(ForVersion(1, RowsOf(1))).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Events(), ElementsAre(HistoryEvent::kServed, HistoryEvent::kRetired,
                                    HistoryEvent::kServed, HistoryEvent::kServed));
  EXPECT_EQ(world_->live_models(), 2u);
}

TEST_F(CoreReloadTest, SlowCopyIsServedOnceItIsWhole) {
  Start();
  const std::string bytes = CheckpointBytes({7});
  for (std::size_t size = 0; size < bytes.size(); size += bytes.size() / 9) {
    root_.Write(In("step-1.pt"), bytes.substr(0, size));
    Look(absl::Seconds(20));
    ASSERT_EQ(Served(), 0);
    ASSERT_EQ(Candidate("step-1.pt").state, VersionState::kWaiting) << size;
  }
  EXPECT_EQ(StatusOf().state, ModelState::kWaiting);
  root_.Write(In("step-1.pt"), bytes);
  Look();
  EXPECT_EQ(Ask(), 7);
  EXPECT_THAT(Events(), ElementsAre(HistoryEvent::kServed)) << "a torn file is no event";
}

TEST_F(CoreReloadTest, FileThatStaysTornIsRefusedAndTheOldVersionServesOn) {
  Save("step-1.pt", 10);
  Start();
  const std::string bytes = CheckpointBytes({20});
  ReplaceFile(In("step-2.pt"), bytes.substr(0, bytes.size() / 2));
  for (int i = 0; i < 31; ++i) Look(absl::Seconds(1));
  EXPECT_EQ(Candidate("step-2.pt").state, VersionState::kRefused);
  EXPECT_THAT(StatusOf().last_error, HasSubstr("step-2.pt: ZIP_CORRUPT"));
  EXPECT_EQ(Ask(), 10);
  EXPECT_EQ(Reloads("refused"), 1u);
  EXPECT_EQ(core_->Reload("m").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Candidate("step-2.pt").state, VersionState::kRefused) << "it has been torn for long";
  ReplaceFile(In("step-2.pt"), bytes);
  Look();
  EXPECT_EQ(Ask(), 20);
  EXPECT_EQ(StatusOf().last_error, "");
}

TEST_F(CoreReloadTest, OverwritingInPlaceKeepsTheVersionAndCountsAGeneration) {
  Save("step-5.pt", 10);
  Start();
  root_.Write(In("step-5.pt"), CheckpointBytes({20}));
  Look();
  EXPECT_EQ(Served(), 5);
  EXPECT_EQ(StatusOf().generation, 2u);
  EXPECT_EQ(Ask(), 20);
}

TEST_F(CoreReloadTest, LinkThatIsTurnedIsANewCheckpoint) {
  root_.Write("scratch/one.pt", CheckpointBytes({10}));
  root_.Write("scratch/two.pt", CheckpointBytes({20}));
  root_.Symlink(root_.Path("scratch/two.pt"), In("latest.pt"));
  Start();
  EXPECT_EQ(Ask(), 20);
  root_.Symlink(root_.Path("scratch/one.pt"), "scratch/link");
  std::filesystem::rename(root_.Path("scratch/link"), root_.Path(In("latest.pt")));
  Look();
  EXPECT_EQ(Ask(), 10);
  EXPECT_EQ(StatusOf().generation, 2u);
}

TEST_F(CoreReloadTest, WrongShapeIsRefusedAtOnceWithTheReason) {
  Save("step-1.pt", 10);
  Start();
  ReplaceFile(In("step-2.pt"), CheckpointBytes({1, 2, 3}));
  Look();
  EXPECT_EQ(Candidate("step-2.pt").state, VersionState::kRefused);
  EXPECT_THAT(Candidate("step-2.pt").reason, HasSubstr("[3]"));
  EXPECT_EQ(Ask(), 10);
  EXPECT_THAT(Events(), ElementsAre(HistoryEvent::kRefused, HistoryEvent::kServed));
  EXPECT_EQ(StatusOf().state, ModelState::kServing);
  EXPECT_EQ(core_->Reload("m").status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Reloads("refused"), 2u);
  EXPECT_THAT(Events(), ElementsAre(HistoryEvent::kRefused, HistoryEvent::kServed))
      << "found as it was: no news";
}

TEST_F(CoreReloadTest, MissingAndUnexpectedKeysAreListedTogether) {
  ReplaceFile(In("step-2.pt"), CheckpointBytes({1}, {}, "other"));
  Start();
  EXPECT_THAT(Candidate("step-2.pt").reason, HasSubstr("other"));
  EXPECT_THAT(Candidate("step-2.pt").reason, HasSubstr("w"));
  EXPECT_EQ(StatusOf().state, ModelState::kFailed);
}

TEST_F(CoreReloadTest, WeightsThatAreNotFiniteAreRefusedUnlessAllowed) {
  Save("step-1.pt", 10);
  Start();
  ReplaceFile(In("step-2.pt"), CheckpointBytes({std::nanf("")}));
  Look();
  EXPECT_EQ(Candidate("step-2.pt").state, VersionState::kRefused);
  EXPECT_EQ(Ask(), 10);
  WriteConfig("m", std::string(kConfig) + "accept { allow_non_finite: true }");
  Look();
  Look();
  EXPECT_TRUE(std::isnan(Ask()));
}

TEST_F(CoreReloadTest, SameWeightsAgainAreNoSwap) {
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 10);
  Look();
  EXPECT_EQ(StatusOf().generation, 1u);
  EXPECT_EQ(Served(), 1);
  EXPECT_THAT(Candidate("step-2.pt").reason, HasSubstr("same weights as version 1"));
  EXPECT_THAT(Events(), ElementsAre(HistoryEvent::kUnchanged, HistoryEvent::kServed));
  Look();
  EXPECT_EQ(Reloads("unchanged"), 1u);
}

TEST_F(CoreReloadTest, FileWithoutChecksumsWaitsUntilItIsStill) {
  Start();
  root_.Write(In("step-1.safetensors"), SafetensorsBytes(4));
  Look(absl::Milliseconds(0));
  EXPECT_EQ(Candidate("step-1.safetensors").state, VersionState::kWaiting);
  EXPECT_THAT(Candidate("step-1.safetensors").reason, HasSubstr("no checksums"));
  Look(absl::Seconds(1));
  EXPECT_EQ(Ask(), 4);
}

TEST_F(CoreReloadTest, DeletingFilesUnloadsNothing) {
  Save("step-1.pt", 10);
  Start();
  std::filesystem::remove(root_.Path(In("step-1.pt")));
  for (int i = 0; i < 10; ++i) Look(absl::Seconds(3));
  EXPECT_EQ(Ask(), 10);
  EXPECT_TRUE(StatusOf().candidates.empty());
}

TEST_F(CoreReloadTest, FolderMayVanishAndReturn) {
  Save("step-1.pt", 10);
  Start();
  std::filesystem::remove_all(root_.Path("models/m/checkpoints"));
  for (int i = 0; i < 10; ++i) Look(absl::Seconds(3));
  EXPECT_EQ(Ask(), 10);
  EXPECT_TRUE(StatusOf().candidates.empty());
  EXPECT_NE(StatusOf().reason, "");
  root_.MakeFolder("models/m/checkpoints");
  Save("step-2.pt", 20);
  Look();
  EXPECT_EQ(Ask(), 20);
}

TEST_F(CoreReloadTest, FailureThatMayPassIsRetriedWithTheSameFile) {
  bool refuse = true;
  world_->on_bind = [&](float) {
    return refuse ? absl::ResourceExhaustedError("out of device memory") : absl::OkStatus();
  };
  Save("step-1.pt", 10);
  Start();
  EXPECT_EQ(Candidate("step-1.pt").state, VersionState::kRetrying);
  EXPECT_THAT(Events(), ElementsAre(HistoryEvent::kRetrying));
  refuse = false;
  Look(absl::Milliseconds(500));
  EXPECT_EQ(Served(), 0);
  Look(absl::Milliseconds(500));
  EXPECT_EQ(Ask(), 10);
}

TEST_F(CoreReloadTest, WarmUpRunsBeforeTheVersionServes) {
  Save("step-1.pt", 10);
  Start();
  EXPECT_THAT(world_->batch_rows(), ElementsAre(1, 32));
}

TEST_F(CoreReloadTest, OneArenaPausesAndServesTheNext) {
  WriteConfig("m", std::string(kConfig) + "arenas: 1");
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 20);
  Look();
  EXPECT_EQ(Ask(), 20);
  EXPECT_EQ(StatusOf().loaded.size(), 1u);
  EXPECT_EQ(world_->live_models(), 1u);
}

TEST_F(CoreReloadTest, OneArenaGoesOnServingWhenTheNextIsBad) {
  WriteConfig("m", std::string(kConfig) + "arenas: 1");
  Save("step-1.pt", 10);
  Start();
  ReplaceFile(In("step-1.pt"), CheckpointBytes({std::nanf("")}));
  Look();
  EXPECT_EQ(Candidate("step-1.pt").state, VersionState::kRefused);
  std::string damaged = CheckpointBytes({20});
  const float weight = 20;
  const std::size_t at = damaged.find(std::string(reinterpret_cast<const char*>(&weight), 4));
  ASSERT_NE(at, std::string::npos);
  damaged[at] ^= 1;
  ReplaceFile(In("step-2.pt"), damaged);
  Look();
  EXPECT_EQ(Candidate("step-2.pt").state, VersionState::kWaiting);
  EXPECT_EQ(Served(), 1);
  EXPECT_EQ(Ask(), 10);
  EXPECT_EQ(StatusOf().generation, 1u);
}

TEST_F(CoreReloadTest, OneArenaIsNotTouchedByTheSameWeightsAgain) {
  WriteConfig("m", std::string(kConfig) + "arenas: 1");
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 10);
  Look();
  EXPECT_THAT(Events(), ElementsAre(HistoryEvent::kUnchanged, HistoryEvent::kServed));
  EXPECT_EQ(StatusOf().generation, 1u);
  EXPECT_EQ(Ask(), 10);
}

TEST_F(CoreReloadTest, OneArenaIsNotTouchedByAFileOfTheWrongShape) {
  WriteConfig("m", std::string(kConfig) + "arenas: 1");
  Save("step-1.pt", 10);
  Start();
  ReplaceFile(In("step-2.pt"), CheckpointBytes({1, 2}));
  Look();
  EXPECT_EQ(StatusOf().generation, 1u);
}

TEST_F(CoreReloadTest, NothingIsLeftWhenTheCoreEnds) {
  Save("step-1.pt", 10);
  Start();
  Save("step-2.pt", 20);
  Look();
  core_.reset();
  EXPECT_EQ(world_->live_models(), 0u);
}

// The same with threads of its own, under requests.
TEST_F(CoreReloadTest, VersionsChangeUnderRequestsAndNoneFails) {
  Save("step-1.pt", 1);
  ASSERT_TRUE(TryStart(Core::Threads::kOwn).ok());
  Gate ready;
  Gate served;
  const auto subscription = core_->Subscribe([&](const std::string& model) {
    if (model.empty()) ready.Open();
    if (Served() == 20) served.Open();
  });
  if (core_->IsReady()) ready.Open();
  ready.Pass();
  std::atomic<bool> stop{false};
  std::atomic<int> asked{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back([&] {
      while (!stop) {
        Call call;
        core_->Infer("m", RowsOf(1), call.Done());
        const auto& result = call.Wait();
        ASSERT_TRUE(result.ok()) << result.status();
        ASSERT_EQ(call.WaitValues().front(), static_cast<float>(result->version));
        ++asked;
      }
    });
  }
  for (int version = 2; version <= 20; ++version) {
    Save("step-" + std::to_string(version) + ".pt", static_cast<float>(version));
    const int before = asked;
    while (asked < before + 20) std::this_thread::yield();
  }
  if (Served() == 20) served.Open();
  served.Pass();
  stop = true;
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(Ask(), 20);
  for (const std::thread::id id : world_->destroyed_on()) {
    EXPECT_NE(id, std::this_thread::get_id());
  }
  EXPECT_TRUE(core_->Drain(absl::Now() + absl::Minutes(1)));
  EXPECT_EQ(AskStatus().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace relight::serving
