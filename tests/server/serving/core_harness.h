// A core over the fake graph and a repository on disk, without threads of its own: a test is the
// manager, says when it looks, and what time it is.
#ifndef RELIGHT_TESTS_SERVER_SERVING_CORE_HARNESS_H_
#define RELIGHT_TESTS_SERVER_SERVING_CORE_HARNESS_H_

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "server/serving/core.h"
#include "tests/server/serving/checkpoint_files.h"
#include "tests/server/serving/fake_graph.h"
#include "tests/server/serving/request_harness.h"
#include "tests/storage/temp_folder.h"

namespace relight::serving {

inline constexpr char kConfig[] = R"(
input { name: "x" datatype: "FP32" shape: [-1, 2] }
output { name: "y" datatype: "FP32" shape: [-1, 2] }
network { layer { name: "y" linear { out_features: 2 } } }
)";

class CoreTest : public ::testing::Test {
 protected:
  CoreTest() {
    for (const char* name : {"models", "state", "snapshots", "scratch"}) root_.MakeFolder(name);
    AddModel("m", kConfig);
    options_.model_repository = root_.Path("models");
    options_.state_dir = root_.Path("state");
    options_.snapshot_dir = root_.Path("snapshots");
    options_.poll_interval = absl::Milliseconds(10);
  }

  void AddModel(const std::string& name, std::string_view config) {
    root_.MakeFolder("models/" + name + "/checkpoints");
    WriteConfig(name, config);
  }
  void WriteConfig(const std::string& name, std::string_view config) {
    ReplaceFile("models/" + name + "/model.textproto", config);
  }
  // By rename, as good tools do.
  void ReplaceFile(const std::string& name, std::string_view content) {
    root_.Write("scratch/file", content);
    std::filesystem::rename(root_.Path("scratch/file"), root_.Path(name));
  }

  static std::string In(const std::string& file) { return "models/m/checkpoints/" + file; }
  void Save(const std::string& file, float weight) {
    ReplaceFile(In(file), CheckpointBytes({weight}));
  }

  absl::Status TryStart(Core::Threads threads = Core::Threads::kNone) {
    core_.reset();
    absl::StatusOr<std::unique_ptr<Core>> core = Core::Start(options_, factory_, clock_, threads);
    if (core.ok()) core_ = *std::move(core);
    return core.status();
  }
  void Start() {
    const absl::Status status = TryStart();
    ASSERT_TRUE(status.ok()) << status;
    core_->RunOnce();
  }
  // Looks again after `time`.
  void Look(absl::Duration time = absl::Milliseconds(100)) {
    clock_.Advance(time);
    core_->RunOnce();
  }

  // Looks until `count` models are left. A model goes once the last thread that read from it has
  // let go, which no clock says; what never goes fails the test that asks.
  bool LookUntilModelsLeft(std::size_t count) {
    for (int i = 0; i < 10'000 && world_->live_models() != count; ++i) Look(absl::ZeroDuration());
    return world_->live_models() == count;
  }

  ModelStatus StatusOf(const std::string& model = "m") { return *core_->GetStatus(model); }
  CandidateStatus Candidate(const std::string& file) {
    for (const CandidateStatus& candidate : StatusOf().candidates) {
      if (candidate.file == file) return candidate;
    }
    return {};
  }
  // What serves; 0 where nothing does.
  std::int64_t Served(const std::string& model = "m") {
    for (const LoadedVersion& loaded : StatusOf(model).loaded) {
      if (loaded.state == VersionState::kServing) return loaded.version;
    }
    return 0;
  }
  std::vector<HistoryEvent> Events() {
    std::vector<HistoryEvent> events;
    const std::vector<HistoryEntry> history = *core_->GetHistory("m", 0);
    for (const HistoryEntry& entry : history) events.push_back(entry.event);
    return events;
  }
  std::uint64_t Reloads(const std::string& outcome) {
    return core_->GetModelStatistics().front().reloads.at(outcome);
  }
  // The weight that answers, -1 where none does. `request` may name a version.
  float Ask(InferRequest request = RowsOf(1), const std::string& model = "m") {
    Call call;
    core_->Infer(model, std::move(request), call.Done());
    const std::vector<float> values = call.WaitValues();
    return values.empty() ? -1 : values.front();
  }
  absl::Status AskStatus(InferRequest request = RowsOf(1), const std::string& model = "m") {
    Call call;
    core_->Infer(model, std::move(request), call.Done());
    return call.WaitStatus();
  }

  storage::TempFolder root_;
  FakeClock clock_{absl::Now()};
  std::shared_ptr<FakeGraphWorld> world_ = std::make_shared<FakeGraphWorld>();
  FakeGraphFactory factory_{world_};
  CoreOptions options_;
  std::unique_ptr<Core> core_;
};

}  // namespace relight::serving

#endif  // RELIGHT_TESTS_SERVER_SERVING_CORE_HARNESS_H_
