#include "storage/weights.h"

#include <cmath>
#include <limits>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/error.h"
#include "tests/storage/fixtures.h"
#include "tests/storage/made_checkpoint.h"

namespace relight::storage {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

template <typename T>
std::vector<T> Values(const WeightTensor& tensor, absl::Span<const std::byte> block,
                      std::size_t count) {
  std::vector<T> values(count);
  std::memcpy(values.data(), block.data() + tensor.offset_bytes, count * sizeof(T));
  return values;
}

class WeightsTest : public testing::Test {
 protected:
  // Opens the made checkpoint, finds its state dict and plans all of it.
  void Plan(NodeId root) {
    absl::StatusOr<Checkpoint> opened = made_.WriteAndOpen(root, folder_.Path("made.pt"));
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_.emplace(*std::move(opened));
    PlanOpened();
  }
  void OpenFixture(const std::string& name) {
    absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath(name));
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_.emplace(*std::move(opened));
    PlanOpened();
  }
  void PlanOpened() {
    const absl::StatusOr<StateDict> found = FindStateDict(*checkpoint_);
    ASSERT_TRUE(found.ok()) << found.status();
    absl::StatusOr<WeightPlan> plan = PlanWeights(*checkpoint_, *found, keys_);
    ASSERT_TRUE(plan.ok()) << plan.status();
    plan_ = *std::move(plan);
    block_.emplace(plan_.total_bytes);
  }
  absl::StatusOr<ExaminedWeights> Load(const LoadHooks& hooks = {}) {
    return LoadWeights(*checkpoint_, plan_, block_->span(), hooks);
  }
  std::string Digest(const std::string& fixture) {
    OpenFixture(fixture);
    const absl::StatusOr<ExaminedWeights> loaded = Load();
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded->digest.ToHex();
  }
  // Loads, and refuses what is not finite.
  absl::Status CheckFinite(const std::function<bool(const std::string& key)>& allow_infinite) {
    const absl::StatusOr<ExaminedWeights> loaded = Load();
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    if (!loaded.ok()) return absl::OkStatus();
    return RefuseNonFinite(plan_, loaded->non_finite, allow_infinite);
  }

  TempFolder folder_;
  MadeCheckpoint made_;
  std::vector<std::string> keys_;
  std::optional<Checkpoint> checkpoint_;
  WeightPlan plan_;
  std::optional<Block> block_;
};

TEST_F(WeightsTest, TiedTensorsShareAPiece) {
  const NodeId shared = made_.AddFloats({1, 2, 3});
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"a", shared}, {"b", shared}})));
  ASSERT_EQ(plan_.tensors.size(), 2u);
  EXPECT_EQ(plan_.pieces.size(), 1u);
  EXPECT_EQ(plan_.tensors[0].offset_bytes, plan_.tensors[1].offset_bytes);
  ASSERT_TRUE(Load().ok());
  EXPECT_THAT(Values<float>(plan_.tensors[1], block_->span(), 3), ElementsAre(1, 2, 3));
}

TEST_F(WeightsTest, PiecesAreAligned) {
  ASSERT_NO_FATAL_FAILURE(
      Plan(made_.AddDict({{"a", made_.AddFloats({1})}, {"b", made_.AddFloats({2})}})));
  for (const WeightPiece& piece : plan_.pieces)
    EXPECT_EQ(piece.offset_bytes % kWeightAlignment, 0u);
  EXPECT_EQ(plan_.total_bytes, 2 * kWeightAlignment);
}

TEST_F(WeightsTest, OnlyWantedKeysArePlanned) {
  keys_ = {"b"};
  ASSERT_NO_FATAL_FAILURE(
      Plan(made_.AddDict({{"a", made_.AddFloats({1})}, {"b", made_.AddFloats({2})}})));
  ASSERT_EQ(plan_.tensors.size(), 1u);
  EXPECT_EQ(plan_.tensors[0].key, "b");
  EXPECT_EQ(plan_.pieces.size(), 1u);
}

TEST_F(WeightsTest, ASmallSliceOfALargeStorageIsCompacted) {
  std::vector<float> large(100'000);
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<float>(i);
  const std::uint32_t storage = made_.AddStorage(DType::kFloat32, large);
  // The whole is in the file too, for else our writer would compact the slice itself.
  const NodeId whole = made_.AddTensor(storage, {100'000}, {1});
  const NodeId column = made_.AddTensor(storage, {3}, {1000}, 5);
  keys_ = {"w"};
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"all", whole}, {"w", column}})));
  ASSERT_EQ(plan_.pieces.size(), 1u);
  EXPECT_FALSE(plan_.pieces[0].verbatim);
  EXPECT_EQ(plan_.total_bytes, kWeightAlignment);
  ASSERT_TRUE(Load().ok());
  EXPECT_THAT(plan_.tensors[0].stride, ElementsAre(1));
  EXPECT_THAT(Values<float>(plan_.tensors[0], block_->span(), 3), ElementsAre(5, 1005, 2005));
}

TEST_F(WeightsTest, ViewsOfMostOfAStorageKeepIt) {
  const std::uint32_t storage =
      made_.AddStorage(DType::kFloat32, std::vector<float>{1, 2, 3, 4, 5, 6});
  const NodeId transposed = made_.AddTensor(storage, {3, 2}, {1, 3});
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"w", transposed}})));
  EXPECT_TRUE(plan_.pieces[0].verbatim);
  EXPECT_THAT(plan_.tensors[0].stride, ElementsAre(1, 3));
}

TEST_F(WeightsTest, BoolsBecomeZeroOrOne) {
  const std::uint32_t storage =
      made_.AddStorage(DType::kBool, std::vector<std::uint8_t>{0, 1, 2, 255});
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"mask", made_.AddTensor(storage, {4}, {1})}})));
  ASSERT_TRUE(Load().ok());
  EXPECT_THAT(Values<std::uint8_t>(plan_.tensors[0], block_->span(), 4), ElementsAre(0, 1, 1, 1));
}

TEST_F(WeightsTest, LazyConjugationAndNegationAreResolved) {
  ASSERT_NO_FATAL_FAILURE(OpenFixture("good/syn_conj_neg.pt"));
  ASSERT_TRUE(Load().ok());
  for (const WeightPiece& piece : plan_.pieces) EXPECT_FALSE(piece.verbatim);
}

TEST_F(WeightsTest, EqualWeightsHaveEqualDigestsWhateverTheirLayout) {
  const std::string plain = Digest("good/conv_bn_state.pth");
  EXPECT_EQ(plain.size(), 32u);
  EXPECT_EQ(Digest("good/conv_bn_channels_last.pth"), plain);
  EXPECT_NE(Digest("good/model_state.pth"), plain);
}

TEST_F(WeightsTest, EqualWeightsHaveEqualDigestsWhateverTheirFormat) {
  EXPECT_EQ(Digest("good/checkpoint.pth"), Digest("good/checkpoint_legacy.pth"));
  EXPECT_EQ(Digest("good/checkpoint.pth"), Digest("good/checkpoint_proto5.pth"));
  // Which names the tensors in another order.
  EXPECT_EQ(Digest("good/model.safetensors"), Digest("good/model_state.pth"));
}

TEST_F(WeightsTest, DigestCoversKeysDtypesShapesAndValues) {
  const auto digest = [&](const std::string& key, std::vector<float> values,
                          std::vector<std::int64_t> shape, std::vector<std::int64_t> stride) {
    made_ = MadeCheckpoint();
    const std::uint32_t storage = made_.AddStorage(DType::kFloat32, values);
    Plan(made_.AddDict({{key, made_.AddTensor(storage, std::move(shape), std::move(stride))}}));
    return Load()->digest;
  };
  const WeightsDigest base = digest("w", {1, 2, 3, 4}, {4}, {1});
  EXPECT_EQ(digest("w", {1, 2, 3, 4}, {4}, {1}), base);
  EXPECT_NE(digest("v", {1, 2, 3, 4}, {4}, {1}), base);
  EXPECT_NE(digest("w", {1, 2, 3, 5}, {4}, {1}), base);
  EXPECT_NE(digest("w", {1, 2, 3, 4}, {2, 2}, {2, 1}), base);
  EXPECT_EQ(digest("w", {1, 3, 2, 4}, {2, 2}, {1, 2}), digest("w", {1, 2, 3, 4}, {2, 2}, {2, 1}));
}

TEST_F(WeightsTest, TheOrderOfTheKeysIsNotPartOfTheDigest) {
  const NodeId a = made_.AddFloats({1, 2});
  const NodeId b = made_.AddFloats({3});
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"a", a}, {"b", b}})));
  const WeightsDigest forwards = Load()->digest;
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"b", b}, {"a", a}})));
  EXPECT_EQ(Load()->digest, forwards);
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"b", a}, {"a", b}})));
  EXPECT_NE(Load()->digest, forwards);
}

TEST_F(WeightsTest, ThreadsGiveTheSameResult) {
  ASSERT_NO_FATAL_FAILURE(OpenFixture("good/many_storages.pt"));
  const absl::StatusOr<ExaminedWeights> serial = Load();
  ASSERT_TRUE(serial.ok());
  LoadHooks hooks;
  hooks.parallel_for = [](std::size_t n, const std::function<void(std::size_t)>& body) {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < n; ++i) threads.emplace_back([&body, i] { body(i); });
    for (std::thread& thread : threads) thread.join();
  };
  const absl::StatusOr<ExaminedWeights> parallel = Load(hooks);
  ASSERT_TRUE(parallel.ok());
  EXPECT_EQ(parallel->digest, serial->digest);
  EXPECT_FALSE(parallel->crc_absent);
}

TEST_F(WeightsTest, BetweenChunksCanEndALoad) {
  ASSERT_NO_FATAL_FAILURE(OpenFixture("good/model_state.pth"));
  LoadHooks hooks;
  hooks.between_chunks = [] { return absl::CancelledError("stop"); };
  EXPECT_EQ(Load(hooks).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(WeightsTest, AbsentCrcsAreReported) {
  ASSERT_NO_FATAL_FAILURE(OpenFixture("good/syn_no_crc.pt"));
  EXPECT_TRUE(checkpoint_->summary().crc_absent);
  const absl::StatusOr<ExaminedWeights> loaded = Load();
  ASSERT_TRUE(loaded.ok());
  EXPECT_TRUE(loaded->crc_absent);
}

TEST_F(WeightsTest, AFileOverwrittenInPlaceIsAnError) {
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"w", made_.AddFloats({1, 2, 3})}})));
  folder_.Write("made.pt", "something else");
  EXPECT_EQ(GetErrorCode(Load().status()), ErrorCode::kIoError);
}

TEST_F(WeightsTest, TypesThatCannotBeServedAreAllNamed) {
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath("good/mixed.safetensors"));
  ASSERT_TRUE(opened.ok()) << opened.status();
  const absl::StatusOr<StateDict> found = FindStateDict(*opened);
  ASSERT_TRUE(found.ok());
  const absl::Status status = PlanWeights(*opened, *found, {}).status();
  EXPECT_EQ(GetErrorCode(status), ErrorCode::kUnsupportedDType);
  EXPECT_THAT(std::string(status.message()), HasSubstr("u16 has dtype uint16"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("f8 has dtype float8_e4m3fn"));
  const std::vector<std::string> fine = {"i64", "b", "scalar", "empty"};
  EXPECT_TRUE(PlanWeights(*opened, *found, fine).ok());
}

TEST_F(WeightsTest, LayoutsThatCannotBeServedAreNamed) {
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath("good/exotic_layouts.pt"));
  ASSERT_TRUE(opened.ok()) << opened.status();
  const absl::StatusOr<StateDict> found = FindStateDict(*opened);
  ASSERT_TRUE(found.ok());
  const absl::Status status = PlanWeights(*opened, *found, {}).status();
  EXPECT_EQ(GetErrorCode(status), ErrorCode::kUnsupportedLayout);
  EXPECT_THAT(std::string(status.message()), HasSubstr("coo is sparse_coo"));
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST_F(WeightsTest, CheckFiniteNamesTensorsFirstIndicesAndCounts) {
  std::vector<float> values(10'000, 1.0F);
  values[5003] = kNan;
  values[9000] = kNan;
  values[7] = kInfinity;
  const std::uint32_t storage = made_.AddStorage(DType::kFloat32, values);
  const NodeId matrix = made_.AddTensor(storage, {100, 100}, {100, 1});
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"fine", made_.AddFloats({1})}, {"w", matrix}})));
  const absl::Status status = CheckFinite({});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("w: 2 NaN, the first at [50, 3]"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 infinite, the first at [0, 7]"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("fine")));
}

TEST_F(WeightsTest, CheckFiniteAllowsInfinityWhereAsked) {
  ASSERT_NO_FATAL_FAILURE(
      Plan(made_.AddDict({{"mask", made_.AddFloats({-kInfinity})}, {"w", made_.AddFloats({1})}})));
  const auto allow_mask = [](const std::string& key) { return key == "mask"; };
  EXPECT_TRUE(CheckFinite(allow_mask).ok());
  EXPECT_FALSE(CheckFinite({}).ok());
}

TEST_F(WeightsTest, CheckFiniteNeverAllowsNan) {
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"w", made_.AddFloats({kNan})}})));
  EXPECT_FALSE(CheckFinite([](const std::string&) { return true; }).ok());
}

TEST_F(WeightsTest, CheckFiniteSeesOnlyTheElementsOfAView) {
  const std::uint32_t storage =
      made_.AddStorage(DType::kFloat32, std::vector<float>{1, kNan, 2, kNan});
  const NodeId evens = made_.AddTensor(storage, {2}, {2});
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"w", evens}})));
  EXPECT_TRUE(CheckFinite({}).ok());
}

// Whichever way a tensor lies in its storage, and however far in: they are read in chunks.
TEST_F(WeightsTest, CheckFiniteLooksAtAllOfLargeTensors) {
  constexpr std::int64_t kRows = 500;
  constexpr std::int64_t kColumns = 400;
  std::vector<float> values(kRows * kColumns, 1.0F);
  values[(kRows - 1) * kColumns + 7] = kNan;
  const std::uint32_t storage = made_.AddStorage(DType::kFloat32, values);
  const std::uint32_t shared = made_.AddStorage(DType::kFloat32, values);
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict(
      {{"whole", made_.AddTensor(storage, {kRows, kColumns}, {kColumns, 1})},
       {"turned", made_.AddTensor(shared, {kColumns, kRows}, {1, kColumns})},
       {"end", made_.AddTensor(shared, {kRows - 1, kColumns}, {kColumns, 1}, kColumns)}})));
  const absl::Status status = CheckFinite({});
  EXPECT_THAT(std::string(status.message()), HasSubstr("whole: 1 NaN, the first at [499, 7]"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("turned: 1 NaN, the first at [7, 499]"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("end: 1 NaN, the first at [498, 7]"));
}

TEST_F(WeightsTest, CheckFiniteKnowsEveryFloatingPointType) {
  const auto check = [&](std::uint32_t storage) {
    Plan(made_.AddDict({{"w", made_.AddTensor(storage, {1}, {1})}}));
    return CheckFinite({}).ok();
  };
  EXPECT_FALSE(check(made_.AddStorage(DType::kFloat16, std::vector<std::uint16_t>{0x7C01})));
  EXPECT_FALSE(check(made_.AddStorage(DType::kFloat16, std::vector<std::uint16_t>{0xFC00})));
  EXPECT_TRUE(check(made_.AddStorage(DType::kFloat16, std::vector<std::uint16_t>{0x7BFF})));
  EXPECT_FALSE(check(made_.AddStorage(DType::kBFloat16, std::vector<std::uint16_t>{0x7F80})));
  EXPECT_TRUE(check(made_.AddStorage(DType::kBFloat16, std::vector<std::uint16_t>{0x7F7F})));
  EXPECT_FALSE(check(made_.AddStorage(DType::kFloat64, std::vector<double>{std::nan("")})));
  EXPECT_FALSE(check(made_.AddStorage(DType::kComplex64, std::vector<float>{1, kInfinity})));
  EXPECT_TRUE(check(made_.AddStorage(DType::kInt32, std::vector<std::int32_t>{0x7F800000})));
}

// Gives memory, counts it, and refuses more than `limit`.
struct CountedScratch {
  std::size_t limit = std::size_t{64} << 20;
  std::size_t calls = 0;

  ExamineTools Tools() {
    return {[this](std::size_t size) -> absl::StatusOr<std::shared_ptr<std::byte>> {
      ++calls;
      if (size > limit) return absl::ResourceExhaustedError("too much");
      const auto block = std::make_shared<Block>(size);
      return std::shared_ptr<std::byte>(block, block->span().data());
    }};
  }
};

TEST_F(WeightsTest, ExaminingFindsWhatLoadingFinds) {
  for (const char* fixture :
       {"good/model_state.pth", "good/tied_weights.pth", "good/noncontiguous.pt",
        "good/views_shared.pt", "good/slice_of_big.pt", "good/dtypes.pt", "good/shapes.pt",
        "good/special_values.pt", "good/syn_conj_neg.pt", "good/syn_bigendian.pt",
        "good/model.safetensors", "good/model_state_legacy.pth", "good/syn_no_crc.pt",
        "good/hf_sharded/pytorch_model.bin.index.json", "good/conv_bn_channels_last.pth"}) {
    SCOPED_TRACE(fixture);
    ASSERT_NO_FATAL_FAILURE(OpenFixture(fixture));
    const absl::StatusOr<ExaminedWeights> loaded = Load();
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    CountedScratch scratch;
    const auto examined = ExamineWeights(*checkpoint_, plan_, scratch.Tools());
    ASSERT_TRUE(examined.ok()) << examined.status();
    EXPECT_EQ(examined->digest.ToHex(), loaded->digest.ToHex());
    EXPECT_EQ(examined->crc_absent, loaded->crc_absent);
    const std::vector<NonFinite>& expected = loaded->non_finite;
    ASSERT_EQ(examined->non_finite.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(examined->non_finite[i].tensor, expected[i].tensor);
      EXPECT_EQ(examined->non_finite[i].nans, expected[i].nans);
      EXPECT_EQ(examined->non_finite[i].first_nan, expected[i].first_nan);
      EXPECT_EQ(examined->non_finite[i].infinities, expected[i].infinities);
      EXPECT_EQ(examined->non_finite[i].first_infinity, expected[i].first_infinity);
    }
  }
}

TEST_F(WeightsTest, ExaminingTensorsWithStoragesOfTheirOwnNeedsNoMemory) {
  std::vector<float> large(1'000'000, 1.0F);
  large[999'999] = kNan;
  const NodeId tensor = made_.AddFloats(large);
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"a", tensor}, {"tied", tensor}})));
  CountedScratch scratch;
  const auto examined = ExamineWeights(*checkpoint_, plan_, scratch.Tools());
  ASSERT_TRUE(examined.ok()) << examined.status();
  EXPECT_EQ(scratch.calls, 0u);
  ASSERT_EQ(examined->non_finite.size(), 2u);
  EXPECT_EQ(examined->non_finite[1].tensor, 1u);
  EXPECT_EQ(examined->non_finite[1].first_nan, 999'999u);
}

TEST_F(WeightsTest, ExaminingViewsIsBoundedByTheScratchMemory) {
  const std::uint32_t storage = made_.AddStorage(DType::kFloat32, std::vector<float>(10'000, 1.0F));
  const NodeId transposed = made_.AddTensor(storage, {100, 100}, {1, 100});
  ASSERT_NO_FATAL_FAILURE(Plan(made_.AddDict({{"w", transposed}})));
  CountedScratch scratch{.limit = 10'000};
  EXPECT_EQ(ExamineWeights(*checkpoint_, plan_, scratch.Tools()).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(WeightsTest, ExaminingSeesDamage) {
  const absl::StatusOr<Checkpoint> opened =
      Checkpoint::Open(DataPath("hostile/crc_flip_storage.pth"));
  ASSERT_TRUE(opened.ok()) << opened.status();
  const absl::StatusOr<StateDict> found = FindStateDict(*opened);
  ASSERT_TRUE(found.ok()) << found.status();
  const absl::StatusOr<WeightPlan> plan = PlanWeights(*opened, *found, {});
  ASSERT_TRUE(plan.ok()) << plan.status();
  CountedScratch scratch;
  EXPECT_EQ(GetErrorCode(ExamineWeights(*opened, *plan, scratch.Tools()).status()),
            ErrorCode::kCrcMismatch);
}

TEST_F(WeightsTest, ExaminingTellsHowFarItIsAndMayBeStopped) {
  OpenFixture("good/views_shared.pt");
  CountedScratch scratch;
  ExamineTools tools = scratch.Tools();
  std::uint64_t passed = 0;
  tools.between_chunks = [&](std::uint64_t bytes) {
    passed += bytes;
    return absl::OkStatus();
  };
  ASSERT_TRUE(ExamineWeights(*checkpoint_, plan_, tools).ok());
  std::uint64_t stored = 0;
  for (const StorageInfo& storage : checkpoint_->storages()) stored += storage.size_bytes;
  EXPECT_EQ(passed, stored);
  tools.between_chunks = [](std::uint64_t) { return absl::CancelledError("enough"); };
  EXPECT_EQ(ExamineWeights(*checkpoint_, plan_, tools).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace relight::storage
