// TorchScript archives (tests/data/torchscript) with the weights of checkpoints.
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/paths.h"
#include "tests/server/model/model_testing.h"

namespace relight::model {
namespace {

using testing::HasSubstr;

TensorSpec SpecFromJson(const std::string& name, const nlohmann::json& tensor, bool free_batch) {
  const HostTensor value = TensorFromJson(tensor);
  TensorSpec spec{name, value.dtype, value.shape};
  if (free_batch && spec.shape.size() > 1) spec.shape[0] = -1;
  return spec;
}

config::ModelConfig ConfigFor(const std::string& file, std::vector<TensorSpec> inputs,
                              std::vector<TensorSpec> outputs) {
  config::ModelConfig config;
  config.name = "model";
  config.device.kind = config::DeviceChoice::Kind::kCpu;
  config.batching.max_batch_size = 8;
  config.inputs = inputs;
  config.outputs = outputs;
  config.graph = config::TorchScriptGraph{std::string(RELIGHT_TEST_DATA) + "/" + file,
                                          std::move(inputs), std::move(outputs)};
  return config;
}

// [-1, 3] to [-1, 2]
absl::StatusOr<std::unique_ptr<Graph>> LoadThreeToTwo(const std::string& file) {
  return Backend().Create(ConfigFor("torchscript/" + file, {{"x", DType::kFloat32, {-1, 3}}},
                                    {{"y", DType::kFloat32, {-1, 2}}}));
}

absl::StatusOr<std::unique_ptr<Graph>> LoadCase(const nlohmann::json& c) {
  std::vector<TensorSpec> inputs;
  for (const auto& input : c.at("inputs")) inputs.push_back(SpecFromJson("in", input, true));
  std::vector<TensorSpec> outputs;
  for (const auto& output : c.at("versions")[0].at("outputs")) {
    const std::string name =
        c.contains("output_names") ? c.at("output_names")[outputs.size()] : "out";
    outputs.push_back(SpecFromJson(name, output, true));
  }
  return Backend().Create(ConfigFor("torchscript/" + c.at("file").get<std::string>(),
                                    std::move(inputs), std::move(outputs)));
}

class TorchScriptTest : public testing::TestWithParam<nlohmann::json> {
 protected:
  std::vector<HostTensor> Inputs() const {
    std::vector<HostTensor> inputs;
    for (const auto& input : GetParam().at("inputs")) inputs.push_back(TensorFromJson(input));
    return inputs;
  }
  const nlohmann::json& Version(std::size_t i) const { return GetParam().at("versions")[i]; }

  static void ExpectAnswers(const BoundModel& model, const std::vector<HostTensor>& inputs,
                            const nlohmann::json& version) {
    const auto outputs = model.Forward(inputs);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ASSERT_EQ(outputs->size(), version.at("outputs").size());
    for (std::size_t i = 0; i < outputs->size(); ++i) {
      SCOPED_TRACE(i);
      ExpectNear((*outputs)[i], TensorFromJson(version.at("outputs")[i]), 1e-4);
    }
  }
};

TEST_P(TorchScriptTest, EachVersionAnswersWithItsOwnWeights) {
  const auto graph = LoadCase(GetParam());
  ASSERT_TRUE(graph.ok()) << graph.status();
  const auto first = (*graph)->Bind(WeightsFromJson(Version(0).at("parameters")).Request());
  ASSERT_TRUE(first.ok()) << first.status();
  ExpectAnswers(**first, Inputs(), Version(0));
  const auto second = (*graph)->Bind(WeightsFromJson(Version(1).at("parameters")).Request());
  ASSERT_TRUE(second.ok()) << second.status();
  for (int round = 0; round < 3; ++round) {
    ExpectAnswers(**second, Inputs(), Version(1));
    ExpectAnswers(**first, Inputs(), Version(0));
  }
}

TEST_P(TorchScriptTest, ListsTheKeysOfPyTorchsStateDict) {
  const auto graph = LoadCase(GetParam());
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::set<std::string> listed;
  for (const ParameterSpec& spec : (*graph)->parameters()) {
    listed.insert(spec.name);
    const auto found = Version(0).at("parameters").find(spec.name);
    if (found == Version(0).at("parameters").end()) {
      EXPECT_FALSE(spec.required) << spec.name;
    } else {
      EXPECT_EQ(found->at("shape"), nlohmann::json(spec.shape));
    }
  }
  for (const auto& [key, tensor] : Version(0).at("parameters").items()) {
    EXPECT_TRUE(listed.contains(key)) << key;
  }
}

TEST_P(TorchScriptTest, NeitherChangesNorReturnsTheRequestsMemory) {
  const auto graph = LoadCase(GetParam());
  ASSERT_TRUE(graph.ok()) << graph.status();
  Weights weights = WeightsFromJson(Version(0).at("parameters"));
  const auto bound = (*graph)->Bind(weights.Request());
  ASSERT_TRUE(bound.ok()) << bound.status();
  const std::vector<HostTensor> inputs = Inputs();
  const auto outputs = (*bound)->Forward(inputs);
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_EQ(ValuesOf(inputs[i]), ValuesOf(Inputs()[i]));
    for (const HostTensor& output : *outputs) EXPECT_NE(output.data.get(), inputs[i].data.get());
  }
  for (const WeightView& view : weights.Request().weights) {
    for (const HostTensor& output : *outputs) EXPECT_NE(output.data.get(), view.data);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, TorchScriptTest,
    testing::ValuesIn(ReadJson("torchscript/cases.json").get<std::vector<nlohmann::json>>()),
    [](const testing::TestParamInfo<nlohmann::json>& one) {
      return one.param.at("name").get<std::string>();
    });

TEST(TorchScriptBindTest, ChecksShapesThatLibTorchWouldNot) {
  const nlohmann::json cases = ReadJson("torchscript/cases.json");
  const auto graph = LoadCase(cases[0]);
  ASSERT_TRUE(graph.ok()) << graph.status();
  nlohmann::json parameters = cases[0].at("versions")[0].at("parameters");
  parameters["head.bias"] = {{"dtype", "float32"}, {"shape", {1}}, {"data", {0.0}}};
  const auto bound = (*graph)->Bind(WeightsFromJson(parameters).Request());
  EXPECT_EQ(bound.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bound.status().message()),
              HasSubstr("head.bias: checkpoint has shape [1], the graph needs [3]"));
}

struct Refusal {
  std::string file;
  std::string message;
};

class TorchScriptRefusalTest : public testing::TestWithParam<Refusal> {};

TEST_P(TorchScriptRefusalTest, SaysWhatToDo) {
  const auto graph = LoadThreeToTwo(GetParam().file + ".pt");
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument) << graph.status();
  const std::string message(graph.status().message());
  EXPECT_THAT(message, HasSubstr(GetParam().message));
  EXPECT_THAT(message, HasSubstr(GetParam().file));
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    All, TorchScriptRefusalTest,
    testing::Values(Refusal{"dropout_traced_in_training", "traced in training mode"},
                    Refusal{"batch_norm_traced_in_training", "traced in training mode"},
                    Refusal{"frozen", "torch.jit.freeze"},
                    Refusal{"named",
                            "a dict without y, which the config declares as an output; "
                            "its keys are logits, hidden, probabilities"},
                    Refusal{"nested", "returns 3 outputs, the config declares 1"},
                    Refusal{"returns_a_string", "forward() returns"},
                    Refusal{"draws_numbers", "do not agree"},
                    Refusal{"counts_its_calls", "writes to its own calls"},
                    Refusal{"several", "takes 2 inputs, the config declares 1"},
                    Refusal{"tied", "has shape [2, 3], the config declares [-1, 2]"}),
    [](const testing::TestParamInfo<Refusal>& one) { return one.param.file; });

TEST(TorchScriptLoadTest, TheConfigMayDeclareSomeOfADictInAnyOrder) {
  const nlohmann::json cases = ReadJson("torchscript/cases.json");
  const auto named = std::find_if(cases.begin(), cases.end(),
                                  [](const auto& one) { return one.at("name") == "named"; });
  const auto graph = Backend().Create(ConfigFor(
      "torchscript/named.pt", {{"x", DType::kFloat32, {-1, 3}}},
      {{"probabilities", DType::kFloat32, {-1, 2}}, {"logits", DType::kFloat32, {-1, 2}}}));
  ASSERT_TRUE(graph.ok()) << graph.status();
  const nlohmann::json& version = named->at("versions")[1];
  const auto bound = (*graph)->Bind(WeightsFromJson(version.at("parameters")).Request());
  ASSERT_TRUE(bound.ok()) << bound.status();
  const auto outputs = (*bound)->Forward({TensorFromJson(named->at("inputs")[0])});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  ASSERT_EQ(outputs->size(), 2U);
  ExpectNear((*outputs)[0], TensorFromJson(version.at("outputs")[2]), 1e-5);
  ExpectNear((*outputs)[1], TensorFromJson(version.at("outputs")[0]), 1e-5);
}

TEST(TorchScriptLoadTest, RefusesWhatIsFrozenButForALittle) {
  const auto graph =
      Backend().Create(ConfigFor("torchscript/frozen_but_for_a_buffer.pt",
                                 {{"a", DType::kFloat32, {-1, 3}}, {"b", DType::kFloat32, {-1, 2}}},
                                 {{"x", DType::kFloat32, {-1, 2}},
                                  {"y", DType::kFloat32, {-1, 2}},
                                  {"z", DType::kFloat32, {-1, 3}}}));
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(graph.status().message()),
              HasSubstr("of 2 numbers that a checkpoint could replace, and weights of 6 that are "
                        "constants in its code: torch.jit.freeze"));
}

TEST(TorchScriptLoadTest, RefusesArgumentsThatAreNoTensors) {
  const auto graph =
      Backend().Create(ConfigFor("torchscript/takes_a_number.pt",
                                 {{"x", DType::kFloat32, {-1, 3}}, {"times", DType::kInt64, {1}}},
                                 {{"y", DType::kFloat32, {-1, 2}}}));
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("argument times is int"));
}

TEST(TorchScriptLoadTest, AMissingFileIsNotFound) {
  EXPECT_EQ(LoadThreeToTwo("nothing.pt").status().code(), absl::StatusCode::kNotFound);
}

TEST(TorchScriptLoadTest, AnotherKindOfFileIsNoArchive) {
  const auto graph = LoadThreeToTwo("cases.json");
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("not an archive"));
}

}  // namespace
}  // namespace relight::model
