#include "server/network/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace relight {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

const std::vector<ParameterSpec>& Needed() {
  static const auto* const kNeeded = new std::vector<ParameterSpec>{
      {.name = "fc1.weight", .shape = {8, 10}},
      {.name = "fc1.bias", .shape = {8}},
      {.name = "bn.num_batches_tracked",
       .shape = {},
       .dtype = DType::kInt64,
       .buffer = true,
       .required = false},
  };
  return *kNeeded;
}

std::string Message(const ParameterMismatch& mismatch) {
  const absl::Status status = ToStatus(mismatch);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

TEST(ParametersTest, FitIsOk) {
  const ParameterMismatch mismatch =
      CompareParameters(Needed(), {{"bn.num_batches_tracked", {}, DType::kInt64},
                                   {"fc1.bias", {8}, DType::kFloat32},
                                   {"fc1.weight", {8, 10}, DType::kFloat32}});
  EXPECT_TRUE(mismatch.empty());
  EXPECT_TRUE(ToStatus(mismatch).ok());
}

TEST(ParametersTest, OptionalParametersMayBeMissing) {
  EXPECT_TRUE(CompareParameters(Needed(), {{"fc1.weight", {8, 10}}, {"fc1.bias", {8}}}).empty());
}

TEST(ParametersTest, RealFloatsStandForEachOther) {
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16, DType::kFloat32, DType::kFloat64}) {
    EXPECT_TRUE(
        CompareParameters(Needed(), {{"fc1.weight", {8, 10}, dtype}, {"fc1.bias", {8}, dtype}})
            .empty());
  }
  for (const DType dtype :
       {DType::kInt64, DType::kBool, DType::kComplex64, DType::kFloat8E4M3FN, DType::kQInt8}) {
    const auto mismatch =
        CompareParameters(Needed(), {{"fc1.weight", {8, 10}, dtype}, {"fc1.bias", {8}}});
    ASSERT_EQ(mismatch.mistyped.size(), 1u);
    EXPECT_EQ(mismatch.mistyped[0].offered, dtype);
    EXPECT_THAT(Describe(mismatch.mistyped[0]),
                HasSubstr("the graph needs float32, float64, float16 or bfloat16"));
  }
}

TEST(ParametersTest, CountersMatchExactly) {
  const auto mismatch = CompareParameters(
      Needed(),
      {{"fc1.weight", {8, 10}}, {"fc1.bias", {8}}, {"bn.num_batches_tracked", {}, DType::kInt32}});
  ASSERT_EQ(mismatch.mistyped.size(), 1u);
  EXPECT_EQ(Describe(mismatch.mistyped[0]),
            "parameter bn.num_batches_tracked: checkpoint has int32, the graph needs int64");
}

TEST(ParametersTest, EverythingWrongIsListedInOrder) {
  const ParameterMismatch mismatch =
      CompareParameters(Needed(), {{"zz", {1}}, {"fc1.wieght", {8, 10}}, {"fc1.bias", {5}}});
  EXPECT_THAT(mismatch.missing, ElementsAre("fc1.weight"));
  EXPECT_THAT(mismatch.unexpected, ElementsAre("zz", "fc1.wieght"));
  EXPECT_EQ(Message(mismatch),
            "the checkpoint does not fit the graph: 1 missing: fc1.weight (is it fc1.wieght?); 2 "
            "unexpected: zz, fc1.wieght; 1 of another shape: parameter fc1.bias: checkpoint has "
            "shape [5], the graph needs [8]");
}

TEST(ParametersTest, ShapeAndTypeOfOneTensorAreBothReported) {
  const auto mismatch =
      CompareParameters({{.name = "w", .shape = {2}}}, {{"w", {3}, DType::kInt8}});
  ASSERT_EQ(mismatch.misshaped.size(), 1u);
  EXPECT_THAT(mismatch.misshaped[0].offered, ElementsAre(3));
  EXPECT_THAT(mismatch.misshaped[0].needed, ElementsAre(2));
  EXPECT_EQ(mismatch.mistyped.size(), 1u);
  EXPECT_THAT(Message(mismatch), HasSubstr("1 of another type: parameter w: checkpoint has int8"));
}

TEST(ParametersTest, LongListsAreCutAndCounted) {
  std::vector<OfferedTensor> offered;
  for (int i = 0; i < 200; ++i) offered.push_back({absl::StrCat("k", i), {1}});
  const ParameterMismatch mismatch = CompareParameters({}, offered);
  EXPECT_EQ(mismatch.unexpected.size(), 200u);
  const std::string message = Message(mismatch);
  EXPECT_THAT(message, HasSubstr("200 unexpected: k0, k1"));
  EXPECT_THAT(message, HasSubstr("k63 and 136 more"));
  EXPECT_THAT(message, Not(HasSubstr("k64")));
}

TEST(ParametersTest, NamesFromTheFileAreEscaped) {
  const auto mismatch = CompareParameters({{.name = "w", .shape = {1}}}, {{"a\nb\xff", {1}}});
  EXPECT_THAT(Message(mismatch), HasSubstr("1 unexpected: a\\x0ab\\xff"));
}

TEST(ParametersTest, NothingNeededAndNothingOfferedFits) {
  EXPECT_THAT(CompareParameters({}, {}).missing, IsEmpty());
  EXPECT_TRUE(ToStatus(CompareParameters({}, {})).ok());
}

}  // namespace
}  // namespace relight
