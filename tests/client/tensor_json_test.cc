#include "client/ctl/tensor_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "client/ctl/arguments.h"
#include "client/ctl/half.h"

namespace relight::ctl {
namespace {

using client::DataType;
using client::Tensor;
using Json = nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<Tensor> Read(DataType datatype, const std::string& text) {
  return TensorFromJson("x", datatype, Json::parse(text));
}

TEST(TensorJsonTest, NestingGivesTheShape) {
  const absl::StatusOr<Tensor> tensor = Read(DataType::kFp32, "[[1, 2.5, -3], [4, 5, 6]]");
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_THAT(tensor->shape, ElementsAre(2, 3));
  EXPECT_THAT(*tensor->Values<float>(), ElementsAre(1, 2.5, -3, 4, 5, 6));
  EXPECT_THAT(Read(DataType::kFp32, "3")->shape, ElementsAre());
  EXPECT_THAT(Read(DataType::kFp32, "[[], []]")->shape, ElementsAre(2, 0));
}

TEST(TensorJsonTest, RefusesRaggedRows) {
  for (const char* text : {"[[1, 2], [3]]", "[[1], 2]", "[1, [2]]", "[[], [1]]"}) {
    EXPECT_TRUE(IsUsageError(Read(DataType::kFp32, text).status())) << text;
  }
}

TEST(TensorJsonTest, RefusesElementsThatTheDatatypeDoesNotHold) {
  EXPECT_TRUE(IsUsageError(Read(DataType::kUint8, "[256]").status()));
  EXPECT_TRUE(IsUsageError(Read(DataType::kUint8, "[-1]").status()));
  EXPECT_TRUE(IsUsageError(Read(DataType::kInt32, "[1.5]").status()));
  EXPECT_TRUE(IsUsageError(Read(DataType::kInt64, "[9223372036854775808]").status()));
  EXPECT_TRUE(IsUsageError(Read(DataType::kBool, "[2]").status()));
  EXPECT_TRUE(IsUsageError(Read(DataType::kFp32, "[1e39]").status()));
  EXPECT_TRUE(IsUsageError(Read(DataType::kFp16, "[65520]").status()));
  EXPECT_TRUE(IsUsageError(Read(DataType::kFp32, "[\"many\"]").status()));
  EXPECT_TRUE(IsUsageError(Read(DataType::kBytes, "[1]").status()));
  EXPECT_THAT(std::string(Read(DataType::kUint8, "[256]").status().message()),
              HasSubstr("256 is no UINT8"));
}

TEST(TensorJsonTest, RefusesNestingThatNoTensorHas) {
  EXPECT_TRUE(IsUsageError(
      Read(DataType::kFp32, std::string(1000, '[') + std::string(1000, ']')).status()));
}

TEST(TensorJsonTest, EveryDatatypeReadsBackWhatItWrote) {
  const std::vector<std::pair<DataType, const char*>> cases = {
      {DataType::kBool, "[[true],[false]]"},
      {DataType::kUint8, "[0,255]"},
      {DataType::kUint16, "[0,65535]"},
      {DataType::kUint32, "[4294967295]"},
      {DataType::kUint64, "[18446744073709551615]"},
      {DataType::kInt8, "[-128,127]"},
      {DataType::kInt16, "[-32768]"},
      {DataType::kInt32, "[-2147483648]"},
      {DataType::kInt64, "[-9223372036854775808]"},
      {DataType::kFp16, "[0.5,-65504.0,\"Infinity\"]"},
      {DataType::kBf16, "[1.5,\"NaN\"]"},
      {DataType::kFp32, "[0.1,\"NaN\",\"-Infinity\"]"},
      {DataType::kFp64, "[[0.1,1e+300]]"},
      {DataType::kBytes, "[\"\",\"caf\u00e9\"]"},
      {DataType::kFp32, "2.0"},
      {DataType::kFp32, "[]"},
  };
  for (const auto& [datatype, text] : cases) {
    const absl::StatusOr<Tensor> tensor = Read(datatype, text);
    ASSERT_TRUE(tensor.ok()) << text << ": " << tensor.status();
    EXPECT_EQ(TensorToJson(*tensor).dump(), text);
  }
}

TEST(TensorJsonTest, BytesThatAreNotUtf8AreEscaped) {
  const std::vector<std::string> strings = {"\xff"};
  EXPECT_EQ(TensorToJson(client::MakeStringTensor("s", {1}, strings)).dump(), R"(["\\xff"])");
}

TEST(TensorJsonTest, TextHasARowPerLineAndSaysWhatItLeavesOut) {
  const Tensor tensor = *Read(DataType::kInt32, "[[1, 2], [3, 4], [5, 6]]");
  EXPECT_EQ(TensorToText(tensor, 100), "  1 2\n  3 4\n  5 6\n");
  EXPECT_EQ(TensorToText(tensor, 3), "  1 2\n  3\n  ... 3 more; --json prints all\n");
}

TEST(HalfTest, EveryHalfReadsBackAsItself) {
  for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = Fp16ToFloat(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(Fp16ToFloat(FloatToFp16(value))));
    } else {
      EXPECT_EQ(FloatToFp16(value), half);
    }
    const float brain = Bf16ToFloat(half);
    if (!std::isnan(brain)) {
      EXPECT_EQ(FloatToBf16(brain), half);
    }
  }
}

TEST(HalfTest, RoundsToNearestAndTiesToEven) {
  EXPECT_EQ(FloatToFp16(2049.0F), FloatToFp16(2048.0F));
  EXPECT_EQ(FloatToFp16(2051.0F), FloatToFp16(2052.0F));
  EXPECT_EQ(FloatToFp16(65519.0F), 0x7BFF);
  EXPECT_EQ(FloatToFp16(65520.0F), 0x7C00);
  EXPECT_EQ(FloatToFp16(std::ldexp(1.0F, -25)), 0);
  EXPECT_EQ(FloatToFp16(std::ldexp(1.5F, -25)), 1);
  EXPECT_EQ(FloatToBf16(257.0F), FloatToBf16(256.0F));
  EXPECT_EQ(FloatToBf16(std::numeric_limits<float>::infinity()), 0x7F80);
  EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(std::nanf("")))));
}

}  // namespace
}  // namespace relight::ctl
