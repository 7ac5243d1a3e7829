// What binding and a forward promise, whatever the net.
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/model/model_testing.h"

namespace relight::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kTwoToTwo[] = R"(
  input { name: "x" datatype: "FP32" shape: -1 shape: 2 }
  network { layer { name: "fc" linear { out_features: 2 } } })";

// The same for positive values, and not a small network.
constexpr char kTwoToTwoInLibTorch[] = R"(
  input { name: "x" datatype: "FP32" shape: -1 shape: 2 }
  network { layer { name: "fc" linear { out_features: 2 } } layer { leaky_relu {} } })";

Weights DiagonalWeights(float value) {
  Weights weights;
  weights.Add("fc.weight", FloatTensor({2, 2}, {value, 0, 0, value}));
  weights.Add("fc.bias", FloatTensor({2}, {0, 1}));
  return weights;
}

std::unique_ptr<Graph> MakeGraph(const std::string& text) {
  auto graph = GraphFromText(text);
  EXPECT_TRUE(graph.ok()) << graph.status();
  return graph.ok() ? *std::move(graph) : nullptr;
}

std::unique_ptr<BoundModel> MustBind(Graph& graph, BindRequest request) {
  auto bound = graph.Bind(std::move(request));
  EXPECT_TRUE(bound.ok()) << bound.status();
  return bound.ok() ? *std::move(bound) : nullptr;
}

std::vector<double> Answer(const BoundModel& model, const HostTensor& input) {
  const auto outputs = model.Forward({input});
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? ValuesOf(outputs->at(0)) : std::vector<double>();
}

// Small integers, of which every order of summation gives the same sum.
HostTensor Integers(std::vector<std::int64_t> shape) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  std::vector<float> values;
  for (std::int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(i * 7 % 5 - 2));
  return FloatTensor(std::move(shape), values);
}

TEST(NetworkGraphTest, UsesTheWeightsWhereTheyLie) {
  const auto graph = MakeGraph(kTwoToTwoInLibTorch);
  Weights weights = DiagonalWeights(2);
  const auto bound = MustBind(*graph, weights.Request());
  const HostTensor input = FloatTensor({1, 2}, {3, 4});
  ASSERT_THAT(Answer(*bound, input), ElementsAre(6, 9));
  // Nobody may do this to a served model; it shows that nothing was copied.
  const float seven = 7;
  std::memcpy(weights.Data("fc.weight"), &seven, sizeof(seven));
  EXPECT_THAT(Answer(*bound, input), ElementsAre(21, 9));
}

TEST(NetworkGraphTest, HoldsTheMemoryOfItsWeights) {
  const auto graph = MakeGraph(kTwoToTwoInLibTorch);
  auto weights = std::make_unique<Weights>(DiagonalWeights(2));
  const std::weak_ptr<void> memory = weights->watch();
  auto bound = MustBind(*graph, weights->Request());
  weights.reset();
  EXPECT_FALSE(memory.expired());
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {3, 4})), ElementsAre(6, 9));
  bound.reset();
  EXPECT_TRUE(memory.expired());
}

TEST(NetworkGraphTest, NewWeightsLeaveTheOldModelAsItWas) {
  const auto graph = MakeGraph(kTwoToTwo);
  const auto old_model = MustBind(*graph, DiagonalWeights(2).Request());
  const auto new_model = MustBind(*graph, DiagonalWeights(5).Request());
  const HostTensor input = FloatTensor({1, 2}, {3, 4});
  EXPECT_THAT(Answer(*old_model, input), ElementsAre(6, 9));
  EXPECT_THAT(Answer(*new_model, input), ElementsAre(15, 21));
}

TEST(NetworkGraphTest, AParameterIsNotTheBiasOfALayerWithoutOne) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: -1 shape: 2 }
    network {
      layer { name: "fc" linear { out_features: 2 bias: false } }
      layer { name: "fc.bias" parameter { shape: 2 } }
      layer { input: "fc" input: "fc.bias" sub {} }
    })");
  const auto bound = MustBind(*graph, DiagonalWeights(2).Request());
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {3, 4})), ElementsAre(6, 7));
}

TEST(NetworkGraphTest, StretchesWhatIsGivenOnceOverAllRows) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: [-1, 2, 2] }
    network {
      layer { name: "start" parameter { shape: [1, 1, 2] } }
      layer { name: "gru" input: "x" input: "start" gru { hidden_size: 2 batch_first: true } }
      layer { name: "ask" parameter { shape: [1, 1, 2] } }
      layer { name: "look" input: ["ask", "gru", "gru"]
              multihead_attention { num_heads: 1 batch_first: true } }
    })");
  Weights weights;
  for (const ParameterSpec& parameter : graph->parameters()) {
    weights.Add(parameter.name, Integers(parameter.shape));
  }
  const auto bound = MustBind(*graph, weights.Request());
  const HostTensor both = Integers({2, 2, 2});
  const std::vector<double> answers = Answer(*bound, both);
  ASSERT_EQ(answers.size(), 4);
  const std::vector<double> values = ValuesOf(both);
  for (std::size_t row = 0; row < 2; ++row) {
    std::vector<float> own;
    for (std::size_t i = 0; i < 4; ++i) own.push_back(static_cast<float>(values[4 * row + i]));
    const std::vector<double> alone = Answer(*bound, FloatTensor({1, 2, 2}, own));
    ASSERT_EQ(alone.size(), 2);
    EXPECT_NEAR(alone[0], answers[2 * row], 1e-6);
    EXPECT_NEAR(alone[1], answers[2 * row + 1], 1e-6);
  }
}

// The least number of one type is minus infinity in another.
TEST(NetworkGraphTest, ARowOfWhichAMaskHidesAllIsANumberInHalfPrecisionToo) {
  const auto graph = MakeGraph(R"(
    precision: BF16
    input { name: "x" datatype: "FP32" shape: [-1, 2, 2] }
    input { name: "mask" datatype: "FP32" shape: [-1, 2, 2] }
    network { layer { input: ["x", "x", "x", "mask"] scaled_dot_product_attention {} } })");
  const auto bound = MustBind(*graph, {});
  const float least = std::numeric_limits<float>::lowest();
  const auto outputs = bound->Forward(
      {FloatTensor({1, 2, 2}, {1, 3, 2, 5}), FloatTensor({1, 2, 2}, {least, least, 0, least})});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(ValuesOf(outputs->at(0)), ElementsAre(1.5, 4, 1, 3));
}

TEST(NetworkGraphTest, RefusesAFirstStateOfOtherRows) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: [-1, 2, 2] }
    input { name: "start" datatype: "FP32" shape: [1, -1, 2] }
    network { layer { name: "gru" input: "x" input: "start"
                      gru { hidden_size: 2 batch_first: true } } })");
  Weights weights;
  for (const ParameterSpec& parameter : graph->parameters()) {
    weights.Add(parameter.name, Integers(parameter.shape));
  }
  const auto bound = MustBind(*graph, weights.Request());
  EXPECT_EQ(bound->Forward({Integers({3, 2, 2}), Integers({1, 2, 2})}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(NetworkGraphTest, AnswersOneRowOfLargeLayersAsAmongOthers) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: -1 shape: 256 }
    network {
      layer { name: "a" linear { out_features: 129 } }
      layer { name: "b" linear { out_features: 130 bias: false } }
    })");
  Weights weights;
  weights.Add("a.weight", Integers({129, 256}));
  weights.Add("a.bias", Integers({129}));
  weights.Add("b.weight", Integers({130, 129}));
  const auto bound = MustBind(*graph, weights.Request());
  std::vector<double> two_rows = Answer(*bound, Integers({2, 256}));
  ASSERT_EQ(two_rows.size(), 260);
  two_rows.resize(130);
  EXPECT_EQ(Answer(*bound, Integers({1, 256})), two_rows);
}

TEST(NetworkGraphTest, OutlivesItsGraph) {
  auto graph = MakeGraph(kTwoToTwo);
  const auto bound = MustBind(*graph, DiagonalWeights(2).Request());
  graph.reset();
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {3, 4})), ElementsAre(6, 9));
}

TEST(NetworkGraphTest, FollowsTheStridesOfTheCheckpoint) {
  const auto graph = MakeGraph(kTwoToTwo);
  Weights weights;
  weights.Add("fc.weight", FloatTensor({2, 2}, {1, 2, 3, 4}));
  weights.Add("fc.bias", FloatTensor({2}, {0, 0}));
  BindRequest request = weights.Request();
  request.weights[0].stride = {1, 2};
  const auto bound = MustBind(*graph, std::move(request));
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {1, 10})), ElementsAre(31, 42));
}

TEST(NetworkGraphTest, AnswersFromSeveralThreadsAtOnce) {
  const auto graph = MakeGraph(kTwoToTwo);
  const auto bound = MustBind(*graph, DiagonalWeights(2).Request());
  constexpr int kThreads = 8;
  constexpr int kCalls = 200;
  std::vector<int> right(kThreads, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const HostTensor input = FloatTensor({1, 2}, {static_cast<float>(t), 4});
      for (int i = 0; i < kCalls; ++i) {
        const auto outputs = bound->Forward({input});
        if (!outputs.ok()) continue;
        const std::vector<double> wanted = {2.0 * t, 9};
        if (ValuesOf(outputs->at(0)) == wanted) ++right[static_cast<std::size_t>(t)];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(right, testing::Each(kCalls));
}

TEST(NetworkGraphTest, AnEmptyBatchHasAnEmptyAnswer) {
  const auto graph = MakeGraph(kTwoToTwo);
  const auto bound = MustBind(*graph, DiagonalWeights(2).Request());
  const auto outputs = bound->Forward({FloatTensor({0, 2}, {})});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(outputs->at(0).shape, ElementsAre(0, 2));
  EXPECT_EQ(outputs->at(0).size_bytes, 0);
}

TEST(PrecisionTest, WhatTheDeviceDoesNotComputeInItIsAnErrorOfTheConfig) {
  const char* const pooled = R"(
      input { name: "x" datatype: "FP32" shape: [-1, 2, 4, 4, 4] }
      network { layer { name: "fc" linear { out_features: 4 } }
                layer { max_pool3d { kernel_size: 2 } } })";
  EXPECT_TRUE(GraphFromText(pooled).ok());
  const auto refused = GraphFromText(absl::StrCat("device: \"cpu\" precision: BF16 ", pooled));
  if (refused.ok()) GTEST_SKIP() << "this LibTorch computes it";
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()),
              testing::AllOf(testing::HasSubstr("precision BF16: cpu does not compute all of this "
                                                "network in that precision"),
                             testing::HasSubstr("set precision: FP32")));
}

TEST(PrecisionTest, WhatItComputesIsTakenWithoutWeights) {
  EXPECT_TRUE(GraphFromText(R"(
      precision: BF16
      input { name: "ids" datatype: "INT64" shape: [-1, -1] }
      network { layer { name: "e" embedding { num_embeddings: 3 embedding_dim: 4 } }
                layer { name: "n" layer_norm { normalized_shape: 4 } }
                layer { mean { dim: 1 } }
                layer { name: "fc" linear { out_features: 2 } } })")
                  .ok());
}

// Outputs that LibTorch would give out as views.

TEST(OutputAliasTest, IdentityReturnsACopy) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: -1 shape: 2 }
    network { layer { identity { } } layer { flatten { } } layer { dropout { } } })");
  const auto bound = MustBind(*graph, {});
  const HostTensor input = FloatTensor({1, 2}, {3, 4});
  const auto outputs = bound->Forward({input});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_NE(outputs->at(0).data.get(), input.data.get());
  EXPECT_THAT(ValuesOf(outputs->at(0)), ElementsAre(3, 4));
}

TEST(OutputAliasTest, OutputsNeverShareMemory) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: -1 shape: 2 }
    output { name: "a" datatype: "FP32" shape: -1 shape: 2 }
    output { name: "b" datatype: "FP32" shape: -1 shape: 2 }
    network {
      layer { name: "a" tanh { } }
      layer { name: "b" identity { } }
    })");
  const auto bound = MustBind(*graph, {});
  const auto outputs = bound->Forward({FloatTensor({1, 2}, {3, 4})});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_NE(outputs->at(0).data.get(), outputs->at(1).data.get());
  EXPECT_EQ(ValuesOf(outputs->at(0)), ValuesOf(outputs->at(1)));
}

TEST(OutputAliasTest, ReluNeverWritesToTheRequest) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: -1 shape: 2 }
    network { layer { identity { } } layer { relu { } } })");
  const auto bound = MustBind(*graph, {});
  const HostTensor input = FloatTensor({1, 2}, {-3, 4});
  EXPECT_THAT(Answer(*bound, input), ElementsAre(0, 4));
  EXPECT_THAT(ValuesOf(input), ElementsAre(-3, 4));
}

TEST(OutputAliasTest, ChannelsLastWeightsStillGiveRowMajorAnswers) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: -1 shape: 2 shape: 1 shape: 2 }
    network { layer { name: "conv" conv2d { out_channels: 2 kernel_size: 1 bias: false } } })");
  Weights weights;
  weights.Add("conv.weight", FloatTensor({2, 2, 1, 1}, {1, 0, 0, 10}));
  BindRequest request = weights.Request();
  request.weights[0].stride = {2, 1, 2, 2};  // As torch.channels_last has them.
  const auto bound = MustBind(*graph, std::move(request));
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2, 1, 2}, {1, 2, 3, 4})), ElementsAre(1, 2, 30, 40));
}

// Precision.

TEST(PrecisionTest, OtherFloatingPointTypesAreComputedInFloat32) {
  const auto graph = MakeGraph(kTwoToTwo);
  Weights doubles;
  doubles.Add("fc.weight", TensorOf<double>(DType::kFloat64, {2, 2}, {2, 0, 0, 2}));
  doubles.Add("fc.bias", TensorOf<double>(DType::kFloat64, {2}, {0, 1}));
  Weights halves;  // 2, 0, 0, 2 and 0, 1
  halves.Add("fc.weight", TensorOf<std::uint16_t>(DType::kFloat16, {2, 2}, {0x4000, 0, 0, 0x4000}));
  halves.Add("fc.bias", TensorOf<std::uint16_t>(DType::kBFloat16, {2}, {0, 0x3F80}));
  for (const Weights* weights : {&doubles, &halves}) {
    const auto bound = MustBind(*graph, weights->Request());
    EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {3, 4})), ElementsAre(6, 9));
  }
}

TEST(PrecisionTest, BFloat16RoundsAndAnswersInTheDeclaredType) {
  const auto graph = MakeGraph(std::string("precision: BF16 ") + kTwoToTwo);
  const auto bound = MustBind(*graph, DiagonalWeights(1.001F).Request());
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {3, 4})), ElementsAre(3, 5));
}

TEST(PrecisionTest, AsSavedKeepsFloat64) {
  const auto graph = MakeGraph(std::string("precision: AS_SAVED ") + R"(
    input { name: "x" datatype: "FP64" shape: -1 shape: 1 }
    output { name: "y" datatype: "FP64" shape: -1 shape: 1 }
    network { layer { name: "fc" linear { out_features: 1 bias: false } } })");
  Weights weights;
  const double precise = 1.0 + 1e-12;
  weights.Add("fc.weight", TensorOf<double>(DType::kFloat64, {1, 1}, {precise}));
  const auto bound = MustBind(*graph, weights.Request());
  EXPECT_THAT(Answer(*bound, TensorOf<double>(DType::kFloat64, {1, 1}, {1})), ElementsAre(precise));
}

TEST(PrecisionTest, Float16InputsAreComputedWiderOnTheCpu) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP16" shape: -1 shape: 1 }
    output { name: "y" datatype: "FP32" shape: -1 shape: 1 }
    network { layer { name: "y" hardswish { } } })");
  ASSERT_NE(graph, nullptr);
  const auto bound = MustBind(*graph, {});
  EXPECT_THAT(Answer(*bound, TensorOf<std::uint16_t>(DType::kFloat16, {1, 1}, {0x4800})),
              ElementsAre(8));
}

TEST(PrecisionTest, RefusesFloat16OnTheCpu) {
  const auto graph = GraphFromText(std::string("precision: FP16 device: \"cpu\" ") + kTwoToTwo);
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("FP16"));
}

TEST(PrecisionTest, RefusesFloat16WeightsAsSavedOnTheCpu) {
  const auto graph = MakeGraph(std::string("precision: AS_SAVED ") + kTwoToTwo);
  Weights halves;
  halves.Add("fc.weight", TensorOf<std::uint16_t>(DType::kFloat16, {2, 2}, {0, 0, 0, 0}));
  halves.Add("fc.bias", TensorOf<std::uint16_t>(DType::kFloat16, {2}, {0, 0}));
  const auto bound = graph->Bind(halves.Request());
  EXPECT_EQ(bound.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bound.status().message()), HasSubstr("set precision"));
}

// Refusals.

TEST(BindTest, ReportsAllThatDoesNotFitTogether) {
  const auto graph = MakeGraph(kTwoToTwo);
  Weights weights;
  weights.Add("fc.weight", FloatTensor({1, 2}, {1, 2}));
  weights.Add("extra", FloatTensor({1}, {1}));
  const auto bound = graph->Bind(weights.Request());
  EXPECT_EQ(bound.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(bound.status().message());
  EXPECT_THAT(message, HasSubstr("fc.weight: checkpoint has shape [1, 2], the graph needs [2, 2]"));
  EXPECT_THAT(message, HasSubstr("fc.bias: missing"));
  EXPECT_THAT(message, HasSubstr("extra: unknown"));
}

TEST(BindTest, RefusesIntegersForAParameter) {
  const auto graph = MakeGraph(kTwoToTwo);
  Weights weights;
  weights.Add("fc.weight", TensorOf<std::int64_t>(DType::kInt64, {2, 2}, {1, 2, 3, 4}));
  weights.Add("fc.bias", FloatTensor({2}, {0, 0}));
  const auto bound = graph->Bind(weights.Request());
  EXPECT_EQ(bound.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bound.status().message()), HasSubstr("checkpoint has int64"));
}

TEST(BindTest, BatchNormsCounterMayBeMissing) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: -1 shape: 1 }
    network { layer { name: "bn" batch_norm1d { affine: false eps: 0 } } })");
  Weights weights;
  weights.Add("bn.running_mean", FloatTensor({1}, {1}));
  weights.Add("bn.running_var", FloatTensor({1}, {4}));
  const auto bound = MustBind(*graph, weights.Request());
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 1}, {7})), ElementsAre(3));
}

struct BadInput {
  std::string name;
  std::vector<HostTensor> inputs;
  std::string message;
};

class BadInputTest : public testing::TestWithParam<BadInput> {};

TEST_P(BadInputTest, IsRefusedWithBothNumbers) {
  const auto graph = MakeGraph(kTwoToTwo);
  const auto bound = MustBind(*graph, DiagonalWeights(2).Request());
  const auto outputs = bound->Forward(GetParam().inputs);
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(outputs.status().message()), HasSubstr(GetParam().message));
}

HostTensor ShortOfBytes() {
  HostTensor tensor = FloatTensor({1, 2}, {1, 2});
  tensor.size_bytes = 4;
  return tensor;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadInputTest,
    testing::Values(
        BadInput{"None", {}, "got 0 inputs, the graph takes 1"},
        BadInput{"WrongRank", {FloatTensor({2}, {1, 2})}, "has shape [2], the graph takes [-1, 2]"},
        BadInput{"WrongSize",
                 {FloatTensor({1, 3}, {1, 2, 3})},
                 "has shape [1, 3], the graph takes [-1, 2]"},
        BadInput{"NegativeSize", {FloatTensor({-1, 2}, {1, 2})}, "has shape [-1, 2]"},
        BadInput{"WrongType",
                 {TensorOf<std::int64_t>(DType::kInt64, {1, 2}, {1, 2})},
                 "is int64, the graph takes float32"},
        BadInput{"ShortOfBytes", {ShortOfBytes()}, "has 4 bytes, shape [1, 2] of float32 takes 8"}),
    [](const testing::TestParamInfo<BadInput>& one) { return one.param.name; });

TEST(ForwardTest, BlamesTheRequestForFreeSizesThatDoNotFit) {
  const auto graph = MakeGraph(R"(
    input { name: "x" datatype: "FP32" shape: -1 shape: 1 shape: -1 shape: -1 }
    network { layer { max_pool2d { kernel_size: 5 } } })");
  const auto bound = MustBind(*graph, {});
  const auto outputs = bound->Forward({FloatTensor({1, 1, 2, 2}, {1, 2, 3, 4})});
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInvalidArgument) << outputs.status();
  EXPECT_EQ(std::string(outputs.status().message()).find('\n'), std::string::npos);
}

// Types that travel in others.

std::string IdentityOf(const std::string& datatype) {
  return "input { name: \"x\" datatype: \"" + datatype +
         "\" shape: -1 } network { layer { identity { } } }";
}

TEST(WireTypeTest, UnsignedTypesComeBackAsTheyWere) {
  const std::vector<std::pair<std::string, HostTensor>> cases = {
      {"UINT16", TensorOf<std::uint16_t>(DType::kUInt16, {2}, {0, 65535})},
      {"UINT32", TensorOf<std::uint32_t>(DType::kUInt32, {2}, {7, 4294967295})},
      {"UINT64", TensorOf<std::uint64_t>(DType::kUInt64, {2}, {9, std::uint64_t{1} << 62})},
      {"UINT8", TensorOf<std::uint8_t>(DType::kUInt8, {2}, {0, 255})}};
  for (const auto& [datatype, tensor] : cases) {
    SCOPED_TRACE(datatype);
    const auto graph = MakeGraph(IdentityOf(datatype));
    ASSERT_NE(graph, nullptr);
    const auto bound = MustBind(*graph, {});
    EXPECT_EQ(Answer(*bound, tensor), ValuesOf(tensor));
  }
}

TEST(WireTypeTest, RefusesUnsignedValuesThatAreNotComputed) {
  const auto graph = MakeGraph(IdentityOf("UINT64"));
  const auto bound = MustBind(*graph, {});
  const auto outputs =
      bound->Forward({TensorOf<std::uint64_t>(DType::kUInt64, {1}, {~std::uint64_t{0}})});
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(outputs.status().message()), HasSubstr("9223372036854775807"));
}

TEST(WireTypeTest, RefusesResultsThatDoNotFitTheDeclaredType) {
  const auto graph = MakeGraph(R"(
    input { name: "a" datatype: "UINT16" shape: -1 }
    input { name: "b" datatype: "UINT16" shape: -1 }
    network { layer { input: "a" input: "b" add { } } })");
  const auto bound = MustBind(*graph, {});
  const HostTensor most = TensorOf<std::uint16_t>(DType::kUInt16, {1}, {65535});
  const HostTensor none = TensorOf<std::uint16_t>(DType::kUInt16, {1}, {0});
  EXPECT_TRUE(bound->Forward({most, none}).ok());
  const auto outputs = bound->Forward({most, most});
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(outputs.status().message()), HasSubstr("131070"));
}

TEST(WireTypeTest, AnyByteButZeroIsTrue) {
  const auto graph = MakeGraph(IdentityOf("BOOL"));
  const auto bound = MustBind(*graph, {});
  EXPECT_THAT(Answer(*bound, TensorOf<std::uint8_t>(DType::kBool, {3}, {0, 1, 254})),
              ElementsAre(0, 1, 1));
}

}  // namespace
}  // namespace relight::model
