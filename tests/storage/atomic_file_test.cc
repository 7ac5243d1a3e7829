#include "storage/atomic_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/storage/temp_folder.h"

namespace relight::storage {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::Span<const std::byte> Bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

class AtomicFileTest : public ::testing::Test {
 protected:
  AtomicFileTest() : fd_(::open(folder_.path().c_str(), O_RDONLY | O_DIRECTORY)) {}

  absl::StatusOr<AtomicFile> Create(const std::string& path, bool overwrite = false) {
    return AtomicFile::Create(fd_.get(), path, overwrite);
  }
  absl::StatusCode CreateCode(const std::string& path, bool overwrite = false) {
    return Create(path, overwrite).status().code();
  }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  TempFolder folder_;
  UniqueFd fd_;
};

TEST_F(AtomicFileTest, AppearsWholeOnCommit) {
  auto file = Create("a.pt");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Write(Bytes("hello ")).ok());
  ASSERT_TRUE(file->Write(Bytes("world")).ok());
  EXPECT_FALSE(folder_.Has("a.pt"));
  EXPECT_EQ(file->written_bytes(), 11);
  ASSERT_TRUE(file->Commit(0640).ok());
  EXPECT_EQ(folder_.Read("a.pt"), "hello world");
  EXPECT_THAT(Names(), ::testing::ElementsAre("a.pt"));
  struct stat info {};
  ASSERT_EQ(::stat(folder_.Path("a.pt").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640);
}

TEST_F(AtomicFileTest, TheTemporaryIsHiddenPrivateAndReadable) {
  auto file = Create("a.pt");
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Write(Bytes("abc")).ok());
  ASSERT_TRUE(file->Sync().ok());
  const std::vector<std::string> names = Names();
  ASSERT_EQ(names.size(), 1);
  EXPECT_TRUE(names[0].starts_with(".a.pt.") && names[0].ends_with(".tmp")) << names[0];
  struct stat info {};
  ASSERT_EQ(::stat(folder_.Path(names[0]).c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600);
  std::ifstream read(file->temporary_path());
  std::string content;
  read >> content;
  EXPECT_EQ(content, "abc");
}

TEST_F(AtomicFileTest, DestroyingItUncommittedLeavesNothing) {
  {
    auto file = Create("a.pt");
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write(Bytes("abc")).ok());
    AtomicFile moved = *std::move(file);
    EXPECT_EQ(Names().size(), 1);
  }
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(AtomicFileTest, AssigningOverOneRemovesItsTemporary) {
  auto first = Create("a.pt");
  auto second = Create("b.pt");
  ASSERT_TRUE(first.ok() && second.ok());
  *first = *std::move(second);
  EXPECT_EQ(Names().size(), 1);
  ASSERT_TRUE(first->Commit().ok());
  EXPECT_THAT(Names(), ::testing::ElementsAre("b.pt"));
}

TEST_F(AtomicFileTest, MakesMissingFolders) {
  auto file = Create("runs/one/a.pt");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_TRUE(folder_.Has("runs/one/a.pt"));
}

TEST_F(AtomicFileTest, RefusesPathsThatLeadOutOrAreNoFile) {
  const std::vector<std::string> bad = {"",
                                        "/etc/passwd",
                                        "..",
                                        "../a.pt",
                                        "x/../../a.pt",
                                        "x/..",
                                        "./a.pt",
                                        "x//a.pt",
                                        "x/",
                                        std::string("a\0b", 3),
                                        std::string(256, 'a'),
                                        ".a.pt.relight-0123456789abcdef.tmp"};
  for (const std::string& path : bad) {
    const absl::Status status = Create(path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << path;
    EXPECT_THAT(std::string(status.message()), HasSubstr("give the name of a file below"));
  }
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(AtomicFileTest, FollowsNoSymlinkOnTheWay) {
  TempFolder outside;
  outside.MakeFolder("sub");
  folder_.Symlink(outside.path(), "link");
  folder_.Symlink("..", "up");
  folder_.MakeFolder("real");
  folder_.Symlink(outside.path(), "real/link");
  folder_.Write("file");
  for (const char* path :
       {"link/a.pt", "link/sub/a.pt", "up/a.pt", "real/link/a.pt", "file/a.pt"}) {
    EXPECT_EQ(CreateCode(path), absl::StatusCode::kInvalidArgument) << path;
  }
  EXPECT_FALSE(outside.Has("a.pt"));
}

TEST_F(AtomicFileTest, AnExistingFileIsRefusedUnlessOverwritingWasAskedFor) {
  folder_.Write("a.pt", "old");
  EXPECT_EQ(CreateCode("a.pt"), absl::StatusCode::kAlreadyExists);
  auto file = Create("a.pt", true);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Write(Bytes("new")).ok());
  EXPECT_EQ(folder_.Read("a.pt"), "old");
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(folder_.Read("a.pt"), "new");
}

TEST_F(AtomicFileTest, AFileThatCameMeanwhileIsNotReplaced) {
  auto file = Create("a.pt");
  ASSERT_TRUE(file.ok());
  folder_.Write("a.pt", "other");
  EXPECT_EQ(file->Commit().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(folder_.Read("a.pt"), "other");
}

TEST_F(AtomicFileTest, OverwritingASymlinkReplacesTheSymlink) {
  TempFolder outside;
  outside.Write("target", "precious");
  folder_.Symlink(outside.Path("target"), "a.pt");
  EXPECT_EQ(CreateCode("a.pt"), absl::StatusCode::kAlreadyExists);
  auto file = Create("a.pt", true);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Write(Bytes("new")).ok());
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(outside.Read("target"), "precious");
  EXPECT_FALSE(std::filesystem::is_symlink(folder_.Path("a.pt")));
}

TEST_F(AtomicFileTest, AFolderIsNeverOverwritten) {
  folder_.MakeFolder("a.pt");
  EXPECT_EQ(CreateCode("a.pt", true), absl::StatusCode::kInvalidArgument);
}

TEST_F(AtomicFileTest, RunningOutOfSpaceSaysSoAndLeavesNothing) {
  // A file size limit fails the way that a full disk does, but needs no disk of its own.
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 100;
  {
    auto file = Create("a.pt");
    ASSERT_TRUE(file.ok());
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    const absl::Status written = file->Write(Bytes(std::string(1000, 'x')));
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(written.code(), absl::StatusCode::kResourceExhausted) << written;
    EXPECT_THAT(std::string(written.message()), HasSubstr("a.pt"));
    EXPECT_EQ(file->Commit().code(), absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(AtomicFileTest, AFullDeviceIsResourceExhausted) {
  // Mounting needs rights that a test may lack.
  const std::string mount = "mount -t tmpfs -o size=64k tmpfs " + folder_.path() + " 2>/dev/null";
  if (std::system(mount.c_str()) != 0) GTEST_SKIP() << "cannot mount a tmpfs here";
  {
    UniqueFd fd(::open(folder_.path().c_str(), O_RDONLY | O_DIRECTORY));
    auto file = AtomicFile::Create(fd.get(), "a.pt", false);
    EXPECT_TRUE(file.ok());
    const absl::Status written = file->Write(Bytes(std::string(1 << 20, 'x')));
    EXPECT_EQ(written.code(), absl::StatusCode::kResourceExhausted) << written;
  }
  EXPECT_THAT(Names(), IsEmpty());
  EXPECT_EQ(std::system(("umount " + folder_.path()).c_str()), 0);
}

TEST_F(AtomicFileTest, NothingCanBeWrittenAfterCommit) {
  auto file = Create("a.pt");
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ(file->Write(Bytes("x")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(file->Commit().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(AtomicFileTest, LongNamesStillGetATemporary) {
  const std::string name(255, 'n');
  auto file = Create(name);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_TRUE(folder_.Has(name));
}

TEST_F(AtomicFileTest, WhatAKilledProcessLeftIsRemovedAndTheLivingSpared) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    auto file = AtomicFile::Create(fd_.get(), "sub/killed.pt", false);
    ::_exit(file.ok() && ::kill(::getpid(), SIGKILL) == 0 ? 0 : 1);
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  ASSERT_TRUE(WIFSIGNALED(state));
  auto living = Create("living.pt");
  ASSERT_TRUE(living.ok());
  folder_.Write(".not-ours.tmp");
  folder_.Write(".not-ours.0123456789abcdef.tmp");
  folder_.Write(".x.relight-0123456789ABCDEF.tmp");
  TempFolder outside;
  outside.Write(".x.relight-0123456789abcdef.tmp");
  folder_.Symlink(outside.path(), "link");

  const absl::StatusOr<int> removed = RemoveStaleTemporaries(fd_.get());
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_EQ(*removed, 1);
  EXPECT_TRUE(std::filesystem::is_empty(folder_.Path("sub")));
  EXPECT_TRUE(folder_.Has(".not-ours.tmp"));
  EXPECT_TRUE(folder_.Has(".not-ours.0123456789abcdef.tmp"));
  EXPECT_TRUE(folder_.Has(".x.relight-0123456789ABCDEF.tmp"));
  EXPECT_TRUE(outside.Has(".x.relight-0123456789abcdef.tmp"));
  EXPECT_TRUE(living->Commit().ok());
}

TEST_F(AtomicFileTest, SubfoldersAreLeftAloneWhereOnlyTheFolderIsToBeCleaned) {
  folder_.Write(".x.relight-0123456789abcdef.tmp");
  folder_.MakeFolder("sub");
  folder_.Write("sub/.x.relight-0123456789abcdef.tmp");
  const absl::StatusOr<int> removed = RemoveStaleTemporaries(fd_.get(), Reach::kFolder);
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_EQ(*removed, 1);
  EXPECT_THAT(Names(), ::testing::ElementsAre("sub"));
  EXPECT_TRUE(folder_.Has("sub/.x.relight-0123456789abcdef.tmp"));
}

TEST_F(AtomicFileTest, UnlinkedLivesAsLongAsItsDescriptor) {
  auto file = Create("a.pt");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Write(Bytes("hello")).ok());
  const absl::StatusOr<UniqueFd> fd = (*std::move(file)).Unlink();
  ASSERT_TRUE(fd.ok()) << fd.status();
  EXPECT_THAT(Names(), IsEmpty());
  char content[5];
  ASSERT_EQ(::pread(fd->get(), content, sizeof content, 0), 5);
  EXPECT_EQ(std::string_view(content, 5), "hello");
}

TEST_F(AtomicFileTest, WhatIsCommittedOrFailedIsNotUnlinked) {
  auto file = Create("a.pt");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_TRUE(file->Commit().ok());
  EXPECT_EQ((*std::move(file)).Unlink().status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(folder_.Has("a.pt"));
}

}  // namespace
}  // namespace relight::storage
