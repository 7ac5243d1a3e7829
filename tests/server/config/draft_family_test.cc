// Drafts from the keys and shapes of families.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/config/draft.h"
#include "server/config/layer_text.h"
#include "server/config/model_config.h"
#include "server/network/families/families.h"

namespace relight::config {
namespace {

using network::Family;
using storage::NodeKind;
using storage::StateDict;
using storage::Tree;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Shape = std::vector<std::int64_t>;

std::vector<ParameterSpec> ParametersOf(const Family& family) {
  const auto written = network::Expand(family);
  EXPECT_TRUE(written.ok()) << written.status();
  const auto network = network::Build(*written);
  EXPECT_TRUE(network.ok()) << network.status();
  return network->parameters();
}

// What torch.save makes of them: shared ones are the same storage.
StateDict Save(Tree& tree, const std::vector<ParameterSpec>& specs) {
  StateDict weights;
  weights.container = tree.Add(NodeKind::kOrderedDict);
  std::map<std::string, std::uint32_t> storages;
  for (const ParameterSpec& spec : specs) {
    const std::string& owner = spec.same_as.empty() ? spec.name : spec.same_as;
    const auto index = static_cast<std::uint32_t>(storages.size());
    storage::TensorInfo info;
    info.shape = spec.shape;
    info.dtype = spec.dtype;
    info.storage = storages.emplace(owner, index).first->second;
    weights.entries.push_back({spec.name, spec.name, tree.AddTensor(std::move(info))});
  }
  return weights;
}

std::string Draft(const std::vector<ParameterSpec>& specs) {
  Tree tree;
  const StateDict weights = Save(tree, specs);
  const absl::StatusOr<std::string> text = DraftModelConfig(tree, weights, {.file_name = "net.pt"});
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

// The draft without its comments.
std::string Graph(const std::string& text) {
  std::string graph;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = text.find('\n', start) + 1;
    if (text[start] != '#' && end - start > 1) graph += text.substr(start, end - start);
    start = end;
  }
  return graph;
}

TEST(DraftFamilyTest, FamiliesAreRecognized) {
  const std::vector<Family> families = {
      network::ResNet{.depth = 18, .num_classes = 10},
      network::ResNet{.depth = 34, .in_channels = 1},
      network::ResNet{.depth = 50},
      network::ResNet{.depth = 50, .groups = 32, .width_per_group = 4},
      network::ResNet{.depth = 101, .groups = 32, .width_per_group = 8},
      network::ResNet{.depth = 152, .width_per_group = 128},
      network::Vgg{.depth = 11, .batch_norm = true, .num_classes = 7},
      network::Vgg{.depth = 13},
      network::Vgg{.depth = 16, .in_channels = 1},
      network::Vgg{.depth = 19, .batch_norm = true},
      network::MobileNetV2{},
      network::MobileNetV2{.num_classes = 10, .width_mult = 0.5},
      network::MobileNetV2{.width_mult = 1.4},
      network::VisionTransformer{.image_size = 64,
                                 .patch_size = 16,
                                 .num_layers = 2,
                                 .num_heads = 3,
                                 .hidden_dim = 192,
                                 .mlp_dim = 100,
                                 .num_classes = 5,
                                 .representation_size = 24},
      network::Bert{},
      network::Bert{.num_hidden_layers = 2, .add_pooling_layer = false},
      network::Bert{.architecture = "BertForSequenceClassification",
                    .hidden_size = 128,
                    .num_hidden_layers = 2,
                    .num_attention_heads = 2,
                    .num_labels = 5},
      network::Bert{.architecture = "BertForTokenClassification", .num_labels = 9},
      network::Bert{.architecture = "BertForQuestionAnswering"},
      network::Bert{.architecture = "BertForMaskedLM"},
      network::Bert{.architecture = "BertForMaskedLM", .tie_word_embeddings = false},
      network::Gpt2{},
      network::Gpt2{.vocab_size = 100, .n_layer = 2, .tie_word_embeddings = false},
      network::Gpt2{.architecture = "GPT2Model", .n_inner = 1000},
  };
  for (const Family& family : families) {
    const std::string text = Draft(ParametersOf(family));
    EXPECT_EQ(Graph(text), FamilyText(family) + "\n") << text;
    EXPECT_THAT(text, Not(HasSubstr("leave over"))) << text;
    EXPECT_TRUE(ParseModelConfig(text, "net").ok()) << text;
  }
}

TEST(DraftFamilyTest, WhatShapesDoNotSayIsToBeChecked) {
  EXPECT_EQ(Draft(ParametersOf(network::ResNet{.depth = 50})),
            R"(# Drafted from the names and shapes in net.pt, which are those of a family:
# what they do not show, such as strides, is the family's. relightctl describe prints its layers.
# Clients send "input" FP32 [-1, 3, -1, -1] and get "output" FP32 [-1, 1000].

resnet { depth: 50 }
)");
  EXPECT_THAT(
      Draft(ParametersOf(network::Bert{})),
      HasSubstr("\n# check: num_attention_heads, hidden_act and layer_norm_eps are not in a state "
                "dict; num_attention_heads 12 is hidden_size / 64, as usual\nbert {}\n"));
  EXPECT_THAT(Draft(ParametersOf(network::VisionTransformer{.image_size = 8,
                                                            .patch_size = 4,
                                                            .num_layers = 1,
                                                            .num_heads = 2,
                                                            .hidden_dim = 48,
                                                            .mlp_dim = 8})),
              HasSubstr("\n# check: num_heads is not in a state dict; num_heads 1 is a guess\n"));
}

TEST(DraftFamilyTest, BuffersOfOlderReleasesDoNotHideAFamily) {
  std::vector<ParameterSpec> specs = ParametersOf(network::Gpt2{.n_layer = 1});
  specs.push_back(
      {.name = "transformer.h.0.attn.bias", .shape = {1, 1, 1024, 1024}, .dtype = DType::kUInt8});
  EXPECT_EQ(Graph(Draft(specs)), "gpt2 { n_layer: 1 }\n");
}

TEST(DraftFamilyTest, OneTensorMoreIsNoFamily) {
  std::vector<ParameterSpec> specs = ParametersOf(network::ResNet{.depth = 18});
  specs.push_back({.name = "layer4.1.attention.weight", .shape = {512, 512}});
  EXPECT_THAT(Draft(specs), AllOf(HasSubstr("layer { name: \"layer4.1.attention\" linear {"),
                                  Not(HasSubstr("resnet {"))));
}

// Products of what a file says do not wrap.
TEST(DraftFamilyTest, AbsurdShapesAreNoFamily) {
  constexpr std::int64_t kAbsurd = std::int64_t{1} << 62;
  EXPECT_THAT(Draft({{.name = "wte.weight", .shape = {1, kAbsurd}},
                     {.name = "h.0.mlp.c_fc.weight", .shape = {1, 4}}}),
              Not(HasSubstr("gpt2 {")));
  EXPECT_THAT(Draft({{.name = "conv_proj.weight", .shape = {1, 1, kAbsurd}},
                     {.name = "class_token", .shape = {1, 1, 1}},
                     {.name = "encoder.pos_embedding", .shape = {1, 1025, 1}}}),
              Not(HasSubstr("vision_transformer {")));
}

TEST(DraftFamilyTest, ShapesThatCannotBeAreNoFamily) {
  for (const char* const key :
       {"layer1.0.conv1.weight", "features.0.weight", "features.0.0.weight", "conv_proj.weight",
        "encoder.pos_embedding", "embeddings.word_embeddings.weight", "wte.weight"}) {
    for (const Shape& shape : std::vector<Shape>{{}, {0}, {0, 0, 0, 0}, {1}}) {
      EXPECT_THAT(Draft({{.name = key, .shape = shape},
                         {.name = "class_token", .shape = shape},
                         {.name = "classifier.6.weight", .shape = shape},
                         {.name = "features.18.0.weight", .shape = shape}}),
                  HasSubstr("network {"));
    }
  }
}

}  // namespace
}  // namespace relight::config
