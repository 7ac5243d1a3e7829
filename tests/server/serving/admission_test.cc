#include "server/serving/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "tests/server/serving/request_harness.h"

namespace relight::serving {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();

Signature TwoInputs(std::int64_t max_batch_size) {
  Signature signature;
  signature.model = "two";
  signature.inputs = {{"a", DType::kFloat32, {-1, 10}}, {"b", DType::kInt64, {-1, -1, 3}}};
  signature.outputs = {{"y", DType::kFloat32, {-1, 5}}, {"z", DType::kFloat32, {-1, 5}}};
  signature.batching.max_batch_size = max_batch_size;
  return signature;
}

// Bytes that nobody reads: admission only counts them.
void AddBytes(InferRequest& request, std::string name, DType dtype, std::vector<std::int64_t> shape,
              std::size_t size_bytes) {
  static const std::vector<std::byte> bytes(1 << 20);
  InputTensor input;
  input.name = std::move(name);
  input.dtype = dtype;
  input.shape = std::move(shape);
  if (size_bytes > 0) input.bytes.push_back({bytes.data(), size_bytes});
  request.inputs.push_back(std::move(input));
}

InferRequest Sound(std::int64_t rows = 2, std::int64_t width = 4) {
  InferRequest request;
  AddBytes(request, "a", DType::kFloat32, {rows, 10}, static_cast<std::size_t>(rows) * 40);
  AddBytes(request, "b", DType::kInt64, {rows, width, 3},
           static_cast<std::size_t>(rows * width) * 24);
  return request;
}

absl::StatusOr<AdmittedRequest> Check(const Signature& signature, const InferRequest& request) {
  return Admission(signature).Check(request);
}

TEST(AdmissionTest, SoundRequestIsAdmitted) {
  const auto admitted = Check(TwoInputs(8), Sound());
  ASSERT_TRUE(admitted.ok()) << admitted.status();
  EXPECT_EQ(admitted->rows, 2);
  EXPECT_EQ(admitted->size_bytes, 80U + 192U);
  EXPECT_EQ(admitted->key.version, std::nullopt);
  EXPECT_THAT(admitted->key.free_dims, ElementsAre(4));
  EXPECT_THAT(admitted->inputs, ElementsAre(0, 1));
  EXPECT_THAT(admitted->outputs, ElementsAre(0, 1));
}

TEST(AdmissionTest, InputsInAnotherOrderAreFound) {
  InferRequest request = Sound();
  std::swap(request.inputs[0], request.inputs[1]);
  EXPECT_THAT(Check(TwoInputs(8), request)->inputs, ElementsAre(1, 0));
}

TEST(AdmissionTest, RequestedOutputsKeepTheirOrder) {
  InferRequest request = Sound();
  request.outputs = {"z"};
  EXPECT_THAT(Check(TwoInputs(8), request)->outputs, ElementsAre(1));
  request.outputs = {"z", "y"};
  EXPECT_THAT(Check(TwoInputs(8), request)->outputs, ElementsAre(1, 0));
}

TEST(AdmissionTest, KeysDifferByShapeAndVersionOnly) {
  const Signature signature = TwoInputs(8);
  const BatchKey key = Check(signature, Sound(1, 4))->key;
  EXPECT_EQ(Check(signature, Sound(3, 4))->key, key);
  EXPECT_NE(Check(signature, Sound(1, 5))->key, key);
  EXPECT_NE(Check(signature, ForVersion(7, Sound(1, 4)))->key, key);
}

TEST(AdmissionTest, WithoutABatchDimensionTheFirstOneIsAsInTheSignature) {
  Signature signature = TwoInputs(0);
  signature.inputs = {{"a", DType::kFloat32, {3, -1}}};
  InferRequest request;
  AddBytes(request, "a", DType::kFloat32, {3, 5}, 60);
  const auto admitted = Check(signature, request);
  ASSERT_TRUE(admitted.ok()) << admitted.status();
  EXPECT_EQ(admitted->rows, 1);
  EXPECT_THAT(admitted->key.free_dims, IsEmpty());
  request.inputs[0].shape = {4, 5};
  EXPECT_EQ(Check(signature, request).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(AdmissionTest, ScalarsAreAdmittedWithoutABatchDimension) {
  Signature signature = TwoInputs(0);
  signature.inputs = {{"a", DType::kFloat64, {}}};
  InferRequest request;
  AddBytes(request, "a", DType::kFloat64, {}, 8);
  EXPECT_TRUE(Check(signature, request).ok());
}

TEST(AdmissionTest, FreeDimensionMayBeZero) { EXPECT_TRUE(Check(TwoInputs(8), Sound(2, 0)).ok()); }

struct Refusal {
  const char* situation;
  void (*spoil)(InferRequest&);
  std::vector<std::string> says;
};

void PrintTo(const Refusal& row, std::ostream* out) { *out << row.situation; }

class AdmissionRefusalTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(AdmissionRefusalTest, IsInvalidAndSaysWhy) {
  InferRequest request = Sound();
  GetParam().spoil(request);
  const absl::Status status = Check(TwoInputs(8), request).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  for (const std::string& text : GetParam().says) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, AdmissionRefusalTest,
    ::testing::Values(
        Refusal{"NoInputs",
                [](InferRequest& r) { r.inputs.clear(); },
                {"input a: missing", "input b: missing"}},
        Refusal{"MissingInput", [](InferRequest& r) { r.inputs.pop_back(); }, {"input b: missing"}},
        Refusal{"UnknownInput",
                [](InferRequest& r) { AddBytes(r, "c\n", DType::kFloat32, {1}, 4); },
                {"input c\\x0a: unknown", "inputs are a, b"}},
        Refusal{"InputTwice",
                [](InferRequest& r) { r.inputs.push_back(r.inputs[0]); },
                {"input a: given twice"}},
        Refusal{"WrongDatatype",
                [](InferRequest& r) { r.inputs[0].dtype = DType::kInt32; },
                {"input a: datatype is INT32, the model needs FP32"}},
        Refusal{"RankTooHigh",
                [](InferRequest& r) {
                  r.inputs[0].shape = {2, 10, 1};
                },
                {"input a: shape [2, 10, 1] has 3 dimensions", "needs 2", "[-1, 10]"}},
        Refusal{"RankTooLow",
                [](InferRequest& r) { r.inputs[0].shape = {20}; },
                {"input a: shape [20] has 1 dimensions", "needs 2"}},
        Refusal{"NoDimensions",
                [](InferRequest& r) { r.inputs[0].shape = {}; },
                {"input a: shape [] has 0 dimensions"}},
        Refusal{"WrongDimension",
                [](InferRequest& r) {
                  r.inputs[0].shape = {2, 11};
                },
                {"input a: dimension 1", "is 11, the model needs 10"}},
        Refusal{"NegativeDimension",
                [](InferRequest& r) {
                  r.inputs[1].shape = {2, -4, 3};
                },
                {"input b: dimension 1 of shape [2, -4, 3] is negative"}},
        Refusal{"NegativeBatch",
                [](InferRequest& r) {
                  r.inputs[0].shape = {-2, 10};
                },
                {"input a: dimension 0 of shape [-2, 10] is negative"}},
        Refusal{"TooManyElements",
                [](InferRequest& r) {
                  r.inputs[1].shape = {2, kHuge, 3};
                },
                {"input b: shape", "more bytes than 64 bits"}},
        // 2^61 rows of 8-byte elements times 3: wraps to something small.
        Refusal{"ElementsThatWrapAround",
                [](InferRequest& r) {
                  r.inputs[1].shape = {2, std::int64_t{1} << 61, 3};
                },
                {"input b: shape", "more bytes than 64 bits"}},
        Refusal{"TooFewBytes",
                [](InferRequest& r) {
                  r.inputs[0].shape = {3, 10};
                  r.inputs[0].bytes[0] = r.inputs[0].bytes[0].subspan(0, 40);
                },
                {"input a: shape [3, 10] of FP32 needs 120 bytes, got 40"}},
        Refusal{"NoBytes",
                [](InferRequest& r) { r.inputs[0].bytes.clear(); },
                {"input a: shape [2, 10] of FP32 needs 80 bytes, got 0"}},
        Refusal{"TooManyBytes",
                [](InferRequest& r) { r.inputs[0].bytes.push_back(r.inputs[0].bytes[0]); },
                {"needs 80 bytes, got 160"}},
        Refusal{"BatchTooLarge",
                [](InferRequest& r) { r = Sound(9); },
                {"batch size is 9, the limit is 8 (batching.max_batch_size)"}},
        Refusal{"NoRows",
                [](InferRequest& r) { r = Sound(0); },
                {"batch size is 0, the model needs 1 to 8"}},
        Refusal{"BatchSizesDiffer",
                [](InferRequest& r) { r.inputs[1] = Sound(3).inputs[1]; },
                {"input b: batch size is 3, input a has 2"}},
        Refusal{"UnknownOutput",
                [](InferRequest& r) {
                  r.outputs = {"y", "DUMMY"};
                },
                {"output DUMMY: unknown; the model's outputs are y, z"}},
        Refusal{"OutputTwice",
                [](InferRequest& r) {
                  r.outputs = {"y", "y"};
                },
                {"output y: requested twice"}},
        Refusal{"SeveralThings",
                [](InferRequest& r) {
                  r.inputs[0].dtype = DType::kInt32;
                  r.inputs[1].shape = {2, 4, 7};
                  r.outputs = {"w"};
                },
                {"input a: datatype", "; input b: dimension 2", "; output w: unknown"}}),
    [](const auto& test) { return test.param.situation; });

TEST(AdmissionTest, OneInputMayHaveSeveralProblems) {
  InferRequest request = Sound(9);
  request.inputs[0].dtype = DType::kFloat64;
  const std::string message(Check(TwoInputs(8), request).status().message());
  EXPECT_THAT(message, AllOf(HasSubstr("datatype is FP64"), HasSubstr("needs 720 bytes, got 360")));
}

TEST(AdmissionTest, WhatACrowdOfProblemsSaysIsBounded) {
  InferRequest request;
  for (int i = 0; i < 10000; ++i) {
    AddBytes(request, std::string(1000, 'n'), DType::kFloat32, {1}, 4);
  }
  request.outputs.assign(10000, std::string(1000, 'o'));
  const std::string message(Check(TwoInputs(8), request).status().message());
  EXPECT_LT(message.size(), 8000U);
  EXPECT_THAT(message, HasSubstr("perhaps more"));
}

TEST(AdmissionTest, ShapeWithManyDimensionsIsNotSpelledOut) {
  InferRequest request = Sound();
  request.inputs[0].shape.assign(100000, 1);
  const std::string message(Check(TwoInputs(8), request).status().message());
  EXPECT_THAT(message, AllOf(HasSubstr("100000 dimensions"), HasSubstr("...")));
  EXPECT_LT(message.size(), 500U);
}

// --- the largest request ---

TEST(LargestRequestTest, FixedShapesAreCountedWithAWholeBatch) {
  Signature signature = TwoInputs(8);
  signature.inputs = {{"a", DType::kFloat32, {-1, 10}}, {"b", DType::kInt64, {-1, 3}}};
  EXPECT_EQ(LargestRequestBytes(signature), 8U * 40U + 8U * 24U);
}

TEST(LargestRequestTest, WithoutABatchDimensionOneRequestIsAll) {
  Signature signature = TwoInputs(0);
  signature.inputs = {{"a", DType::kFloat32, {3, 10}}};
  EXPECT_EQ(LargestRequestBytes(signature), 120U);
}

TEST(LargestRequestTest, FreeDimensionsGetRoom) {
  EXPECT_EQ(LargestRequestBytes(TwoInputs(8)), std::uint64_t{64} << 20);
}

TEST(LargestRequestTest, FixedPartBeyondThatCounts) {
  Signature signature = TwoInputs(1024);
  signature.inputs = {{"a", DType::kFloat32, {-1, -1, 1 << 20}}};
  signature.batching.max_queue_bytes = std::uint64_t{1} << 40;
  EXPECT_EQ(LargestRequestBytes(signature), std::uint64_t{1024} * 4 * (1 << 20));
}

TEST(LargestRequestTest, NothingLargerThanTheQueueIsAllowed) {
  Signature signature = TwoInputs(8);
  signature.inputs = {{"a", DType::kFloat32, {-1, 1000}}};
  signature.batching.max_queue_bytes = 100;
  EXPECT_EQ(LargestRequestBytes(signature), 100U);
}

TEST(LargestRequestTest, ShapesThatOverflowAreBoundedByTheQueue) {
  Signature signature = TwoInputs(8);
  signature.inputs = {{"a", DType::kFloat32, {-1, kHuge}}};
  EXPECT_EQ(LargestRequestBytes(signature), signature.batching.max_queue_bytes);
}

}  // namespace
}  // namespace relight::serving
