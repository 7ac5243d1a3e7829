#include "relight/admin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

#include "tests/client/fake_server.h"

namespace relight::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr char kSha256OfHello[] =
    "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

class AdminTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) const { return (server_.folder() / name).string(); }
  std::string Write(const std::string& name, const std::string& content) const {
    std::ofstream(Path(name), std::ios::binary) << content;
    return Path(name);
  }
  std::string Read(const std::string& name) const {
    std::ifstream file(Path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // But for the admin socket.
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(server_.folder())) {
      if (entry.is_regular_file()) names.push_back(entry.path().filename());
    }
    return names;
  }

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

// --- pushes ---

TEST_F(AdminTest, PushSendsTheFileWithItsChecksum) {
  const std::string path = Write("step-200.pt", "hello");
  std::vector<std::uint64_t> sent;
  const absl::StatusOr<PushResult> result =
      admin_.Push("double", path, {}, [&](std::uint64_t bytes, std::uint64_t total) {
        sent.push_back(bytes);
        EXPECT_EQ(total, 5U);
      });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(sent, ElementsAre(5));
  EXPECT_EQ(server_.last_push_bytes(), "hello");
  EXPECT_EQ(server_.last_push_sha256(), kSha256OfHello);
  EXPECT_EQ(server_.last_push_header(), "model: \"double\" file: \"step-200.pt\" size_bytes: 5");
  EXPECT_EQ(result->file, "step-200.pt");
  EXPECT_EQ(result->size_bytes, 5U);
  EXPECT_EQ(result->file_sha256, kSha256OfHello);
  EXPECT_TRUE(result->serves);
  EXPECT_EQ(result->version, 200);
  EXPECT_EQ(result->generation, 8U);
  EXPECT_EQ(result->state, VersionState::kServing);
}

TEST_F(AdminTest, PushCutsALargeFileIntoChunks) {
  std::string content((std::size_t{2} << 20) + 3, 'x');
  content[1 << 20] = 'y';
  const std::string path = Write("step-200.pt", content);
  std::vector<std::uint64_t> sent;
  ASSERT_TRUE(admin_
                  .Push("double", path, {},
                        [&](std::uint64_t bytes, std::uint64_t) { sent.push_back(bytes); })
                  .ok());
  EXPECT_THAT(sent, ElementsAre(1U << 20, 2U << 20, (2U << 20) + 3));
  EXPECT_TRUE(server_.last_push_bytes() == content);
}

TEST_F(AdminTest, PushOptionsReachTheServer) {
  PushOptions options;
  options.file = "step-7.pt";
  options.overwrite = true;
  options.wait = false;
  ASSERT_TRUE(admin_.Push("double", Write("last.pt", ""), options).ok());
  EXPECT_EQ(server_.last_push_header(),
            "model: \"double\" file: \"step-7.pt\" overwrite: true no_wait: true");
}

TEST_F(AdminTest, PushThatDoesNotServeSaysWhy) {
  const absl::StatusOr<PushResult> result = admin_.Push("pinned", Write("step-200.pt", "hello"));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->serves);
  EXPECT_EQ(result->state, VersionState::kFound);
  EXPECT_THAT(result->reason, HasSubstr("pinned"));
}

TEST_F(AdminTest, PushThatIsRefusedInTheMiddleCarriesTheReason) {
  const std::string path = Write("step-200.pt", std::string(std::size_t{5} << 20, 'x'));
  const absl::Status status = admin_.Push("broken", path).status();
  EXPECT_EQ(status, absl::InvalidArgumentError("parameter fc1.weight has NaN"));
}

TEST_F(AdminTest, PushOfWhatIsNoFileHereAsksNoServer) {
  EXPECT_EQ(admin_.Push("double", Path("nothing.pt")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(admin_.Push("double", server_.folder().string()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(admin_.Push("double", Write("\xff.pt", "hello")).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(server_.last_push_header(), "");
}

TEST_F(AdminTest, PushOfAFileThatChangesMeanwhileIsAborted) {
  const std::string path = Write("step-200.pt", std::string(std::size_t{2} << 20, 'x'));
  const absl::Status status =
      admin_
          .Push("double", path, {},
                [&](std::uint64_t sent, std::uint64_t total) {
                  if (sent == total) Write("step-200.pt", std::string(std::size_t{2} << 20, 'y'));
                })
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("changed while it was sent"));
}

// --- downloads ---

TEST_F(AdminTest, DownloadBringsTheFile) {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> told;
  const absl::StatusOr<SnapshotResult> result = admin_.DownloadSnapshot(
      "double", Path("a.pt"), {},
      [&](std::uint64_t bytes, std::uint64_t total) { told.emplace_back(bytes, total); });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Read("a.pt"), "hello");
  EXPECT_THAT(told,
              ElementsAre(std::pair(0, 0), std::pair(0, 5), std::pair(3, 5), std::pair(5, 5)));
  EXPECT_EQ(result->path, Path("a.pt"));
  EXPECT_EQ(result->file_sha256, kSha256OfHello);
  EXPECT_EQ(Name(result->format), "state-dict");
  EXPECT_THAT(Files(), ElementsAre("a.pt"));
}

TEST_F(AdminTest, DownloadOptionsReachTheServer) {
  DownloadOptions options;
  options.version = 0;
  options.weights_only = true;
  options.lossless = true;
  options.format = SnapshotFormat::kSafetensors;
  ASSERT_TRUE(admin_.DownloadSnapshot("double", Path("a.safetensors"), options).ok());
  EXPECT_EQ(server_.last_download_request(),
            "model: \"double\" file: \"a.safetensors\" version: 0 weights_only: true "
            "lossless: true format: SNAPSHOT_SAFETENSORS");
}

TEST_F(AdminTest, DownloadReplacesAFileOnlyWhereThatIsAskedFor) {
  Write("a.pt", "before");
  EXPECT_EQ(admin_.DownloadSnapshot("double", Path("a.pt")).status().code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(server_.last_download_request(), "") << "nobody need write it";
  DownloadOptions options;
  options.overwrite = true;
  EXPECT_TRUE(admin_.DownloadSnapshot("double", Path("a.pt"), options).ok());
  EXPECT_EQ(Read("a.pt"), "hello");
}

TEST_F(AdminTest, DownloadThatFailsLeavesWhatWasThere) {
  Write("a.pt", "before");
  DownloadOptions options;
  options.overwrite = true;
  for (const auto& [model, code] : {std::pair("lying", absl::StatusCode::kDataLoss),
                                    std::pair("short", absl::StatusCode::kDataLoss),
                                    std::pair("broken", absl::StatusCode::kUnavailable),
                                    std::pair("mute", absl::StatusCode::kInternal)}) {
    const absl::Status status = admin_.DownloadSnapshot(model, Path("a.pt"), options).status();
    EXPECT_EQ(status.code(), code) << model << ": " << status;
    EXPECT_EQ(Read("a.pt"), "before");
    EXPECT_THAT(Files(), ElementsAre("a.pt")) << model;
  }
}

TEST_F(AdminTest, DownloadIntoAFolderThatIsNotThereIsNotFound) {
  EXPECT_EQ(admin_.DownloadSnapshot("double", Path("nowhere/a.pt")).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace relight::client
