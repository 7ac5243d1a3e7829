#include "storage/folder.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "base/unique_fd.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/error.h"
#include "tests/storage/temp_folder.h"

namespace relight::storage {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<FolderEntry> Scan(const TempFolder& folder) {
  auto entries = ScanFolder(folder.path());
  EXPECT_TRUE(entries.ok()) << entries.status();
  return entries.ok() ? *std::move(entries) : std::vector<FolderEntry>();
}

std::vector<std::string> Candidates(const TempFolder& folder) {
  std::vector<std::string> names;
  for (const FolderEntry& entry : Scan(folder)) {
    EXPECT_EQ(entry.candidate, entry.reason.empty()) << entry.name << ": " << entry.reason;
    if (entry.candidate) names.push_back(entry.name);
  }
  return names;
}

FolderEntry Find(const TempFolder& folder, const std::string& name) {
  for (FolderEntry& entry : Scan(folder)) {
    if (entry.name == name) return entry;
  }
  ADD_FAILURE() << name << " is not listed";
  return {};
}

std::string ReasonFor(const TempFolder& folder, const std::string& name) {
  const FolderEntry entry = Find(folder, name);
  EXPECT_FALSE(entry.candidate) << name;
  return entry.reason;
}

TEST(ScanFolderTest, TakesFilesOfKnownSuffixesSortedByName) {
  TempFolder folder;
  for (const char* name : {"e.safetensors", "d.ckpt", "c.bin", "b.pth", "a.pt", "B.pt"}) {
    folder.Write(name);
  }
  EXPECT_THAT(Candidates(folder),
              ElementsAre("B.pt", "a.pt", "b.pth", "c.bin", "d.ckpt", "e.safetensors"));
}

TEST(ScanFolderTest, StemIsTheNameWithoutItsSuffix) {
  TempFolder folder;
  folder.Write("step-000100.pt");
  folder.Write("epoch=3.val.ckpt");
  folder.Write("model.safetensors.index.json", R"({"weight_map": {}})");
  folder.Write("net-7.bin.index.fp16.json", R"({"weight_map": {}})");
  folder.MakeFolder("checkpoint-5");
  folder.Write("checkpoint-5/model.safetensors");
  EXPECT_EQ(Find(folder, "step-000100.pt").stem, "step-000100");
  EXPECT_EQ(Find(folder, "epoch=3.val.ckpt").stem, "epoch=3.val");
  EXPECT_EQ(Find(folder, "model.safetensors.index.json").stem, "model");
  EXPECT_EQ(Find(folder, "net-7.bin.index.fp16.json").stem, "net-7");
  EXPECT_EQ(Find(folder, "checkpoint-5/model.safetensors").stem, "checkpoint-5");
}

TEST(ScanFolderTest, IdentityIsThatOfTheFile) {
  TempFolder folder;
  folder.Write("a.pt", "12345");
  struct stat info {};
  ASSERT_EQ(::stat(folder.Path("a.pt").c_str(), &info), 0);
  const FileIdentity identity = Find(folder, "a.pt").identity;
  EXPECT_EQ(identity.inode, info.st_ino);
  EXPECT_EQ(identity.device, info.st_dev);
  EXPECT_EQ(identity.size_bytes, 5);
  EXPECT_EQ(identity.modified, absl::TimeFromTimespec(info.st_mtim));
  EXPECT_EQ(identity.changed, absl::TimeFromTimespec(info.st_ctim));
}

TEST(ScanFolderTest, PassesOverHiddenTemporaryAndForeignNames) {
  TempFolder folder;
  for (const char* name : {".hidden.pt", ".a.pt.x1.tmp", "a.pt.tmp", "a.pt.part", "a.pt~",
                           "notes.txt", "pt", "config.json"}) {
    folder.Write(name);
  }
  EXPECT_THAT(Candidates(folder), IsEmpty());
  EXPECT_THAT(ReasonFor(folder, ".hidden.pt"), HasSubstr("dot"));
  EXPECT_THAT(ReasonFor(folder, "a.pt.tmp"), HasSubstr("temporary"));
  EXPECT_THAT(ReasonFor(folder, "a.pt.part"), HasSubstr("temporary"));
  EXPECT_THAT(ReasonFor(folder, "a.pt~"), HasSubstr("temporary"));
  EXPECT_THAT(ReasonFor(folder, "notes.txt"), HasSubstr("suffixes"));
  EXPECT_THAT(ReasonFor(folder, "config.json"), HasSubstr("suffixes"));
}

TEST(ScanFolderTest, PassesOverEverythingThatIsNoRegularFile) {
  TempFolder folder;
  ASSERT_EQ(::mkfifo(folder.Path("fifo.pt").c_str(), 0600), 0);
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, folder.Path("socket.pt").c_str(), sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  folder.Symlink("/dev/null", "device.pt");
  folder.Symlink("loop.pt", "loop.pt");
  folder.Symlink("nowhere", "dangling.pt");
  folder.MakeFolder("folder.pt");
  folder.Write("folder.pt/model.pt");
  EXPECT_THAT(Candidates(folder), IsEmpty());
  EXPECT_THAT(ReasonFor(folder, "fifo.pt"), HasSubstr("FIFO"));
  EXPECT_THAT(ReasonFor(folder, "socket.pt"), HasSubstr("socket"));
  EXPECT_THAT(ReasonFor(folder, "device.pt"), HasSubstr("device"));
  EXPECT_THAT(ReasonFor(folder, "loop.pt"), HasSubstr("loop"));
  EXPECT_THAT(ReasonFor(folder, "dangling.pt"), HasSubstr("symlink to nothing"));
  EXPECT_THAT(ReasonFor(folder, "folder.pt"), HasSubstr("folder with the suffix"));
}

TEST(ScanFolderTest, PassesOverAFileThatThisUserCannotRead) {
  TempFolder folder;
  folder.Write("secret.pt");
  ASSERT_EQ(::chmod(folder.Path("secret.pt").c_str(), 0), 0);
  const uid_t user = ::geteuid();
  if (user == 0) {
    ASSERT_EQ(::seteuid(65534), 0);
  }
  const std::string reason = ReasonFor(folder, "secret.pt");
  ASSERT_EQ(::seteuid(user), 0);
  EXPECT_THAT(reason, HasSubstr("cannot be read: Permission denied"));
}

TEST(ScanFolderTest, NamesThatAreNotUtf8AreCandidates) {
  TempFolder folder;
  folder.Write("step-\xff\xfe.pt");
  EXPECT_THAT(Candidates(folder), ElementsAre("step-\xff\xfe.pt"));
}

TEST(ScanFolderTest, FollowsSymlinksAsConfigMapsUseThem) {
  TempFolder folder;
  folder.MakeFolder("..2024_01");
  folder.Write("..2024_01/model.pt", "old");
  folder.MakeFolder("..2024_02");
  folder.Write("..2024_02/model.pt", "newer");
  folder.Symlink("..2024_01", "..data");
  folder.Symlink("..data/model.pt", "model.pt");
  EXPECT_THAT(Candidates(folder), ElementsAre("model.pt"));
  const FileIdentity before = Find(folder, "model.pt").identity;
  EXPECT_EQ(before.size_bytes, 3);

  folder.Symlink("..2024_02", "..data_tmp");
  std::filesystem::rename(folder.Path("..data_tmp"), folder.Path("..data"));
  const FileIdentity after = Find(folder, "model.pt").identity;
  EXPECT_EQ(after.size_bytes, 5);
  EXPECT_FALSE(before == after);
}

TEST(ScanFolderTest, FollowsASymlinkToTheLatestFile) {
  TempFolder folder;
  TempFolder elsewhere;
  elsewhere.Write("x", "1234");
  folder.Symlink(elsewhere.Path("x"), "current.pt");
  EXPECT_THAT(Candidates(folder), ElementsAre("current.pt"));
  EXPECT_EQ(Find(folder, "current.pt").identity.size_bytes, 4);
}

TEST(ScanFolderTest, AnIndexStandsForItsShards) {
  TempFolder folder;
  folder.Write("model.safetensors.index.json",
               R"({"metadata": {"note": "other.safetensors"}, "weight_map":
                   {"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}})");
  folder.Write("one.safetensors");
  folder.Write("two.safetensors");
  folder.Write("other.safetensors");
  EXPECT_THAT(Candidates(folder), ElementsAre("model.safetensors.index.json", "other.safetensors"));
  EXPECT_EQ(ReasonFor(folder, "one.safetensors"), "is a shard of model.safetensors.index.json");
}

TEST(ScanFolderTest, AnIndexWaitsForItsShards) {
  TempFolder folder;
  folder.Write("model.safetensors.index.json", R"({"weight_map": {"a": "late.safetensors"}})");
  EXPECT_EQ(ReasonFor(folder, "model.safetensors.index.json"),
            "waits for its shard late.safetensors");
  folder.Write("late.safetensors");
  EXPECT_THAT(Candidates(folder), ElementsAre("model.safetensors.index.json"));
}

TEST(ScanFolderTest, ShardsThatArriveBeforeTheirIndexArePassedOver) {
  TempFolder folder;
  folder.Write("model-00001-of-00002.safetensors");
  folder.Write("model-00001-of-00001.safetensors");
  folder.Write("best-of-3.pt");
  EXPECT_THAT(Candidates(folder), ElementsAre("best-of-3.pt", "model-00001-of-00001.safetensors"));
  EXPECT_THAT(ReasonFor(folder, "model-00001-of-00002.safetensors"), HasSubstr("shard"));
}

TEST(ScanFolderTest, AnIndexThatIsNotOneHidesNothing) {
  TempFolder folder;
  folder.Write("broken.bin.index.json", R"({"weight_map": {"a": "one.bin",)");
  folder.Write("deep.bin.index.json", std::string(100'000, '['));
  folder.Write("wrong.bin.index.json", R"({"weight_map": [1, 2], "x": {"y": "one.bin"}})");
  folder.Write("one.bin");
  EXPECT_THAT(Candidates(folder), ElementsAre("broken.bin.index.json", "deep.bin.index.json",
                                              "one.bin", "wrong.bin.index.json"));
}

TEST(ScanFolderTest, AnIndexThatNamesItselfStaysACandidate) {
  TempFolder folder;
  folder.Write("m.bin.index.json", R"({"weight_map": {"a": "m.bin.index.json"}})");
  EXPECT_THAT(Candidates(folder), ElementsAre("m.bin.index.json"));
}

TEST(ScanFolderTest, ASubfolderWithOneCheckpointIsACandidate) {
  TempFolder folder;
  folder.MakeFolder("checkpoint-20");
  for (const char* name : {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
                           "rng_state_0.pth", "training_args.bin", "scaler.pt", "config.json"}) {
    folder.Write(std::string("checkpoint-20/") + name);
  }
  folder.MakeFolder("checkpoint-20/nested");
  EXPECT_THAT(Candidates(folder), ElementsAre("checkpoint-20/model.safetensors"));
}

TEST(ScanFolderTest, ASubfolderWithAnIndexIsACandidate) {
  TempFolder folder;
  folder.MakeFolder("checkpoint-20");
  folder.Write("checkpoint-20/pytorch_model.bin.index.json", R"({"weight_map": {"a": "s1.bin"}})");
  folder.Write("checkpoint-20/s1.bin");
  EXPECT_THAT(Candidates(folder), ElementsAre("checkpoint-20/pytorch_model.bin.index.json"));
}

TEST(ScanFolderTest, SubfoldersWithNoneOrSeveralAreNot) {
  TempFolder folder;
  folder.MakeFolder("empty");
  folder.MakeFolder("only-helpers");
  folder.Write("only-helpers/optimizer.pt");
  folder.MakeFolder("unfinished");
  folder.Write("unfinished/model.safetensors.tmp");
  folder.MakeFolder("two");
  folder.Write("two/a.pt");
  folder.Write("two/b.pt");
  folder.MakeFolder("dcp");
  folder.Write("dcp/.metadata");
  folder.Write("dcp/__0_0.distcp");
  folder.MakeFolder("waiting");
  folder.Write("waiting/m.bin.index.json", R"({"weight_map": {"a": "s1.bin", "b": "z.bin"}})");
  folder.Write("waiting/z.bin");
  EXPECT_THAT(Candidates(folder), IsEmpty());
  EXPECT_EQ(ReasonFor(folder, "empty"), "is a folder without a checkpoint");
  EXPECT_EQ(ReasonFor(folder, "only-helpers"), "is a folder without a checkpoint");
  EXPECT_THAT(ReasonFor(folder, "unfinished"), HasSubstr("without a checkpoint"));
  EXPECT_THAT(ReasonFor(folder, "two"), HasSubstr("2 checkpoints (a.pt, b.pt)"));
  EXPECT_THAT(ReasonFor(folder, "dcp"), HasSubstr("dcp_to_torch_save"));
  EXPECT_THAT(ReasonFor(folder, "waiting"), HasSubstr("waits for its shard s1.bin"));
}

TEST(ScanFolderTest, AnEmptyFolderIsSeenEmpty) {
  TempFolder folder;
  EXPECT_THAT(Scan(folder), IsEmpty());
}

TEST(ScanFolderTest, AMissingFolderIsNotFound) {
  TempFolder folder;
  EXPECT_EQ(ScanFolder(folder.Path("gone")).status().code(), absl::StatusCode::kNotFound);
}

TEST(ScanFolderTest, WhatCannotBeListedIsUnavailable) {
  TempFolder folder;
  folder.Write("file");
  EXPECT_EQ(ScanFolder(folder.Path("file")).status().code(), absl::StatusCode::kUnavailable);
  ASSERT_EQ(::mkfifo(folder.Path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(ScanFolder(folder.Path("fifo")).status().code(), absl::StatusCode::kUnavailable);
}

std::string Located(const std::string& path) {
  const absl::StatusOr<std::string> located = LocateCheckpoint(path);
  EXPECT_TRUE(located.ok()) << located.status();
  return located.value_or("");
}

TEST(LocateCheckpointTest, WhatIsNoFolderIsItself) {
  TempFolder folder;
  folder.Write("notes.txt");
  EXPECT_EQ(Located(folder.Path("notes.txt")), folder.Path("notes.txt"));
  EXPECT_EQ(Located(folder.Path("gone.pt")), folder.Path("gone.pt"));
}

TEST(LocateCheckpointTest, AFolderLeadsToItsOnlyCandidate) {
  TempFolder folder;
  folder.MakeFolder("checkpoint-20");
  for (const char* helper : {"optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin",
                             "config.json", "trainer_state.json"}) {
    folder.Write(std::string("checkpoint-20/") + helper);
  }
  folder.Write("checkpoint-20/model.safetensors");
  const std::string expected = folder.Path("checkpoint-20/model.safetensors");
  EXPECT_EQ(Located(folder.Path("checkpoint-20")), expected);
  EXPECT_EQ(Located(folder.Path("checkpoint-20/")), expected);
  EXPECT_EQ(Located(folder.path()), expected) << "in the only subfolder that has one";
}

TEST(LocateCheckpointTest, ShardsDoNotCount) {
  TempFolder folder;
  folder.Write("pytorch_model.bin.index.json", R"({"weight_map": {"a": "s1.bin", "b": "s2.bin"}})");
  folder.Write("s1.bin");
  folder.Write("s2.bin");
  EXPECT_EQ(Located(folder.path()), folder.Path("pytorch_model.bin.index.json"));
}

TEST(LocateCheckpointTest, SeveralAreListedAndNoneIsNotFound) {
  TempFolder folder;
  folder.MakeFolder("two");
  folder.Write("two/a.pt");
  folder.Write("two/b\xff.pt");
  const absl::Status several = LocateCheckpoint(folder.Path("two")).status();
  EXPECT_EQ(several.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(several.message()), HasSubstr("(a.pt, b\\xff.pt): name one of them"));
  folder.MakeFolder("none");
  folder.Write("none/model.pt.tmp");
  EXPECT_EQ(LocateCheckpoint(folder.Path("none")).status().code(), absl::StatusCode::kNotFound);
  folder.MakeFolder("below/one");
  folder.MakeFolder("below/other");
  folder.Write("below/one/a.pt");
  folder.Write("below/other/a.pt");
  const absl::Status below = LocateCheckpoint(folder.Path("below")).status();
  EXPECT_EQ(below.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(below.message()), HasSubstr("one/a.pt, other/a.pt"));
}

TEST(LocateCheckpointTest, ADistributedCheckpointIsRefusedByName) {
  TempFolder folder;
  folder.Write(".metadata");
  folder.Write("__0_0.distcp");
  const absl::Status status = LocateCheckpoint(folder.path()).status();
  EXPECT_EQ(GetErrorCode(status), ErrorCode::kUnsupportedFormat);
  EXPECT_THAT(std::string(status.message()), HasSubstr("dcp_to_torch_save"));
}

}  // namespace
}  // namespace relight::storage
