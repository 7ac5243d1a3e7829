#include <filesystem>
#include <memory>
#include <thread>

#include "gtest/gtest.h"
#include "storage/folder.h"
#include "tests/storage/temp_folder.h"

namespace relight::storage {
namespace {

// Every test that waits this long has failed by CTest's timeout.
constexpr absl::Duration kTooLong = absl::Minutes(10);

// Consumes what earlier steps of a test stirred up.
void Settle(FolderWatcher& watcher) { watcher.Wait(absl::ZeroDuration()); }

TEST(FolderWatcherTest, ANewFileWakes) {
  TempFolder folder;
  const auto watcher = MakeFolderWatcher();
  watcher->Watch({folder.path()});
  folder.Write("a.pt");
  watcher->Wait(kTooLong);
}

TEST(FolderWatcherTest, RenamingAndDeletingWake) {
  TempFolder folder;
  folder.Write("a.pt.tmp");
  const auto watcher = MakeFolderWatcher();
  watcher->Watch({folder.path()});
  std::filesystem::rename(folder.Path("a.pt.tmp"), folder.Path("a.pt"));
  watcher->Wait(kTooLong);
  Settle(*watcher);
  std::filesystem::remove(folder.Path("a.pt"));
  watcher->Wait(kTooLong);
}

TEST(FolderWatcherTest, OverwritingInPlaceWakes) {
  TempFolder folder;
  folder.Write("a.pt", "old");
  const auto watcher = MakeFolderWatcher();
  watcher->Watch({folder.path()});
  folder.Write("a.pt", "new");
  watcher->Wait(kTooLong);
}

TEST(FolderWatcherTest, AFileInASubfolderWakes) {
  TempFolder folder;
  folder.MakeFolder("checkpoint-1");
  const auto watcher = MakeFolderWatcher();
  watcher->Watch({folder.path()});
  folder.Write("checkpoint-1/model.pt");
  watcher->Wait(kTooLong);
}

TEST(FolderWatcherTest, TheFolderAppearingWakes) {
  TempFolder folder;
  const auto watcher = MakeFolderWatcher();
  watcher->Watch({folder.Path("later")});
  folder.MakeFolder("later");
  watcher->Wait(kTooLong);
  Settle(*watcher);
  watcher->Watch({folder.Path("later")});
  folder.Write("later/a.pt");
  watcher->Wait(kTooLong);
}

TEST(FolderWatcherTest, AFlippedSymlinkWakes) {
  TempFolder folder;
  folder.MakeFolder("one");
  folder.MakeFolder("two");
  folder.Symlink("one", "current");
  const auto watcher = MakeFolderWatcher();
  watcher->Watch({folder.Path("current")});
  folder.Symlink("two", "next");
  std::filesystem::rename(folder.Path("next"), folder.Path("current"));
  watcher->Wait(kTooLong);
}

TEST(FolderWatcherTest, AFolderThatWasDeletedAndMadeAgainIsWatchedAgain) {
  TempFolder folder;
  folder.MakeFolder("watched");
  const auto watcher = MakeFolderWatcher();
  watcher->Watch({folder.Path("watched")});
  std::filesystem::remove(folder.Path("watched"));
  watcher->Wait(kTooLong);
  folder.MakeFolder("watched");
  watcher->Watch({folder.Path("watched")});
  Settle(*watcher);
  folder.Write("watched/a.pt");
  watcher->Wait(kTooLong);
}

TEST(FolderWatcherTest, FoldersNoLongerWatchedAndNeighboursDoNotWake) {
  TempFolder parent;
  parent.MakeFolder("old");
  parent.MakeFolder("new");
  const auto watcher = MakeFolderWatcher();
  watcher->Watch({parent.Path("old")});
  watcher->Watch({parent.Path("new")});
  parent.Write("old/a.pt");
  parent.Write("neighbour");
  const auto start = std::chrono::steady_clock::now();
  watcher->Wait(absl::Milliseconds(50));
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(50));
}

TEST(FolderWatcherTest, OneStirIsOneReturn) {
  TempFolder folder;
  const auto watcher = MakeFolderWatcher();
  watcher->Watch({folder.path()});
  for (int i = 0; i < 100; ++i) folder.Write("a" + std::to_string(i));
  watcher->Wait(kTooLong);
  const auto start = std::chrono::steady_clock::now();
  watcher->Wait(absl::Milliseconds(20));
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(20));
}

TEST(FolderWatcherTest, WakeEndsAWaitThatBeganOrIsYetToBegin) {
  const auto watcher = MakeFolderWatcher();
  watcher->Wake();
  watcher->Wait(absl::InfiniteDuration());
  std::thread waker([&] { watcher->Wake(); });
  watcher->Wait(absl::InfiniteDuration());
  waker.join();
}

TEST(FolderWatcherTest, WithoutInotifyItStillWaitsAndWakes) {
  const auto watcher = MakeTimedFolderWatcher();
  watcher->Watch({"/nowhere"});
  watcher->Wait(absl::Milliseconds(1));
  watcher->Wake();
  watcher->Wait(kTooLong);
  std::thread waker([&] { watcher->Wake(); });
  watcher->Wait(absl::InfiniteDuration());
  waker.join();
}

}  // namespace
}  // namespace relight::storage
