#include "storage/finite_scan.h"

#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace relight::storage {
namespace {

// The bits of three values of a type's real numbers, and how many of them an element has.
struct Bits {
  DType dtype;
  std::size_t bytes;
  std::uint64_t largest;  // Finite.
  std::uint64_t infinity;
  std::uint64_t nan;
  std::size_t parts = 1;
};

class FiniteScanTest : public testing::TestWithParam<Bits> {
 protected:
  // Enough for several rounds of the loop over vectors, and a rest.
  static constexpr std::size_t kElements = 75;

  std::string Finite() const {
    std::string values;
    for (std::size_t i = 0; i < kElements * type_.parts; ++i) Append(values, type_.largest);
    return values;
  }
  void Append(std::string& values, std::uint64_t bits) const {
    values.append(reinterpret_cast<const char*>(&bits), type_.bytes);
  }
  void Set(std::string& values, std::size_t part, std::uint64_t bits) const {
    std::memcpy(values.data() + part * type_.bytes, &bits, type_.bytes);
  }
  // In two pieces, of which the first has `first` elements.
  NonFinite Scan(const std::string& values, std::size_t first = 0) const {
    FiniteScan scan(type_.dtype);
    const auto* const bytes = reinterpret_cast<const std::byte*>(values.data());
    scan.Add(bytes, first);
    scan.Add(bytes + first * type_.bytes * type_.parts, kElements - first);
    return scan.ForTensor(3);
  }
  std::uint64_t Negative(std::uint64_t bits) const {
    return bits | std::uint64_t{1} << (type_.bytes * 8 - 1);
  }

  const Bits type_ = GetParam();
};

TEST_P(FiniteScanTest, TheLargestNumbersAreFinite) {
  std::string values = Finite();
  Set(values, 1, Negative(type_.largest));
  Set(values, 2, 0);
  const NonFinite found = Scan(values);
  EXPECT_EQ(found.tensor, 3u);
  EXPECT_EQ(found.nans + found.infinities, 0u);
}

TEST_P(FiniteScanTest, FindsOneNanAnywhere) {
  for (std::size_t part = 0; part < kElements * type_.parts; ++part) {
    std::string values = Finite();
    Set(values, part, part % 2 == 0 ? type_.nan : Negative(type_.nan));
    const NonFinite found = Scan(values, part % kElements);
    EXPECT_EQ(found.nans, 1u) << part;
    EXPECT_EQ(found.first_nan, part / type_.parts) << part;
    EXPECT_EQ(found.infinities, 0u) << part;
  }
}

TEST_P(FiniteScanTest, FindsOneInfinityAnywhere) {
  for (std::size_t part = 0; part < kElements * type_.parts; ++part) {
    std::string values = Finite();
    Set(values, part, part % 2 == 0 ? type_.infinity : Negative(type_.infinity));
    const NonFinite found = Scan(values, kElements - 1 - part % kElements);
    EXPECT_EQ(found.infinities, 1u) << part;
    EXPECT_EQ(found.first_infinity, part / type_.parts) << part;
    EXPECT_EQ(found.nans, 0u) << part;
  }
}

TEST_P(FiniteScanTest, CountsAllAndKeepsTheFirst) {
  std::string values = Finite();
  for (const std::size_t element : {5U, 30U, 31U, 74U}) {
    Set(values, element * type_.parts, type_.nan);
  }
  Set(values, 40 * type_.parts, type_.infinity);
  const NonFinite found = Scan(values, 20);
  EXPECT_EQ(found.nans, 4u);
  EXPECT_EQ(found.first_nan, 5u);
  EXPECT_EQ(found.infinities, 1u);
  EXPECT_EQ(found.first_infinity, 40u);
}

INSTANTIATE_TEST_SUITE_P(
    Types, FiniteScanTest,
    testing::Values(
        Bits{DType::kFloat16, 2, 0x7BFF, 0x7C00, 0x7C01},
        Bits{DType::kBFloat16, 2, 0x7F7F, 0x7F80, 0x7FC0},
        Bits{DType::kFloat32, 4, 0x7F7FFFFF, 0x7F800000, 0x7F800001},
        Bits{DType::kFloat64, 8, 0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000, 0x7FF0000000000001},
        Bits{DType::kComplex64, 4, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 2},
        Bits{DType::kComplex128, 8, 0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000, 0x7FF8000000000000, 2}),
    [](const auto& type) { return std::string(Name(type.param.dtype)); });

TEST(FiniteScanOfIntegersTest, FindsNothing) {
  const std::vector<std::uint32_t> values(40, 0x7F800001);
  FiniteScan scan(DType::kInt32);
  scan.Add(reinterpret_cast<const std::byte*>(values.data()), values.size());
  const NonFinite found = scan.ForTensor(0);
  EXPECT_EQ(found.nans + found.infinities, 0u);
}

}  // namespace
}  // namespace relight::storage
