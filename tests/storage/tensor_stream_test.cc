#include "storage/tensor_stream.h"

#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/element_values.h"
#include "tests/storage/made_checkpoint.h"

namespace relight::storage {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// A source of one storage, which it gives in pieces, or has in memory.
class ChoppySource final : public StorageSource {
 public:
  template <typename T>
  ChoppySource(DType dtype, const std::vector<T>& values) : dtype_(dtype) {
    bytes_.resize(values.size() * sizeof(T));
    if (!bytes_.empty()) std::memcpy(bytes_.data(), values.data(), bytes_.size());
  }
  absl::Status Stream(std::uint32_t, const ByteSink& sink) const override {
    ++streams;
    absl::Span<const std::byte> left(bytes_);
    left.remove_suffix(withheld_bytes);
    while (!left.empty()) {
      const auto piece = left.first(std::min(left.size(), piece_bytes));
      left.remove_prefix(piece.size());
      const absl::Status status = sink(piece);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  std::uint64_t SizeBytes(std::uint32_t) const override { return bytes_.size(); }
  DType ElementType(std::uint32_t) const override { return dtype_; }
  absl::Span<const std::byte> InMemory(std::uint32_t) const override {
    return in_memory ? absl::Span<const std::byte>(bytes_) : absl::Span<const std::byte>();
  }

  std::size_t piece_bytes = 7;  // Cuts elements.
  std::size_t withheld_bytes = 0;
  bool in_memory = false;
  mutable int streams = 0;

 private:
  const DType dtype_;
  std::vector<std::byte> bytes_;
};

TensorInfo View(DType dtype, std::vector<std::int64_t> shape, std::vector<std::int64_t> stride,
                std::int64_t offset = 0) {
  TensorInfo info;
  info.dtype = dtype;
  info.shape = std::move(shape);
  info.stride = std::move(stride);
  info.offset_elements = offset;
  return info;
}

template <typename T>
std::vector<T> Values(const TensorInfo& tensor, const ChoppySource& source) {
  std::string bytes;
  const absl::Status status = StreamDense(tensor, source, [&](absl::Span<const std::byte> piece) {
    bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

TEST(StreamDenseTest, TakesARunOfItsStorage) {
  const ChoppySource source(DType::kFloat32, std::vector<float>{0, 1, 2, 3, 4, 5});
  EXPECT_THAT(Values<float>(View(DType::kFloat32, {3}, {1}, 2), source), ElementsAre(2, 3, 4));
}

TEST(StreamDenseTest, AViewIsTheSameFromMemoryAndInPasses) {
  ChoppySource source(DType::kFloat32, std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7});
  const TensorInfo transposed = View(DType::kFloat32, {3, 2}, {1, 3}, 1);
  EXPECT_THAT(Values<float>(transposed, source), ElementsAre(1, 4, 2, 5, 3, 6));
  source.in_memory = true;
  EXPECT_THAT(Values<float>(transposed, source), ElementsAre(1, 4, 2, 5, 3, 6));
  EXPECT_EQ(source.streams, 1);
}

TEST(StreamDenseTest, AnExpandedElementIsRepeated) {
  const ChoppySource source(DType::kFloat64, std::vector<double>{1, 2, 3});
  EXPECT_THAT(Values<double>(View(DType::kFloat64, {2, 2}, {0, 2}), source),
              ElementsAre(1, 3, 1, 3));
}

TEST(StreamDenseTest, ALargeViewComesInSeveralPasses) {
  constexpr std::int64_t kRows = 3000;
  constexpr std::int64_t kColumns = 2000;  // 24 MB of floats.
  std::vector<float> values(kRows * kColumns);
  std::iota(values.begin(), values.end(), 0.0F);
  ChoppySource source(DType::kFloat32, values);
  source.piece_bytes = 1'000'003;
  const auto read = Values<float>(View(DType::kFloat32, {kColumns, kRows}, {1, kColumns}), source);
  EXPECT_EQ(source.streams, 2);
  ASSERT_THAT(read, SizeIs(values.size()));
  for (std::int64_t i = 0; i < kColumns; ++i) {
    for (std::int64_t j = 0; j < kRows; ++j) {
      ASSERT_EQ(read[static_cast<std::size_t>(i * kRows + j)],
                values[static_cast<std::size_t>(j * kColumns + i)]);
    }
  }
}

TEST(StreamDenseTest, ConjugationAndNegationAreCarriedOutHoweverTheBytesCome) {
  for (const std::size_t piece : {1U, 3U, 8U, 64U}) {
    for (const bool strided : {false, true}) {
      for (const bool in_memory : {false, true}) {
        ChoppySource source(DType::kComplex64, std::vector<float>{1, 2, 3, 4, 5, 6});
        source.piece_bytes = piece;
        source.in_memory = in_memory;
        TensorInfo tensor = View(DType::kComplex64, {2}, {strided ? 2 : 1}, strided ? 0 : 1);
        tensor.conj = true;
        const float first = strided ? 1 : 3;
        EXPECT_THAT(Values<float>(tensor, source), ElementsAre(first, -first - 1, 5, -6));
        tensor.neg = true;
        EXPECT_THAT(Values<float>(tensor, source), ElementsAre(-first, first + 1, -5, 6));
      }
    }
  }
}

TEST(StreamDenseTest, EveryTypeThatPyTorchNegatesLazilyIsNegated) {
  for (const DType dtype : {DType::kFloat8E4M3FN, DType::kFloat8E5M2, DType::kFloat16,
                            DType::kBFloat16, DType::kFloat32, DType::kFloat64, DType::kComplex32,
                            DType::kComplex64, DType::kComplex128}) {
    ASSERT_TRUE(CanNegate(dtype));
    const ChoppySource source(dtype, std::vector<std::uint8_t>(ItemSize(dtype), 0));
    TensorInfo tensor = View(dtype, {1}, {1});
    tensor.neg = true;
    // Both parts of a complex number; little-endian, so the sign is in the last byte.
    const std::size_t component = ItemSize(dtype) / (IsComplex(dtype) ? 2 : 1);
    std::vector<std::uint8_t> expected(ItemSize(dtype), 0);
    for (std::size_t i = component - 1; i < expected.size(); i += component) expected[i] = 0x80;
    EXPECT_EQ(Values<std::uint8_t>(tensor, source), expected) << Name(dtype);
    if (!IsComplex(dtype)) continue;
    tensor.neg = false;
    tensor.conj = true;
    expected[component - 1] = 0;
    EXPECT_EQ(Values<std::uint8_t>(tensor, source), expected) << Name(dtype);
  }
  EXPECT_FALSE(CanNegate(DType::kInt32));
  EXPECT_FALSE(CanNegate(DType::kBool));
}

TEST(StreamDenseTest, BoolsBecomeZeroAndOne) {
  const ChoppySource source(DType::kBool, std::vector<std::uint8_t>{0, 1, 2, 255});
  EXPECT_THAT(Values<std::uint8_t>(View(DType::kBool, {4}, {1}), source), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(Values<std::uint8_t>(View(DType::kBool, {2}, {2}), source), ElementsAre(0, 1));
}

TEST(StreamDenseTest, NothingIsReadOfATensorWithoutElements) {
  const ChoppySource source(DType::kFloat32, std::vector<float>{});
  EXPECT_THAT(Values<float>(View(DType::kFloat32, {0, 3}, {3, 1}, 9), source), SizeIs(0));
  EXPECT_EQ(source.streams, 0);
}

TEST(StreamDenseTest, ASourceThatGivesTooLittleIsDataLoss) {
  ChoppySource source(DType::kFloat32, std::vector<float>{1, 2, 3, 4});
  source.withheld_bytes = 1;
  const auto ignore = [](absl::Span<const std::byte>) { return absl::OkStatus(); };
  for (const TensorInfo& tensor :
       {View(DType::kFloat32, {2}, {1}), View(DType::kFloat32, {2, 2}, {1, 2})}) {
    const absl::Status status = StreamDense(tensor, source, ignore);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("gave 15 bytes, not 16"));
  }
}

TEST(StreamDenseTest, ATensorBeyondItsStorageIsDataLoss) {
  const ChoppySource source(DType::kFloat32, std::vector<float>{1, 2});
  const auto ignore = [](absl::Span<const std::byte>) { return absl::OkStatus(); };
  EXPECT_EQ(StreamDense(View(DType::kFloat32, {3}, {1}), source, ignore).code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace relight::storage
