// Snapshots of what is served: whole, confined, verified, whatever became of the source.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "storage/checkpoint.h"
#include "storage/error.h"
#include "storage/state_dict.h"
#include "tests/server/serving/core_harness.h"

namespace relight::serving {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class CoreSnapshotTest : public CoreTest {
 protected:
  void ServeBundle(float weight = 10, std::vector<float> momentum = {1, 2, 3}) {
    ReplaceFile(In("step-1.pt"), CheckpointBytes({weight}, std::move(momentum)));
    Start();
    ASSERT_EQ(Served(), 1);
  }
  absl::StatusOr<SnapshotResult> Take(SnapshotRequest request = {},
                                      const ServerCore::SnapshotProgress& progress = {}) {
    request.model = "m";
    return core_->Snapshot(request, progress);
  }
  std::vector<std::string> FilesInSnapshots() {
    std::vector<std::string> files;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(root_.Path("snapshots"))) {
      if (!entry.is_directory()) files.push_back(entry.path().string());
    }
    return files;
  }
  // The floats under `keys` of the file at `path`.
  static std::vector<float> Read(const std::string& path, const std::vector<std::string>& keys) {
    const storage::Checkpoint file = *storage::Checkpoint::Open(path);
    storage::NodeId node = file.tree().root();
    for (const std::string& key : keys) node = file.tree().Find(node, key);
    const storage::TensorInfo& tensor = file.tree().tensor(node);
    std::vector<float> values(static_cast<std::size_t>(tensor.shape[0]));
    EXPECT_TRUE(file.ReadStorage(tensor.storage, {reinterpret_cast<std::byte*>(values.data()),
                                                  values.size() * sizeof(float)})
                    .ok());
    return values;
  }

  // Takes a snapshot whose file is damaged on the disk once it is written and before it is read
  // back.
  absl::StatusOr<SnapshotResult> TakeDamaged(SnapshotRequest request,
                                             const std::function<void(std::string&)>& damage) {
    bool damaged = false;
    absl::StatusOr<SnapshotResult> result =
        Take(std::move(request), [&](std::uint64_t written, std::uint64_t of) {
          if (written == of && !std::exchange(damaged, true)) DamageTemporaryFile(damage);
          return true;
        });
    EXPECT_TRUE(damaged);
    return result;
  }

  void DamageTemporaryFile(const std::function<void(std::string&)>& damage) {
    int found = 0;
    for (const std::string& path : FilesInSnapshots()) {
      if (!path.ends_with(".tmp")) continue;
      ++found;
      std::ifstream in(path, std::ios::binary);
      std::string bytes(std::istreambuf_iterator<char>(in), {});
      const std::string whole = bytes;
      damage(bytes);
      EXPECT_NE(bytes, whole);
      std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    }
    EXPECT_EQ(found, 1);
  }

  // Flips a bit of the first place that holds `wanted`.
  static std::function<void(std::string&)> FlipAt(const std::string& wanted) {
    return [wanted](std::string& bytes) {
      const std::size_t at = bytes.find(wanted);
      ASSERT_NE(at, std::string::npos);
      bytes[at] = static_cast<char>(bytes[at] ^ 1);
    };
  }

  static std::string BytesOf(float value) {
    std::string bytes(sizeof value, '\0');
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  }

  const std::vector<std::string> kWeight = {"model_state_dict", "w"};
  const std::vector<std::string> kMomentum = {"optimizer_state_dict", "momentum"};
};

TEST_F(CoreSnapshotTest, HoldsWeightsAndTrainingState) {
  ServeBundle();
  const absl::StatusOr<SnapshotResult> result = Take();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->path,
            root_.Path("snapshots/m/1-1-" + result->weights_digest.substr(0, 8) + ".pt"))
      << "generations begin anew after a restart";
  EXPECT_TRUE(result->training_state);
  EXPECT_EQ(result->version, 1);
  EXPECT_EQ(result->generation, 1u);
  EXPECT_EQ(result->weights_digest, StatusOf().loaded[0].weights_digest);
  EXPECT_EQ(result->file_sha256.size(), 64u);
  EXPECT_EQ(result->size_bytes, std::filesystem::file_size(result->path));
  EXPECT_EQ(Read(result->path, kWeight), std::vector<float>({10}));
  EXPECT_EQ(Read(result->path, kMomentum), std::vector<float>({1, 2, 3}));
  EXPECT_THAT(Events(), Contains(HistoryEvent::kSnapshot));
}

TEST_F(CoreSnapshotTest, ABundleCanBeTakenInEachFormat) {
  ServeBundle();
  const auto bundle = Take({.path = "a.pt", .format = SnapshotFormat::kBundle});
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  EXPECT_EQ(bundle->format, SnapshotFormat::kBundle);
  EXPECT_TRUE(bundle->training_state);
  EXPECT_THAT(bundle->left_out, IsEmpty());

  const auto state_dict = Take({.path = "b.pt", .format = SnapshotFormat::kStateDict});
  ASSERT_TRUE(state_dict.ok()) << state_dict.status();
  EXPECT_EQ(state_dict->format, SnapshotFormat::kStateDict);
  EXPECT_FALSE(state_dict->training_state);
  EXPECT_THAT(state_dict->left_out, IsEmpty()) << "it was asked for";
  EXPECT_EQ(Read(state_dict->path, {"w"}), std::vector<float>({10}));

  const auto safetensors = Take({.format = SnapshotFormat::kSafetensors});
  ASSERT_TRUE(safetensors.ok()) << safetensors.status();
  EXPECT_THAT(safetensors->path,
              AllOf(StartsWith(root_.Path("snapshots/m/1-1-")), EndsWith(".safetensors")));
  EXPECT_EQ(safetensors->format, SnapshotFormat::kSafetensors);
  EXPECT_FALSE(safetensors->training_state);
  EXPECT_EQ(safetensors->size_bytes, std::filesystem::file_size(safetensors->path));
  EXPECT_THAT(safetensors->left_out, ElementsAre("/epoch: int", "/optimizer_state_dict: dict"));
  EXPECT_EQ(Read(safetensors->path, {"w"}), std::vector<float>({10}));
}

TEST_F(CoreSnapshotTest, LosslessRefusesWhatAFormatHasNoRoomFor) {
  ServeBundle();
  const absl::Status status = Take({.path = "a.safetensors", .lossless = true}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/optimizer_state_dict"));
  EXPECT_TRUE(FilesInSnapshots().empty());
  EXPECT_TRUE(Take({.path = "a.safetensors", .weights_only = true, .lossless = true}).ok());
  EXPECT_TRUE(Take({.path = "a.pt", .lossless = true}).ok());
}

TEST_F(CoreSnapshotTest, AContradictingFormatIsRefused) {
  ServeBundle();
  EXPECT_EQ(Take({.path = "a.pt", .format = SnapshotFormat::kSafetensors}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Take({.weights_only = true, .format = SnapshotFormat::kBundle}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(FilesInSnapshots().empty());
}

TEST_F(CoreSnapshotTest, ASafetensorsSourceComesBackAsOne) {
  ReplaceFile(In("step-1.safetensors"), SafetensorsBytes(10));
  Start();
  Look(absl::Seconds(5));  // It has no checksums, so it has to settle.
  ASSERT_EQ(Served(), 1);
  const auto result = Take();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->path, EndsWith(".safetensors"));
  EXPECT_EQ(Read(result->path, {"w"}), std::vector<float>({10}));
  EXPECT_EQ(Take({.path = "a.pt"})->format, SnapshotFormat::kStateDict);
  EXPECT_EQ(Take({.format = SnapshotFormat::kBundle}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// In another format than its source the same weights need more.
TEST_F(CoreSnapshotTest, WhatTheModelCouldNotLoadAgainIsRefusedAsThat) {
  ReplaceFile(In("step-1.safetensors"), SafetensorsBytes(10));
  for (const std::string limit :
       {"max_file_bytes: 600", "max_pickle_bytes: 100", "max_entries: 3"}) {
    SCOPED_TRACE(limit);
    WriteConfig("m", std::string(kConfig) + "checkpoints { limits { " + limit + " } }");
    Start();
    Look(absl::Seconds(5));
    ASSERT_EQ(Served(), 1);
    EXPECT_TRUE(Take({.path = "a.safetensors", .overwrite = true}).ok());
    const absl::Status status = Take({.path = "a.pt"}).status();
    EXPECT_EQ(storage::GetErrorCode(status), storage::ErrorCode::kLimitExceeded) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("could not load this snapshot"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("raise that limit"));
    EXPECT_THAT(FilesInSnapshots(), ElementsAre(EndsWith("a.safetensors")));
    core_.reset();
  }
}

TEST_F(CoreSnapshotTest, ASnapshotOfASnapshotIsTheSameFile) {
  ServeBundle();
  for (const std::string name : {"a.pt", "b.pt", "c.safetensors"}) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(Take({.path = name, .weights_only = name == "b.pt"}).ok());
    // Models of their own: the same weights are no swap.
    const std::string model = "again-" + name;
    AddModel(model, kConfig);
    ReplaceFile("models/" + model + "/checkpoints/" + name, root_.Read("snapshots/" + name));
    Look(absl::Seconds(5));
    Look(absl::Seconds(5));
    SnapshotRequest request;
    request.model = model;
    request.path = model;
    const auto result = core_->Snapshot(request, {});
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->weights_digest, StatusOf().loaded[0].weights_digest);
    EXPECT_TRUE(root_.Read("snapshots/" + request.path) == root_.Read("snapshots/" + name));
  }
}

TEST_F(CoreSnapshotTest, SourceMayBeDeletedOrOverwrittenInPlace) {
  ServeBundle();
  root_.Write(In("step-1.pt"), "overwritten in place");
  ASSERT_TRUE(Take({.path = "a.pt"}).ok());
  std::filesystem::remove(root_.Path(In("step-1.pt")));
  ASSERT_TRUE(Take({.path = "b.pt"}).ok());
  EXPECT_EQ(root_.Read("snapshots/a.pt"), root_.Read("snapshots/b.pt"));
  EXPECT_EQ(Read(root_.Path("snapshots/b.pt"), kMomentum), std::vector<float>({1, 2, 3}));
}

TEST_F(CoreSnapshotTest, OpenFileServesUntilTheSourceIsOverwritten) {
  WriteConfig("m", std::string(kConfig) + "training_state: OPEN_FILE");
  ServeBundle();
  ASSERT_TRUE(Take({.path = "a.pt"}).ok());
  root_.Write(In("step-1.pt"), "overwritten in place");
  const absl::Status status = Take({.path = "b.pt"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("weights_only"));
  EXPECT_TRUE(Take({.path = "c.pt", .weights_only = true}).ok());
  EXPECT_EQ(FilesInSnapshots().size(), 2u);
}

TEST_F(CoreSnapshotTest, OpenFileServesAlthoughTheSourceWasRenamedOrDeleted) {
  WriteConfig("m", std::string(kConfig) + "training_state: OPEN_FILE");
  ServeBundle();
  std::filesystem::rename(root_.Path(In("step-1.pt")), root_.Path("scratch/moved.pt"));
  EXPECT_TRUE(Take({.path = "a.pt"}).ok());
  std::filesystem::remove(root_.Path("scratch/moved.pt"));
  const absl::StatusOr<SnapshotResult> result = Take({.path = "b.pt"});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Read(result->path, kMomentum), std::vector<float>({1, 2, 3}));
}

TEST_F(CoreSnapshotTest, WithoutTrainingStateOnlyWeightsCanBeTaken) {
  WriteConfig("m", std::string(kConfig) + "training_state: NONE");
  ServeBundle();
  EXPECT_FALSE(StatusOf().loaded[0].training_state);
  EXPECT_THAT(StatusOf().loaded[0].training_state_reason, HasSubstr("NONE"));
  EXPECT_EQ(Take().status().code(), absl::StatusCode::kFailedPrecondition);
  const absl::StatusOr<SnapshotResult> result = Take({.weights_only = true});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->training_state);
  EXPECT_EQ(Read(result->path, {"w"}), std::vector<float>({10}));
}

TEST_F(CoreSnapshotTest, PlainStateDictComesBackAsOne) {
  Save("step-1.pt", 10);
  Start();
  EXPECT_FALSE(StatusOf().loaded[0].training_state);
  const absl::StatusOr<SnapshotResult> result = Take();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_FALSE(result->training_state);
  EXPECT_EQ(Read(result->path, {"w"}), std::vector<float>({10}));
}

TEST_F(CoreSnapshotTest, LoadedVersionCanBeNamed) {
  ServeBundle();
  Save("step-2.pt", 20);
  Look();
  EXPECT_EQ(Take({.version = 1})->version, 1);
  EXPECT_EQ(Take()->version, 2);
  EXPECT_EQ(Take({.version = 9}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CoreSnapshotTest, ExistingFileIsRefusedUnlessOverwritingWasAskedFor) {
  ServeBundle();
  ASSERT_TRUE(Take({.path = "a.pt"}).ok());
  const absl::Status status = Take({.path = "a.pt"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("overwrite"));
  EXPECT_TRUE(Take({.path = "a.pt", .overwrite = true}).ok());
}

TEST_F(CoreSnapshotTest, PathIsConfinedToTheFolder) {
  ServeBundle();
  for (const char* path : {"../a.pt", "/tmp/a.pt", "a/../../b.pt", "a/", "."}) {
    EXPECT_EQ(Take({.path = path}).status().code(), absl::StatusCode::kInvalidArgument) << path;
  }
  EXPECT_TRUE(FilesInSnapshots().empty());
}

TEST_F(CoreSnapshotTest, WithoutAFolderSnapshotsAreRefusedByTheFlagsName) {
  options_.snapshot_dir = "";
  ServeBundle();
  const absl::Status status = Take().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--snapshot-dir"));
}

TEST_F(CoreSnapshotTest, NothingServedIsNothingToTake) {
  Start();
  EXPECT_EQ(Take().status().code(), absl::StatusCode::kFailedPrecondition);
  SnapshotRequest request;
  request.model = "nobody";
  EXPECT_EQ(core_->Snapshot(request, {}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CoreSnapshotTest, CancellingLeavesNothingBehind) {
  ServeBundle();
  EXPECT_EQ(
      Take({}, [](std::uint64_t written, std::uint64_t) { return written == 0; }).status().code(),
      absl::StatusCode::kCancelled);
  EXPECT_TRUE(FilesInSnapshots().empty());
}

TEST_F(CoreSnapshotTest, RunningOutOfMemoryEndsTheSnapshotAlone) {
  ServeBundle();
  const auto throws = [](std::uint64_t, std::uint64_t) -> bool { throw std::bad_alloc(); };
  EXPECT_EQ(Take({}, throws).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(FilesInSnapshots(), ElementsAre());
  EXPECT_TRUE(Take().ok());
}

TEST_F(CoreSnapshotTest, WhatAKilledProcessLeftIsRemovedAtStart) {
  root_.MakeFolder("snapshots/m");
  root_.Write("snapshots/.a.pt.relight-0123456789abcdef.tmp", "half");
  root_.Write("snapshots/m/.1-1.pt.relight-0123456789abcdef.tmp", "half");
  root_.Write("snapshots/m/1-1.pt", "whole");
  root_.Write("state/.pins.json.relight-0123456789abcdef.tmp", "{");
  Start();
  EXPECT_THAT(FilesInSnapshots(), ElementsAre(root_.Path("snapshots/m/1-1.pt")));
  EXPECT_FALSE(
      std::filesystem::exists(root_.Path("state/.pins.json.relight-0123456789abcdef.tmp")));
}

TEST_F(CoreSnapshotTest, ProgressEndsAtTheTotal) {
  ServeBundle();
  std::uint64_t last = 0;
  std::uint64_t of = 0;
  const auto result = Take({}, [&](std::uint64_t written, std::uint64_t total) {
    EXPECT_GE(written, last);
    last = written;
    of = total;
    return true;
  });
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(last, of);
  EXPECT_EQ(last, result->size_bytes);
}

TEST_F(CoreSnapshotTest, WhatReadsBackOtherwiseNeverAppears) {
  ServeBundle(10, {1, 2, 77});
  ASSERT_TRUE(Take({.path = "kept.pt"}).ok());
  const std::string kept = root_.Read("snapshots/kept.pt");
  const LoadedVersion before = StatusOf().loaded[0];
  const std::vector<HistoryEvent> events = Events();

  const auto lose_half = [](std::string& bytes) { bytes.resize(bytes.size() / 2); };
  const auto lose_last = [](std::string& bytes) { bytes.pop_back(); };
  const auto lose_all = [](std::string& bytes) { bytes.clear(); };
  const struct {
    const char* path;
    std::function<void(std::string&)> damage;
    const char* says;
  } cases[] = {{"a.pt", FlipAt(BytesOf(10)), "CRC_MISMATCH"},
               {"a.pt", FlipAt(BytesOf(77)), "CRC_MISMATCH"},
               {"a.pt", FlipAt("model_state_dict"), "CRC_MISMATCH"},
               {"a.pt", lose_half, "ZIP_CORRUPT"},
               {"a.pt", lose_all, "EMPTY_FILE"},
               {"kept.pt", FlipAt(BytesOf(10)), "CRC_MISMATCH"},
               // This format has no checksums.
               {"a.safetensors", FlipAt(BytesOf(10)), "w has other elements"},
               {"a.safetensors", FlipAt("w\":{"), "missing"},
               {"a.safetensors", lose_half, "NOT_A_CHECKPOINT"},
               {"a.safetensors", lose_last, "SAFETENSORS_INVALID"}};
  for (const auto& [path, damage, says] : cases) {
    SCOPED_TRACE(absl::StrCat(path, ": ", says));
    const absl::Status status = TakeDamaged({.path = path, .overwrite = true}, damage).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(says), EndsWith("check the disk")));
    EXPECT_THAT(FilesInSnapshots(), ElementsAre(root_.Path("snapshots/kept.pt")));
    EXPECT_EQ(root_.Read("snapshots/kept.pt"), kept);
  }

  const LoadedVersion after = StatusOf().loaded[0];
  EXPECT_EQ(after.generation, before.generation);
  EXPECT_EQ(after.weights_digest, before.weights_digest);
  EXPECT_EQ(Served(), 1);
  EXPECT_EQ(Ask(), 10);
  EXPECT_EQ(Events(), events) << "a snapshot that failed is none";
  ASSERT_TRUE(Take({.path = "a.pt"}).ok());
  EXPECT_EQ(root_.Read("snapshots/a.pt"), kept);
}

TEST_F(CoreSnapshotTest, WeightsThatChangedInMemoryAreNotPassedOffAsTheServedOnes) {
  ServeBundle();
  auto* const weight = const_cast<std::byte*>(world_->weight_data());
  *weight ^= std::byte{1};
  const absl::Status status = Take().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("in memory"));
  EXPECT_TRUE(FilesInSnapshots().empty());
  *weight ^= std::byte{1};
  EXPECT_TRUE(Take().ok());
}

// A snapshot holds the version that it is taken of, so that its block is not read into meanwhile.
TEST_F(CoreSnapshotTest, IsOneVersionAlthoughNewerOnesArrive) {
  ServeBundle();
  int calls = 0;
  const auto result = Take({}, [&](std::uint64_t, std::uint64_t) {
    if (++calls == 1) {
      Save("step-2.pt", 20);
      Look();
    }
    return true;
  });
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Ask(), 20);
  EXPECT_EQ(Read(result->path, kWeight), std::vector<float>({10}));
}

TEST_F(CoreSnapshotTest, SnapshotsMayNotLandWhereCheckpointsAreWatched) {
  root_.Symlink(root_.Path("models/m"), "link");
  for (const char* folder : {"models/m/checkpoints", "models", "link/checkpoints", "models/m/"}) {
    options_.snapshot_dir = root_.Path(folder);
    const absl::Status status = TryStart();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << folder;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--snapshot-dir"));
  }
  root_.MakeFolder("models/m/checkpoints-too");
  options_.snapshot_dir = root_.Path("models/m/checkpoints-too");
  EXPECT_TRUE(TryStart().ok());
}

}  // namespace
}  // namespace relight::serving
