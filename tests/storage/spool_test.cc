#include "storage/spool.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <filesystem>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/checkpoint_source.h"
#include "storage/error.h"
#include "tests/paths.h"
#include "tests/storage/temp_folder.h"

namespace relight::storage {
namespace {

class SpoolTest : public ::testing::Test {
 protected:
  SpoolTest() {
    std::filesystem::copy_file(RELIGHT_TEST_DATA "/good/checkpoint.pth", Source());
    // In the past, so that any later change shows whatever the clock's grain.
    const timespec long_ago[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
    EXPECT_EQ(::utimensat(AT_FDCWD, Source().c_str(), long_ago, 0), 0);
    spools_.MakeFolder("s");
  }
  std::string Source() const { return source_.Path("checkpoint.pth"); }
  Checkpoint Open() const {
    auto checkpoint = Checkpoint::Open(Source());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return *std::move(checkpoint);
  }
  static std::vector<std::uint32_t> All(const Checkpoint& checkpoint) {
    std::vector<std::uint32_t> indices(checkpoint.storages().size());
    std::iota(indices.begin(), indices.end(), 0U);
    return indices;
  }
  absl::StatusOr<Spool> Create(const Checkpoint& checkpoint,
                               const std::function<absl::Status()>& between = {}) {
    return Spool::Create(checkpoint, All(checkpoint), spools_.path(), between);
  }
  static std::string Collect(const auto& stream, std::uint32_t index) {
    std::string bytes;
    const absl::Status status = stream.Stream(index, [&](absl::Span<const std::byte> chunk) {
      bytes.append(reinterpret_cast<const char*>(chunk.data()), chunk.size());
      return absl::OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status;
    return bytes;
  }

  TempFolder source_;
  TempFolder spools_;
};

TEST_F(SpoolTest, GivesBackEveryStorage) {
  const Checkpoint checkpoint = Open();
  const auto spool = Create(checkpoint);
  ASSERT_TRUE(spool.ok()) << spool.status();
  std::uint64_t total = 0;
  const CheckpointSource original(checkpoint);
  for (const std::uint32_t index : All(checkpoint)) {
    EXPECT_TRUE(spool->Has(index));
    EXPECT_EQ(Collect(*spool, index), Collect(original, index));
    total += checkpoint.storages()[index].size_bytes;
  }
  EXPECT_GT(total, 0);
  EXPECT_EQ(spool->size_bytes(), total);
}

TEST_F(SpoolTest, HoldsOnlyWhatWasAskedFor) {
  const Checkpoint checkpoint = Open();
  const auto spool = Spool::Create(checkpoint, {1, 1}, spools_.path(), {});
  ASSERT_TRUE(spool.ok());
  EXPECT_TRUE(spool->Has(1));
  EXPECT_FALSE(spool->Has(0));
  EXPECT_EQ(spool->size_bytes(), checkpoint.storages()[1].size_bytes);
  EXPECT_EQ(spool->Stream(0, {}).code(), absl::StatusCode::kNotFound);
}

TEST_F(SpoolTest, LeavesNoNameInItsFolder) {
  const auto spool = Create(Open());
  ASSERT_TRUE(spool.ok());
  std::filesystem::remove(spools_.Path("s"));
  EXPECT_TRUE(std::filesystem::is_empty(spools_.path()));
}

TEST_F(SpoolTest, OutlivesASourceThatIsOverwrittenInPlaceAfterwards) {
  Checkpoint checkpoint = Open();
  const std::string before = Collect(CheckpointSource(checkpoint), 0);
  const auto spool = Create(checkpoint);
  ASSERT_TRUE(spool.ok());
  source_.Write("checkpoint.pth", std::string(100'000, 'x'));
  EXPECT_EQ(Collect(*spool, 0), before);
}

TEST_F(SpoolTest, ASourceOverwrittenInPlaceMeanwhileIsAnError) {
  const Checkpoint checkpoint = Open();
  const std::string same = source_.Read("checkpoint.pth");
  const auto spool = Create(checkpoint, [&] {
    source_.Write("checkpoint.pth", same);
    return absl::OkStatus();
  });
  EXPECT_EQ(GetErrorCode(spool.status()), ErrorCode::kIoError) << spool.status();
}

TEST_F(SpoolTest, ASourceDeletedOrRenamedMeanwhileIsNot) {
  const Checkpoint first = Open();
  const auto renamed = Create(first, [&] {
    std::error_code moved_before;
    std::filesystem::rename(Source(), source_.Path("kept.pth"), moved_before);
    return absl::OkStatus();
  });
  EXPECT_TRUE(renamed.ok()) << renamed.status();
  std::filesystem::rename(source_.Path("kept.pth"), Source());

  const Checkpoint second = Open();
  const auto deleted = Create(second, [&] {
    std::filesystem::remove(Source());
    return absl::OkStatus();
  });
  EXPECT_TRUE(deleted.ok()) << deleted.status();
}

TEST_F(SpoolTest, OtherBytesThanTheChecksumSaysAreAnError) {
  std::string bytes = source_.Read("checkpoint.pth");
  const Checkpoint good = Open();
  bytes[good.storages()[0].file_offset] ^= 1;
  source_.Write("checkpoint.pth", bytes);
  EXPECT_EQ(GetErrorCode(Create(Open()).status()), ErrorCode::kCrcMismatch);
}

TEST_F(SpoolTest, CancellingEndsIt) {
  const auto spool = Create(Open(), [] { return absl::CancelledError("enough"); });
  EXPECT_EQ(spool.status(), absl::CancelledError("enough"));
}

TEST_F(SpoolTest, AFullDiskSaysSo) {
  const Checkpoint checkpoint = Open();
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 16;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto spool = Create(checkpoint);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(spool.status().code(), absl::StatusCode::kResourceExhausted) << spool.status();
}

TEST_F(SpoolTest, AMissingFolderIsNotFound) {
  const Checkpoint checkpoint = Open();
  const auto spool = Spool::Create(checkpoint, {0}, spools_.Path("gone"), {});
  EXPECT_EQ(spool.status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SpoolTest, WhatTheSinkSaysEndsTheStream) {
  const auto spool = Create(Open());
  ASSERT_TRUE(spool.ok());
  const absl::Status status = spool->Stream(
      0, [](absl::Span<const std::byte>) { return absl::ResourceExhaustedError("full"); });
  EXPECT_EQ(status, absl::ResourceExhaustedError("full"));
}

}  // namespace
}  // namespace relight::storage
