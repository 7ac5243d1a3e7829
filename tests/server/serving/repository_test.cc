#include "server/serving/repository.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/storage/temp_folder.h"

namespace relight::serving {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(RepositoryTest, FoldersWithAConfigAreModels) {
  const storage::TempFolder folder;
  for (const char* name : {"b", "a", ".hidden", "no-config"}) folder.MakeFolder(name);
  folder.Write("b/model.textproto");
  folder.Write("a/model.textproto");
  folder.Write(".hidden/model.textproto");
  folder.Write("model.textproto");
  EXPECT_THAT(*ListModels(folder.path()), ElementsAre("a", "b"));
}

TEST(RepositoryTest, MissingRepositoryIsNotFoundAndNamesTheFlag) {
  const absl::Status status = ListModels("/nowhere/at/all").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("--model-repository"));
}

TEST(RepositoryTest, RemovalCountsAfterTwoListingsAndFiveSeconds) {
  RemovalCounter counter;
  absl::Time now = absl::UnixEpoch();
  EXPECT_THAT(counter.Count({}, {"a"}, now), IsEmpty());
  EXPECT_THAT(counter.Count({}, {"a"}, now + absl::Seconds(4)), IsEmpty());
  EXPECT_THAT(counter.Count({}, {"a"}, now + absl::Seconds(5)), ElementsAre("a"));
}

TEST(RepositoryTest, ModelThatReturnsBeginsAnew) {
  RemovalCounter counter;
  absl::Time now = absl::UnixEpoch();
  EXPECT_THAT(counter.Count({}, {"a"}, now), IsEmpty());
  EXPECT_THAT(counter.Count({"a"}, {"a"}, now + absl::Seconds(4)), IsEmpty());
  EXPECT_THAT(counter.Count({}, {"a"}, now + absl::Seconds(10)), IsEmpty());
  EXPECT_THAT(counter.Count({}, {"a"}, now + absl::Seconds(11)), IsEmpty());
}

TEST(RepositoryTest, OneListingAfterALongTimeRemovesNothing) {
  RemovalCounter counter;
  EXPECT_THAT(counter.Count({}, {"a"}, absl::UnixEpoch()), IsEmpty());
}

}  // namespace
}  // namespace relight::serving
