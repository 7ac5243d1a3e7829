// Damaged copies of the good files never crash the reader, and damage that a CRC-32 covers never
// goes unnoticed.
#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "storage/checkpoint.h"
#include "storage/error.h"
#include "storage/state_dict.h"
#include "storage/weights.h"
#include "tests/storage/fixtures.h"
#include "tests/storage/made_checkpoint.h"
#include "tests/storage/memory_file.h"

namespace relight::storage {
namespace {

absl::Status LoadAll(const std::string& path) {
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(path);
  if (!opened.ok()) return opened.status();
  const absl::StatusOr<StateDict> found = FindStateDict(*opened);
  if (!found.ok()) return found.status();
  const absl::StatusOr<WeightPlan> plan = PlanWeights(*opened, *found, {});
  if (!plan.ok()) return plan.status();
  const Block block(plan->total_bytes);
  return LoadWeights(*opened, *plan, block.span()).status();
}

// At most this many damaged copies of each file, evenly spread.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kCopiesPerFile = 200;
#else
constexpr std::size_t kCopiesPerFile = 1200;
#endif

class DamagedFile : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { content_ = ReadWholeFile(DataPath(GetParam())); }
  std::string Damaged(const std::string& content) const {
    file_.Write(content);
    return file_.path();
  }
  std::size_t StepBytes() const { return content_.size() / kCopiesPerFile + 1; }

  MemoryFile file_;
  std::string content_;
};

TEST_P(DamagedFile, IsRefusedWhereverItIsCutOff) {
  for (std::size_t length = 0; length < content_.size(); length += StepBytes()) {
    const absl::Status status = LoadAll(Damaged(content_.substr(0, length)));
    EXPECT_FALSE(status.ok()) << "cut at byte " << length;
    EXPECT_TRUE(GetErrorCode(status).has_value()) << status;
  }
}

TEST_P(DamagedFile, NeverCrashesTheReaderWhereverAByteIsFlipped) {
  std::string damaged = content_;
  for (std::size_t at = 0; at < content_.size(); at += StepBytes()) {
    damaged[at] = static_cast<char>(~damaged[at]);
    const absl::Status status = LoadAll(Damaged(damaged));
    EXPECT_TRUE(status.ok() || GetErrorCode(status).has_value()) << status;
    damaged[at] = content_[at];
  }
}

INSTANTIATE_TEST_SUITE_P(All, DamagedFile, testing::ValuesIn(FixtureNames("good")),
                         [](const auto& tested) { return TestNameOf(tested.param); });

TEST(DamagedFiles, EveryFlippedBitThatACrcCoversIsNoticed) {
  const std::string path = DataPath("good/model_state.pth");
  const std::string content = ReadWholeFile(path);
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(path);
  ASSERT_TRUE(opened.ok());
  const MemoryFile file;
  std::size_t flips = 0;
  const auto expect_noticed = [&](std::uint64_t begin, std::uint64_t size) {
    for (std::uint64_t at = begin; at < begin + size; ++at) {
      std::string damaged = content;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
      file.Write(damaged);
      const absl::Status status = LoadAll(file.path());
      EXPECT_EQ(GetErrorCode(status), ErrorCode::kCrcMismatch) << "byte " << at << ": " << status;
      ++flips;
    }
  };
  // The pickle begins with its protocol number, at a multiple of 64.
  const std::size_t pickle = content.find("\x80\x02");
  ASSERT_EQ(pickle % 64, 0u);
  expect_noticed(pickle, content.find("PK\x07\x08", pickle) - pickle);
  for (const StorageInfo& storage : opened->storages()) {
    expect_noticed(storage.file_offset, storage.size_bytes);
  }
  EXPECT_GT(flips, 700u);
}

}  // namespace
}  // namespace relight::storage
