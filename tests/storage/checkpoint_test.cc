#include "storage/checkpoint.h"

#include <sys/stat.h>

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/error.h"
#include "storage/folder.h"
#include "tests/storage/fixtures.h"
#include "tests/storage/made_checkpoint.h"

namespace relight::storage {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

std::optional<ErrorCode> CodeOf(const std::string& path, const ReadOptions& options = {}) {
  return GetErrorCode(Checkpoint::Open(path, options).status());
}

TEST(CheckpointTest, WhatIsNoRegularFileIsRefusedWithoutBlocking) {
  const TempFolder folder;
  folder.MakeFolder("folder.pt");
  ASSERT_EQ(::mkfifo(folder.Path("fifo.pt").c_str(), 0600), 0);
  EXPECT_EQ(CodeOf(folder.Path("folder.pt")), ErrorCode::kNotACheckpoint);
  EXPECT_EQ(CodeOf(folder.Path("fifo.pt")), ErrorCode::kNotACheckpoint);
  EXPECT_EQ(CodeOf("/dev/null"), ErrorCode::kNotACheckpoint);
  EXPECT_EQ(CodeOf(folder.Path("missing.pt")), ErrorCode::kIoError);
  EXPECT_EQ(CodeOf(DataPath(std::string("good/model_state.pth\0.txt", 25))), ErrorCode::kIoError);
}

TEST(CheckpointTest, MessagesEscapeTheFileName) {
  const TempFolder folder;
  folder.Write("bad\nname.pt", "text");
  const absl::Status status = Checkpoint::Open(folder.Path("bad\nname.pt")).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("NOT_A_CHECKPOINT: bad\\x0aname.pt: "));
}

TEST(CheckpointTest, ASymlinkLeadsToItsFile) {
  const TempFolder folder;
  folder.Symlink(std::filesystem::absolute(DataPath("good/model_state.pth")), "latest.pt");
  EXPECT_TRUE(Checkpoint::Open(folder.Path("latest.pt")).ok());
}

TEST(CheckpointTest, TheIdentityIsThatOfTheFile) {
  const std::string path = DataPath("good/model_state.pth");
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(path);
  ASSERT_TRUE(opened.ok());
  const absl::StatusOr<FileIdentity> identity = IdentifyFile(path);
  ASSERT_TRUE(identity.ok());
  EXPECT_EQ(opened->identity(), *identity);
  EXPECT_EQ(GetErrorCode(IdentifyFile(path + ".missing").status()), ErrorCode::kIoError);
}

TEST(CheckpointTest, ReadingAFileThatShrankIsAnIoError) {
  const TempFolder folder;
  folder.Write("w.pt", ReadWholeFile(DataPath("good/model_state.pth")));
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(folder.Path("w.pt"));
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE(opened->CheckUnchanged().ok());
  std::filesystem::resize_file(folder.Path("w.pt"), 64);
  std::vector<std::byte> bytes(opened->storages()[0].size_bytes);
  EXPECT_EQ(GetErrorCode(opened->ReadStorage(0, absl::MakeSpan(bytes))), ErrorCode::kIoError);
  const absl::Status changed = opened->CheckUnchanged();
  EXPECT_EQ(GetErrorCode(changed), ErrorCode::kIoError);
  EXPECT_THAT(std::string(changed.message()), HasSubstr("someone writes to it"));
}

TEST(CheckpointTest, AReplacedFileStaysReadable) {
  const TempFolder folder;
  folder.Write("w.pt", ReadWholeFile(DataPath("good/model_state.pth")));
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(folder.Path("w.pt"));
  ASSERT_TRUE(opened.ok());
  folder.Write("new.pt", "something else");
  std::filesystem::rename(folder.Path("new.pt"), folder.Path("w.pt"));
  std::vector<std::byte> bytes(opened->storages()[0].size_bytes);
  EXPECT_TRUE(opened->ReadStorage(0, absl::MakeSpan(bytes)).ok());
}

TEST(CheckpointTest, StreamingGivesTheSameBytesAsReading) {
  for (const std::string file : {"good/syn_bigendian.pt", "good/dtypes.pt"}) {
    const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath(file));
    ASSERT_TRUE(opened.ok()) << opened.status();
    for (std::size_t i = 0; i < opened->storages().size(); ++i) {
      std::vector<std::byte> whole(opened->storages()[i].size_bytes);
      ASSERT_TRUE(opened->ReadStorage(i, absl::MakeSpan(whole)).ok());
      std::vector<std::byte> streamed;
      std::vector<std::byte> buffer(64);
      const auto take = [&](std::uint64_t offset, absl::Span<const std::byte> chunk) {
        EXPECT_EQ(offset, streamed.size());
        streamed.insert(streamed.end(), chunk.begin(), chunk.end());
        return absl::OkStatus();
      };
      ASSERT_TRUE(opened->StreamStorage(i, absl::MakeSpan(buffer), take).ok());
      EXPECT_EQ(streamed, whole);
    }
  }
}

TEST(CheckpointTest, AHookEndsARead) {
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath("good/model_state.pth"));
  ASSERT_TRUE(opened.ok());
  std::vector<std::byte> bytes(opened->storages()[0].size_bytes);
  const absl::Status status = opened->ReadStorage(
      0, absl::MakeSpan(bytes),
      [](std::uint64_t, absl::Span<const std::byte>) { return absl::CancelledError("enough"); });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

TEST(CheckpointTest, CrcsCanBeRequired) {
  ReadOptions options;
  options.require_crc = true;
  EXPECT_TRUE(Checkpoint::Open(DataPath("good/model_state.pth"), options).ok());
  EXPECT_EQ(CodeOf(DataPath("good/syn_no_crc.pt"), options), ErrorCode::kCrcMismatch);
  EXPECT_EQ(CodeOf(DataPath("good/model_state_legacy.pth"), options), ErrorCode::kCrcMismatch);
  EXPECT_EQ(CodeOf(DataPath("good/model.safetensors"), options), ErrorCode::kCrcMismatch);
  EXPECT_FALSE(MayBeTorn(Checkpoint::Open(DataPath("good/model.safetensors"), options).status()))
      << "waiting gives it none";
}

TEST(CheckpointTest, WhatIsNotWrittenYetMayBeTorn) {
  const TempFolder folder;
  const auto torn = [&](std::string_view content) {
    folder.Write("a.pt", content);
    const absl::Status status = Checkpoint::Open(folder.Path("a.pt")).status();
    EXPECT_FALSE(status.ok());
    return MayBeTorn(status);
  };
  EXPECT_TRUE(torn("")) << "created";
  EXPECT_TRUE(torn(std::string(100'000, '\0'))) << "room was set aside";
  EXPECT_TRUE(torn("PK"));
  EXPECT_TRUE(torn("PK\x03\x04"));
  const std::string legacy = ReadWholeFile(DataPath("good/model_state_legacy.pth"));
  for (const std::size_t size : {1U, 2U, 3U, 14U, 15U, 40U, 400U}) {
    EXPECT_TRUE(torn(legacy.substr(0, size))) << size;
  }
  EXPECT_FALSE(torn("a text that somebody called .pt"));
  EXPECT_FALSE(torn("PQ"));
}

TEST(CheckpointTest, UnknownClassesCanBeRefused) {
  ReadOptions options;
  options.reject_unknown_globals = true;
  EXPECT_TRUE(Checkpoint::Open(DataPath("good/checkpoint.pth"), options).ok());
  EXPECT_EQ(CodeOf(DataPath("good/entire_model.pth"), options), ErrorCode::kUnsafeGlobal);
}

TEST(CheckpointTest, GapsCanBeAllowed) {
  ReadOptions options;
  EXPECT_EQ(CodeOf(DataPath("hostile/gap_hidden_data.pt")), ErrorCode::kZipCorrupt);
  options.zip_allow_gaps = true;
  EXPECT_TRUE(Checkpoint::Open(DataPath("hostile/gap_hidden_data.pt"), options).ok());
}

TEST(CheckpointTest, LimitsAreKept) {
  const std::string path = DataPath("good/checkpoint.pth");
  const auto code_with = [&](std::uint64_t ReadLimits::*limit, std::uint64_t value) {
    ReadOptions options;
    options.limits.*limit = value;
    return CodeOf(path, options);
  };
  EXPECT_EQ(code_with(&ReadLimits::max_file_bytes, 100), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_entries, 3), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_pickle_bytes, 100), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_nodes, 50), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_stack_items, 5), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_open_marks, 2), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_depth, 3), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_expanded_nodes, 100), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_string_bytes, 4), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_global_line_bytes, 4), ErrorCode::kLimitExceeded);
  EXPECT_EQ(code_with(&ReadLimits::max_tensor_bytes, 100), ErrorCode::kLimitExceeded);
}

TEST(CheckpointTest, TheMetadataOfASafetensorsFileIsBounded) {
  std::string header = R"({"__metadata__":{"0":"")";
  for (int i = 1; i <= 65'536; ++i) header += ",\"" + std::to_string(i) + "\":\"\"";
  header += "}}";
  std::string length(8, '\0');
  for (std::size_t i = 0; i < length.size(); ++i) {
    length[i] = static_cast<char>(header.size() >> (8 * i) & 0xFF);
  }
  const TempFolder folder;
  folder.Write("a.safetensors", length + header);
  EXPECT_EQ(CodeOf(folder.Path("a.safetensors")), ErrorCode::kLimitExceeded);
}

TEST(CheckpointTest, TheSummaryTellsWhereAFileIsFrom) {
  const auto summary = [](const std::string& name) {
    return Checkpoint::Open(DataPath(name))->summary();
  };
  EXPECT_EQ(summary("good/syn_layout_1_13.pt").torch_version_guess, "1.6 to 2.0");
  EXPECT_EQ(summary("good/syn_layout_2_1.pt").torch_version_guess, ">= 2.1");
  EXPECT_EQ(summary("good/syn_layout_2_7.pt").torch_version_guess, ">= 2.7");
  EXPECT_TRUE(summary("good/syn_bigendian.pt").big_endian);
  EXPECT_EQ(summary("good/model_state_legacy.pth").format, Format::kLegacyStream);
  EXPECT_EQ(summary("good/model.safetensors").format, Format::kSafetensors);
  EXPECT_THAT(summary("good/syn_devices.pt").locations, Contains("cuda:0"));
  EXPECT_THAT(summary("good/bundle_full.pth").opaque_classes, Contains("argparse.Namespace"));
}

class ShardedTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const std::string name :
         {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}) {
      folder_.Write(name, ReadWholeFile(DataPath("good/st_sharded/" + name)));
    }
  }
  std::optional<ErrorCode> CodeOfIndex(const std::string& text) const {
    folder_.Write("model.safetensors.index.json", text);
    return CodeOf(folder_.Path("model.safetensors.index.json"));
  }
  TempFolder folder_;
};

TEST_F(ShardedTest, AMissingShardMayStillArrive) {
  const absl::Status status = [&] {
    folder_.Write("i.index.json", R"({"weight_map": {"fc1.weight": "later.safetensors"}})");
    return Checkpoint::Open(folder_.Path("i.index.json")).status();
  }();
  EXPECT_EQ(GetErrorCode(status), ErrorCode::kMissingRecord);
  EXPECT_TRUE(MayBeTorn(status));
}

TEST_F(ShardedTest, ATensorThatItsShardLacksIsAnError) {
  EXPECT_EQ(CodeOfIndex(R"({"weight_map": {"nope": "model-00001-of-00002.safetensors"}})"),
            ErrorCode::kIndexInvalid);
}

TEST_F(ShardedTest, NamesThatRepeatOrMapToNoNameAreErrors) {
  EXPECT_EQ(CodeOfIndex(R"({"weight_map": {"a": "x", "a": "y"}})"), ErrorCode::kIndexInvalid);
  EXPECT_EQ(CodeOfIndex(R"({"weight_map": {"a": 1}})"), ErrorCode::kIndexInvalid);
  EXPECT_EQ(CodeOfIndex(R"({"weight_map": ["a"]})"), ErrorCode::kIndexInvalid);
  EXPECT_EQ(CodeOfIndex(R"({"weight_map": {}})"), ErrorCode::kIndexInvalid);
  EXPECT_EQ(CodeOfIndex(R"({"weight_map")"), ErrorCode::kIndexInvalid);
}

TEST_F(ShardedTest, ShardsAreFollowedThroughSymlinksThatStayInTheFolder) {
  // As config maps are laid out.
  folder_.MakeFolder("..2026");
  std::filesystem::rename(folder_.Path("model-00001-of-00002.safetensors"),
                          folder_.Path("..2026/one.safetensors"));
  folder_.Symlink("..2026", "..data");
  folder_.Symlink("..data/one.safetensors", "link.safetensors");
  EXPECT_EQ(CodeOfIndex(R"({"weight_map": {"fc1.weight": "link.safetensors"}})"), std::nullopt);
}

TEST_F(ShardedTest, ShardsAreNotFollowedOutOfTheFolder) {
  const TempFolder elsewhere;
  elsewhere.Write("secret.safetensors", folder_.Read("model-00001-of-00002.safetensors"));
  folder_.Symlink(elsewhere.Path("secret.safetensors"), "absolute.safetensors");
  folder_.Symlink("loop.safetensors", "loop.safetensors");
  folder_.Symlink(
      "../" + elsewhere.path().substr(elsewhere.path().rfind('/') + 1) + "/secret.safetensors",
      "relative.safetensors");
  for (const std::string name : {"absolute", "relative", "loop"}) {
    EXPECT_EQ(CodeOfIndex(R"({"weight_map": {"fc1.weight": ")" + name + R"(.safetensors"}})"),
              ErrorCode::kIndexInvalid)
        << name;
  }
}

TEST_F(ShardedTest, AShardThatChangesIsNoticed) {
  folder_.Write("m.index.json",
                R"({"weight_map": {"fc1.weight": "model-00001-of-00002.safetensors"}})");
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(folder_.Path("m.index.json"));
  ASSERT_TRUE(opened.ok()) << opened.status();
  const auto listed = [&] {
    const std::vector<FolderEntry> entries = *ScanFolder(folder_.path());
    for (const FolderEntry& entry : entries) {
      if (entry.name == "m.index.json") return entry.identity;
    }
    return FileIdentity{};
  };
  EXPECT_EQ(opened->identity(), listed());
  folder_.Write("model-00001-of-00002.safetensors", "x");
  EXPECT_EQ(GetErrorCode(opened->CheckUnchanged()), ErrorCode::kIoError);
  EXPECT_NE(opened->identity(), listed());
}

}  // namespace
}  // namespace relight::storage
