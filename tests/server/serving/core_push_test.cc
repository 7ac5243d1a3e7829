// Checkpoints that are pushed: proven before they appear, served like any other, and nothing left
// of those that are not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "storage/bytes.h"
#include "storage/sha256.h"
#include "tests/server/serving/core_harness.h"

namespace relight::serving {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

std::string Sha256Of(std::string_view bytes) {
  storage::Sha256 sha256;
  sha256.Update(storage::AsBytes(bytes));
  return sha256.FinishHex();
}

bool Wanted() { return true; }

class CorePushTest : public CoreTest {
 protected:
  void ServeFirst() {
    Save("step-1.pt", 10);
    Start();
    ASSERT_EQ(Served(), 1);
  }
  static PushRequest RequestFor(const std::string& file, std::size_t size_bytes) {
    return {.model = "m", .file = file, .size_bytes = size_bytes};
  }
  absl::StatusOr<PushResult> Push(const PushRequest& request, const std::string& bytes) {
    absl::StatusOr<std::unique_ptr<IncomingCheckpoint>> incoming = core_->BeginPush(request);
    if (!incoming.ok()) return incoming.status();
    for (const auto& part : {bytes.substr(0, bytes.size() / 2), bytes.substr(bytes.size() / 2)}) {
      if (const absl::Status status = (*incoming)->Write(storage::AsBytes(part)); !status.ok()) {
        return status;
      }
    }
    return (*incoming)->Commit(Sha256Of(bytes), Wanted);
  }
  absl::StatusOr<PushResult> Push(const std::string& file, const std::string& bytes) {
    return Push(RequestFor(file, bytes.size()), bytes);
  }
  absl::StatusOr<PushResult> Push(const std::string& file, float weight) {
    return Push(file, CheckpointBytes({weight}));
  }
  std::vector<std::string> Files() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(root_.Path(In("")))) {
      names.push_back(entry.path().filename());
    }
    return names;
  }
  // Refused, with the reason, and as if it had never been.
  void ExpectRefused(const absl::StatusOr<PushResult>& result, absl::StatusCode code,
                     const std::string& words) {
    EXPECT_EQ(result.status().code(), code) << result.status();
    EXPECT_THAT(std::string(result.status().message()),
                AllOf(HasSubstr(words), Not(HasSubstr(".relight-"))));
    EXPECT_THAT(Files(), ElementsAre("step-1.pt"));
    Look();
    EXPECT_EQ(Served(), 1);
    EXPECT_EQ(Ask(), 10);
    EXPECT_EQ(StatusOf().last_error, "");
  }
};

TEST_F(CorePushTest, IsServedAtOnce) {
  ServeFirst();
  const std::string bytes = CheckpointBytes({20});
  const absl::StatusOr<PushResult> result = Push("step-2.pt", bytes);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->serves);
  EXPECT_EQ(result->version, 2);
  EXPECT_EQ(result->generation, 2U);
  EXPECT_EQ(result->state, VersionState::kServing);
  EXPECT_EQ(result->reason, "");
  EXPECT_EQ(result->file, "step-2.pt");
  EXPECT_EQ(result->size_bytes, bytes.size());
  EXPECT_EQ(result->file_sha256, Sha256Of(bytes));
  EXPECT_EQ(result->weights_digest, StatusOf().loaded.front().weights_digest);
  EXPECT_EQ(Ask(), 20);
  EXPECT_THAT(Files(), UnorderedElementsAre("step-1.pt", "step-2.pt"));
  EXPECT_EQ(root_.Read(In("step-2.pt")), bytes);
}

TEST_F(CorePushTest, WithoutChecksumsNeedsNoTimeToSettle) {
  ServeFirst();
  const absl::StatusOr<PushResult> result = Push("step-2.safetensors", SafetensorsBytes(20));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->serves) << result->reason;
  EXPECT_EQ(Ask(), 20);
}

TEST_F(CorePushTest, FirstOfAModelMayFindNoFolder) {
  Start();
  std::filesystem::remove(root_.Path(In("")));
  const absl::StatusOr<PushResult> result = Push("step-1.pt", 10);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->serves) << result->reason;
}

TEST_F(CorePushTest, IntoAFolderThatCannotBeMadeIsNotFound) {
  Start();
  std::filesystem::remove_all(root_.Path("models/m"));
  EXPECT_EQ(Push("step-1.pt", 10).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CorePushTest, MayAppearWithoutBeingWaitedFor) {
  ServeFirst();
  const std::string bytes = CheckpointBytes({20});
  PushRequest request = RequestFor("step-2.pt", bytes.size());
  request.wait = false;
  const absl::StatusOr<PushResult> result = Push(request, bytes);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->serves);
  EXPECT_EQ(result->state, VersionState::kFound);
  EXPECT_THAT(result->reason, HasSubstr("not waited for"));
  EXPECT_EQ(Served(), 1);
  Look();
  EXPECT_EQ(Served(), 2);
}

TEST_F(CorePushTest, ReplacesAFileOnlyWhereThatIsAskedFor) {
  ServeFirst();
  ExpectRefused(Push("step-1.pt", 20), absl::StatusCode::kAlreadyExists, "step-1.pt");
  const std::string bytes = CheckpointBytes({20});
  PushRequest request = RequestFor("step-1.pt", bytes.size());
  request.overwrite = true;
  const absl::StatusOr<PushResult> result = Push(request, bytes);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->serves) << result->reason;
  EXPECT_EQ(result->version, 1);
  EXPECT_EQ(result->generation, 2U);
  EXPECT_EQ(Ask(), 20);
}

TEST_F(CorePushTest, NamesThatAreNoCheckpointAreInvalid) {
  ServeFirst();
  for (const char* name :
       {"", ".", "..", "../step-2.pt", "sub/step-2.pt", "/step-2.pt", ".step-2.pt", "step-2.pt.tmp",
        "step-2.pt~", "step-2", "notes.txt", "model.safetensors.index.json",
        "model-00001-of-00002.safetensors", ".pt"}) {
    SCOPED_TRACE(name);
    ExpectRefused(Push(name, 20), absl::StatusCode::kInvalidArgument, "");
  }
  ExpectRefused(Push(std::string(300, 'n') + ".pt", 20), absl::StatusCode::kInvalidArgument,
                "over 255 bytes");
}

TEST_F(CorePushTest, AnUnknownModelIsNotFound) {
  Start();
  EXPECT_EQ(core_->BeginPush({.model = "nobody", .file = "a.pt"}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(CorePushTest, AModelWithoutAUsableConfigTakesNone) {
  Start();
  AddModel("broken", "network {");
  Look();
  const absl::Status status = core_->BeginPush({.model = "broken", .file = "a.pt"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no usable config"));
}

TEST_F(CorePushTest, LargerThanTheModelsLimitsIsInvalidBeforeItIsSent) {
  AddModel("m", std::string(kConfig) + "checkpoints { limits { max_file_bytes: 100000 } }");
  ServeFirst();
  ExpectRefused(core_->BeginPush(RequestFor("step-2.pt", 100001)).status(),
                absl::StatusCode::kInvalidArgument, "max_file_bytes: 100000");
}

TEST_F(CorePushTest, LargerThanTheDiskIsRefusedBeforeItIsSent) {
  // The most that a config may say.
  constexpr std::uint64_t kMoreThanAnyDisk = std::uint64_t{1} << 48;
  AddModel("m", absl::StrCat(kConfig, "checkpoints { limits { max_file_bytes: ", kMoreThanAnyDisk,
                             " } }"));
  ServeFirst();
  ExpectRefused(core_->BeginPush(RequestFor("step-2.pt", kMoreThanAnyDisk)).status(),
                absl::StatusCode::kResourceExhausted, "has room for");
}

TEST_F(CorePushTest, AFullDiskLeavesNothing) {
  ServeFirst();
  const std::string bytes = CheckpointBytes({20});
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = bytes.size() / 2 + 1;
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::StatusOr<PushResult> result = Push("step-2.pt", bytes);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  ExpectRefused(result, absl::StatusCode::kResourceExhausted, "step-2.pt");
}

TEST_F(CorePushTest, OtherBytesThanAnnouncedLeaveNothing) {
  ServeFirst();
  const std::string bytes = CheckpointBytes({20});
  ExpectRefused(Push(RequestFor("step-2.pt", bytes.size() + 1), bytes),
                absl::StatusCode::kInvalidArgument, "bytes came and");
  ExpectRefused(Push(RequestFor("step-2.pt", bytes.size() - 1), bytes),
                absl::StatusCode::kInvalidArgument, "bytes came and");
  for (const auto& [sha256, code] :
       {std::pair(std::string(64, 'a'), absl::StatusCode::kDataLoss),
        std::pair(std::string(64, 'x'), absl::StatusCode::kInvalidArgument),
        std::pair(std::string("ab"), absl::StatusCode::kInvalidArgument),
        std::pair(std::string(), absl::StatusCode::kInvalidArgument)}) {
    auto incoming = core_->BeginPush(RequestFor("step-2.pt", bytes.size()));
    ASSERT_TRUE(incoming.ok()) << incoming.status();
    ASSERT_TRUE((*incoming)->Write(storage::AsBytes(bytes)).ok());
    const absl::StatusOr<PushResult> result = (*incoming)->Commit(sha256, Wanted);
    incoming->reset();
    ExpectRefused(result, code, "SHA-256");
  }
}

TEST_F(CorePushTest, AChecksumMayBeInCapitals) {
  Start();
  const std::string bytes = CheckpointBytes({20});
  auto incoming = *core_->BeginPush(RequestFor("step-2.pt", bytes.size()));
  ASSERT_TRUE(incoming->Write(storage::AsBytes(bytes)).ok());
  std::string sha256 = Sha256Of(bytes);
  for (char& c : sha256) c = static_cast<char>(std::toupper(c));
  const absl::StatusOr<PushResult> result = incoming->Commit(sha256, Wanted);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->file_sha256, Sha256Of(bytes));
}

TEST_F(CorePushTest, WhatTheLoaderWouldRefuseNeverAppears) {
  ServeFirst();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ExpectRefused(Push("step-2.pt", nan), absl::StatusCode::kInvalidArgument, "w");
  ExpectRefused(Push("step-2.pt", CheckpointBytes({1, 2})), absl::StatusCode::kInvalidArgument,
                "does not take step-2.pt");
  ExpectRefused(Push("step-2.pt", CheckpointBytes({1}, {}, "other")),
                absl::StatusCode::kInvalidArgument, "other");
  const std::string bytes = CheckpointBytes({20});
  ExpectRefused(Push("step-2.pt", bytes.substr(0, bytes.size() - 40)), absl::StatusCode::kDataLoss,
                "step-2.pt");
  ExpectRefused(Push("step-2.pt", std::string("not a checkpoint")),
                absl::StatusCode::kInvalidArgument, "step-2.pt");
  ExpectRefused(Push("step-2.pt", std::string()), absl::StatusCode::kDataLoss, "step-2.pt");
}

TEST_F(CorePushTest, WhatOnlyBindingRefusesStaysWithItsReason) {
  ServeFirst();
  world_->on_bind = [](float weight) {
    return weight == 20 ? absl::InvalidArgumentError("no twenties") : absl::OkStatus();
  };
  const absl::StatusOr<PushResult> result = Push("step-2.pt", 20);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->serves);
  EXPECT_EQ(result->state, VersionState::kRefused);
  EXPECT_EQ(result->version, 2);
  EXPECT_THAT(result->reason, HasSubstr("no twenties"));
  EXPECT_EQ(Ask(), 10);
  EXPECT_THAT(Files(), UnorderedElementsAre("step-1.pt", "step-2.pt"));
}

TEST_F(CorePushTest, WhatIsGivenUpLeavesNothing) {
  ServeFirst();
  const std::string bytes = CheckpointBytes({20});
  auto incoming = *core_->BeginPush(RequestFor("step-2.pt", bytes.size()));
  ASSERT_TRUE(incoming->Write(storage::AsBytes(bytes)).ok());
  EXPECT_EQ(Files().size(), 2U);
  Look();
  EXPECT_EQ(Served(), 1) << "what is on its way is no checkpoint yet";
  incoming.reset();
  EXPECT_THAT(Files(), ElementsAre("step-1.pt"));
}

TEST_F(CorePushTest, ACommitThatNobodyWantsAnyMoreLeavesNothing) {
  ServeFirst();
  const std::string bytes = CheckpointBytes({20});
  auto incoming = *core_->BeginPush(RequestFor("step-2.pt", bytes.size()));
  ASSERT_TRUE(incoming->Write(storage::AsBytes(bytes)).ok());
  const absl::StatusOr<PushResult> result = incoming->Commit(Sha256Of(bytes), [] { return false; });
  incoming.reset();
  ExpectRefused(result, absl::StatusCode::kCancelled, "nothing was left behind");
}

TEST_F(CorePushTest, TwoOfOneNameDoNotMix) {
  ServeFirst();
  const std::string a = CheckpointBytes({20});
  const std::string b = CheckpointBytes({30});
  auto first = *core_->BeginPush(RequestFor("step-2.pt", a.size()));
  auto second = *core_->BeginPush(RequestFor("step-2.pt", b.size()));
  ASSERT_TRUE(first->Write(storage::AsBytes(a)).ok());
  ASSERT_TRUE(second->Write(storage::AsBytes(b)).ok());
  EXPECT_TRUE(second->Commit(Sha256Of(b), Wanted)->serves);
  EXPECT_EQ(first->Commit(Sha256Of(a), Wanted).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Ask(), 30);
  EXPECT_EQ(root_.Read(In("step-2.pt")), b);
}

// --- what does not serve says why ---

TEST_F(CorePushTest, AnOlderVersionDoesNotServe) {
  Save("step-5.pt", 50);
  Start();
  const absl::StatusOr<PushResult> result = Push("step-2.pt", 20);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->serves);
  EXPECT_EQ(result->version, 2);
  EXPECT_EQ(result->state, VersionState::kFound);
  EXPECT_THAT(result->reason, HasSubstr("older than step-5.pt"));
  EXPECT_EQ(Ask(), 50);
}

TEST_F(CorePushTest, APinnedModelKeepsItsVersion) {
  ServeFirst();
  ASSERT_TRUE(core_->Pin("m", 1).ok());
  const absl::StatusOr<PushResult> result = Push("step-2.pt", 20);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->serves);
  EXPECT_THAT(result->reason, HasSubstr("pinned to version 1"));
  EXPECT_EQ(Ask(), 10);
}

TEST_F(CorePushTest, AnUnloadedModelStaysUnloaded) {
  ServeFirst();
  ASSERT_TRUE(core_->Unload("m").ok());
  const absl::StatusOr<PushResult> result = Push("step-2.pt", 20);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->serves);
  EXPECT_THAT(result->reason, HasSubstr("unloaded"));
  EXPECT_EQ(StatusOf().state, ModelState::kUnloaded);
}

TEST_F(CorePushTest, TheSameWeightsServeAlready) {
  ServeFirst();
  const absl::StatusOr<PushResult> result = Push("step-2.pt", 10);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->serves);
  EXPECT_EQ(result->generation, 1U);
  EXPECT_EQ(result->version, 2);
  EXPECT_THAT(result->reason, HasSubstr("as version 1 from step-1.pt"));
}

TEST_F(CorePushTest, ARefusedFileThatIsOverwrittenDoesNotPassForServing) {
  ServeFirst();
  world_->on_bind = [](float weight) {
    return weight == 20 ? absl::InvalidArgumentError("no twenties") : absl::OkStatus();
  };
  const std::string bytes = CheckpointBytes({20});
  PushRequest request = RequestFor("step-1.pt", bytes.size());
  request.overwrite = true;
  const absl::StatusOr<PushResult> result = Push(request, bytes);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->serves) << "version 1 serves, with the weights that it had before";
  EXPECT_EQ(result->state, VersionState::kRefused);
  EXPECT_EQ(Ask(), 10);
}

TEST_F(CorePushTest, AChangedConfigIsGivenTheCheckpointThatItWaitsFor) {
  ServeFirst();
  world_->weight_elements = 2;
  WriteConfig("m", std::string(kConfig) + "# changed\n");
  Look();
  Look(absl::Seconds(1));
  Look(absl::Seconds(1));
  EXPECT_EQ(Ask(), 10) << "the config before still serves";
  const absl::StatusOr<PushResult> result = Push("step-2.pt", CheckpointBytes({20, 20}));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->serves) << result->reason;
  EXPECT_EQ(Ask(), 20);
}

TEST_F(CorePushTest, ADrainingServerTakesNoMore) {
  ServeFirst();
  EXPECT_TRUE(core_->Drain(clock_.Now()));
  EXPECT_EQ(core_->BeginPush(RequestFor("step-2.pt", 5)).status().code(),
            absl::StatusCode::kUnavailable);
}

// --- the next start ---

TEST_F(CorePushTest, WhatAKilledDaemonLeftIsRemovedAndTheTrainersFilesAreNot) {
  root_.Write(In(".step-2.pt.relight-0123456789abcdef.tmp"), "half");
  root_.MakeFolder(In("run"));
  for (const char* name : {".step-3.pt.0123456789abcdef.tmp", "step-4.pt.tmp", ".step-5.pt",
                           "run/.step-6.pt.relight-0123456789abcdef.tmp"}) {
    root_.Write(In(name), "the trainer's");
  }
  Save("step-1.pt", 10);
  Start();
  EXPECT_FALSE(root_.Has(In(".step-2.pt.relight-0123456789abcdef.tmp")));
  for (const char* name : {".step-3.pt.0123456789abcdef.tmp", "step-4.pt.tmp", ".step-5.pt",
                           "run/.step-6.pt.relight-0123456789abcdef.tmp", "step-1.pt"}) {
    EXPECT_TRUE(root_.Has(In(name))) << name;
  }
}

}  // namespace
}  // namespace relight::serving
