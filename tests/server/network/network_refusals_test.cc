// Nets that do not build, and the words in which they are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "server/network/layer_rules.h"
#include "server/network/network.h"

namespace relight::network {
namespace {

using ::testing::HasSubstr;
using Shape = std::vector<std::int64_t>;

Layer Make(std::string name, LayerKind kind, std::vector<std::string> inputs = {}, int line = 0) {
  return {
      .name = std::move(name), .inputs = std::move(inputs), .kind = std::move(kind), .line = line};
}

std::string Refusal(NetworkDescription description) {
  const absl::StatusOr<Network> network = Network::Build(std::move(description));
  EXPECT_EQ(network.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(network.status().message());
}

struct LayerRow {
  Shape input;
  LayerKind kind;
  const char* message;
};

// One layer "x" on one input "in".
TEST(NetworkRefusalsTest, LayersThatDoNotFit) {
  const std::int64_t huge = std::int64_t{1} << 40;
  const std::vector<LayerRow> rows = {
      {{-1, 10},
       Linear{.in_features = 8, .out_features = 2},
       "layer \"x\" (linear): in_features is 8, but its input has 10 (shape [-1, 10])"},
      {{-1, 10}, Linear{}, "out_features is missing or 0: give at least 1"},
      {{-1, 10}, Linear{.in_features = -1, .out_features = 2}, "in_features is -1"},
      {{-1, 10}, Linear{.out_features = huge}, "the most is 2147483647"},
      {{-1, kMaxSize},
       Linear{.out_features = kMaxSize},
       "its weight would have more than 1099511627776 elements"},
      {{-1, -1},
       Linear{.out_features = 2},
       "in_features is not given and does not follow from its input [-1, -1]: give it"},
      {{-1, 10},
       Conv{.out_channels = 2, .kernel_size = {1}},
       "layer \"x\" (conv2d): needs an input of shape [N, C, H, W], got [-1, 10]"},
      {{-1, 3, 8, 8},
       Conv{.in_channels = 4, .out_channels = 2, .kernel_size = {1}},
       "in_channels is 4, but its input has 3"},
      {{-1, -1, 8, 8}, Conv{.out_channels = 2, .kernel_size = {1}}, "in_channels is not given"},
      {{-1, 3, 2, 8},
       Conv{.out_channels = 2, .kernel_size = {3, 3}},
       "its windows of 3 do not fit an input of 2 padded by 0 (height)"},
      {{-1, 3, 8, 2}, Conv{.out_channels = 2, .kernel_size = {3, 3}}, "(width)"},
      {{-1, 3, 8, 8},
       Conv{.out_channels = 2, .kernel_size = {0, 3}},
       "kernel_size is missing or 0: give at least 1"},
      {{-1, 3, 8, 8}, Conv{.out_channels = 2, .kernel_size = {1}, .stride = {1, 0}}, "stride is 0"},
      {{-1, 3, 8, 8},
       Conv{.out_channels = 2, .kernel_size = {1}, .padding = {-1, 0}},
       "padding is -1"},
      {{-1, 3, 8, 8},
       Conv{.out_channels = 2, .kernel_size = {1}, .dilation = {0, 0}},
       "dilation is 0"},
      {{-1, 3, 8, 8}, Conv{.out_channels = 2, .kernel_size = {1}, .groups = 0}, "groups is 0"},
      {{-1, 4, 8, 8},
       Conv{.out_channels = 3, .kernel_size = {1}, .groups = 2},
       "out_channels is 3, which groups 2 does not divide"},
      {{-1, 3, 8, 8},
       Conv{.in_channels = 3, .out_channels = 4, .kernel_size = {1}, .groups = 2},
       "in_channels is 3, which groups 2 does not divide"},
      {{-1, 3, 8, 8},
       Conv{.out_channels = 4, .kernel_size = {1}, .groups = 2},
       "its input has 3 channels, which groups 2 does not divide"},
      {{-1, 3}, BatchNorm{}, "(batch_norm2d): needs an input of shape [N, C, H, W]"},
      {{-1, 3, 8, 8},
       BatchNorm{.spatial_dims = 1},
       "(batch_norm1d): needs an input of shape [N, C] or [N, C, L], got [-1, 3, 8, 8]"},
      {{-1, 3, 8, 8}, BatchNorm{.num_features = 4}, "num_features is 4, but its input has 3"},
      {{-1, 3, 8, 8}, BatchNorm{.eps = -1}, "eps is -1, the least is 0"},
      {{-1, 3, 8, 8}, BatchNorm{.eps = NAN}, "eps is nan, which is not a finite number"},
      {{-1, 3, 8, 8},
       MaxPool{.kernel_size = {2, 2}, .padding = {2, 0}},
       "padding is 2, the most is half of kernel_size, that is 1"},
      {{-1, 3, 8, 8}, AvgPool{.kernel_size = {0, 0}}, "(avg_pool2d): kernel_size is missing or 0"},
      {{-1, 3, 8},
       MaxPool{.kernel_size = {1}},
       "(max_pool2d): needs an input of shape [N, C, H, W]"},
      {{-1, 3, 8, 8}, AdaptivePool{.output_size = {0, 1}}, "output_size is missing or 0"},
      {{-1, 3}, Flatten{.start_dim = 2}, "start_dim is 2, but its input has 2 dimensions"},
      {{-1, 3}, Flatten{.start_dim = 1, .end_dim = 0}, "start_dim 1 comes after end_dim 0"},
      {{-1, kMaxSize, kMaxSize}, Flatten{}, "to more than 2147483647 elements"},
      {{-1, 3}, Softmax{.dim = 2}, "(softmax): dim is 2, but its input has 2 dimensions"},
      {{-1, 3}, Softmax{.op = SoftmaxOp::kLogSoftmax, .dim = -3}, "(log_softmax): dim is -3"},
      {{-1, 3}, LeakyRelu{.negative_slope = INFINITY}, "negative_slope is inf"},
      {{-1, 3}, Elu{.alpha = NAN}, "alpha is nan"},
      {{-1, 3}, Softplus{.beta = 0}, "beta is 0, by which softplus divides"},
      {{-1, 3}, Hardtanh{.min_val = 1, .max_val = 1}, "min_val is 1, it must be less than"},
      {{-1, 0}, Identity{}, "input \"in\" has a dimension of 0: it must be -1 (free) or from 1"},
      {{-2, 3}, Identity{}, "has a dimension of -2"},
      {{}, Identity{}, "input \"in\" has no shape: give one"},
      {Shape(17, 1), Identity{}, "has 17 dimensions, the most is 16"},
  };
  for (const LayerRow& row : rows) {
    NetworkDescription description;
    description.inputs = {{.name = "in", .shape = row.input}};
    description.layers = {Make("x", row.kind)};
    EXPECT_THAT(Refusal(std::move(description)), HasSubstr(row.message));
  }
}

TEST(NetworkRefusalsTest, IntegersIntoArithmetic) {
  const std::vector<LayerKind> kinds = {Linear{.out_features = 2},
                                        Conv{.out_channels = 2, .kernel_size = {1}},
                                        BatchNorm{},
                                        MaxPool{.kernel_size = {1}},
                                        AdaptivePool{.output_size = {1}},
                                        Softmax{},
                                        Activation{},
                                        Gelu{}};
  for (const LayerKind& kind : kinds) {
    NetworkDescription description;
    description.inputs = {{.name = "in", .dtype = DType::kInt32, .shape = {-1, 3, 8, 8}}};
    description.layers = {Make("x", kind)};
    EXPECT_THAT(Refusal(std::move(description)),
                HasSubstr("needs a floating point input, got INT32"));
  }
}

struct WiringRow {
  const char* situation;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::vector<Layer> layers;
  const char* message;
};

TEST(NetworkRefusalsTest, WiringThatLeadsNowhere) {
  const TensorSpec in{.name = "in", .shape = {-1, 3}};
  const TensorSpec ints{.name = "ints", .dtype = DType::kInt64, .shape = {-1, 3}};
  const Linear linear{.out_features = 3};
  const std::vector<WiringRow> rows = {
      {"no layers", {in}, {}, {}, "the network has no layers"},
      {"unknown name",
       {in},
       {},
       {Make("fc1", linear), Make("fc2", linear, {"fc_1"})},
       "layer \"fc2\" (linear): input \"fc_1\" is neither a layer nor an input of the network; did "
       "you mean \"fc1\"?"},
      {"later layer",
       {in},
       {},
       {Make("a", linear, {"b"}), Make("b", linear)},
       "layer \"a\" (linear): input \"b\" is a later layer: move it before this one"},
      {"itself", {in}, {}, {Make("a", linear, {"a"})}, "takes its own output as input"},
      {"same name twice",
       {in},
       {},
       {Make("a", linear, {}, 7), Make("a", linear)},
       "the name is taken by line 7: to have a layer's parameters in two places, give the second "
       "another name and parameters_of"},
      {"layer named as an input", {in}, {}, {Make("in", linear)}, "is also the name of an input"},
      {"reserved name", {in}, {}, {Make("#1", linear)}, "begin with # are those of unnamed"},
      {"unnamed with parameters",
       {in},
       {},
       {Make("", linear)},
       "layer \"#0\" (linear): has parameters and needs a name"},
      {"two inputs to linear",
       {in},
       {},
       {Make("a", linear, {"in", "in"})},
       "takes one input, got 2"},
      {"add without inputs",
       {in},
       {},
       {Make("a", linear), Make("s", Elementwise{})},
       "layer \"s\" (add): takes two inputs or more, or one and a value, got 1: name them"},
      {"concat of one", {in}, {}, {Make("c", Concat{}, {"in"})}, "takes two inputs or more, got 1"},
      {"unused layer",
       {in},
       {},
       {Make("a", linear), Make("b", linear, {"in"})},
       "layer \"a\" (linear): reaches no output"},
      {"unused input",
       {in, {.name = "mask", .shape = {-1, 3}}},
       {},
       {Make("a", linear)},
       "input \"mask\" reaches no output"},
      {"inputs twice", {in, in}, {}, {Make("a", linear)}, "input \"in\" is declared twice"},
      {"input without a name",
       {{.name = "", .shape = {-1}}},
       {},
       {Make("", Identity{})},
       "an input has no name"},
      {"outputs twice",
       {in},
       {{.name = "a", .shape = {}}, {.name = "a", .shape = {}}},
       {Make("a", linear)},
       "output \"a\" is declared twice"},
      {"output without a name",
       {in},
       {{.name = "", .shape = {}}},
       {Make("a", linear)},
       "an output has no name"},
      {"unknown one of several outputs",
       {in},
       {{.name = "fc1", .shape = {}}, {.name = "fc22", .shape = {}}},
       {Make("fc1", linear), Make("fc2", linear)},
       "output \"fc22\" is no layer (of several outputs, each carries a layer's name); did you "
       "mean "
       "\"fc2\"?"},
      {"output named as an input",
       {in},
       {{.name = "in", .shape = {}}},
       {Make("a", linear)},
       "output \"in\" is also the name of an input"},
      {"output of another shape",
       {in},
       {{.name = "y", .shape = {-1, 4}}},
       {Make("a", linear)},
       "output \"y\" is declared as [-1, 4], but layer \"a\" gives [-1, 3]"},
      {"output of another rank",
       {in},
       {{.name = "y", .shape = {-1}}},
       {Make("a", linear)},
       "declared as [-1], but layer \"a\" gives [-1, 3]"},
      {"output of another type",
       {in},
       {{.name = "y", .dtype = DType::kInt64, .shape = {}}},
       {Make("a", linear)},
       "output \"y\" is INT64, but layer \"a\" gives FP32: declare datatype: \"FP32\""},
      {"no input that follows",
       {},
       {},
       {Make("", Activation{}), Make("a", linear)},
       "no input is declared, and the first layer (relu) does not say what it takes"},
      {"linear that does not say",
       {},
       {},
       {Make("a", linear)},
       "no input is declared, and the first layer (linear)"},
      {"ranks differ",
       {in, {.name = "b", .shape = {-1, 3, 1}}},
       {},
       {Make("s", Concat{}, {"in", "b"})},
       "its inputs differ in their number of dimensions: [-1, 3] and [-1, 3, 1]"},
      {"no broadcast",
       {in, {.name = "b", .shape = {-1, 4}}},
       {},
       {Make("s", Elementwise{.op = ElementwiseOp::kMul}, {"in", "b"})},
       "layer \"s\" (mul): its inputs do not broadcast in dimension 1: [-1, 3] and [-1, 4]"},
      {"concat of unlike",
       {{.name = "a", .shape = {-1, 2, 3}}, {.name = "b", .shape = {-1, 2, 4}}},
       {},
       {Make("c", Concat{}, {"a", "b"})},
       "its inputs differ in dimension 2: [-1, 2, 3] and [-1, 2, 4]"},
      {"concat too large",
       {{.name = "a", .shape = {-1, kMaxSize}}},
       {},
       {Make("c", Concat{}, {"a", "a"})},
       "its output would be too large"},
      {"types do not mix",
       {ints, {.name = "b", .dtype = DType::kInt32, .shape = {-1, 3}}},
       {},
       {Make("s", Elementwise{}, {"ints", "b"})},
       "its inputs are of types INT64 and INT32, which do not mix"},
      {"indices that are numbers",
       {in},
       {},
       {Make("e", Embedding{.num_embeddings = 4, .embedding_dim = 2})},
       "layer \"e\" (embedding): needs indices of type INT32 or INT64, got FP32"},
      {"too many inputs by position",
       {in},
       {},
       {Make("q", Matmul{}, {"in", "in", "in"})},
       "takes 2 inputs (input, other), got 3"},
      {"an argument that there is not",
       {in},
       {},
       {Make("m", MaskedFill{}, {"in", "masks=in"})},
       "input \"masks=in\" is neither a layer nor an input of the network"},
      {"an argument twice",
       {in},
       {},
       {Make("m", MaskedFill{}, {"in", "input=in"})},
       "layer \"m\" (masked_fill): is given input twice"},
      {"subtracting from booleans, which PyTorch refuses, too",
       {in},
       {},
       {Make("c", Compare{.value = 0}),
        Make("s", Elementwise{.op = ElementwiseOp::kRsub, .value = 1})},
       "layer \"s\" (rsub): needs numbers, got booleans: make them numbers with to"},
      {"subtracting booleans",
       {in},
       {},
       {Make("c", Compare{.value = 0}),
        Make("s", Elementwise{.op = ElementwiseOp::kSub}, {"in", "c"})},
       "layer \"s\" (sub): needs numbers, got booleans"},
      {"one sequence for the states of many rows",
       {{.name = "in", .shape = {-1, 1, 4}}},
       {},
       {Make("p", Parameter{.shape = {1, 2, 3}}), Make("t", Transpose{}, {"in"}),
        Make("g", Recurrent{.op = RecurrentOp::kGru, .hidden_size = 4, .batch_first = true},
             {"p", "t"})},
       "its inputs need a sequence for each row of the state: [1, 2, 3] and [1, -1, 4]"},
      {"an argument that is missing",
       {in, {.name = "q", .shape = {-1, 2, 3}}},
       {},
       {Make("a", ScaledDotProductAttention{}, {"q", "q", "attn_mask=q"})},
       "is not given value"},
      {"an output that there is not",
       {{.name = "s", .shape = {-1, 2, 3}}},
       {},
       {Make("g", Recurrent{.op = RecurrentOp::kGru, .hidden_size = 4}),
        Make("c", Identity{}, {"g:2"})},
       "input \"g:2\" is neither a layer nor an input of the network; did you mean \"g:1\"?"},
      {"a layer named as an output",
       {{.name = "s", .shape = {-1, 2, 3}}},
       {{.name = "g", .shape = {}}, {.name = "g:1", .shape = {}}},
       {Make("g", Recurrent{.op = RecurrentOp::kGru, .hidden_size = 4}),
        Make("g:1", Identity{}, {"g"})},
       "its output 1 is called \"g:1\", which is the name of a layer or an input"},
      {"parameters of a later layer",
       {in},
       {},
       {{.name = "a", .kind = linear, .parameters_of = "b"}, Make("b", linear)},
       "layer \"a\" (linear): parameters_of \"b\" is no layer before this one"},
      {"parameters of another shape",
       {in},
       {},
       {Make("a", linear), {.name = "b", .kind = Linear{.out_features = 2}, .parameters_of = "a"}},
       "shares a.weight, which has shape [3, 3], but needs [2, 3]"},
      {"parameters of a layer without",
       {in},
       {},
       {Make("r", Activation{}), {.name = "b", .kind = linear, .parameters_of = "r"}},
       "parameters_of \"r\": the two have no parameter in common"},
  };
  for (const WiringRow& row : rows) {
    SCOPED_TRACE(row.situation);
    EXPECT_THAT(Refusal({row.inputs, row.outputs, row.layers}), HasSubstr(row.message));
  }
}

TEST(NetworkRefusalsTest, AllErrorsComeAtOnceInTheOrderOfLines) {
  NetworkDescription description;
  description.inputs = {{.name = "in", .shape = {-1, 10}, .line = 1}};
  description.outputs = {{.name = "y", .shape = {-1, 9}, .line = 2}};
  description.layers = {Make("fc1", Linear{.in_features = 8, .out_features = 5}, {}, 4),
                        Make("fc2", Linear{.in_features = 6, .out_features = 2}, {}, 5),
                        Make("fc2", Activation{}, {"fc3"}, 6), Make("end", Identity{}, {"fc2"}, 7)};
  EXPECT_EQ(
      Refusal(std::move(description)),
      "line 2: output \"y\" is declared as [-1, 9], but layer \"end\" gives [-1, 2]\n"
      "line 4: layer \"fc1\" (linear): in_features is 8, but its input has 10 (shape [-1, "
      "10])\n"
      "line 5: layer \"fc2\" (linear): in_features is 6, but its input has 5 (shape [-1, "
      "5])\n"
      "line 6: layer \"fc2\" (relu): the name is taken by line 5: to have a layer's parameters "
      "in two places, give the second another name and parameters_of\n"
      "line 6: layer \"fc2\" (relu): input \"fc3\" is neither a layer nor an input of the "
      "network; did you mean \"fc1\"?");
}

TEST(NetworkRefusalsTest, NamesAreEscapedAndTheListIsBounded) {
  NetworkDescription description;
  description.inputs = {{.name = "in", .shape = {-1, 10}}};
  for (int i = 0; i < 300; ++i) description.layers.push_back(Make("a\n", Identity{}, {"in"}));
  const std::string message = Refusal(std::move(description));
  EXPECT_THAT(message, HasSubstr("layer \"a\\x0a\" (identity)"));
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 100);
  EXPECT_THAT(message, ::testing::EndsWith(" more"));
}

// A few lines can ask for many of them, by way of blocks that repeat.
TEST(NetworkRefusalsTest, NetworksThatWouldTakeTooMuchMemory) {
  NetworkDescription split{
      .inputs = {{.name = "x", .shape = {-1, 1024}}}, .outputs = {}, .layers = {}};
  NetworkDescription lstm{
      .inputs = {{.name = "x", .shape = {-1, 5, 4}}}, .outputs = {}, .layers = {}};
  for (int i = 0; i < 300; ++i) {
    split.layers.push_back(Make("", Split{.split_size = {1}, .dim = 1}, {"x"}));
    lstm.layers.push_back(
        Make("r" + std::to_string(i), Recurrent{.hidden_size = 4, .num_layers = 1024}));
  }
  EXPECT_THAT(Refusal(std::move(split)), HasSubstr("has more than 200000 outputs of layers"));
  EXPECT_THAT(Refusal(std::move(lstm)), HasSubstr("has more than 200000 parameters"));
}

TEST(NetworkRefusalsTest, StacksOfTooManyDimensions) {
  NetworkDescription description{
      .inputs = {{.name = "x", .shape = {-1, 2}}}, .outputs = {}, .layers = {}};
  for (int i = 0; i < 15; ++i) {
    const std::string before = i == 0 ? "x" : "s" + std::to_string(i - 1);
    description.layers.push_back(Make("s" + std::to_string(i), Stack{}, {before, before}));
  }
  EXPECT_THAT(Refusal(std::move(description)),
              HasSubstr("layer \"s14\" (stack): its output has too many dimensions"));
}

}  // namespace
}  // namespace relight::network
