#include "server/serving/repository.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/storage/temp_folder.h"

namespace relight::serving {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const ModelListing kOther{.models = {"b"}};

TEST(RepositoryTest, FoldersWithAConfigAreModels) {
  const storage::TempFolder folder;
  for (const char* name : {"b", "a", ".hidden", "no-config"}) folder.MakeFolder(name);
  folder.Write("b/model.textproto");
  folder.Write("a/model.textproto");
  folder.Write(".hidden/model.textproto");
  folder.Write("model.textproto");
  EXPECT_THAT(ListModels(folder.path())->models, ElementsAre("a", "b"));
}

TEST(RepositoryTest, MissingRepositoryIsNotFoundAndNamesTheFlag) {
  const absl::Status status = ListModels("/nowhere/at/all").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("--model-repository"));
}

TEST(RepositoryTest, RemovalCountsAfterTwoListingsAndFiveSeconds) {
  RemovalCounter counter;
  absl::Time now = absl::UnixEpoch();
  EXPECT_THAT(counter.Count(kOther, {"a"}, now), IsEmpty());
  EXPECT_THAT(counter.Count(kOther, {"a"}, now + absl::Seconds(4)), IsEmpty());
  EXPECT_THAT(counter.Count(kOther, {"a"}, now + absl::Seconds(5)), ElementsAre("a"));
}

TEST(RepositoryTest, ModelThatReturnsBeginsAnew) {
  RemovalCounter counter;
  absl::Time now = absl::UnixEpoch();
  EXPECT_THAT(counter.Count(kOther, {"a"}, now), IsEmpty());
  EXPECT_THAT(counter.Count({.models = {"a"}}, {"a"}, now + absl::Seconds(4)), IsEmpty());
  EXPECT_THAT(counter.Count(kOther, {"a"}, now + absl::Seconds(10)), IsEmpty());
  EXPECT_THAT(counter.Count(kOther, {"a"}, now + absl::Seconds(11)), IsEmpty());
}

TEST(RepositoryTest, OneListingAfterALongTimeRemovesNothing) {
  RemovalCounter counter;
  EXPECT_THAT(counter.Count(kOther, {"a"}, absl::UnixEpoch()), IsEmpty());
}

TEST(RepositoryTest, EmptyOrUnseenIsNotRemoved) {
  RemovalCounter counter;
  for (int second = 0; second < 20; second += 2) {
    const absl::Time now = absl::UnixEpoch() + absl::Seconds(second);
    EXPECT_THAT(counter.Count({}, {"a"}, now), IsEmpty()) << "a volume that went away";
    EXPECT_THAT(counter.Count({.models = {"b"}, .unseen = {"a"}}, {"a", "b"}, now), IsEmpty());
  }
}

TEST(RepositoryTest, FolderThatCannotBeLookedAtIsUnseen) {
  const storage::TempFolder folder;
  folder.Symlink("loop", "loop");
  folder.Symlink("nowhere", "dangling");
  folder.MakeFolder("no-config");
  const ModelListing listing = *ListModels(folder.path());
  EXPECT_THAT(listing.models, IsEmpty());
  EXPECT_THAT(listing.unseen, ElementsAre("loop"));
}

}  // namespace
}  // namespace relight::serving
