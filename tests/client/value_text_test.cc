#include "client/ctl/value_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tests/storage/made_checkpoint.h"

namespace relight::ctl {
namespace {

using storage::NodeId;
using storage::NodeKind;

TEST(ValueTextTest, FloatsLookAsPythonPrintsThem) {
  EXPECT_EQ(FloatText(1), "1.0");
  EXPECT_EQ(FloatText(-0.0), "-0.0");
  EXPECT_EQ(FloatText(0.1), "0.1");
  EXPECT_EQ(FloatText(1e-8), "1e-08");
  EXPECT_EQ(FloatText(std::nan("")), "nan");
  EXPECT_EQ(FloatText(-std::numeric_limits<double>::infinity()), "-inf");
}

TEST(ValueTextTest, LongNumbersAreGrouped) {
  EXPECT_EQ(Grouped(0), "0");
  EXPECT_EQ(Grouped(999), "999");
  EXPECT_EQ(Grouped(1000), "1,000");
  EXPECT_EQ(Grouped(18'446'744'073'709'551'615U), "18,446,744,073,709,551,615");
}

class ValueTextFileTest : public testing::Test {
 protected:
  // The text, or the JSON, of a value that went through a file.
  std::string Text(NodeId value) {
    Write(value);
    return checkpoint_.has_value() ? ValueText(*checkpoint_, Value()) : "";
  }
  std::string ToJson(NodeId value) {
    Write(value);
    return checkpoint_.has_value() ? ValueJson(*checkpoint_, Value()).dump() : "";
  }
  NodeId List(NodeKind kind, const std::vector<NodeId>& items) {
    const NodeId list = made_.tree.Add(kind);
    for (const NodeId item : items) made_.tree.Append(list, item);
    return list;
  }

  storage::MadeCheckpoint made_;

 private:
  void Write(NodeId value) {
    auto opened = made_.WriteAndOpen(made_.AddDict({{"v", value}}), folder_.Path("v.pt"));
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_.emplace(*std::move(opened));
  }
  NodeId Value() const { return checkpoint_->tree().Find(checkpoint_->tree().root(), "v"); }

  storage::TempFolder folder_;
  std::optional<storage::Checkpoint> checkpoint_;
};

TEST_F(ValueTextFileTest, PlainValues) {
  EXPECT_EQ(Text(made_.tree.Add(NodeKind::kNone)), "None");
  EXPECT_EQ(Text(made_.tree.AddBool(true)), "True");
  EXPECT_EQ(Text(made_.tree.AddInt(-7)), "-7");
  EXPECT_EQ(Text(made_.tree.AddText(NodeKind::kString, "a\nb")), "\"a\\x0ab\"");
  EXPECT_EQ(ToJson(made_.tree.Add(NodeKind::kNone)), "null");
  EXPECT_EQ(ToJson(made_.tree.AddFloat(0.25)), "0.25");
  EXPECT_EQ(ToJson(made_.tree.AddFloat(std::nan(""))), "\"NaN\"");
}

TEST_F(ValueTextFileTest, TensorsOfOneElementCountAsTheirValue) {
  const NodeId loss =
      made_.AddTensor(made_.AddStorage(DType::kFloat32, std::vector<float>{0.1F, 0.2F}), {}, {}, 1);
  EXPECT_EQ(Text(loss), "0.2 (float32 [])");
  EXPECT_EQ(ToJson(loss), "0.2");
  const NodeId half = made_.AddTensor(
      made_.AddStorage(DType::kFloat16, std::vector<std::uint16_t>{0x3E00}), {1}, {1});
  EXPECT_EQ(Text(half), "1.5 (float16 [1])");
  const NodeId count =
      made_.AddTensor(made_.AddStorage(DType::kInt64, std::vector<std::int64_t>{-5}), {}, {});
  EXPECT_EQ(ToJson(count), "-5");
  const NodeId lost = made_.AddTensor(
      made_.AddStorage(DType::kFloat32, std::vector<float>{std::numeric_limits<float>::infinity()}),
      {}, {});
  EXPECT_EQ(ToJson(lost), "\"Infinity\"");
  EXPECT_EQ(Text(made_.AddFloats({1, 2})), "float32 [2]");
}

TEST_F(ValueTextFileTest, ContainersAreShownWhereTheyAreShort) {
  const NodeId one = made_.tree.AddInt(1);
  EXPECT_EQ(Text(List(NodeKind::kTuple, {made_.tree.AddFloat(0.9), made_.tree.AddFloat(0.999)})),
            "(0.9, 0.999)");
  EXPECT_EQ(Text(List(NodeKind::kList, std::vector<NodeId>(9, one))), "list of 9");
  EXPECT_EQ(Text(made_.AddDict({{"lr", made_.tree.AddFloat(0.1)}, {"n", one}})), "{lr: 0.1, n: 1}");
  EXPECT_EQ(Text(made_.AddDict({{"a", made_.AddDict({})}, {"b", one}})), "dict of 2: a, b");
  EXPECT_EQ(Text(made_.AddDict({})), "{}");
  EXPECT_EQ(ToJson(List(NodeKind::kList, {one, List(NodeKind::kTuple, {one})})), "[1,[1]]");
}

TEST_F(ValueTextFileTest, NestingIsCutOff) {
  NodeId list = made_.tree.AddInt(1);
  for (int i = 0; i < 4; ++i) list = List(NodeKind::kList, {list, list});
  EXPECT_EQ(Text(list), "[[list of 2, list of 2], [list of 2, list of 2]]");
  EXPECT_EQ(ToJson(list), R"([["list of 2","list of 2"],["list of 2","list of 2"]])");
}

}  // namespace
}  // namespace relight::ctl
