#include "server/model/small_network.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/model_config.h"
#include "tests/server/model/model_testing.h"

namespace relight::model {
namespace {

using testing::ElementsAre;

bool IsSmall(const std::string& input, const std::string& layers, const std::string& more = "") {
  const auto config = config::ParseModelConfig(
      "input { name: \"x\" " + input + " } " + more + " network { " + layers + " }", "model");
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() && IsSmallNetwork(std::get<network::Network>(config->graph));
}

constexpr char kRow[] = "datatype: \"FP32\" shape: [-1, 64]";
constexpr char kLinear[] = "layer { name: \"a\" linear { out_features: 2 } }";

TEST(IsSmallNetworkTest, AChainOfSmallLinearLayersIsOne) {
  EXPECT_TRUE(IsSmall(kRow, kLinear));
  EXPECT_TRUE(IsSmall(kRow, std::string(kLinear) + "layer { relu {} } layer { softmax {} }"));
  EXPECT_TRUE(IsSmall("datatype: \"FP32\" shape: [-1, 4, 4, 4]",
                      std::string("layer { flatten {} }") + kLinear));
}

TEST(IsSmallNetworkTest, ManyWeightsAreNot) {
  EXPECT_TRUE(IsSmall(kRow, "layer { name: \"a\" linear { out_features: 64 } }"));
  EXPECT_FALSE(IsSmall(kRow, "layer { name: \"a\" linear { out_features: 65 } }"));
  EXPECT_FALSE(IsSmall(kRow,
                       "layer { name: \"a\" linear { out_features: 32 } }"
                       "layer { name: \"b\" linear { out_features: 65 } }"));
}

TEST(IsSmallNetworkTest, OtherShapesTypesAndLayersAreNot) {
  EXPECT_FALSE(IsSmall("datatype: \"FP64\" shape: [-1, 4]", kLinear));
  EXPECT_FALSE(IsSmall("datatype: \"FP32\" shape: [-1, 3, 4]", kLinear));
  EXPECT_FALSE(IsSmall("datatype: \"FP32\" shape: [8, 4]", kLinear));
  EXPECT_FALSE(IsSmall(kRow, kLinear, "output { name: \"a\" datatype: \"FP64\" }"));
  EXPECT_FALSE(IsSmall(kRow, kLinear, "output { name: \"a\" datatype: \"FP32\" shape: [4, 2] }"));
  EXPECT_FALSE(IsSmall(kRow, std::string(kLinear) + "layer { gelu {} }"));
  EXPECT_FALSE(IsSmall(kRow, std::string(kLinear) + "layer { softmax { dim: 0 } }"));
  EXPECT_FALSE(IsSmall(kRow, "layer { relu {} }")) << "it has no weights";
}

TEST(IsSmallNetworkTest, WhatIsNotAChainIsNot) {
  EXPECT_FALSE(IsSmall(kRow, std::string(kLinear) +
                                 "layer { name: \"b\" relu {} }"
                                 "layer { name: \"c\" input: [\"a\", \"b\"] add {} }"));
  EXPECT_FALSE(IsSmall(kRow, std::string(kLinear) + "layer { name: \"b\" relu {} }",
                       "output { name: \"a\" datatype: \"FP32\" }"
                       "output { name: \"b\" datatype: \"FP32\" }"));
}

std::vector<double> Answer(const std::string& layer, const HostTensor& input) {
  auto graph = GraphFromText(
      "input { name: \"x\" datatype: \"FP32\" shape: [-1, 2] } network { "
      "layer { name: \"fc\" linear { out_features: 2 bias: false } } " +
      layer + " }");
  EXPECT_TRUE(graph.ok()) << graph.status();
  Weights weights;
  weights.Add("fc.weight", FloatTensor({2, 2}, {1, 0, 0, 1}));
  const auto bound = (*graph)->Bind(weights.Request());
  EXPECT_TRUE(bound.ok()) << bound.status();
  const auto outputs = (*bound)->Forward({input});
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(outputs->at(0).shape, input.shape);
  return ValuesOf(outputs->at(0));
}

TEST(SmallNetworkTest, NoRowsHaveNoAnswers) {
  EXPECT_THAT(Answer("layer { relu {} }", FloatTensor({0, 2}, {})), ElementsAre());
}

TEST(SmallNetworkTest, NotANumberStaysOneInItsRow) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const char* layer : {"layer { relu {} }", "layer { sigmoid {} }", "layer { softmax {} }"}) {
    const std::vector<double> values = Answer(layer, FloatTensor({2, 2}, {nan, 1, 1, 1}));
    EXPECT_TRUE(std::isnan(values[0])) << layer;
    EXPECT_FALSE(std::isnan(values[2])) << layer;
    EXPECT_FALSE(std::isnan(values[3])) << layer;
  }
}

TEST(SmallNetworkTest, FewRowsAreQuick) {
  const auto quick = [](int features, std::uint64_t rows, const char* activation = "tanh") {
    auto graph = GraphFromText(absl::StrCat(
        "input { name: \"x\" datatype: \"FP32\" shape: [-1, 16] } network { layer { name: \"a\" ",
        "linear { out_features: ", features, " bias: false } } layer { ", activation, " {} } }"));
    EXPECT_TRUE(graph.ok()) << graph.status();
    Weights weights;
    weights.Add("a.weight", FloatTensor({features, 16}, std::vector<float>(features * 16, 1)));
    const auto bound = (*graph)->Bind(weights.Request());
    EXPECT_TRUE(bound.ok()) << bound.status();
    return (*bound)->IsQuick(rows * 16 * sizeof(float));
  };
  EXPECT_TRUE(quick(4, 1));
  EXPECT_TRUE(quick(4, 16));
  EXPECT_FALSE(quick(4, 1000));
  EXPECT_TRUE(quick(256, 0));
  EXPECT_FALSE(quick(256, 1)) << "256 exponentials";
  EXPECT_FALSE(quick(257, 1)) << "not small";
  EXPECT_FALSE(quick(1, 128, "relu")) << "the layers and rows themselves count, and short sums";
}

TEST(SmallNetworkTest, LongSumsAreExact) {
  auto graph = GraphFromText(R"(input { name: "x" datatype: "FP32" shape: [-1, 4096] }
                                network { layer { name: "a" linear { out_features: 1 } } })");
  ASSERT_TRUE(graph.ok()) << graph.status();
  Weights weights;
  weights.Add("a.weight", FloatTensor({1, 4096}, std::vector<float>(4096, 0.7F)));
  weights.Add("a.bias", FloatTensor({1}, {0}));
  const auto bound = (*graph)->Bind(weights.Request());
  ASSERT_TRUE(bound.ok()) << bound.status();
  const auto outputs = (*bound)->Forward({FloatTensor({1, 4096}, std::vector<float>(4096, 0.1F))});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const double exact = 4096 * static_cast<double>(0.7F) * static_cast<double>(0.1F);
  EXPECT_NEAR(ValuesOf(outputs->at(0))[0], exact, 1e-5 * exact);
}

TEST(SmallNetworkTest, LargeValuesDoNotOverflow) {
  EXPECT_THAT(Answer("layer { softmax {} }", FloatTensor({1, 2}, {1000, -1000})),
              ElementsAre(1, 0));
  EXPECT_THAT(Answer("layer { sigmoid {} }", FloatTensor({1, 2}, {1000, -1000})),
              ElementsAre(1, 0));
}

}  // namespace
}  // namespace relight::model
