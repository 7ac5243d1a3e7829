#include "client/ctl/infer_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "client/ctl/arguments.h"
#include "client/ctl/npy.h"

namespace relight::ctl {
namespace {

using client::DataType;
using client::MakeTensor;
using client::ModelMetadata;
using client::Tensor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

ModelMetadata OneInput() { return {"m", {}, "", {{"x", "FP32", {-1, 2}}}, {}}; }
ModelMetadata TwoInputs() {
  return {"m", {}, "", {{"x", "FP32", {-1, 2}}, {"n", "INT64", {-1, -1}}}, {}};
}

std::string WriteTempFile(const std::string& name, const std::string& bytes) {
  const std::string path = testing::TempDir() + name;
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

std::string FloatBytes(const std::vector<float>& values) {
  return MakeTensor<float>("", {static_cast<std::int64_t>(values.size())}, values).bytes;
}

TEST(InferInputTest, SplitsNamesFromValues) {
  EXPECT_THAT(SplitNamed("x=[1]"), Pair("x", "[1]"));
  EXPECT_THAT(SplitNamed("[\"a=b\"]"), Pair("", "[\"a=b\"]"));
  EXPECT_THAT(SplitNamed("@a=b.npy"), Pair("", "@a=b.npy"));
  EXPECT_THAT(SplitNamed("x=@a=b.npy"), Pair("x", "@a=b.npy"));
}

TEST(InferInputTest, TheModelGivesDatatypesAndTheNameOfAnOnlyInput) {
  const auto tensors = ReadInputs({{"[[1, 2]]"}, {}, {}}, OneInput());
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->at(0).name, "x");
  EXPECT_EQ(tensors->at(0).datatype, DataType::kFp32);
  EXPECT_EQ(ReadInputs({{"n=[[1]]"}, {}, {}}, TwoInputs())->at(0).datatype, DataType::kInt64);
}

TEST(InferInputTest, RefusesInputsThatTheModelHasNot) {
  const absl::Status unknown = ReadInputs({{"z=[1]"}, {}, {}}, TwoInputs()).status();
  EXPECT_TRUE(IsUsageError(unknown));
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("its inputs: x, n"));
  EXPECT_TRUE(IsUsageError(ReadInputs({{"[1]"}, {}, {}}, TwoInputs()).status()));
  EXPECT_TRUE(IsUsageError(ReadInputs({{"x=one"}, {}, {}}, OneInput()).status()));
}

TEST(InferInputTest, AShapeAndADatatypeOverrule) {
  const auto tensors = ReadInputs({{"x=[1, 2, 3, 4]"}, {"x=2,2"}, {"x=INT8"}}, OneInput());
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_THAT(tensors->at(0).shape, ElementsAre(2, 2));
  EXPECT_EQ(tensors->at(0).datatype, DataType::kInt8);
  EXPECT_TRUE(IsUsageError(ReadInputs({{"x=[1, 2]"}, {"3"}, {}}, OneInput()).status()));
  EXPECT_TRUE(IsUsageError(ReadInputs({{"x=[1]"}, {"x=-1"}, {}}, OneInput()).status()));
  EXPECT_TRUE(IsUsageError(ReadInputs({{"x=[1]"}, {}, {"x=FLOAT"}}, OneInput()).status()));
}

TEST(InferInputTest, RawBytesTakeTheModelsShape) {
  const std::string path = WriteTempFile("raw.bin", FloatBytes({1, 2, 3, 4, 5, 6}));
  const auto tensors = ReadInputs({{"x=@" + path}, {}, {}}, OneInput());
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_THAT(tensors->at(0).shape, ElementsAre(3, 2));
}

TEST(InferInputTest, RawBytesWithoutAClearShapeAreRefused) {
  const std::string odd = WriteTempFile("odd.bin", "12345");
  EXPECT_TRUE(IsUsageError(ReadInputs({{"x=@" + odd}, {}, {}}, OneInput()).status()));
  EXPECT_TRUE(IsUsageError(ReadInputs({{"n=@" + odd}, {}, {}}, TwoInputs()).status()));
  EXPECT_TRUE(IsUsageError(ReadInputs({{"x=@" + odd}, {"x=1,2"}, {}}, OneInput()).status()));
}

TEST(InferInputTest, JsonFilesAreRead) {
  const std::string path = WriteTempFile("rows.json", "[[1, 2], [3, 4]]\n");
  EXPECT_THAT(ReadInputs({{"@" + path}, {}, {}}, OneInput())->at(0).shape, ElementsAre(2, 2));
}

TEST(InferInputTest, AMissingFileIsNotFound) {
  EXPECT_EQ(ReadInputs({{"x=@/no/such/file"}, {}, {}}, OneInput()).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadInputs({{"x=@" + testing::TempDir()}, {}, {}}, OneInput()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(InferInputTest, NpyFilesBringShapeAndDatatype) {
  const Tensor saved = MakeTensor<double>("", {1, 2}, std::vector<double>{1, 2});
  const std::string path = WriteTempFile("rows.npy", *FormatNpy(saved));
  const auto tensors = ReadInputs({{"@" + path}, {}, {}}, OneInput());
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ(tensors->at(0).datatype, DataType::kFp64);
  EXPECT_EQ(tensors->at(0).bytes, saved.bytes);
}

std::string NpyWithHeader(const std::string& header, const std::string& data) {
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size());
  file += '\0';
  return file + header + data;
}

TEST(NpyTest, ReadsWhatItWrites) {
  for (const std::vector<std::int64_t>& shape :
       std::vector<std::vector<std::int64_t>>{{}, {1}, {1, 1}, {1, 1, 1}}) {
    const Tensor tensor{"", DataType::kInt16, shape, "ab"};
    const absl::StatusOr<std::string> file = FormatNpy(tensor);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((file->size() - 2) % 64, 0U);
    const absl::StatusOr<Tensor> read = ParseNpy(*file);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->shape, shape);
    EXPECT_EQ(read->datatype, DataType::kInt16);
    EXPECT_EQ(read->bytes, "ab");
  }
}

TEST(NpyTest, RefusesWhatTheProtocolHasNot) {
  const std::string good = "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }\n";
  ASSERT_TRUE(ParseNpy(NpyWithHeader(good, "ab")).ok());
  for (const auto& [header, data] : std::vector<std::pair<std::string, std::string>>{
           {good, "a"},
           {good, "abc"},
           {"{'descr': '>f4', 'fortran_order': False, 'shape': (), }", "abcd"},
           {"{'descr': '|O', 'fortran_order': False, 'shape': (), }", "abcd"},
           {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (), }", "abcd"},
           {"{'descr': '|u1', 'fortran_order': True, 'shape': (2,), }", "ab"},
           {"{'descr': '|u1', 'fortran_order': False, 'shape': (two,), }", "ab"},
           {"{'descr': '|u1', 'fortran_order': False, }", "ab"},
           {"{'descr': '", ""},
           {"", ""}}) {
    EXPECT_EQ(ParseNpy(NpyWithHeader(header, data)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << header;
  }
  EXPECT_FALSE(ParseNpy("").ok());
  EXPECT_FALSE(ParseNpy("\x93NUMPY").ok());
  EXPECT_FALSE(ParseNpy(std::string("\x93NUMPY\x01\x00\xFF\xFF{", 11)).ok());
}

TEST(NpyTest, RefusesToWriteWhatNumPyHasNoTypeFor) {
  EXPECT_EQ(FormatNpy({"", DataType::kBf16, {1}, "ab"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace relight::ctl
