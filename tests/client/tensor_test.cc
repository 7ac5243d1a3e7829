#include "relight/tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace relight::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(TensorTest, NamesEveryDataTypeAndReadsItsNameBack) {
  for (int i = 0; i <= static_cast<int>(DataType::kBytes); ++i) {
    const auto datatype = static_cast<DataType>(i);
    EXPECT_EQ(ParseDataType(Name(datatype)), datatype);
  }
  EXPECT_EQ(ParseDataType("FP31"), std::nullopt);
  EXPECT_EQ(ParseDataType("fp32"), std::nullopt);
}

TEST(TensorTest, ValuesComeBackAsTheyWentIn) {
  const std::vector<float> values = {1.5F, -2.0F, 0.1F};
  const Tensor tensor = MakeTensor<float>("x", {3}, values);
  EXPECT_EQ(tensor.datatype, DataType::kFp32);
  EXPECT_TRUE(tensor.Validate().ok());
  EXPECT_EQ(*tensor.Values<float>(), values);
}

TEST(TensorTest, BooleansAreOneByteEach) {
  const bool values[] = {true, false, true};
  const Tensor tensor = MakeTensor<bool>("b", {3}, values);
  EXPECT_EQ(tensor.bytes, std::string("\x01\x00\x01", 3));
  EXPECT_THAT(*tensor.Values<bool>(), ElementsAre(true, false, true));
}

TEST(TensorTest, StringsKeepTheirLengthsAndZeroBytes) {
  const std::vector<std::string> values = {"", std::string("a\0b", 3), "long"};
  const Tensor tensor = MakeStringTensor("s", {3}, values);
  EXPECT_EQ(tensor.bytes.size(), 3 * 4 + 7U);
  EXPECT_EQ(*tensor.Strings(), values);
}

TEST(TensorTest, ScalarsAndEmptyTensorsAreWhole) {
  const std::int64_t one[] = {1};
  EXPECT_TRUE(MakeTensor<std::int64_t>("scalar", {}, one).Validate().ok());
  const Tensor empty = MakeTensor<double>("empty", {0, 5}, {});
  EXPECT_TRUE(empty.Validate().ok());
  EXPECT_TRUE(empty.Values<double>()->empty());
}

TEST(TensorTest, RefusesBytesThatMissTheShapeWithBothNumbers) {
  Tensor tensor = MakeTensor<float>("x", {2, 2}, std::vector<float>{1, 2, 3});
  const absl::Status status = tensor.Validate();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("has 12 bytes, its shape needs 4 x 4"));
  EXPECT_EQ(tensor.Values<float>().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TensorTest, RefusesValuesOfAnotherType) {
  const Tensor tensor = MakeTensor<float>("x", {1}, std::vector<float>{1});
  const absl::Status status = tensor.Values<std::int32_t>().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("was asked for as INT32"));
  EXPECT_EQ(tensor.Strings().status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TensorTest, RefusesStringsWhoseLengthsLie) {
  Tensor tensor{"s",
                DataType::kBytes,
                {1},
                std::string("\x05\x00\x00\x00"
                            "abc",
                            7)};
  EXPECT_EQ(tensor.Validate().code(), absl::StatusCode::kInvalidArgument);
  tensor.bytes.resize(3);
  EXPECT_EQ(tensor.Validate().code(), absl::StatusCode::kInvalidArgument);
  tensor.bytes.clear();
  EXPECT_EQ(tensor.Validate().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TensorTest, CountsElementsWithoutOverflow) {
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(*ElementCount(std::vector<std::int64_t>{}), 1);
  EXPECT_EQ(*ElementCount(std::vector<std::int64_t>{2, 3}), 6);
  EXPECT_EQ(*ElementCount(std::vector<std::int64_t>{kHuge, 0, kHuge}), 0);
  EXPECT_EQ(ElementCount(std::vector<std::int64_t>{kHuge, 2}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ElementCount(std::vector<std::int64_t>{-1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const Tensor tensor{"x", DataType::kFp64, {kHuge}, {}};
  EXPECT_EQ(tensor.Validate().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace relight::client
