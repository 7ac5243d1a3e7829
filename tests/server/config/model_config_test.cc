// Configs that are right, and what becomes of them.
#include "server/config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/paths.h"

namespace relight::config {
namespace {

using ::testing::ElementsAre;
using Shape = std::vector<std::int64_t>;

constexpr char kSimpleNet[] = R"(
network {
  layer { name: "fc1" linear { in_features: 10 out_features: 5 } }
  layer { relu {} }
  layer { name: "fc2" linear { out_features: 2 } }
})";

ModelConfig MustParse(std::string_view text, const std::string& folder = "models/net") {
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text, folder);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *std::move(config) : ModelConfig();
}

std::string Content(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ModelConfigTest, ThreeLinesAreEnoughForSimpleNet) {
  const ModelConfig config = MustParse(kSimpleNet);
  EXPECT_EQ(config.name, "net");
  EXPECT_EQ(config.folder, "models/net");
  ASSERT_EQ(config.inputs.size(), 1u);
  EXPECT_EQ(config.inputs[0].name, "input");
  EXPECT_EQ(config.inputs[0].shape, (Shape{-1, 10}));
  ASSERT_EQ(config.outputs.size(), 1u);
  EXPECT_EQ(config.outputs[0].name, "output");
  EXPECT_EQ(config.outputs[0].shape, (Shape{-1, 2}));
  EXPECT_EQ(std::get<network::Network>(config.graph).parameters().size(), 4u);
}

TEST(ModelConfigTest, DefaultsAreFilledIn) {
  const ModelConfig config = MustParse(kSimpleNet);
  EXPECT_EQ(config.batching.max_batch_size, 32);
  EXPECT_TRUE(config.batching.preferred_batch_sizes.empty());
  EXPECT_EQ(config.batching.max_queue_delay, absl::ZeroDuration());
  EXPECT_EQ(config.batching.max_queue_size, 1024);
  EXPECT_EQ(config.batching.max_queue_bytes, std::uint64_t{256} << 20);
  EXPECT_EQ(config.device.kind, DeviceChoice::Kind::kAuto);
  EXPECT_FALSE(config.precision.has_value());
  EXPECT_EQ(config.checkpoints.folder, "models/net/checkpoints");
  EXPECT_EQ(config.checkpoints.settle_time, absl::Seconds(1));
  EXPECT_EQ(config.checkpoints.torn_timeout, absl::Seconds(30));
  EXPECT_FALSE(config.checkpoints.require_crc);
  EXPECT_EQ(config.version.from, VersionSource::kAuto);
  EXPECT_THAT(config.warm_up.batch_sizes, ElementsAre(1, 32));
  EXPECT_EQ(config.warm_up.free_dim, 1);
  EXPECT_FALSE(config.allow_non_finite);
  EXPECT_THAT(config.golden_requests, ElementsAre());
  EXPECT_EQ(config.arenas, 2);
  EXPECT_TRUE(config.cuda_graphs);
  EXPECT_EQ(config.training_state, TrainingState::kSpool);
}

TEST(ModelConfigTest, GoldenRequestsArrive) {
  const ModelConfig config = MustParse(R"(
    output { name: "gate" }
    network { layer { name: "gate" linear { in_features: 3 out_features: 2 } } }
    accept {
      request {
        file: "golden/cats.pt"
        tolerance: 0.25
        output { name: "gate" min: -1 max: 2.5 allow_non_finite: true }
      }
      request { file: "/srv/dogs.safetensors" }
    })",
                                       "/srv/m/net/");
  ASSERT_EQ(config.golden_requests.size(), 2u);
  EXPECT_EQ(config.golden_requests[0].file, "/srv/m/net/golden/cats.pt");
  EXPECT_EQ(config.golden_requests[0].tolerance, 0.25);
  ASSERT_EQ(config.golden_requests[0].ranges.size(), 1u);
  EXPECT_EQ(config.golden_requests[0].ranges[0].name, "gate");
  EXPECT_EQ(config.golden_requests[0].ranges[0].min, -1);
  EXPECT_EQ(config.golden_requests[0].ranges[0].max, 2.5);
  EXPECT_TRUE(config.golden_requests[0].ranges[0].allow_non_finite);
  EXPECT_EQ(config.golden_requests[1].file, "/srv/dogs.safetensors");
  EXPECT_EQ(config.golden_requests[1].tolerance, 1e-3);
  EXPECT_FALSE(config.golden_requests[1].max_change.has_value());
}

TEST(ModelConfigTest, EveryFieldArrives) {
  const ModelConfig config =
      MustParse(Content(RELIGHT_TEST_DATA "/configs/everything.textproto"), "/srv/m/net/");
  EXPECT_EQ(config.name, "net");
  EXPECT_EQ(config.batching.max_batch_size, 16);
  EXPECT_THAT(config.batching.preferred_batch_sizes, ElementsAre(4, 8));
  EXPECT_EQ(config.batching.max_queue_delay, absl::Microseconds(500));
  EXPECT_EQ(config.batching.max_queue_size, 100);
  EXPECT_EQ(config.batching.max_queue_bytes, 1000000u);
  EXPECT_EQ(config.device.kind, DeviceChoice::Kind::kCuda);
  EXPECT_EQ(config.device.index, 1);
  EXPECT_EQ(config.precision, Precision::kBFloat16);
  EXPECT_EQ(config.checkpoints.folder, "/srv/m/net/weights/new");
  EXPECT_EQ(config.checkpoints.state_dict_key, "ema/state_dict");
  EXPECT_EQ(config.checkpoints.strip_prefix, "net.");
  EXPECT_EQ(config.checkpoints.settle_time, absl::Milliseconds(250));
  EXPECT_EQ(config.checkpoints.torn_timeout, absl::Seconds(5));
  EXPECT_TRUE(config.checkpoints.require_crc);
  EXPECT_TRUE(config.checkpoints.reject_unknown_classes);
  EXPECT_EQ(config.version.from, VersionSource::kName);
  EXPECT_EQ(config.version.pattern, "step-(\\d+)");
  EXPECT_TRUE(config.allow_non_finite);
  EXPECT_THAT(config.warm_up.batch_sizes, ElementsAre(1, 2));
  EXPECT_EQ(config.warm_up.free_dim, 7);
  EXPECT_EQ(config.arenas, 1);
  EXPECT_FALSE(config.cuda_graphs);
  EXPECT_EQ(config.training_state, TrainingState::kOpenFile);
  ASSERT_EQ(config.inputs.size(), 2u);
  EXPECT_EQ(config.inputs[1].dtype, DType::kFloat64);
  EXPECT_EQ(config.inputs[1].line, 3);
  ASSERT_EQ(config.outputs.size(), 2u);
  EXPECT_EQ(config.outputs[0].dtype, DType::kFloat16);
  EXPECT_EQ(config.outputs[1].shape, (Shape{-1, 20}));
}

TEST(ModelConfigTest, LevelsOfPriorityHaveTheirOwnPolicyOrTheDefaultOne) {
  const ModelConfig config = MustParse(R"(
    network { layer { linear { in_features: 4 out_features: 2 } name: "a" } }
    batching {
      priority_levels: 3
      default_priority_level: 2
      default_queue_policy { default_timeout_microseconds: 500 allow_timeout_override: false }
      priority_queue_policy {
        key: 3
        value { timeout_action: DELAY max_queue_size: 7 default_timeout_microseconds: 18446744073709551615 }
      }
    })");
  const QueuePolicy by_default{.default_timeout = absl::Microseconds(500),
                               .allow_timeout_override = false};
  ASSERT_EQ(config.batching.levels.size(), 3U);
  EXPECT_EQ(config.batching.levels[0], by_default);
  EXPECT_EQ(config.batching.levels[1], by_default);
  EXPECT_TRUE(config.batching.levels[2].delay_late);
  EXPECT_TRUE(config.batching.levels[2].allow_timeout_override);
  EXPECT_EQ(config.batching.levels[2].max_queue_size, 7);
  EXPECT_GT(config.batching.levels[2].default_timeout, absl::Hours(1'000'000));
  EXPECT_EQ(config.batching.default_level, 1U);
}

TEST(ModelConfigTest, WithoutLevelsThereIsOneWithTheDefaultPolicy) {
  const ModelConfig config = MustParse(R"(
    network { layer { linear { in_features: 4 out_features: 2 } name: "a" } }
    batching { default_queue_policy { timeout_action: DELAY } })");
  ASSERT_EQ(config.batching.levels.size(), 1U);
  EXPECT_TRUE(config.batching.levels[0].delay_late);
  EXPECT_EQ(config.batching.levels[0].default_timeout, absl::InfiniteDuration());
}

TEST(ModelConfigTest, EveryLayerArrives) {
  const ModelConfig config = MustParse(Content(RELIGHT_TEST_DATA "/configs/everything.textproto"));
  const auto& steps = std::get<network::Network>(config.graph).steps();
  ASSERT_EQ(steps.size(), 28u);
  EXPECT_EQ(steps[0].layer.line, 7);

  const auto& conv = std::get<network::Conv>(steps[0].layer.kind);
  EXPECT_EQ(conv.in_channels, 3);
  EXPECT_EQ(conv.out_channels, 8);
  EXPECT_THAT(conv.kernel_size, ElementsAre(3, 5));
  EXPECT_THAT(conv.stride, ElementsAre(2, 2));
  EXPECT_THAT(conv.padding, ElementsAre(1, 2));
  EXPECT_FALSE(conv.bias);
  EXPECT_EQ(steps[0].shape(), (Shape{-1, 8, 16, 16}));

  const auto& norm = std::get<network::BatchNorm>(steps[1].layer.kind);
  EXPECT_EQ(norm.spatial_dims, 2);
  EXPECT_EQ(norm.eps, 0.001);
  EXPECT_FALSE(norm.affine);
  EXPECT_EQ(std::get<network::LeakyRelu>(steps[2].layer.kind).negative_slope, 0.2);

  const auto& max = std::get<network::MaxPool>(steps[3].layer.kind);
  EXPECT_THAT(max.stride, ElementsAre(2, 2));
  EXPECT_TRUE(max.ceil_mode);
  const auto& avg = std::get<network::AvgPool>(steps[4].layer.kind);
  EXPECT_THAT(avg.stride, ElementsAre(2, 2)) << "the default is kernel_size";
  EXPECT_FALSE(avg.count_include_pad);
  EXPECT_THAT(std::get<network::AdaptivePool>(steps[5].layer.kind).output_size, ElementsAre(1, 2));
  EXPECT_EQ(std::get<network::Concat>(steps[7].layer.kind).dim, -1);
  EXPECT_THAT(steps[7].layer.inputs, ElementsAre("flat", "extra"));
  EXPECT_EQ(std::get<network::Gelu>(steps[9].layer.kind).approximate, "tanh");
  EXPECT_EQ(std::get<network::Elu>(steps[10].layer.kind).alpha, 0.5);
  EXPECT_EQ(std::get<network::Softplus>(steps[11].layer.kind).threshold, 10);
  EXPECT_EQ(std::get<network::Hardtanh>(steps[12].layer.kind).max_val, 3);
  EXPECT_EQ(std::get<network::Elementwise>(steps[13].layer.kind).op, network::ElementwiseOp::kAdd);
  EXPECT_EQ(std::get<network::Elementwise>(steps[14].layer.kind).op, network::ElementwiseOp::kMul);
  const network::ActivationOp ops[] = {
      network::ActivationOp::kRelu,       network::ActivationOp::kRelu6,
      network::ActivationOp::kSigmoid,    network::ActivationOp::kTanh,
      network::ActivationOp::kSilu,       network::ActivationOp::kHardswish,
      network::ActivationOp::kHardsigmoid};
  for (std::size_t i = 0; i < std::size(ops); ++i) {
    EXPECT_EQ(std::get<network::Activation>(steps[15 + i].layer.kind).op, ops[i]);
  }
  EXPECT_TRUE(std::holds_alternative<network::Identity>(steps[22].layer.kind)) << "dropout";
  EXPECT_EQ(std::get<network::BatchNorm>(steps[24].layer.kind).spatial_dims, 1);
  EXPECT_EQ(std::get<network::Softmax>(steps[26].layer.kind).op, network::SoftmaxOp::kSoftmax);
  EXPECT_EQ(std::get<network::Softmax>(steps[27].layer.kind).op, network::SoftmaxOp::kLogSoftmax);
}

TEST(ModelConfigTest, TheBundledExampleIsRight) {
  const std::string folder = RELIGHT_SOURCE_DIR "/examples/simplenet/models/simplenet";
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(folder);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->name, "simplenet");
}

TEST(ModelConfigTest, ActivationsHavePyTorchsDefaults) {
  const ModelConfig config = MustParse(R"(
    input { name: "x" shape: [-1, 2] }
    network {
      layer { leaky_relu {} } layer { elu {} } layer { softplus {} } layer { hardtanh {} }
      layer { gelu {} } layer { softmax {} } layer { dropout {} }
    })");
  const auto& steps = std::get<network::Network>(config.graph).steps();
  EXPECT_EQ(std::get<network::LeakyRelu>(steps[0].layer.kind).negative_slope, 0.01);
  EXPECT_EQ(std::get<network::Elu>(steps[1].layer.kind).alpha, 1.0);
  EXPECT_EQ(std::get<network::Softplus>(steps[2].layer.kind).beta, 1.0);
  EXPECT_EQ(std::get<network::Softplus>(steps[2].layer.kind).threshold, 20.0);
  EXPECT_EQ(std::get<network::Hardtanh>(steps[3].layer.kind).min_val, -1.0);
  EXPECT_EQ(std::get<network::Gelu>(steps[4].layer.kind).approximate, "none");
  EXPECT_EQ(std::get<network::Softmax>(steps[5].layer.kind).dim, -1);
}

TEST(ModelConfigTest, TorchScriptIsResolvedBesideTheConfig) {
  const ModelConfig config = MustParse(R"(
    input { name: "x" datatype: "INT64" shape: [-1, 7] }
    output { name: "y" datatype: "FP32" shape: [-1, 2] }
    torchscript { file: "graph.pt" })");
  const auto& graph = std::get<TorchScriptGraph>(config.graph);
  EXPECT_EQ(graph.path, "models/net/graph.pt");
  ASSERT_EQ(graph.inputs.size(), 1u);
  EXPECT_EQ(graph.inputs[0].dtype, DType::kInt64);
  EXPECT_EQ(graph.outputs[0].name, "y");
  EXPECT_EQ(config.inputs[0].name, "x");
  EXPECT_EQ(config.batching.max_batch_size, 32);
}

TEST(ModelConfigTest, NoBatchesByDefaultWhereTheyCannotBe) {
  const ModelConfig fixed =
      MustParse(R"(input { name: "x" shape: [1, 4] } network { layer { softmax {} } })");
  EXPECT_EQ(fixed.batching.max_batch_size, 0);
  EXPECT_THAT(fixed.warm_up.batch_sizes, ElementsAre(1));
  const ModelConfig mixing =
      MustParse(R"(input { name: "x" shape: [-1, 4] } network { layer { softmax { dim: 0 } } })");
  EXPECT_EQ(mixing.batching.max_batch_size, 0);
  const ModelConfig script = MustParse(R"(
    input { name: "x" shape: [-1, 7] } output { name: "y" shape: [2] }
    torchscript { file: "graph.pt" })");
  EXPECT_EQ(script.batching.max_batch_size, 0);
}

TEST(ModelConfigTest, DevicesByName) {
  const auto device = [](const std::string& name) {
    return MustParse(absl::StrCat(kSimpleNet, " device: \"", name, "\"")).device;
  };
  EXPECT_EQ(device("auto").kind, DeviceChoice::Kind::kAuto);
  EXPECT_EQ(device("cpu").kind, DeviceChoice::Kind::kCpu);
  EXPECT_EQ(device("cuda:0").kind, DeviceChoice::Kind::kCuda);
  EXPECT_EQ(device("cuda:127").index, 127);
}

TEST(ModelConfigTest, CheckpointsMayLieElsewhere) {
  EXPECT_EQ(
      MustParse(absl::StrCat(kSimpleNet, " checkpoints { folder: \"/mnt/w\" }")).checkpoints.folder,
      "/mnt/w");
}

TEST(ModelConfigTest, CheckpointsAreStrictAndBoundedUnlessItSaysOtherwise) {
  const Checkpoints usual = MustParse(kSimpleNet).checkpoints;
  EXPECT_TRUE(usual.strict);
  EXPECT_TRUE(usual.rename.empty());
  EXPECT_EQ(usual.limits.max_nodes, storage::ReadLimits().max_nodes);
  const Checkpoints own = MustParse(absl::StrCat(kSimpleNet, R"pb(
                            checkpoints {
                              strict: false
                              rename { pattern: "^net\\." }
                              rename { pattern: "lin(\\d)" replacement: "fc\\1" }
                              limits {
                                max_file_bytes: 1
                                max_entries: 2
                                max_pickle_bytes: 3
                                max_nodes: 4
                                max_string_bytes: 5
                                max_blob_bytes: 6
                                max_tensor_bytes: 7
                                max_expanded_bytes: 8
                              }
                            })pb"))
                              .checkpoints;
  EXPECT_FALSE(own.strict);
  ASSERT_EQ(own.rename.size(), 2u);
  EXPECT_EQ(own.rename[0].pattern, "^net\\.");
  EXPECT_EQ(own.rename[0].replacement, "");
  EXPECT_EQ(own.rename[1].replacement, "fc\\1");
  EXPECT_EQ(own.limits.max_file_bytes, 1u);
  EXPECT_EQ(own.limits.max_entries, 2u);
  EXPECT_EQ(own.limits.max_pickle_bytes, 3u);
  EXPECT_EQ(own.limits.max_nodes, 4u);
  EXPECT_EQ(own.limits.max_string_bytes, 5u);
  EXPECT_EQ(own.limits.max_blob_bytes, 6u);
  EXPECT_EQ(own.limits.max_tensor_bytes, 7u);
  EXPECT_EQ(own.limits.max_expanded_bytes, 8u);
}

TEST(ModelConfigTest, EveryDatatypeOfTheProtocolIsKnown) {
  for (const char* name : {"BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32",
                           "INT64", "FP16", "BF16", "FP32", "FP64"}) {
    const ModelConfig config =
        MustParse(absl::StrCat("input { name: \"x\" datatype: \"", name,
                               "\" shape: [-1] } output { name: \"y\" "
                               "datatype: \"",
                               name, "\" } network { layer { identity {} } }"));
    EXPECT_EQ(config.inputs.at(0).dtype, DTypeFromProtocolName(name));
  }
}

TEST(ModelConfigTest, AFamilyIsANetwork) {
  const ModelConfig config = MustParse(R"(
gpt2 { n_layer: 2 activation_function: "relu" layer_norm_epsilon: 0.25 tie_word_embeddings: false }
checkpoints { ignore: "^score\\." })");
  const auto& network = std::get<network::Network>(config.graph);
  ASSERT_EQ(config.inputs.size(), 2u);
  EXPECT_EQ(config.inputs[0].name, "input_ids");
  ASSERT_EQ(config.outputs.size(), 1u);
  EXPECT_EQ(config.outputs[0].name, "logits");
  EXPECT_EQ(config.outputs[0].shape, (Shape{-1, -1, 50257}));
  EXPECT_EQ(network.parameters().back().name, "lm_head.weight");
  EXPECT_TRUE(network.parameters().back().required);
  EXPECT_EQ(config.batching.max_batch_size, 32);
  EXPECT_THAT(config.checkpoints.ignore,
              ElementsAre(R"(^(transformer\.)?h\.\d+\.attn\.(masked_)?bias$)", R"(^score\.)"));
}

TEST(ModelConfigTest, AFamilysSignatureCanBeDeclared) {
  const ModelConfig image = MustParse(R"(
input { name: "image" shape: [-1, 3, 224, 224] }
output { name: "scores" }
resnet { depth: 18 num_classes: 10 })");
  ASSERT_EQ(image.inputs.size(), 1u);
  EXPECT_EQ(image.inputs[0].name, "image");
  EXPECT_EQ(image.outputs[0].name, "scores");
  EXPECT_EQ(image.outputs[0].shape, (Shape{-1, 10}));
  EXPECT_TRUE(image.checkpoints.ignore.empty());
  const ModelConfig text = MustParse(R"(
input { name: "input_ids" datatype: "INT32" shape: [-1, 128] }
bert { num_hidden_layers: 1 })");
  ASSERT_EQ(text.inputs.size(), 1u);
  EXPECT_EQ(text.inputs[0].dtype, DType::kInt32);
  EXPECT_EQ(text.outputs[0].shape, (Shape{-1, 128, 768}));
}

}  // namespace
}  // namespace relight::config
