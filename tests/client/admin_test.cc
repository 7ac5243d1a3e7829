#include "relight/admin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/client/fake_server.h"

namespace relight::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class AdminTest : public testing::Test {
 protected:
  FakeServer server_;
  AdminClient admin_ = *AdminClient::Connect(server_.admin_target());
};

TEST_F(AdminTest, StatusSaysWhatServesAndWhyTheRestDoesNot) {
  const absl::StatusOr<ServerStatus> status = admin_.GetStatus();
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->server_version, "1.2.3");
  EXPECT_TRUE(status->ready);
  EXPECT_EQ(status->started_at, std::nullopt);
  ASSERT_THAT(status->models, SizeIs(2));
  const ModelStatus& model = status->models[0];
  EXPECT_EQ(model.state, ModelState::kServing);
  ASSERT_NE(model.Serving(), nullptr);
  EXPECT_EQ(model.Serving()->version, 100);
  EXPECT_EQ(model.last_good_load, absl::FromUnixSeconds(1'700'000'000));
  EXPECT_EQ(model.pinned_version, std::nullopt);
  ASSERT_THAT(model.candidates, SizeIs(2));
  EXPECT_EQ(model.candidates[0].version, 200);
  EXPECT_EQ(model.candidates[0].state, VersionState::kRefused);
  EXPECT_EQ(model.candidates[1].version, std::nullopt);
  EXPECT_EQ(status->models[1].Serving(), nullptr);
}

TEST_F(AdminTest, AnUnknownModelIsNotFound) {
  EXPECT_EQ(admin_.GetStatus("unknown").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AdminTest, HistoryHasEventsWithTheirPhases) {
  const absl::StatusOr<std::vector<HistoryEntry>> history = admin_.GetHistory("double");
  ASSERT_TRUE(history.ok()) << history.status();
  ASSERT_THAT(*history, SizeIs(2));
  EXPECT_EQ(history->at(0).event, HistoryEvent::kRefused);
  EXPECT_EQ(history->at(1).event, HistoryEvent::kServed);
  EXPECT_EQ(history->at(1).phases.at("read"), absl::Milliseconds(20));
  EXPECT_THAT(*admin_.GetHistory("double", 1), SizeIs(1));
}

TEST_F(AdminTest, WatchTellsUntilTheCallerHasSeenEnough) {
  std::vector<std::int64_t> versions;
  const absl::Status status = admin_.Watch("", [&](const ModelStatus& changed) {
    versions.push_back(changed.Serving()->version);
    return versions.size() < 2;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(versions, ElementsAre(100, 200));
}

TEST_F(AdminTest, WatchSaysWhyItEnded) {
  const auto go_on = [](const ModelStatus&) { return true; };
  EXPECT_EQ(admin_.Watch("unknown", go_on).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(admin_.Watch("ending", go_on), absl::UnavailableError("the server is stopping"));
  CallOptions options;
  options.timeout = absl::Milliseconds(50);
  EXPECT_EQ(admin_.Watch("", go_on, options).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(AdminTest, PullsEveryLever) {
  EXPECT_TRUE(admin_.Reload("double")->swapped);
  EXPECT_EQ(admin_.Reload("double")->status.Serving()->version, 300);
  EXPECT_EQ(admin_.Pin("double", 5)->pinned_version, 5);
  EXPECT_EQ(admin_.Unpin("double")->pinned_version, std::nullopt);
  EXPECT_EQ(admin_.RollBack("double")->Serving()->version, 99);
  EXPECT_EQ(admin_.Unload("double")->state, ModelState::kUnloaded);
}

TEST_F(AdminTest, ARefusedReloadCarriesTheReason) {
  const absl::Status status = admin_.Reload("broken").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("fc1.weight has NaN"));
}

TEST_F(AdminTest, SnapshotReportsProgressThenTheResult) {
  std::vector<std::uint64_t> written;
  const absl::StatusOr<SnapshotResult> result =
      admin_.Snapshot("double", {}, [&](std::uint64_t bytes, std::uint64_t total) {
        written.push_back(bytes);
        EXPECT_EQ(total, 4096U);
      });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(written, ElementsAre(1024, 4096));
  EXPECT_EQ(result->path, "/snapshots/double/100-7.pt");
  EXPECT_TRUE(result->training_state);
  EXPECT_THAT(result->left_out, SizeIs(1));
  EXPECT_THAT(result->converted, ElementsAre("/loss: numpy scalar, written as a Python float"));
  EXPECT_EQ(Name(result->format), "bundle");
}

TEST_F(AdminTest, SnapshotOptionsReachTheServer) {
  SnapshotOptions options;
  options.path = "taken.pt";
  EXPECT_EQ(admin_.Snapshot("double", options).status().code(), absl::StatusCode::kAlreadyExists);
  options.overwrite = true;
  options.weights_only = true;
  options.lossless = true;
  options.version = 42;
  options.format = SnapshotFormat::kSafetensors;
  EXPECT_TRUE(admin_.Snapshot("double", options).ok());
  EXPECT_EQ(server_.last_snapshot_request(),
            "model: \"double\" path: \"taken.pt\" version: 42 overwrite: true weights_only: true "
            "lossless: true format: SNAPSHOT_SAFETENSORS");
}

TEST_F(AdminTest, ASnapshotOfVersionZeroIsNotOneOfTheServedVersion) {
  ASSERT_TRUE(admin_.Snapshot("double").ok());
  EXPECT_EQ(server_.last_snapshot_request(), "model: \"double\"");
  SnapshotOptions options;
  options.version = 0;
  ASSERT_TRUE(admin_.Snapshot("double", options).ok());
  EXPECT_EQ(server_.last_snapshot_request(), "model: \"double\" version: 0");
}

TEST_F(AdminTest, ASnapshotWithoutAResultIsAnError) {
  EXPECT_EQ(admin_.Snapshot("mute").status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace relight::client
