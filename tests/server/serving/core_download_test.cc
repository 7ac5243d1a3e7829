// Snapshots that are read instead of kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <utility>

#include "storage/sha256.h"
#include "tests/server/serving/core_harness.h"

namespace relight::serving {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;

class CoreDownloadTest : public CoreTest {
 protected:
  void ServeBundle() {
    ReplaceFile(In("step-1.pt"), CheckpointBytes({10}, {1, 2, 3}));
    Start();
    ASSERT_EQ(Served(), 1);
  }
  absl::StatusOr<std::unique_ptr<OutgoingSnapshot>> Open(
      SnapshotRequest request = {}, const ServerCore::SnapshotProgress& progress = {}) {
    request.model = "m";
    return core_->OpenSnapshot(request, progress);
  }
  // Until the end, or `most` bytes.
  static std::string Read(OutgoingSnapshot& snapshot, std::size_t most = std::size_t{1} << 30) {
    std::string bytes;
    while (bytes.size() < most) {
      std::byte buffer[100];
      const absl::StatusOr<std::size_t> size = snapshot.Read(absl::MakeSpan(buffer));
      EXPECT_TRUE(size.ok()) << size.status();
      if (!size.ok() || *size == 0) break;
      bytes.append(reinterpret_cast<const char*>(buffer), *size);
    }
    return bytes;
  }
  std::vector<std::string> FilesIn(const std::string& folder) {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root_.Path(folder))) {
      files.push_back(entry.path().string());
    }
    return files;
  }
};

TEST_F(CoreDownloadTest, IsTheSameFileAsASnapshotAndLeavesNone) {
  ServeBundle();
  const auto snapshot = Open();
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_THAT(FilesIn("snapshots"), IsEmpty());
  const std::string bytes = Read(**snapshot);
  const SnapshotResult& result = (*snapshot)->result();
  EXPECT_EQ(result.path, "");
  EXPECT_EQ(result.size_bytes, bytes.size());
  EXPECT_EQ(result.version, 1);
  EXPECT_EQ(result.format, SnapshotFormat::kBundle);
  EXPECT_TRUE(result.training_state);
  const absl::StatusOr<SnapshotResult> kept = core_->Snapshot({.model = "m", .path = "a.pt"}, {});
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(root_.Read("snapshots/a.pt"), bytes);
  EXPECT_EQ(kept->file_sha256, result.file_sha256);
  EXPECT_THAT(Events(), Contains(HistoryEvent::kSnapshot).Times(2));
}

TEST_F(CoreDownloadTest, NeedsNoSnapshotFolder) {
  options_.snapshot_dir.clear();
  ServeBundle();
  const auto snapshot = Open();
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  for (const std::string& file : FilesIn("state")) EXPECT_FALSE(file.ends_with(".tmp")) << file;
  EXPECT_EQ(Read(**snapshot).size(), (*snapshot)->result().size_bytes);
}

TEST_F(CoreDownloadTest, TheNameSaysTheFormatAndIsNoPath) {
  ServeBundle();
  SnapshotRequest request;
  request.path = "../somewhere/best.safetensors";
  const auto snapshot = Open(request);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ((*snapshot)->result().format, SnapshotFormat::kSafetensors);
  request.path = "best.pt";
  request.format = SnapshotFormat::kSafetensors;
  EXPECT_EQ(Open(request).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CoreDownloadTest, HoldsWhatServedWhenItWasAskedFor) {
  ServeBundle();
  const auto snapshot = Open();
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  std::string bytes = Read(**snapshot, 200);
  Save("step-2.pt", 20);
  Look();
  Save("step-3.pt", 30);
  Look();
  ASSERT_EQ(Served(), 3);
  bytes += Read(**snapshot);
  storage::Sha256 sha256;
  sha256.Update({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
  EXPECT_EQ(sha256.FinishHex(), (*snapshot)->result().file_sha256);
}

TEST_F(CoreDownloadTest, CancelledLeavesNothing) {
  ServeBundle();
  for (const bool late : {false, true}) {
    const auto snapshot = Open(
        {}, [late](std::uint64_t written, std::uint64_t total) { return late && written < total; });
    EXPECT_EQ(snapshot.status().code(), absl::StatusCode::kCancelled);
    EXPECT_THAT(FilesIn("snapshots"), IsEmpty());
  }
}

TEST_F(CoreDownloadTest, WithoutAVersionThereIsNone) {
  Start();
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Open({.version = 5}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(core_->OpenSnapshot({.model = "nobody"}, {}).status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace relight::serving
