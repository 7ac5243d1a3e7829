// Configs with their graph written out: each is the same model again.
#include "server/config/describe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/config/layer_text.h"
#include "tests/paths.h"

namespace relight::config {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

ModelConfig MustParse(const std::string& text) {
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text, "models/net");
  EXPECT_TRUE(config.ok()) << config.status() << "\n" << text;
  return config.ok() ? *std::move(config) : ModelConfig();
}

std::string Described(const std::string& text) {
  const absl::StatusOr<std::string> described = DescribeModelConfig(text, "models/net");
  EXPECT_TRUE(described.ok()) << described.status();
  return described.value_or("");
}

std::string Shown(const std::vector<TensorSpec>& specs) {
  std::string text;
  for (const TensorSpec& spec : specs) {
    absl::StrAppend(&text, spec.name, " ", std::string(ProtocolName(spec.dtype)), " ",
                    ShapeText(spec.shape), "\n");
  }
  return text;
}

// All that a network is, but for lines.
std::string Shown(const network::Network& network) {
  std::string text = Shown(network.inputs()) + Shown(network.outputs());
  for (const network::Step& step : network.steps()) {
    absl::StrAppend(&text, step.layer.name, " ", step.layer.parameters_of, " ",
                    LayerKindText(step.layer.kind), ShapeText(step.shape()));
    for (const std::size_t input : step.inputs) absl::StrAppend(&text, " ", input);
    text += "\n";
  }
  for (const ParameterSpec& spec : network.parameters()) {
    absl::StrAppend(&text, spec.name, " ", ShapeText(spec.shape), spec.buffer, spec.required, " ",
                    spec.same_as, "\n");
  }
  return text;
}

void ExpectTheSameAgain(const std::string& text) {
  const std::string described = Described(text);
  const ModelConfig before = MustParse(text);
  const ModelConfig after = MustParse(described);
  EXPECT_EQ(Shown(std::get<network::Network>(after.graph)),
            Shown(std::get<network::Network>(before.graph)))
      << described;
  EXPECT_EQ(after.checkpoints.ignore, before.checkpoints.ignore);
  EXPECT_EQ(Described(described), described);
}

TEST(DescribeTest, FamiliesAreTheSameNetworksAgain) {
  for (const char* const text : {
           "resnet { depth: 50 groups: 32 width_per_group: 4 num_classes: 10 }",
           "resnet { depth: 18 in_channels: 1 }",
           "vgg { depth: 16 batch_norm: true }",
           "mobilenet_v2 { width_mult: 0.5 }",
           "vision_transformer { patch_size: 16 num_layers: 2 num_heads: 12 hidden_dim: 768 "
           "mlp_dim: 3072 representation_size: 5 }",
           "bert {}",
           "bert { architecture: \"BertForMaskedLM\" hidden_act: \"gelu_new\" }",
           "bert { architecture: \"BertForQuestionAnswering\" }",
           "bert { architecture: \"BertForSequenceClassification\" num_labels: 3 }",
           "input { name: \"input_ids\" datatype: \"INT64\" shape: [-1, 128] } bert {}",
           "gpt2 {}",
           "input { name: \"input_ids\" datatype: \"INT64\" shape: [-1, -1] } gpt2 { architecture: "
           "\"GPT2Model\" }",
       }) {
    ExpectTheSameAgain(text);
  }
}

TEST(DescribeTest, FamiliesAreWrittenAsBlocks) {
  EXPECT_THAT(Described("resnet { depth: 18 }"),
              StartsWith(R"(input { name: "input" datatype: "FP32" shape: [-1, 3, -1, -1] }
output { name: "output" datatype: "FP32" shape: [-1, 1000] }

network {
  layer { name: "conv1" conv2d { in_channels: 3 out_channels: 64 kernel_size: 7 stride: 2 padding: 3 bias: false } }
  layer { name: "bn1" batch_norm2d {} }
)"));
  EXPECT_THAT(
      Described("resnet { depth: 34 }"),
      HasSubstr("\n  layer { name: \"layer3\" block { repeat: 5 first: 1\n    layer { name: "
                "\"conv1\" conv2d {"));
}

TEST(DescribeTest, NetworksAreWrittenAsTheyAreUnderstood) {
  const std::string text = R"(
network {
  layer { name: "a" linear { in_features: 4 out_features: 4 } }
  layer { name: "b\"c" block { repeat: 2
    layer { name: "fc" linear { out_features: 4 } }
    layer { input: "fc" input: "input" add {} }
    layer { to { datatype: "FP32" } }
    layer { clamp { min: -inf max: 6 } }
  } }
  layer { name: "d" parameters_of: "a" input: "a" linear { out_features: 4 bias: false } }
  layer { input: "d" input: "b\"c" concat {} }
})";
  EXPECT_EQ(Described(text), R"(input { name: "input" datatype: "FP32" shape: [-1, 4] }
output { name: "output" datatype: "FP32" shape: [-1, 8] }

network {
  layer { name: "a" linear { in_features: 4 out_features: 4 } }
  layer { name: "b\"c" block { repeat: 2
    layer { name: "fc" linear { out_features: 4 } }
    layer { input: "fc" input: "input" add {} }
    layer { to { datatype: "FP32" } }
    layer { clamp { min: -inf max: 6 } }
  } }
  layer { name: "d" input: "a" parameters_of: "a" linear { out_features: 4 bias: false } }
  layer { input: "d" input: "b\"c" concat {} }
}
)");
  ExpectTheSameAgain(text);
}

TEST(DescribeTest, TheRestOfAConfigStays) {
  std::ifstream file(RELIGHT_TEST_DATA "/configs/everything.textproto");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  ExpectTheSameAgain(text);
  const ModelConfig config = MustParse(Described(text));
  EXPECT_EQ(config.batching.max_batch_size, 16);
  EXPECT_EQ(config.version.pattern, "step-(\\d+)");
  EXPECT_EQ(config.arenas, 1);
  EXPECT_EQ(config.warm_up.free_dim, 7);
}

TEST(DescribeTest, WhatDoesNotParseOrHasNoLayersIsRefused) {
  EXPECT_THAT(std::string(DescribeModelConfig("resnet { depth: 20 }", "m").status().message()),
              StartsWith("model.textproto:1: resnet: depth is 20"));
  const absl::StatusOr<std::string> graph = DescribeModelConfig(
      "input { name: \"x\" shape: [-1] } output { name: \"y\" shape: [-1] } torchscript { file: "
      "\"graph.pt\" }",
      "m");
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DescribeModelConfigAt("/no/such/model").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace relight::config
