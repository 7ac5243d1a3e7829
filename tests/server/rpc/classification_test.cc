#include "server/rpc/classification.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "tests/server/rpc/fake_core.h"

namespace relight::rpc {
namespace {

using testing::ElementsAre;

template <typename T>
serving::OutputTensor Tensor(DType dtype, std::vector<std::int64_t> shape,
                             const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return MakeOutput("y", dtype, std::move(shape), bytes);
}

TEST(ClassificationTest, EachRowIsRankedApart) {
  const auto classes =
      TopClasses(Tensor<float>(DType::kFloat32, {2, 3}, {1, 3, 2, 9, 8, 7}), 2, true);
  ASSERT_TRUE(classes.ok());
  EXPECT_THAT(classes->shape, ElementsAre(2, 2));
  EXPECT_THAT(classes->elements,
              ElementsAre("3.000000:1", "2.000000:2", "9.000000:0", "8.000000:1"));
}

TEST(ClassificationTest, WithoutBatchesAllElementsAreRankedTogether) {
  const auto classes =
      TopClasses(Tensor<std::int64_t>(DType::kInt64, {2, 2}, {1, 4, 3, 2}), 3, false);
  ASSERT_TRUE(classes.ok());
  EXPECT_THAT(classes->shape, ElementsAre(3));
  EXPECT_THAT(classes->elements, ElementsAre("4:1", "3:2", "2:3"));
}

TEST(ClassificationTest, FewerElementsThanAskedForAreAllSent) {
  const auto classes = TopClasses(Tensor<std::uint8_t>(DType::kUInt8, {1, 2}, {5, 6}), 10, true);
  ASSERT_TRUE(classes.ok());
  EXPECT_THAT(classes->shape, ElementsAre(1, 2));
  EXPECT_THAT(classes->elements, ElementsAre("6:1", "5:0"));
}

TEST(ClassificationTest, NanRanksLastAndEqualValuesKeepTheirOrder) {
  const float nan = std::nanf("");
  const auto classes =
      TopClasses(Tensor<float>(DType::kFloat32, {5}, {nan, 1, INFINITY, nan, 1}), 5, false);
  ASSERT_TRUE(classes.ok());
  EXPECT_THAT(classes->elements,
              ElementsAre("inf:2", "1.000000:1", "1.000000:4", testing::HasSubstr("nan:0"),
                          testing::HasSubstr("nan:3")));
}

TEST(ClassificationTest, TheLargestOfALongRowAreFoundInOrder) {
  std::vector<std::int32_t> values(100'000);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<std::int32_t>(i * 7919 % 100'003 / 2);  // Most of them twice.
  }
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&values](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  const auto classes =
      TopClasses(Tensor(DType::kInt32, {100'000}, values), kMaxClasses, /*batched=*/false);
  ASSERT_TRUE(classes.ok());
  ASSERT_EQ(classes->elements.size(), kMaxClasses);
  for (std::size_t i = 0; i < kMaxClasses; ++i) {
    EXPECT_EQ(classes->elements[i],
              std::to_string(values[order[i]]) + ":" + std::to_string(order[i]));
  }
}

TEST(ClassificationTest, HalfPrecisionIsWidened) {
  // 1.5, -2, the smallest subnormal, infinity.
  const auto half = TopClasses(
      Tensor<std::uint16_t>(DType::kFloat16, {4}, {0x3e00, 0xc000, 0x0001, 0x7c00}), 4, false);
  ASSERT_TRUE(half.ok());
  EXPECT_THAT(half->elements, ElementsAre("inf:3", "1.500000:0", "0.000000:2", "-2.000000:1"));
  const auto bfloat =
      TopClasses(Tensor<std::uint16_t>(DType::kBFloat16, {2}, {0x3fc0, 0xc000}), 2, false);
  ASSERT_TRUE(bfloat.ok());
  EXPECT_THAT(bfloat->elements, ElementsAre("1.500000:0", "-2.000000:1"));
}

TEST(ClassificationTest, NoRowsGiveNoClasses) {
  const auto classes = TopClasses(Tensor<float>(DType::kFloat32, {0, 3}, {}), 2, true);
  ASSERT_TRUE(classes.ok());
  EXPECT_THAT(classes->shape, ElementsAre(0, 0));
  EXPECT_TRUE(classes->elements.empty());
}

TEST(ClassificationTest, TypesWithoutAnOrderAreRefused) {
  const auto classes = TopClasses(MakeOutput("y", DType::kComplex64, {1}, "12345678"), 1, false);
  EXPECT_EQ(classes.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace relight::rpc
