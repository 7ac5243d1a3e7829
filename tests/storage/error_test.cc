#include "storage/error.h"

#include "gtest/gtest.h"
#include "storage/dtype.h"

namespace relight::storage {
namespace {

TEST(ErrorTest, CarriesItsCodeAndNamesItInTheMessage) {
  const absl::Status status = MakeError(ErrorCode::kZipOverlap, "a.pt: records overlap");
  EXPECT_EQ(status.message(), "ZIP_OVERLAP: a.pt: records overlap");
  EXPECT_EQ(GetErrorCode(status), ErrorCode::kZipOverlap);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(MayBeTorn(status));
  EXPECT_FALSE(IsTransient(status));
}

TEST(ErrorTest, HalfWrittenFilesAreDataLossAndMayBeTorn) {
  const absl::Status status = MakeError(ErrorCode::kZipCorrupt, "a.pt: no end record");
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(MayBeTorn(status));
  EXPECT_FALSE(IsTransient(status));
}

TEST(ErrorTest, ReadErrorsAreTransient) {
  const absl::Status status = MakeError(ErrorCode::kIoError, "a.pt: input/output error");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(IsTransient(status));
  EXPECT_FALSE(MayBeTorn(status));
}

TEST(ErrorTest, WhetherItMayBeTornCanBeSaidOfOneError) {
  const absl::Status zeros = MakeError(ErrorCode::kNotACheckpoint, "a.pt: is all zeros");
  EXPECT_TRUE(MayBeTorn(MarkTorn(zeros, true)));
  EXPECT_EQ(GetErrorCode(MarkTorn(zeros, true)), ErrorCode::kNotACheckpoint);
  EXPECT_FALSE(MayBeTorn(MarkTorn(MakeError(ErrorCode::kCrcMismatch, "a.pt: has none"), false)));
}

TEST(ErrorTest, OtherStatusesHaveNoCode) {
  EXPECT_EQ(GetErrorCode(absl::InternalError("x")), std::nullopt);
  EXPECT_FALSE(MayBeTorn(absl::DataLossError("x")));
}

TEST(DTypeTest, NamesGoBothWays) {
  EXPECT_EQ(Name(DType::kBFloat16), "bfloat16");
  EXPECT_EQ(DTypeFromName("bfloat16"), DType::kBFloat16);
  EXPECT_EQ(DTypeFromName("no such"), std::nullopt);
  EXPECT_EQ(ProtocolName(DType::kFloat32), "FP32");
  EXPECT_EQ(DTypeFromProtocolName("FP32"), DType::kFloat32);
  EXPECT_EQ(ProtocolName(DType::kComplex64), "");
  EXPECT_EQ(DTypeFromProtocolName(""), std::nullopt);
}

TEST(DTypeTest, KnowsSizesAndFamilies) {
  EXPECT_EQ(ItemSize(DType::kComplex128), 16u);
  EXPECT_EQ(ItemSize(DType::kFloat8E5M2), 1u);
  EXPECT_TRUE(IsFloatingPoint(DType::kFloat8E5M2));
  EXPECT_FALSE(IsFloatingPoint(DType::kComplex64));
  EXPECT_TRUE(IsComplex(DType::kComplex32));
  EXPECT_FALSE(IsComplex(DType::kInt64));
}

}  // namespace
}  // namespace relight::storage
