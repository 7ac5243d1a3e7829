#include "storage/weight_comparison.h"

#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/checkpoint_source.h"
#include "storage/error.h"
#include "storage/safetensors_writer.h"
#include "storage/snapshot_tree.h"
#include "storage/weights_digest.h"
#include "tests/storage/fixtures.h"
#include "tests/storage/made_checkpoint.h"

namespace relight::storage {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// The weights of a checkpoint in memory, to compare files with.
class WeightComparisonTest : public ::testing::Test {
 protected:
  void Load(const std::string& path) {
    absl::StatusOr<Checkpoint> opened = Checkpoint::Open(path);
    ASSERT_TRUE(opened.ok()) << opened.status();
    source_.emplace(*std::move(opened));
    absl::StatusOr<StateDict> found = FindStateDict(*source_);
    ASSERT_TRUE(found.ok()) << found.status();
    state_dict_ = *std::move(found);
    absl::StatusOr<WeightPlan> plan = PlanWeights(*source_, state_dict_, {});
    ASSERT_TRUE(plan.ok()) << plan.status();
    plan_ = *std::move(plan);
    block_.emplace(plan_.total_bytes);
    const absl::StatusOr<ExaminedWeights> loaded = LoadWeights(*source_, plan_, block_->span());
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    digest_ = loaded->digest;
  }
  void Load(const MadeCheckpoint& made, NodeId root) {
    ASSERT_TRUE(made.WriteAndOpen(root, folder_.Path("source.pt")).ok());
    Load(folder_.Path("source.pt"));
  }
  // Compares the file with the weights in memory.
  absl::Status Compare(const std::string& path) {
    absl::StatusOr<Checkpoint> file = Checkpoint::Open(path);
    if (!file.ok()) return file.status();
    absl::StatusOr<StateDict> found = FindStateDict(*file);
    if (!found.ok()) return found.status();
    return CompareWithBlock(*file, *found, plan_, block_->span());
  }
  absl::Status CompareMade(const MadeCheckpoint& made, NodeId root) {
    EXPECT_TRUE(made.WriteAndOpen(root, folder_.Path("other.pt")).ok());
    return Compare(folder_.Path("other.pt"));
  }
  // Writes the weights of the loaded file as safetensors.
  std::string WriteSafetensorsFile() {
    std::string bytes;
    const absl::StatusOr<SnapshotTree> tree =
        MakeSnapshotTree(source_->tree(), state_dict_, /*weights_only=*/true);
    const absl::StatusOr<WriteReport> written =
        WriteSafetensors(tree->tree, tree->root, CheckpointSource(*source_), {},
                         [&](absl::Span<const std::byte> piece) {
                           bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
                           return absl::OkStatus();
                         });
    EXPECT_TRUE(written.ok()) << written.status();
    folder_.Write("weights.safetensors", bytes);
    return folder_.Path("weights.safetensors");
  }

  TempFolder folder_;
  std::optional<Checkpoint> source_;
  StateDict state_dict_;
  WeightPlan plan_;
  std::optional<Block> block_;
  WeightsDigest digest_;
};

TEST_F(WeightComparisonTest, EveryFixtureEqualsItselfInItsOwnFormatAndAsSafetensors) {
  int compared = 0;
  for (const char* name :
       {"model_state.pth", "checkpoint.pth", "checkpoint_legacy.pth", "conv_bn_state.pth",
        "conv_bn_channels_last.pth", "entire_model.pth", "tied_weights.pth", "views_shared.pt",
        "noncontiguous.pt", "slice_of_big.pt", "syn_bigendian.pt", "half_state.pth",
        "bf16_state.pth", "many_storages.pt", "ddp_prefixed.pth", "model.safetensors",
        "hf_sharded/pytorch_model.bin.index.json", "named_parameters.pth"}) {
    SCOPED_TRACE(name);
    const std::string path = DataPath(std::string("good/") + name);
    ASSERT_NO_FATAL_FAILURE(Load(path));
    EXPECT_EQ(Compare(path), absl::OkStatus());
    EXPECT_EQ(Compare(WriteSafetensorsFile()), absl::OkStatus());
    ASSERT_TRUE(DigestBlock(plan_, block_->span(), {}).ok());
    EXPECT_EQ(*DigestBlock(plan_, block_->span(), {}), digest_);
    ++compared;
  }
  EXPECT_EQ(compared, 18);
}

TEST_F(WeightComparisonTest, AFlippedBitIsFoundInAFormatWithoutChecksums) {
  ASSERT_NO_FATAL_FAILURE(Load(DataPath("good/model.safetensors")));
  const std::string good = ReadWholeFile(DataPath("good/model.safetensors"));
  const std::size_t data = 8 + 296;
  for (const std::size_t at : {data, data + 20, good.size() - 1}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    folder_.Write("bad.safetensors", bad);
    EXPECT_EQ(Compare(folder_.Path("bad.safetensors")).code(), absl::StatusCode::kDataLoss) << at;
  }
}

TEST_F(WeightComparisonTest, AFlippedBitIsFoundHoweverTheTensorLies) {
  for (const char* name : {"conv_bn_channels_last.pth", "noncontiguous.pt", "views_shared.pt"}) {
    ASSERT_NO_FATAL_FAILURE(Load(DataPath(std::string("good/") + name)));
    const std::string path = WriteSafetensorsFile();
    const std::string good = folder_.Read("weights.safetensors");
    std::uint64_t header = 0;
    std::memcpy(&header, good.data(), sizeof header);
    for (std::size_t at = 8 + header; at < good.size(); at += 1 + (good.size() - at) / 50) {
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ 0x10);
      folder_.Write("weights.safetensors", bad);
      EXPECT_EQ(Compare(path).code(), absl::StatusCode::kDataLoss) << name << " at " << at;
    }
  }
}

TEST_F(WeightComparisonTest, ACutChecksumIsAnError) {
  ASSERT_NO_FATAL_FAILURE(Load(DataPath("good/model_state.pth")));
  EXPECT_EQ(GetErrorCode(Compare(DataPath("hostile/crc_flip_storage.pth"))),
            ErrorCode::kCrcMismatch);
}

TEST_F(WeightComparisonTest, EverythingThatDiffersIsListed) {
  MadeCheckpoint made;
  ASSERT_NO_FATAL_FAILURE(Load(made, made.AddDict({{"same", made.AddFloats({1, 2})},
                                                   {"other", made.AddFloats({3, 4})},
                                                   {"shape", made.AddFloats({5, 6})},
                                                   {"type", made.AddFloats({7})},
                                                   {"gone", made.AddFloats({8})}})));
  MadeCheckpoint changed;
  const std::uint32_t ints = changed.AddStorage<std::int32_t>(DType::kInt32, {7});
  const absl::Status status =
      CompareMade(changed, changed.AddDict({{"same", changed.AddFloats({1, 2})},
                                            {"other", changed.AddFloats({3, 5})},
                                            {"shape", changed.AddFloats({5, 6, 7})},
                                            {"type", changed.AddTensor(ints, {1}, {1})}}));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("other has other elements"), HasSubstr("shape has another dtype"),
                    HasSubstr("type has another dtype"), HasSubstr("gone is missing"),
                    Not(HasSubstr("same"))));
}

TEST_F(WeightComparisonTest, WhatLiesBetweenTheElementsDoesNotMatter) {
  MadeCheckpoint made;
  const std::uint32_t storage = made.AddStorage<float>(DType::kFloat32, {1, 90, 2, 91});
  ASSERT_NO_FATAL_FAILURE(Load(made, made.AddDict({{"w", made.AddTensor(storage, {2}, {2})}})));
  MadeCheckpoint other;
  const std::uint32_t again = other.AddStorage<float>(DType::kFloat32, {1, 70, 2, 71});
  EXPECT_EQ(CompareMade(other, other.AddDict({{"w", other.AddTensor(again, {2}, {2})}})),
            absl::OkStatus());
  EXPECT_EQ(CompareMade(other, other.AddDict({{"w", other.AddFloats({1, 2})}})), absl::OkStatus());
  EXPECT_EQ(CompareMade(other, other.AddDict({{"w", other.AddTensor(again, {2}, {1})}})).code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(WeightComparisonTest, BoolsAreComparedAsTruthValues) {
  MadeCheckpoint made;
  const std::uint32_t storage = made.AddStorage<std::uint8_t>(DType::kBool, {0, 1, 7});
  const NodeId root = made.AddDict({{"b", made.AddTensor(storage, {3}, {1})}});
  ASSERT_NO_FATAL_FAILURE(Load(made, root));
  EXPECT_EQ(CompareMade(made, root), absl::OkStatus());
  MadeCheckpoint other;
  const std::uint32_t zero = other.AddStorage<std::uint8_t>(DType::kBool, {0, 1, 0});
  EXPECT_EQ(CompareMade(other, other.AddDict({{"b", other.AddTensor(zero, {3}, {1})}})).code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(WeightComparisonTest, ItEndsWithWhatIsSaidBetweenChunks) {
  ASSERT_NO_FATAL_FAILURE(Load(DataPath("good/model_state.pth")));
  EXPECT_EQ(CompareWithBlock(*source_, state_dict_, plan_, block_->span(),
                             [] { return absl::CancelledError("enough"); }),
            absl::CancelledError("enough"));
}

}  // namespace
}  // namespace relight::storage
