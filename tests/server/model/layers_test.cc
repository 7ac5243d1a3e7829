// Every kind of layer, and whole nets, against what PyTorch answers (tests/data/layers.json and
// fixture_nets.json).
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/server/model/model_testing.h"

namespace relight::model {
namespace {

class LayersTest : public testing::TestWithParam<nlohmann::json> {};

TEST_P(LayersTest, AnswersAsPyTorchDoes) {
  const nlohmann::json& c = GetParam();
  auto graph = GraphFromText(c.at("textproto").get<std::string>());
  ASSERT_TRUE(graph.ok()) << graph.status();
  auto bound = (*graph)->Bind(WeightsFromJson(c.at("parameters")).Request());
  ASSERT_TRUE(bound.ok()) << bound.status();
  std::vector<HostTensor> inputs;
  for (const auto& input : c.at("inputs")) inputs.push_back(TensorFromJson(input));

  const auto outputs = (*bound)->Forward(inputs);

  ASSERT_TRUE(outputs.ok()) << outputs.status();
  ASSERT_EQ(outputs->size(), c.at("outputs").size());
  for (std::size_t i = 0; i < outputs->size(); ++i) {
    SCOPED_TRACE(i);
    ExpectNear((*outputs)[i], TensorFromJson(c.at("outputs")[i]), 1e-5);
  }
}

TEST_P(LayersTest, ListsTheParametersOfPyTorchsStateDict) {
  const nlohmann::json& c = GetParam();
  const auto graph = GraphFromText(c.at("textproto").get<std::string>());
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::size_t found = 0;
  for (const ParameterSpec& spec : (*graph)->parameters()) {
    ASSERT_TRUE(c.at("parameters").contains(spec.name)) << spec.name;
    EXPECT_EQ(c.at("parameters").at(spec.name).at("shape").get<std::vector<std::int64_t>>(),
              spec.shape);
    ++found;
  }
  EXPECT_EQ(found, c.at("parameters").size());
}

std::string CaseName(const testing::TestParamInfo<nlohmann::json>& one) {
  return one.param.at("name").get<std::string>();
}

std::vector<nlohmann::json> Cases(const std::string& file) {
  return ReadJson(file).get<std::vector<nlohmann::json>>();
}

INSTANTIATE_TEST_SUITE_P(Layers, LayersTest, testing::ValuesIn(Cases("layers.json")), CaseName);
INSTANTIATE_TEST_SUITE_P(Fixtures, LayersTest, testing::ValuesIn(Cases("fixture_nets.json")),
                         CaseName);

}  // namespace
}  // namespace relight::model
