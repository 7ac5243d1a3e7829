// Nets that are not computed layer by layer with LibTorch give what they say all the same: the net
// in float64, with every convolution an output too, is computed as it is written, and the measure.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "tests/server/model/model_testing.h"

namespace relight::model {
namespace {

// What is promised of float32: of the largest output.
constexpr double kTolerance = 1e-5;

class Random {
 public:
  // Between `low` and `high`.
  std::vector<double> Values(std::int64_t count, double low, double high) {
    std::uniform_real_distribution<double> distribution(low, high);
    std::vector<double> values(static_cast<std::size_t>(count));
    for (double& value : values) value = distribution(engine_);
    return values;
  }

 private:
  std::mt19937 engine_{7};
};

std::int64_t Count(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

// Weights for every parameter of `graph`, the same ones in `dtype`.
Weights MakeWeights(const Graph& graph, DType dtype) {
  Random random;
  Weights weights;
  for (const ParameterSpec& spec : graph.parameters()) {
    if (spec.dtype != DType::kFloat32) {
      weights.Add(spec.name, TensorOf<std::int64_t>(DType::kInt64, spec.shape, {5}));
      continue;
    }
    const bool variance = spec.name.ends_with("running_var");
    const double spread = 1 / std::sqrt(static_cast<double>(Count(spec.shape)));
    const std::vector<double> values = variance ? random.Values(Count(spec.shape), 0.2, 2)
                                                : random.Values(Count(spec.shape), -spread, spread);
    // Values that float32 has, so that both nets have the same weights.
    const std::vector<float> narrow(values.begin(), values.end());
    if (dtype == DType::kFloat32) {
      weights.Add(spec.name, FloatTensor(spec.shape, narrow));
    } else {
      weights.Add(spec.name, TensorOf<double>(DType::kFloat64, spec.shape,
                                              std::vector<double>(narrow.begin(), narrow.end())));
    }
  }
  return weights;
}

std::vector<double> Answer(const std::string& text, DType dtype, const HostTensor& input) {
  auto graph = GraphFromText(text);
  EXPECT_TRUE(graph.ok()) << graph.status();
  auto bound = (*graph)->Bind(MakeWeights(**graph, dtype).Request());
  EXPECT_TRUE(bound.ok()) << bound.status();
  const auto outputs = (*bound)->Forward({input});
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return ValuesOf(outputs->at(0));
}

struct Case {
  const char* name;
  std::vector<std::int64_t> shape;  // Of a row.
  const char* layers;
  std::vector<std::string> outputs;  // The last layer, then the convolutions.
};

class Float64ReferenceTest : public testing::TestWithParam<Case> {};

TEST_P(Float64ReferenceTest, AnswersAsTheNetDoesLayerByLayer) {
  const std::string shape =
      absl::StrCat("shape: [-1, ", absl::StrJoin(GetParam().shape, ", "), "]");
  const auto text = [&](const char* datatype, const char* precision) {
    return absl::StrCat("precision: ", precision, " input { name: \"x\" datatype: \"", datatype,
                        "\" ", shape, " } network { ", GetParam().layers, " }");
  };
  std::string reference = text("FP64", "AS_SAVED");
  for (const std::string& output : GetParam().outputs) {
    absl::StrAppend(&reference, " output { name: \"", output, "\" datatype: \"FP64\" }");
  }
  for (const std::int64_t rows : {1, 3}) {
    std::vector<std::int64_t> input_shape = GetParam().shape;
    input_shape.insert(input_shape.begin(), rows);
    Random random;
    const std::vector<double> values = random.Values(Count(input_shape), -1, 1);
    const std::vector<float> narrow(values.begin(), values.end());
    const std::vector<double> actual =
        Answer(text("FP32", "FP32"), DType::kFloat32, FloatTensor(input_shape, narrow));
    const std::vector<double> expected =
        Answer(reference, DType::kFloat64,
               TensorOf<double>(DType::kFloat64, input_shape,
                                std::vector<double>(narrow.begin(), narrow.end())));
    ASSERT_EQ(actual.size(), expected.size());
    double largest = 0;
    for (const double value : expected) largest = std::max(largest, std::abs(value));
    ASSERT_GT(largest, 0);
    for (std::size_t i = 0; i < actual.size(); ++i) {
      ASSERT_NEAR(actual[i], expected[i], kTolerance * largest)
          << "element " << i << " of " << rows;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Convolutions, Float64ReferenceTest,
    testing::Values(
        Case{"SmallWithNorm",
             {3, 8, 8},
             R"(layer { name: "c" conv2d { out_channels: 4 kernel_size: 3 } }
                layer { name: "n" batch_norm2d {} })",
             {"n", "c"}},
        Case{"SmallWithoutBiasOrScale",
             {3, 8, 8},
             R"(layer { name: "c" conv2d { out_channels: 4 kernel_size: 3 bias: false } }
                layer { name: "n" batch_norm2d { affine: false eps: 0.001 } })",
             {"n", "c"}},
        Case{"Large",
             {3, 90, 91},
             R"(layer { name: "c" conv2d { out_channels: 5 kernel_size: [3, 2] stride: [2, 1]
                                           padding: [1, 0] dilation: [1, 2] } })",
             {"c"}},
        Case{"Depthwise",
             {8, 60, 60},
             R"(layer { name: "c" conv2d { out_channels: 16 kernel_size: 3 groups: 8 } }
                layer { name: "n" batch_norm2d {} }
                layer { name: "r" relu6 {} })",
             {"r", "c"}},
        Case{"ResidualBlocks",
             {3, 96, 96},
             R"(layer { name: "c0" conv2d { out_channels: 16 kernel_size: 7 stride: 2 padding: 3
                                            bias: false } }
                layer { name: "n0" batch_norm2d {} }
                layer { name: "r0" relu {} }
                layer { name: "p0" max_pool2d { kernel_size: 3 stride: 2 padding: 1 ceil_mode: true } }
                layer { name: "c1" conv2d { out_channels: 16 kernel_size: 3 padding: 1 } }
                layer { name: "n1" batch_norm2d {} }
                layer { name: "r1" relu {} }
                layer { name: "c2" conv2d { out_channels: 16 kernel_size: 3 padding: 1 } }
                layer { name: "n2" batch_norm2d {} }
                layer { name: "a" input: ["n2", "p0"] add {} }
                layer { name: "r2" relu {} }
                layer { name: "d" input: "a" conv2d { out_channels: 16 kernel_size: 1 } }
                layer { name: "b" input: ["d", "r2", "a"] add {} }
                layer { name: "m" adaptive_avg_pool2d { output_size: 1 } }
                layer { flatten {} }
                layer { name: "fc" linear { out_features: 7 } })",
             {"fc", "c0", "c1", "c2", "d"}},
        Case{"OutOfTheLayoutAndBack",
             {3, 90, 90},
             R"(layer { name: "c0" conv2d { out_channels: 6 kernel_size: 3 padding: 1 } }
                layer { name: "s" silu {} }
                layer { name: "c1" conv2d { out_channels: 6 kernel_size: 3 padding: 1 } }
                layer { name: "m" input: ["c1", "s"] mul {} }
                layer { name: "r" input: "c1" relu {} }
                layer { name: "cat" input: ["m", "r", "c0"] concat { dim: 1 } }
                layer { name: "n" batch_norm2d {} })",
             {"n", "c0", "c1"}}),
    [](const testing::TestParamInfo<Case>& test) { return std::string(test.param.name); });

INSTANTIATE_TEST_SUITE_P(PackedLinear, Float64ReferenceTest,
                         testing::Values(Case{"Layers",
                                              {1024},
                                              R"(layer { name: "a" linear { out_features: 515 } }
                layer { name: "r" relu {} }
                layer { name: "b" linear { out_features: 515 bias: false } }
                layer { name: "s" input: ["b", "r"] add {} }
                layer { name: "c" linear { out_features: 20 } })",
                                              {"c"}},
                                         Case{"OutOfTheLayoutAndBack",
                                              {1024},
                                              R"(layer { name: "a" linear { out_features: 1024 } }
                layer { name: "t" tanh {} }
                layer { name: "b" linear { out_features: 1024 } }
                layer { name: "d" dropout {} }
                layer { name: "m" input: ["d", "t"] mul {} })",
                                              {"m"}}),
                         [](const testing::TestParamInfo<Case>& test) {
                           return std::string(test.param.name);
                         });

INSTANTIATE_TEST_SUITE_P(
    SmallNetworks, Float64ReferenceTest,
    testing::Values(Case{"Linear", {5}, R"(layer { name: "a" linear { out_features: 3 } })", {"a"}},
                    Case{"LargestLinear",
                         {64},
                         R"(layer { name: "a" linear { out_features: 64 bias: false } })",
                         {"a"}},
                    Case{"LargerThanSmall",
                         {64},
                         R"(layer { name: "a" linear { out_features: 65 bias: false } })",
                         {"a"}},
                    Case{"Layers",
                         {2, 3},
                         R"(layer { tanh {} }
                            layer { dropout {} }
                            layer { flatten {} }
                            layer { name: "a" linear { out_features: 7 } }
                            layer { relu {} }
                            layer { name: "b" linear { out_features: 9 bias: false } }
                            layer { sigmoid {} }
                            layer { name: "c" linear { out_features: 4 } }
                            layer { name: "d" softmax { dim: 1 } })",
                         {"d"}}),
    [](const testing::TestParamInfo<Case>& test) { return std::string(test.param.name); });

constexpr char kLargeNet[] = R"(
  input { name: "x" datatype: "FP32" shape: [-1, 3, 90, 90] }
  network { layer { name: "c" conv2d { out_channels: 2 kernel_size: 3 stride: 2 padding: 1 } }
            layer { name: "r" relu {} } })";

std::unique_ptr<BoundModel> BindText(const std::string& text) {
  auto graph = GraphFromText(text);
  EXPECT_TRUE(graph.ok()) << graph.status();
  auto bound = (*graph)->Bind(MakeWeights(**graph, DType::kFloat32).Request());
  EXPECT_TRUE(bound.ok()) << bound.status();
  return *std::move(bound);
}

// What is not a number, or infinite, stays so wherever PyTorch keeps it.
class NonFiniteTest : public testing::TestWithParam<const char*> {
 protected:
  std::vector<double> Answer(float value) const {
    std::vector<float> image(3 * 90 * 90, 1.0F);
    image[45 * 90 + 45] = value;
    const auto bound = BindText(absl::StrCat(
        R"(input { name: "x" datatype: "FP32" shape: [-1, 3, 90, 90] }
           network { layer { name: "c" conv2d { out_channels: 2 kernel_size: 3 } } )",
        GetParam(), "}"));
    const auto outputs = bound->Forward({FloatTensor({1, 3, 90, 90}, image)});
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return ValuesOf(outputs->at(0));
  }
};

TEST_P(NonFiniteTest, IsNotLost) {
  const auto count = [](const std::vector<double>& values, auto is) {
    return std::count_if(values.begin(), values.end(), is);
  };
  const auto is_nan = [](double value) { return std::isnan(value); };
  const auto is_infinite = [](double value) { return std::isinf(value); };
  EXPECT_EQ(count(Answer(1), is_nan), 0);
  EXPECT_GT(count(Answer(std::numeric_limits<float>::quiet_NaN()), is_nan), 0);
  EXPECT_EQ(count(Answer(1), is_infinite), 0);
  EXPECT_GT(count(Answer(std::numeric_limits<float>::infinity()), is_infinite), 0);
}

INSTANTIATE_TEST_SUITE_P(
    AfterAConvolution, NonFiniteTest,
    testing::Values("layer { relu {} }", "layer { max_pool2d { kernel_size: 2 } }",
                    "layer { relu {} } layer { max_pool2d { kernel_size: 2 } }"));

TEST(BlockedLayoutTest, ANumberThatIsNoneInOneRowStaysThere) {
  const auto bound = BindText(R"(
      input { name: "x" datatype: "FP32" shape: [-1, 1024] }
      network { layer { name: "a" linear { out_features: 512 } } layer { relu {} } })");
  std::vector<float> rows(2 * 1024, 1.0F);
  rows[1024] = std::numeric_limits<float>::quiet_NaN();
  const auto outputs = bound->Forward({FloatTensor({2, 1024}, rows)});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  const std::vector<double> values = ValuesOf(outputs->at(0));
  EXPECT_FALSE(std::isnan(values[511]));
  EXPECT_TRUE(std::isnan(values[512]));
  EXPECT_TRUE(std::isnan(values[1023]));
}

TEST(BlockedLayoutTest, SumsMayHaveOneRowAndSeveral) {
  const auto bound = BindText(R"(
      input { name: "x" datatype: "FP32" shape: [-1, 1024] }
      input { name: "y" datatype: "FP32" shape: [-1, 1024] }
      network { layer { name: "a" input: "x" linear { out_features: 512 } }
                layer { name: "b" input: "y" linear { out_features: 512 } }
                layer { name: "s" input: ["a", "b"] add {} } })");
  const auto rows = [](std::int64_t count) {
    return FloatTensor({count, 1024},
                       std::vector<float>(static_cast<std::size_t>(count) * 1024, 1));
  };
  const auto outputs = bound->Forward({rows(1), rows(3)});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(outputs->at(0).shape, (std::vector<std::int64_t>{3, 512}));
  EXPECT_EQ(bound->Forward({rows(2), rows(3)}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BlockedLayoutTest, AnEmptyBatchHasAnEmptyAnswer) {
  const auto outputs = BindText(kLargeNet)->Forward({FloatTensor({0, 3, 90, 90}, {})});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ(outputs->at(0).shape, (std::vector<std::int64_t>{0, 2, 45, 45}));
}

TEST(BlockedLayoutTest, AnswersAfterTheCheckpointsMemoryHasChanged) {
  // Packed weights are a copy, which shows that they are used.
  auto graph = GraphFromText(kLargeNet);
  ASSERT_TRUE(graph.ok()) << graph.status();
  Weights weights = MakeWeights(**graph, DType::kFloat32);
  const auto bound = (*graph)->Bind(weights.Request());
  ASSERT_TRUE(bound.ok()) << bound.status();
  const HostTensor input = FloatTensor({1, 3, 90, 90}, std::vector<float>(3 * 90 * 90, 1.0F));
  const auto before = (*bound)->Forward({input});
  ASSERT_TRUE(before.ok()) << before.status();
  for (int i = 0; i < 4; ++i) weights.Data("c.weight")[i] = std::byte{0x42};
  const auto after = (*bound)->Forward({input});
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(ValuesOf(before->at(0)), ValuesOf(after->at(0)));
}

}  // namespace
}  // namespace relight::model
