// Nets that build: wiring, shapes, defaults, parameters.
#include "server/network/network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "server/network/nearest_name.h"

namespace relight::network {
namespace {

using ::testing::ElementsAre;
using Shape = std::vector<std::int64_t>;

Layer Make(std::string name, LayerKind kind, std::vector<std::string> inputs = {}) {
  return {.name = std::move(name), .inputs = std::move(inputs), .kind = std::move(kind)};
}

TensorSpec Input(std::string name, Shape shape, DType dtype = DType::kFloat32) {
  return {.name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
}

Network MustBuild(NetworkDescription description) {
  absl::StatusOr<Network> network = Network::Build(std::move(description));
  EXPECT_TRUE(network.ok()) << network.status();
  return network.ok() ? *std::move(network) : Network();
}

std::vector<std::string> ParameterNames(const Network& network) {
  std::vector<std::string> names;
  for (const ParameterSpec& spec : network.parameters()) names.push_back(spec.name);
  return names;
}

NetworkDescription SimpleNet() {
  NetworkDescription description;
  description.layers = {Make("fc1", Linear{.in_features = 10, .out_features = 5}),
                        Make("", Activation{}), Make("fc2", Linear{.out_features = 2})};
  return description;
}

TEST(NetworkTest, SimpleNetFollowsFromItsLayers) {
  const Network network = MustBuild(SimpleNet());
  ASSERT_EQ(network.inputs().size(), 1u);
  EXPECT_EQ(network.inputs()[0].name, "input");
  EXPECT_EQ(network.inputs()[0].shape, (Shape{-1, 10}));
  ASSERT_EQ(network.outputs().size(), 1u);
  EXPECT_EQ(network.outputs()[0].name, "output");
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 2}));
  EXPECT_EQ(network.batching_obstacle(), "");
  EXPECT_THAT(network.output_values(), ElementsAre(3u));
  ASSERT_EQ(network.steps().size(), 3u);
  EXPECT_THAT(network.steps()[0].inputs, ElementsAre(0u));
  EXPECT_THAT(network.steps()[2].inputs, ElementsAre(2u));
  EXPECT_EQ(network.steps()[1].layer.name, "#1");
  EXPECT_EQ(std::get<Linear>(network.steps()[2].layer.kind).in_features, 5);
  EXPECT_THAT(ParameterNames(network),
              ElementsAre("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"));
  EXPECT_EQ(network.parameters()[2].shape, (Shape{2, 5}));
}

TEST(NetworkTest, ImageNetInfersChannelsAndFeatures) {
  NetworkDescription description;
  description.inputs = {Input("image", {-1, 3, 32, 32})};
  description.layers = {
      Make("conv", Conv{.out_channels = 8, .kernel_size = {3, 3}, .padding = {1, 1}}),
      Make("bn", BatchNorm{}),
      Make("", Activation{}),
      Make("", MaxPool{.kernel_size = {2, 2}, .stride = {2, 2}}),
      Make("", Flatten{}),
      Make("fc", Linear{.out_features = 10, .bias = false}),
      Make("", Softmax{})};
  const Network network = MustBuild(std::move(description));
  EXPECT_EQ(network.steps()[3].shape(), (Shape{-1, 8, 16, 16}));
  EXPECT_EQ(network.steps()[4].shape(), (Shape{-1, 2048}));
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 10}));
  EXPECT_THAT(ParameterNames(network),
              ElementsAre("conv.weight", "conv.bias", "bn.weight", "bn.bias", "bn.running_mean",
                          "bn.running_var", "bn.num_batches_tracked", "fc.weight"));
  const ParameterSpec& counter = network.parameters()[6];
  EXPECT_EQ(counter.dtype, DType::kInt64);
  EXPECT_TRUE(counter.shape.empty());
  EXPECT_TRUE(counter.buffer);
  EXPECT_FALSE(counter.required);
  EXPECT_TRUE(network.parameters()[4].buffer);
  EXPECT_FALSE(network.parameters()[2].buffer);
  EXPECT_EQ(network.parameters()[0].shape, (Shape{8, 3, 3, 3}));
}

TEST(NetworkTest, ConvolutionFirstGivesAnInputOfFreeSize) {
  NetworkDescription description;
  description.layers = {
      Make("conv", Conv{.in_channels = 3, .out_channels = 4, .kernel_size = {1}})};
  const Network network = MustBuild(std::move(description));
  EXPECT_EQ(network.inputs()[0].shape, (Shape{-1, 3, -1, -1}));
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 4, -1, -1}));
}

TEST(NetworkTest, LinearAfterFlatteningAFreeSizeIsTrusted) {
  NetworkDescription description;
  description.layers = {Make("conv", Conv{.in_channels = 3, .out_channels = 4, .kernel_size = {1}}),
                        Make("", Flatten{}),
                        Make("fc", Linear{.in_features = 64, .out_features = 3})};
  const Network network = MustBuild(std::move(description));
  EXPECT_EQ(network.steps()[1].shape(), (Shape{-1, -1}));
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 3}));
}

TEST(NetworkTest, GroupedConvolutionHasSmallerWeights) {
  NetworkDescription description;
  description.layers = {
      Make("dw", Conv{.in_channels = 6, .out_channels = 12, .kernel_size = {3, 3}, .groups = 6})};
  EXPECT_EQ(MustBuild(std::move(description)).parameters()[0].shape, (Shape{12, 1, 3, 3}));
}

TEST(NetworkTest, BatchNormWithoutAffineHasStatisticsAlone) {
  NetworkDescription description;
  description.inputs = {Input("x", {-1, 7})};
  description.layers = {Make("bn", BatchNorm{.spatial_dims = 1, .affine = false})};
  EXPECT_THAT(ParameterNames(MustBuild(std::move(description))),
              ElementsAre("bn.running_mean", "bn.running_var", "bn.num_batches_tracked"));
}

TEST(NetworkTest, ResidualBlockAddsItsInput) {
  NetworkDescription description;
  description.layers = {
      Make("stem", Conv{.in_channels = 3, .out_channels = 8, .kernel_size = {1}}),
      Make("conv", Conv{.out_channels = 8, .kernel_size = {3, 3}, .padding = {1, 1}}),
      Make("sum", Elementwise{}, {"conv", "stem"}), Make("", Activation{})};
  const Network network = MustBuild(std::move(description));
  EXPECT_THAT(network.steps()[2].inputs, ElementsAre(2u, 1u));
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 8, -1, -1}));
}

TEST(NetworkTest, GatesBroadcastOverAnImage) {
  NetworkDescription description;
  description.inputs = {Input("image", {-1, 8, 4, 4})};
  description.layers = {Make("pool", AdaptivePool{.output_size = {1}}, {"image"}),
                        Make("gate", Activation{.op = ActivationOp::kSigmoid}),
                        Make("out", Elementwise{.op = ElementwiseOp::kMul}, {"image", "gate"})};
  const Network network = MustBuild(std::move(description));
  EXPECT_EQ(network.steps()[0].shape(), (Shape{-1, 8, 1, 1}));
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 8, 4, 4}));
  EXPECT_EQ(network.batching_obstacle(), "");
}

TEST(NetworkTest, SeveralInputsAndOutputsByName) {
  NetworkDescription description;
  description.inputs = {Input("a", {-1, 3}), Input("b", {-1, 4})};
  description.outputs = {{.name = "scores", .shape = {}}, {.name = "joined", .shape = {-1, -1}}};
  description.layers = {Make("joined", Concat{}, {"a", "b"}),
                        Make("scores", Linear{.out_features = 2})};
  const Network network = MustBuild(std::move(description));
  EXPECT_THAT(network.output_values(), ElementsAre(3u, 2u));
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 2}));
  EXPECT_EQ(network.outputs()[1].shape, (Shape{-1, -1}));
  EXPECT_EQ(std::get<Linear>(network.steps()[1].layer.kind).in_features, 7);
}

TEST(NetworkTest, OneOutputMayRenameTheLastLayer) {
  NetworkDescription description = SimpleNet();
  description.outputs = {{.name = "logits", .dtype = DType::kFloat16, .shape = {-1, 2}}};
  const Network network = MustBuild(std::move(description));
  EXPECT_EQ(network.outputs()[0].name, "logits");
  EXPECT_EQ(network.outputs()[0].dtype, DType::kFloat16);
  EXPECT_THAT(network.output_values(), ElementsAre(3u));
}

TEST(NetworkTest, IntegersPassThroughWhatDoesNoArithmetic) {
  NetworkDescription description;
  description.inputs = {Input("ids", {-1, 2, 3}, DType::kInt64)};
  description.layers = {Make("flat", Flatten{})};
  const Network network = MustBuild(std::move(description));
  EXPECT_EQ(network.outputs()[0].dtype, DType::kInt64);
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 6}));
}

TEST(NetworkTest, MixedFloatsGiveTheWiderType) {
  NetworkDescription description;
  description.inputs = {Input("a", {-1, 2}, DType::kFloat16), Input("b", {-1, 2}, DType::kBFloat16),
                        Input("c", {-1, 2}, DType::kFloat64)};
  description.outputs = {{.name = "ab", .shape = {}}, {.name = "abc", .shape = {}}};
  description.layers = {Make("ab", Elementwise{}, {"a", "b"}),
                        Make("abc", Elementwise{}, {"ab", "c"})};
  description.outputs[1].dtype = DType::kFloat64;
  MustBuild(std::move(description));
}

TEST(NetworkTest, ValuesAreNumberedOutputByOutput) {
  NetworkDescription description;
  description.inputs = {Input("x", {-1, 5, 3})};
  description.outputs = {{.name = "last", .shape = {}}, {.name = "joined", .shape = {}}};
  description.layers = {
      Make("rnn", Recurrent{.op = RecurrentOp::kGru, .hidden_size = 4, .batch_first = true}),
      Make("last", Select{.index = -1}, {"rnn:1"}),
      Make("parts", Split{.split_size = {2, 3}, .dim = 1}, {"rnn"}),
      Make("joined", Concat{}, {"parts:1", "parts"})};
  const Network network = MustBuild(std::move(description));
  EXPECT_EQ(network.value_count(), 7u);
  EXPECT_EQ(network.steps()[2].first_value, 4u);
  EXPECT_THAT(network.steps()[1].inputs, ElementsAre(2u));
  EXPECT_THAT(network.steps()[3].inputs, ElementsAre(5u, 4u));
  EXPECT_EQ(network.producer(0), std::nullopt);
  EXPECT_EQ(network.producer(5), 2u);
  EXPECT_EQ(network.shape_of(0), (Shape{-1, 5, 3}));
  EXPECT_EQ(network.shape_of(2), (Shape{1, -1, 4}));
  EXPECT_EQ(network.shape_of(5), (Shape{-1, 3, 4}));
  EXPECT_THAT(network.output_values(), ElementsAre(3u, 6u));
}

TEST(NetworkTest, InputsMayBeNamedAsPyTorchNamesThem) {
  NetworkDescription description;
  description.inputs = {Input("x", {-1, 5, 4}), Input("pad", {-1, 5}, DType::kBool)};
  description.layers = {Make("attn", MultiheadAttention{.num_heads = 2, .batch_first = true},
                             {"key_padding_mask=pad", "value=x", "query=x", "key=x"})};
  const Network network = MustBuild(std::move(description));
  EXPECT_THAT(network.steps()[0].slots, ElementsAre(0u, 1u, 2u, 3u));
  EXPECT_THAT(network.steps()[0].inputs, ElementsAre(0u, 0u, 0u, 1u));
  EXPECT_THAT(ParameterNames(network), ElementsAre("attn.in_proj_weight", "attn.in_proj_bias",
                                                   "attn.out_proj.weight", "attn.out_proj.bias"));
}

TEST(NetworkTest, SharedParametersMayBeUnderBothNames) {
  NetworkDescription description;
  description.inputs = {Input("ids", {-1, -1}, DType::kInt64)};
  description.layers = {Make("wte", Embedding{.num_embeddings = 7, .embedding_dim = 4}),
                        Make("head", Linear{.out_features = 7}),
                        Make("again", Linear{.out_features = 7, .bias = false}, {"wte"})};
  description.layers[1].parameters_of = "wte";
  description.layers[2].parameters_of = "head";
  description.outputs = {{.name = "head", .shape = {}}, {.name = "again", .shape = {}}};
  const Network network = MustBuild(std::move(description));
  ASSERT_THAT(ParameterNames(network),
              ElementsAre("wte.weight", "head.weight", "head.bias", "again.weight"));
  EXPECT_TRUE(network.parameters()[0].required);
  EXPECT_EQ(network.parameters()[1].same_as, "wte.weight");
  EXPECT_FALSE(network.parameters()[1].required);
  EXPECT_TRUE(network.parameters()[2].required) << "the embedding has none to share";
  EXPECT_EQ(network.parameters()[3].same_as, "wte.weight") << "through the other";
}

TEST(NetworkTest, AParameterMayStandForASecondNameAlone) {
  NetworkDescription description;
  description.layers = {Make("fc", Linear{.in_features = 4, .out_features = 7, .bias = false}),
                        Make("bias", Parameter{.shape = {7}}),
                        Make("fc.bias", Parameter{.shape = {7}}),
                        Make("sum", Elementwise{}, {"fc", "fc.bias"})};
  description.layers[2].parameters_of = "bias";
  const Network network = MustBuild(std::move(description));
  ASSERT_THAT(ParameterNames(network), ElementsAre("fc.weight", "bias", "fc.bias"));
  EXPECT_EQ(network.parameters()[2].same_as, "bias");
}

TEST(NetworkTest, NormsWithoutParametersNeedNoName) {
  NetworkDescription description;
  description.inputs = {Input("x", {-1, 4, 6, 6})};
  description.layers = {Make("", GroupNorm{.num_groups = 2, .affine = false}),
                        Make("", InstanceNorm{}),
                        Make("", LayerNorm{.normalized_shape = {6}, .elementwise_affine = false}),
                        Make("", RmsNorm{.normalized_shape = {6}, .elementwise_affine = false})};
  EXPECT_THAT(ParameterNames(MustBuild(std::move(description))), ::testing::IsEmpty());
}

TEST(NetworkTest, BroadcastsAsPyTorchDoes) {
  NetworkDescription description;
  description.inputs = {Input("x", {-1, 5, 4}), Input("y", {5, 1}),
                        Input("n", {-1, 5, 1}, DType::kInt64)};
  description.layers = {Make("sum", Elementwise{}, {"x", "y", "n"}),
                        Make("large", Compare{.op = CompareOp::kGt, .value = 0.5})};
  const Network network = MustBuild(std::move(description));
  EXPECT_EQ(network.steps()[0].shape(), (Shape{-1, 5, 4}));
  EXPECT_EQ(network.outputs()[0].dtype, DType::kBool);
}

struct Obstacle {
  const char* situation;
  Shape shape;
  LayerKind kind;
  const char* obstacle;
};

TEST(NetworkTest, RowsThatMeetStandInTheWayOfBatching) {
  const std::vector<Obstacle> rows = {
      {"softmax over the batch", {-1, 3}, Softmax{.dim = 0}, "layer \"x\" (softmax) mixes rows"},
      {"flatten of the batch", {-1, 3}, Flatten{.start_dim = 0}, "layer \"x\" (flatten) mixes"},
      {"linear over the only dimension",
       {-1},
       Linear{.in_features = 3, .out_features = 2},
       "layer \"x\" (linear) mixes"},
      {"fixed first dimension", {1, 3}, Activation{}, "input \"in\" has no free first dimension"},
  };
  for (const Obstacle& row : rows) {
    SCOPED_TRACE(row.situation);
    NetworkDescription description;
    description.inputs = {Input("in", row.shape)};
    description.layers = {Make("x", row.kind)};
    EXPECT_THAT(MustBuild(std::move(description)).batching_obstacle(),
                ::testing::HasSubstr(row.obstacle));
  }
}

TEST(NetworkTest, ConcatOfTheBatchStandsInTheWayOfBatching) {
  NetworkDescription description;
  description.inputs = {Input("in", {-1, 3})};
  description.layers = {Make("x", Concat{.dim = 0}, {"in", "in"})};
  const Network network = MustBuild(std::move(description));
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 3}));
  EXPECT_THAT(network.batching_obstacle(), ::testing::HasSubstr("(concat) mixes rows"));
}

struct FlattenRow {
  Shape in;
  std::int64_t start;
  std::int64_t end;
  Shape out;
};

TEST(NetworkTest, FlattenKeepsWhatItDoesNotCover) {
  const std::vector<FlattenRow> rows = {
      {{-1, 2, 3, 4}, 1, -1, {-1, 24}},
      {{-1, 2, 3, 4}, 2, 3, {-1, 2, 12}},
      {{-1, 2, 3, 4}, 1, 2, {-1, 6, 4}},
      {{-1, 2, -1, 4}, 1, -1, {-1, -1}},
      {{-1, 2, 3, 4}, -2, -1, {-1, 2, 12}},
      {{-1, 2, 3}, 1, 1, {-1, 2, 3}},
      {{-1, 5}, 0, 0, {-1, 5}},
  };
  for (const FlattenRow& row : rows) {
    NetworkDescription description;
    description.inputs = {Input("in", row.in)};
    description.layers = {Make("x", Flatten{.start_dim = row.start, .end_dim = row.end})};
    const Network network = MustBuild(std::move(description));
    EXPECT_EQ(network.outputs()[0].shape, row.out) << ShapeText(row.in);
    EXPECT_EQ(network.batching_obstacle(), "");
  }
}

TEST(NearestNameTest, SeesTyposPrefixesAndCase) {
  const std::vector<std::string> names = {"fc1", "layer1.0.conv1.weight", "running_mean"};
  EXPECT_EQ(NearestName("fc_1", names), "fc1");
  EXPECT_EQ(NearestName("FC1", names), "fc1");
  EXPECT_EQ(NearestName("runing_maen", names), "running_mean");
  EXPECT_EQ(NearestName("module.layer1.0.conv1.weight", names), "layer1.0.conv1.weight");
  EXPECT_EQ(NearestName("attention", names), std::nullopt);
  EXPECT_EQ(NearestName("", names), std::nullopt);
  EXPECT_EQ(NearestName(std::string(1000, 'f'), names), std::nullopt);
}

}  // namespace
}  // namespace relight::network
