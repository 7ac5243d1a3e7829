// Drafts from trees as the checkpoint reader makes them.
#include "server/config/draft.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "server/config/model_config.h"

namespace relight::config {
namespace {

using storage::NodeId;
using storage::NodeKind;
using storage::StateDict;
using storage::Tree;
using ::testing::HasSubstr;
using ::testing::Not;
using Shape = std::vector<std::int64_t>;

NodeId Text(Tree& tree, std::string_view text) { return tree.AddText(NodeKind::kString, text); }

NodeId Tensor(Tree& tree, Shape shape, DType dtype = DType::kFloat32) {
  storage::TensorInfo info;
  info.shape = std::move(shape);
  info.dtype = dtype;
  return tree.AddTensor(std::move(info));
}

using Entries = std::vector<std::pair<std::string, Shape>>;

StateDict Dict(Tree& tree, const Entries& entries) {
  StateDict weights;
  weights.container = tree.Add(NodeKind::kOrderedDict);
  for (const auto& [key, shape] : entries) {
    const bool counter = key.ends_with("num_batches_tracked");
    const NodeId node = Tensor(tree, shape, counter ? DType::kInt64 : DType::kFloat32);
    weights.entries.push_back({key, key, node});
  }
  return weights;
}

std::string Draft(const Entries& entries, const DraftOptions& options = {}) {
  Tree tree;
  const StateDict weights = Dict(tree, entries);
  const absl::StatusOr<std::string> text = DraftModelConfig(tree, weights, options);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

// Whole modules.
struct Attribute {
  const char* name;
  NodeId value;
};

class ModuleMaker {
 public:
  explicit ModuleMaker(Tree& tree) : tree_(tree) {}

  NodeId Int(std::int64_t value) { return tree_.AddInt(value); }
  NodeId Real(double value) { return tree_.AddFloat(value); }
  NodeId Bool(bool value) { return tree_.AddBool(value); }
  NodeId String(std::string_view value) { return Text(tree_, value); }
  NodeId Pair(std::int64_t a, std::int64_t b) {
    const NodeId tuple = tree_.Add(NodeKind::kTuple);
    tree_.Append(tuple, Int(a));
    tree_.Append(tuple, Int(b));
    return tuple;
  }

  NodeId Make(std::string_view symbol, const std::vector<Attribute>& attributes,
              const std::vector<std::pair<std::string, NodeId>>& children = {},
              const std::vector<std::pair<std::string, NodeId>>& parameters = {}) {
    const NodeId state = tree_.Add(NodeKind::kDict);
    Set(state, "training", Bool(false));
    Set(state, "_parameters", DictOf(parameters));
    Set(state, "_buffers", DictOf({}));
    Set(state, "_modules", DictOf(children));
    for (const Attribute& attribute : attributes) Set(state, attribute.name, attribute.value);
    storage::OpaqueInfo info;
    info.callable = tree_.AddText(NodeKind::kSymbol, symbol);
    info.arguments = tree_.Add(NodeKind::kTuple);
    info.made_by = storage::OpaqueMake::kNewObj;
    info.states.push_back(state);
    return tree_.AddOpaque(std::move(info));
  }

  NodeId Linear(std::int64_t in, std::int64_t out) {
    return Make("torch.nn.modules.linear Linear",
                {{"in_features", Int(in)}, {"out_features", Int(out)}}, {},
                {{"weight", Tensor(tree_, {out, in})}, {"bias", Tensor(tree_, {out})}});
  }
  NodeId Relu() { return Make("torch.nn.modules.activation ReLU", {{"inplace", Bool(true)}}); }

  StateDict Weights(NodeId root, const std::string& module_class, const Entries& entries) {
    StateDict weights = Dict(tree_, entries);
    weights.container = root;
    weights.from_module = true;
    weights.module_class = module_class;
    return weights;
  }

 private:
  NodeId DictOf(const std::vector<std::pair<std::string, NodeId>>& pairs) {
    const NodeId dict = tree_.Add(NodeKind::kOrderedDict);
    for (const auto& [name, node] : pairs) Set(dict, name, node);
    return dict;
  }
  void Set(NodeId dict, std::string_view name, NodeId value) {
    tree_.SetItem(dict, Text(tree_, name), value);
  }

  Tree& tree_;
};

const Entries kSimpleNet = {
    {"fc1.weight", {5, 10}}, {"fc1.bias", {5}}, {"fc2.weight", {2, 5}}, {"fc2.bias", {2}}};

TEST(DraftTest, StateDictOfSimpleNet) {
  const std::string text = Draft(kSimpleNet, {.file_name = "model_state.pth"});
  EXPECT_EQ(text, R"(# Drafted from the names and shapes in model_state.pth, a state dict.
# Lines with "check:" are above what is guessed.
# Clients send "input" FP32 [-1, 10] and get "output" FP32 [-1, 2].

network {
  layer { name: "fc1" linear { in_features: 10 out_features: 5 } }
  # check: the activation is not in a state dict
  layer { relu {} }
  layer { name: "fc2" linear { in_features: 5 out_features: 2 } }
}
)");
  EXPECT_TRUE(ParseModelConfig(text, "net").ok());
}

TEST(DraftTest, WholeSimpleNetIsExact) {
  Tree tree;
  ModuleMaker make(tree);
  const NodeId root =
      make.Make("__main__ SimpleNet", {},
                {{"fc1", make.Linear(10, 5)}, {"relu", make.Relu()}, {"fc2", make.Linear(5, 2)}});
  const auto text = DraftModelConfig(tree, make.Weights(root, "__main__.SimpleNet", kSimpleNet),
                                     {.file_name = "entire_model.pth"});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text,
            R"(# Drafted from entire_model.pth, a whole module of class __main__.SimpleNet.
# Its forward() is not in the file: the layers stand in the order in which __init__ made them.
# Clients send "input" FP32 [-1, 10] and get "output" FP32 [-1, 2].

network {
  layer { name: "fc1" linear { in_features: 10 out_features: 5 } }
  layer { name: "relu" relu {} }
  layer { name: "fc2" linear { in_features: 5 out_features: 2 } }
}
)");
}

TEST(DraftTest, StateDictOfAnImageNetGuessesTheRest) {
  const std::string text = Draft({{"scale", {}},
                                  {"features.0.weight", {4, 3, 3, 3}},
                                  {"features.1.weight", {4}},
                                  {"features.1.bias", {4}},
                                  {"features.1.running_mean", {4}},
                                  {"features.1.running_var", {4}},
                                  {"features.1.num_batches_tracked", {}},
                                  {"head.weight", {3, 64}},
                                  {"head.bias", {3}}});
  EXPECT_THAT(text, HasSubstr(R"(  # check: the top level is no layer that relight knows by its keys
  # check: stride, padding, dilation and groups are not in a state dict
  layer { name: "features.0" conv2d { in_channels: 3 out_channels: 4 kernel_size: 3 padding: 1 bias: false } }
  # check: eps is not in a state dict; this is PyTorch's default, 1e-5
  layer { name: "features.1" batch_norm2d { num_features: 4 } }
  # check: the activation is not in a state dict
  layer { relu {} }
  # check: 64 features from 4 channels: the image must have 16 pixels here; a pooling layer may be missing
  layer { flatten {} }
  layer { name: "head" linear { in_features: 64 out_features: 3 } }
)"));
  EXPECT_THAT(text, HasSubstr("# check: what the layers above leave over or lack:\n#   the "
                              "checkpoint does not fit the graph: 1 unexpected: scale\n"));
  EXPECT_TRUE(ParseModelConfig(text, "net").ok());
}

TEST(DraftTest, AveragedImagesAndGroupsAreGuessed) {
  const std::string text = Draft({{"stem.weight", {8, 3, 3, 3}},
                                  {"stem.bias", {8}},
                                  {"depthwise.weight", {8, 1, 3, 3}},
                                  {"depthwise.bias", {8}},
                                  {"fc.weight", {2, 8}},
                                  {"fc.bias", {2}}});
  EXPECT_THAT(text, HasSubstr("groups is a guess: 8 channels come in, the weight has 1"));
  EXPECT_THAT(text,
              HasSubstr("in_channels: 8 out_channels: 8 kernel_size: 3 padding: 1 groups: 8"));
  EXPECT_THAT(text,
              HasSubstr("layer { adaptive_avg_pool2d { output_size: 1 } }\n  layer { flatten"));
  EXPECT_THAT(text, Not(HasSubstr("leave over")));
}

TEST(DraftTest, SequentialIsTakenAtItsWord) {
  Tree tree;
  ModuleMaker make(tree);
  const NodeId conv =
      make.Make("torch.nn.modules.conv Conv2d", {{"in_channels", make.Int(3)},
                                                 {"out_channels", make.Int(4)},
                                                 {"kernel_size", make.Pair(3, 5)},
                                                 {"stride", make.Pair(2, 2)},
                                                 {"padding", make.Pair(1, 2)},
                                                 {"dilation", make.Pair(1, 1)},
                                                 {"groups", make.Int(1)},
                                                 {"padding_mode", make.String("zeros")}});
  const NodeId norm = make.Make(
      "torch.nn.modules.batchnorm BatchNorm2d",
      {{"num_features", make.Int(4)}, {"eps", make.Real(0.001)}, {"affine", make.Bool(true)}}, {},
      {{"weight", Tensor(tree, {4})}, {"bias", Tensor(tree, {4})}});
  const NodeId pool =
      make.Make("torch.nn.modules.pooling MaxPool2d", {{"kernel_size", make.Int(3)},
                                                       {"stride", make.Int(2)},
                                                       {"padding", make.Int(1)},
                                                       {"dilation", make.Int(1)},
                                                       {"ceil_mode", make.Bool(true)}});
  const NodeId adaptive =
      make.Make("torch.nn.modules.pooling AdaptiveAvgPool2d", {{"output_size", make.Pair(2, 1)}});
  const NodeId flatten = make.Make("torch.nn.modules.flatten Flatten",
                                   {{"start_dim", make.Int(1)}, {"end_dim", make.Int(-1)}});
  const NodeId dropout = make.Make("torch.nn.modules.dropout Dropout", {{"p", make.Real(0.25)}});
  const NodeId leaky =
      make.Make("torch.nn.modules.activation LeakyReLU", {{"negative_slope", make.Real(0.2)}});
  const NodeId softmax = make.Make("torch.nn.modules.activation Softmax", {{"dim", make.Int(1)}});
  const NodeId root = make.Make("torch.nn.modules.container Sequential", {},
                                {{"0", conv},
                                 {"1", norm},
                                 {"2", leaky},
                                 {"3", pool},
                                 {"4", adaptive},
                                 {"5", flatten},
                                 {"6", dropout},
                                 {"7", make.Linear(8, 6)},
                                 {"8", make.Linear(6, 2)},
                                 {"9", softmax}});
  const auto text =
      DraftModelConfig(tree, make.Weights(root, "torch.nn.modules.container.Sequential",
                                          {{"0.weight", {4, 3, 3, 5}},
                                           {"1.weight", {4}},
                                           {"1.bias", {4}},
                                           {"1.running_mean", {4}},
                                           {"1.running_var", {4}},
                                           {"7.weight", {6, 8}},
                                           {"7.bias", {6}},
                                           {"8.weight", {2, 6}},
                                           {"8.bias", {2}}}));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, HasSubstr(R"(network {
  layer { name: "0" conv2d { in_channels: 3 out_channels: 4 kernel_size: [3, 5] stride: 2 padding: [1, 2] bias: false } }
  layer { name: "1" batch_norm2d { num_features: 4 eps: 0.001 } }
  layer { name: "2" leaky_relu { negative_slope: 0.2 } }
  layer { name: "3" max_pool2d { kernel_size: 3 stride: 2 padding: 1 ceil_mode: true } }
  layer { name: "4" adaptive_avg_pool2d { output_size: [2, 1] } }
  layer { name: "5" flatten {} }
  layer { name: "6" dropout { p: 0.25 } }
  layer { name: "7" linear { in_features: 8 out_features: 6 } }
  layer { name: "8" linear { in_features: 6 out_features: 2 } }
  layer { name: "9" softmax { dim: 1 } }
}
)"));
  EXPECT_THAT(*text, Not(HasSubstr("check:")));
  EXPECT_THAT(*text, HasSubstr("[-1, 3, -1, -1]"));
}

TEST(DraftTest, FunctionalActivationsOfCustomModulesAreGuessed) {
  Tree tree;
  ModuleMaker make(tree);
  const NodeId root =
      make.Make("__main__ Net", {}, {{"fc1", make.Linear(10, 5)}, {"fc2", make.Linear(5, 2)}});
  const auto text = DraftModelConfig(tree, make.Weights(root, "__main__.Net", kSimpleNet));
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(*text, HasSubstr("# check: forward may apply another activation here, or none\n"
                               "  layer { relu {} }\n"));
}

TEST(DraftTest, PrefixesThatWereStrippedStayOff) {
  Tree tree;
  ModuleMaker make(tree);
  const NodeId inner =
      make.Make("__main__ SimpleNet", {},
                {{"fc1", make.Linear(10, 5)}, {"relu", make.Relu()}, {"fc2", make.Linear(5, 2)}});
  const NodeId root =
      make.Make("torch.nn.parallel.data_parallel DataParallel", {}, {{"module", inner}});
  StateDict weights = make.Weights(root, "DataParallel", kSimpleNet);
  weights.stripped_prefix = "module.";
  const auto text = DraftModelConfig(tree, weights);
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(*text, HasSubstr("name: \"fc1\""));
  EXPECT_THAT(*text, Not(HasSubstr("check:")));
}

TEST(DraftTest, SequencesAreKnownByTheirKeys) {
  const std::string text = Draft({{"embed.weight", {7, 4}},
                                  {"norm.weight", {4}},
                                  {"norm.bias", {4}},
                                  {"scale.weight", {4}},
                                  {"rnn.weight_ih_l0", {16, 4}},
                                  {"rnn.weight_hh_l0", {16, 4}},
                                  {"rnn.weight_ih_l1", {16, 4}},
                                  {"rnn.weight_hh_l1", {16, 4}},
                                  {"attn.in_proj_weight", {12, 4}},
                                  {"attn.in_proj_bias", {12}},
                                  {"attn.out_proj.weight", {4, 4}},
                                  {"attn.out_proj.bias", {4}},
                                  {"out.weight", {2, 4}},
                                  {"out.bias", {2}}});
  EXPECT_THAT(text, HasSubstr("input { name: \"input\" datatype: \"INT64\" shape: [-1, -1] }"));
  EXPECT_THAT(text, HasSubstr("embedding { num_embeddings: 7 embedding_dim: 4 }"));
  EXPECT_THAT(text, HasSubstr("# check: a layer norm by its shapes"));
  EXPECT_THAT(text, HasSubstr("name: \"scale\" rms_norm { normalized_shape: 4 }"));
  EXPECT_THAT(text, HasSubstr("lstm { input_size: 4 hidden_size: 4 num_layers: 2 bias: false }"));
  EXPECT_THAT(text, HasSubstr("# check: num_heads and batch_first are not in a state dict"));
  EXPECT_THAT(text, HasSubstr("multihead_attention { embed_dim: 4 num_heads: 1 }"));
  EXPECT_THAT(text, Not(HasSubstr("unexpected"))) << "out_proj is a part of the attention";
}

TEST(DraftTest, WhatHasNoCounterpartIsNamed) {
  const std::string text = Draft({{"rnn.weight_ih_l0", {16, 4}},
                                  {"deep.weight", {4, 4, 3, 3, 3, 3}},
                                  {"out.weight", {2, 4}},
                                  {"out.bias", {2}}});
  EXPECT_THAT(text, HasSubstr("# check: rnn has weights of a recurrent layer that do not belong"));
  EXPECT_THAT(text, HasSubstr("# check: deep has a weight of 6 dimensions"));
  EXPECT_THAT(text, HasSubstr("2 unexpected: rnn.weight_ih_l0, deep.weight"));

  Tree tree;
  ModuleMaker make(tree);
  const NodeId root =
      make.Make("__main__ Net", {},
                {{"fold", make.Make("torch.nn.modules.fold Fold", {})}, {"fc", make.Linear(4, 2)}});
  const auto module = DraftModelConfig(
      tree, make.Weights(root, "__main__.Net", {{"fc.weight", {2, 4}}, {"fc.bias", {2}}}));
  ASSERT_TRUE(module.ok());
  EXPECT_THAT(*module,
              HasSubstr("# check: fold is a torch.nn.modules.fold.Fold, for which relight has no "
                        "layer"));
}

TEST(DraftTest, DraftThatDoesNotBuildSaysSoAtItsEnd) {
  const std::string text = Draft({{"a.weight", {5, 10}}, {"b.weight", {2, 7}}});
  EXPECT_THAT(text, HasSubstr("# It is not complete: the end of this file says why."));
  EXPECT_THAT(text, HasSubstr("# What is wrong:\n#   model.textproto:9: layer \"b\" (linear): "
                              "in_features is 7, but its input has 5"));
  const absl::Status status = ParseModelConfig(text, "net").status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.textproto:9: layer \"b\""));
}

TEST(DraftTest, InputIsDeclaredWhereTheFirstLayerDoesNotTellIt) {
  EXPECT_THAT(Draft({{"bn.running_mean", {7}}, {"bn.running_var", {7}}, {"fc.weight", {2, 7}}}),
              HasSubstr("input { name: \"input\" datatype: \"FP32\" shape: [-1, 7] }\n"));
  Tree tree;
  ModuleMaker make(tree);
  const NodeId root = make.Make(
      "torch.nn.modules.container Sequential", {},
      {{"0", make.Make("torch.nn.modules.flatten Flatten", {})}, {"1", make.Linear(784, 10)}});
  const auto text = DraftModelConfig(
      tree, make.Weights(root, "Sequential", {{"1.weight", {10, 784}}, {"1.bias", {10}}}));
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(*text, HasSubstr("# check: the shape is a guess, from the first layer with weights\n"
                               "input { name: \"input\" datatype: \"FP32\" shape: [-1, 784] }\n"));
  EXPECT_TRUE(ParseModelConfig(*text, "net").ok());
}

TEST(DraftTest, WhereTheStateDictIsStaysKnown) {
  const std::string text =
      Draft(kSimpleNet, {.state_dict_key = "ema/net", .strip_prefix = "model."});
  EXPECT_THAT(text,
              HasSubstr("checkpoints { state_dict_key: \"ema/net\" strip_prefix: \"model.\" }"));
  EXPECT_TRUE(ParseModelConfig(text, "net").ok());
}

TEST(DraftTest, NamesOfAnyKindComeBackFromTheText) {
  const std::string text = Draft({{"a\"b\n{.weight", {5, 10}}});
  const auto config = ParseModelConfig(text, "net");
  ASSERT_TRUE(config.ok()) << config.status() << text;
  EXPECT_EQ(std::get<network::Network>(config->graph).parameters()[0].name, "a\"b\n{.weight");
  EXPECT_THAT(Draft({{"fc.weight", {2, 3}}, {"evil\n}\n.gamma", {1}}}), Not(HasSubstr("\n}\n.")));
}

TEST(DraftTest, ModulesThatContainThemselvesEnd) {
  Tree tree;
  ModuleMaker make(tree);
  const NodeId root = make.Make("__main__ Net", {}, {{"fc", make.Linear(4, 2)}});
  const NodeId modules = tree.Find(tree.opaque(root).states[0], "_modules");
  tree.SetItem(modules, Text(tree, "again"), root);
  const auto text = DraftModelConfig(
      tree, make.Weights(root, "__main__.Net", {{"fc.weight", {2, 4}}, {"fc.bias", {2}}}));
  EXPECT_TRUE(text.ok()) << text.status();
}

TEST(DraftTest, EmptyAndHugeStateDictsAreRefused) {
  Tree tree;
  EXPECT_EQ(DraftModelConfig(tree, StateDict()).status().code(),
            absl::StatusCode::kInvalidArgument);
  Entries many;
  for (int i = 0; i < 10'001; ++i) many.push_back({std::to_string(i), {1}});
  const StateDict weights = Dict(tree, many);
  EXPECT_THAT(std::string(DraftModelConfig(tree, weights).status().message()),
              HasSubstr("has 10001 tensors, the most that is drafted from is 10000"));
}

}  // namespace
}  // namespace relight::config
