// Families: what they need from a checkpoint, what they take and give, and what they refuse.
#include "server/network/families/families.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "server/network/blocks.h"

namespace relight::network {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Shape = std::vector<std::int64_t>;

Network MustBuild(const Family& family, const std::vector<TensorSpec>& declared = {}) {
  const absl::StatusOr<WrittenNetwork> written = Expand(family, declared);
  EXPECT_TRUE(written.ok()) << written.status();
  if (!written.ok()) return {};
  absl::StatusOr<Network> network = Build(*written);
  EXPECT_TRUE(network.ok()) << network.status();
  return network.ok() ? *std::move(network) : Network();
}

std::string Refusal(const Family& family, const std::vector<TensorSpec>& declared = {}) {
  const absl::StatusOr<WrittenNetwork> written = Expand(family, declared);
  EXPECT_EQ(written.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(written.status().message());
}

std::map<std::string, Shape> Shapes(const Network& network) {
  std::map<std::string, Shape> shapes;
  for (const ParameterSpec& spec : network.parameters()) shapes[spec.name] = spec.shape;
  return shapes;
}

// Of parameters that are no buffers, each value once.
std::int64_t CountParameters(const Network& network) {
  std::int64_t count = 0;
  for (const ParameterSpec& spec : network.parameters()) {
    if (spec.buffer || !spec.same_as.empty()) continue;
    std::int64_t elements = 1;
    for (const std::int64_t size : spec.shape) elements *= size;
    count += elements;
  }
  return count;
}

TensorSpec Tokens(std::string name) {
  return {.name = std::move(name), .dtype = DType::kInt64, .shape = {-1, -1}};
}

// As the papers and torchvision's and Hugging Face's model cards count them.
TEST(FamiliesTest, HaveAsManyParametersAsPublished) {
  const std::vector<std::pair<Family, std::int64_t>> rows = {
      {ResNet{.depth = 18}, 11'689'512},
      {ResNet{.depth = 34}, 21'797'672},
      {ResNet{.depth = 50}, 25'557'032},
      {ResNet{.depth = 101}, 44'549'160},
      {ResNet{.depth = 152}, 60'192'808},
      {ResNet{.depth = 50, .groups = 32, .width_per_group = 4}, 25'028'904},
      {ResNet{.depth = 101, .groups = 32, .width_per_group = 8}, 88'791'336},
      {ResNet{.depth = 50, .width_per_group = 128}, 68'883'240},
      {Vgg{.depth = 11}, 132'863'336},
      {Vgg{.depth = 13, .batch_norm = true}, 133'053'736},
      {Vgg{.depth = 16}, 138'357'544},
      {Vgg{.depth = 19, .batch_norm = true}, 143'678'248},
      {MobileNetV2{}, 3'504'872},
      {VisionTransformer{
           .patch_size = 16, .num_layers = 12, .num_heads = 12, .hidden_dim = 768, .mlp_dim = 3072},
       86'567'656},
      {Bert{}, 109'482'240},
      {Gpt2{}, 124'439'808},
  };
  for (const auto& [family, count] : rows) {
    EXPECT_EQ(CountParameters(MustBuild(family)), count) << FamilyName(family);
  }
}

TEST(FamiliesTest, RequestsMayShareABatchOfAny) {
  for (const Family& family : std::vector<Family>{
           ResNet{.depth = 50}, Vgg{.depth = 11}, MobileNetV2{},
           VisionTransformer{
               .patch_size = 16, .num_layers = 1, .num_heads = 2, .hidden_dim = 8, .mlp_dim = 8},
           Bert{}, Bert{.architecture = "BertForSequenceClassification"},
           Bert{.architecture = "BertForQuestionAnswering"}, Gpt2{}}) {
    EXPECT_EQ(MustBuild(family).batching_obstacle(), "") << FamilyName(family);
  }
}

TEST(FamiliesTest, AreKnownByTheirNames) {
  for (const char* const name :
       {"resnet", "vgg", "mobilenet_v2", "vision_transformer", "bert", "gpt2"}) {
    const std::optional<Family> family = FamilyNamed(name);
    ASSERT_TRUE(family.has_value()) << name;
    EXPECT_EQ(FamilyName(*family), name);
  }
  EXPECT_FALSE(FamilyNamed("alexnet").has_value());
}

TEST(FamiliesTest, ImageNetworksTakeImagesOfAnySize) {
  const Network network = MustBuild(ResNet{.depth = 18, .num_classes = 10, .in_channels = 1});
  ASSERT_EQ(network.inputs().size(), 1u);
  EXPECT_EQ(network.inputs()[0].name, "input");
  EXPECT_EQ(network.inputs()[0].shape, (Shape{-1, 1, -1, -1}));
  ASSERT_EQ(network.outputs().size(), 1u);
  EXPECT_EQ(network.outputs()[0].name, "output");
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, 10}));
}

TEST(FamiliesTest, ResNetHasTorchvisionsKeys) {
  const auto shapes = Shapes(MustBuild(ResNet{.depth = 50, .groups = 32, .width_per_group = 4}));
  EXPECT_EQ(shapes.at("conv1.weight"), (Shape{64, 3, 7, 7}));
  EXPECT_EQ(shapes.at("bn1.running_var"), (Shape{64}));
  EXPECT_EQ(shapes.at("layer1.0.downsample.0.weight"), (Shape{256, 64, 1, 1}));
  EXPECT_EQ(shapes.at("layer2.3.conv2.weight"), (Shape{256, 8, 3, 3}));
  EXPECT_EQ(shapes.at("layer4.2.bn3.num_batches_tracked"), (Shape{}));
  EXPECT_EQ(shapes.at("fc.weight"), (Shape{1000, 2048}));
  EXPECT_EQ(shapes.count("layer4.3.conv1.weight"), 0u);
  EXPECT_EQ(Shapes(MustBuild(ResNet{.depth = 18})).count("layer1.0.downsample.0.weight"), 0u);
}

TEST(FamiliesTest, VggIsNumberedAsTorchvisionNumbersIt) {
  const auto plain = Shapes(MustBuild(Vgg{.depth = 16}));
  EXPECT_EQ(plain.at("features.28.weight"), (Shape{512, 512, 3, 3}));
  EXPECT_EQ(plain.at("classifier.0.weight"), (Shape{4096, 25088}));
  const auto normed = Shapes(MustBuild(Vgg{.depth = 16, .batch_norm = true, .num_classes = 5}));
  EXPECT_EQ(normed.at("features.40.weight"), (Shape{512, 512, 3, 3}));
  EXPECT_EQ(normed.at("features.41.running_mean"), (Shape{512}));
  EXPECT_EQ(normed.at("classifier.6.bias"), (Shape{5}));
}

TEST(FamiliesTest, MobileNetRoundsItsChannels) {
  const auto shapes = Shapes(MustBuild(MobileNetV2{.width_mult = 1.4}));
  EXPECT_EQ(shapes.at("features.0.0.weight"), (Shape{48, 3, 3, 3}));
  EXPECT_EQ(shapes.at("features.1.conv.0.0.weight"), (Shape{48, 1, 3, 3}));
  EXPECT_EQ(shapes.at("features.1.conv.1.weight"), (Shape{24, 48, 1, 1}));
  EXPECT_EQ(shapes.at("features.17.conv.3.weight"), (Shape{448}));
  EXPECT_EQ(shapes.at("classifier.1.weight"), (Shape{1000, 1792}));
}

TEST(FamiliesTest, VisionTransformerHasTorchvisionsKeys) {
  const Network network = MustBuild(VisionTransformer{.image_size = 64,
                                                      .patch_size = 16,
                                                      .num_layers = 2,
                                                      .num_heads = 3,
                                                      .hidden_dim = 48,
                                                      .mlp_dim = 96,
                                                      .representation_size = 24});
  EXPECT_EQ(network.inputs()[0].shape, (Shape{-1, 3, 64, 64}));
  const auto shapes = Shapes(network);
  EXPECT_EQ(shapes.at("class_token"), (Shape{1, 1, 48}));
  EXPECT_EQ(shapes.at("encoder.pos_embedding"), (Shape{1, 17, 48}));
  EXPECT_EQ(shapes.at("encoder.layers.encoder_layer_1.self_attention.in_proj_weight"),
            (Shape{144, 48}));
  EXPECT_EQ(shapes.at("encoder.layers.encoder_layer_1.mlp.3.weight"), (Shape{48, 96}));
  EXPECT_EQ(shapes.at("heads.pre_logits.weight"), (Shape{24, 48}));
  EXPECT_EQ(shapes.at("heads.head.weight"), (Shape{1000, 24}));
}

TEST(FamiliesTest, BertHasTheKeysAndOutputsOfItsClass) {
  const Network plain = MustBuild(Bert{.num_hidden_layers = 2});
  ASSERT_EQ(plain.inputs().size(), 3u);
  EXPECT_EQ(plain.inputs()[2].name, "token_type_ids");
  ASSERT_EQ(plain.outputs().size(), 2u);
  EXPECT_EQ(plain.outputs()[0].name, "last_hidden_state");
  EXPECT_EQ(plain.outputs()[0].shape, (Shape{-1, -1, 768}));
  EXPECT_EQ(plain.outputs()[1].name, "pooler_output");
  EXPECT_EQ(plain.outputs()[1].shape, (Shape{-1, 768}));
  const auto shapes = Shapes(plain);
  EXPECT_EQ(shapes.at("embeddings.position_embeddings.weight"), (Shape{512, 768}));
  EXPECT_EQ(shapes.at("encoder.layer.1.attention.output.LayerNorm.bias"), (Shape{768}));
  EXPECT_EQ(shapes.at("encoder.layer.1.intermediate.dense.weight"), (Shape{3072, 768}));
  EXPECT_EQ(shapes.count("encoder.layer.2.output.dense.bias"), 0u);
  EXPECT_EQ(shapes.at("pooler.dense.weight"), (Shape{768, 768}));

  const auto labels = Shapes(MustBuild(
      Bert{.architecture = "BertForTokenClassification", .num_hidden_layers = 1, .num_labels = 9}));
  EXPECT_EQ(labels.at("classifier.weight"), (Shape{9, 768}));
  EXPECT_EQ(labels.at("bert.embeddings.word_embeddings.weight"), (Shape{30522, 768}));
  EXPECT_EQ(labels.count("bert.pooler.dense.weight"), 0u);
}

TEST(FamiliesTest, AMaskedLanguageModelSharesWeightAndBiasOfItsDecoder) {
  const Network network = MustBuild(Bert{.architecture = "BertForMaskedLM"});
  std::map<std::string, std::string> shared;
  for (const ParameterSpec& spec : network.parameters()) {
    if (spec.same_as.empty()) continue;
    EXPECT_FALSE(spec.required) << spec.name;
    shared[spec.name] = spec.same_as;
  }
  const std::map<std::string, std::string> expected = {
      {"cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"},
      {"cls.predictions.decoder.bias", "cls.predictions.bias"}};
  EXPECT_EQ(shared, expected);
  const Network untied =
      MustBuild(Bert{.architecture = "BertForMaskedLM", .tie_word_embeddings = false});
  EXPECT_EQ(CountParameters(untied), CountParameters(network) + 30522 * 768);
}

TEST(FamiliesTest, Gpt2HasTheKeysOfHuggingFace) {
  const Network network = MustBuild(Gpt2{.n_layer = 2});
  ASSERT_EQ(network.outputs().size(), 1u);
  EXPECT_EQ(network.outputs()[0].name, "logits");
  EXPECT_EQ(network.outputs()[0].shape, (Shape{-1, -1, 50257}));
  const auto shapes = Shapes(network);
  EXPECT_EQ(shapes.at("transformer.wpe.weight"), (Shape{1024, 768}));
  EXPECT_EQ(shapes.at("transformer.h.1.attn.c_attn.weight"), (Shape{768, 2304}));
  EXPECT_EQ(shapes.at("transformer.h.1.mlp.c_proj.weight"), (Shape{3072, 768}));
  EXPECT_EQ(network.parameters().back().name, "lm_head.weight");
  EXPECT_EQ(network.parameters().back().same_as, "transformer.wte.weight");
  const auto body = Shapes(MustBuild(Gpt2{.architecture = "GPT2Model", .n_inner = 100}));
  EXPECT_EQ(body.at("h.11.mlp.c_fc.weight"), (Shape{768, 100}));
  EXPECT_EQ(body.count("lm_head.weight"), 0u);
}

TEST(FamiliesTest, DeclaredInputsTakeThePlaceOfTheFamilys) {
  const Network image =
      MustBuild(ResNet{.depth = 18}, {{.name = "image", .shape = {-1, 3, 224, 224}}});
  EXPECT_EQ(image.inputs()[0].name, "image");
  EXPECT_EQ(image.inputs()[0].shape, (Shape{-1, 3, 224, 224}));
  const Network text = MustBuild(Bert{}, {Tokens("attention_mask"), Tokens("input_ids")});
  ASSERT_EQ(text.inputs().size(), 2u);
  EXPECT_EQ(Shapes(text), Shapes(MustBuild(Bert{})));
  EXPECT_EQ(MustBuild(Gpt2{}, {Tokens("input_ids")}).inputs().size(), 1u);

  EXPECT_THAT(Refusal(ResNet{.depth = 18}, {Tokens("a"), Tokens("b")}),
              HasSubstr("resnet: 2 inputs are declared, it takes one, [-1, 3, -1, -1]"));
  EXPECT_EQ(Refusal(Gpt2{}, {Tokens("input_id")}),
            "gpt2: it has no input \"input_id\"; did you mean \"input_ids\"?: its inputs are "
            "input_ids, attention_mask\n"
            "gpt2: its input input_ids is not among those declared: declare it, too, or none");
}

TEST(FamiliesTest, ImpossibleHyperparametersAreRefused) {
  const std::vector<std::pair<Family, std::string>> rows = {
      {ResNet{.depth = 20}, "resnet: depth is 20, it can be 18, 34, 50, 101 or 152"},
      {ResNet{}, "resnet: depth is missing: give 18, 34, 50, 101 or 152"},
      {ResNet{.depth = 34, .groups = 32, .width_per_group = 4},
       "resnet: groups is 32, but depth 34 is made of basic blocks, in which it is 1: give depth "
       "50, 101 or 152\n"
       "resnet: width_per_group is 4, but depth 34 is made of basic blocks, in which it is 64: "
       "give depth 50, 101 or 152"},
      {ResNet{.depth = 18, .num_classes = 0}, "resnet: num_classes is 0, the least is 1"},
      {Vgg{.depth = 12}, "vgg: depth is 12, it can be 11, 13, 16 or 19"},
      {MobileNetV2{.width_mult = 0},
       "mobilenet_v2: width_mult is 0, it must be positive, and the most is 1024"},
      {MobileNetV2{.width_mult = 1e9},
       "mobilenet_v2: width_mult is 1e+09, it must be positive, and the most is 1024"},
      {VisionTransformer{.image_size = 30,
                         .patch_size = 16,
                         .num_layers = 1,
                         .num_heads = 5,
                         .hidden_dim = 48,
                         .mlp_dim = 96},
       "vision_transformer: image_size is 30, which patch_size 16 does not divide\n"
       "vision_transformer: hidden_dim is 48, which num_heads 5 does not divide"},
      {VisionTransformer{.patch_size = 16, .num_layers = 1, .num_heads = 1, .hidden_dim = 8},
       "vision_transformer: mlp_dim is missing or 0: give at least 1"},
      {Bert{.hidden_size = 100},
       "bert: hidden_size is 100, which num_attention_heads 12 does not divide"},
      {Bert{.architecture = "BertForPreTraining"},
       "bert: architecture is \"BertForPreTraining\", it can be \"BertModel\", "
       "\"BertForMaskedLM\", \"BertForSequenceClassification\", \"BertForTokenClassification\" or "
       "\"BertForQuestionAnswering\""},
      {Bert{.hidden_act = "swish"},
       "bert: hidden_act is \"swish\", it can be \"gelu\", \"gelu_new\", \"gelu_pytorch_tanh\", "
       "\"relu\", \"silu\" or \"tanh\""},
      {Bert{.layer_norm_eps = -1}, "bert: layer_norm_eps is -1, the least is 0"},
      {Bert{.num_hidden_layers = 513}, "bert: num_hidden_layers is 513, the most is 512"},
      {Gpt2{.n_embd = std::int64_t{1} << 40}, "gpt2: n_embd is 1099511627776, the most is 1048576"},
      {Gpt2{.n_head = 7}, "gpt2: n_embd is 768, which n_head 7 does not divide"},
  };
  for (const auto& [family, message] : rows) EXPECT_EQ(Refusal(family), message);
}

// Products of the largest sizes neither wrap nor take memory.
TEST(FamiliesTest, TheLargestHyperparametersAreRefusedByTheNetwork) {
  constexpr std::int64_t kMost = std::int64_t{1} << 20;
  for (const Family& family : std::vector<Family>{
           ResNet{.depth = 152, .groups = kMost, .width_per_group = kMost},
           MobileNetV2{.width_mult = 1024, .round_nearest = kMost},
           VisionTransformer{.image_size = kMost,
           .patch_size = 1,
           .num_layers = 512,
           .num_heads = 1,
           .hidden_dim = kMost,
           .mlp_dim = kMost},
           Bert{.vocab_size = 16 * kMost, .hidden_size = kMost, .num_attention_heads = 1}}) {
    const absl::StatusOr<WrittenNetwork> written = Expand(family);
    ASSERT_TRUE(written.ok()) << written.status();
    EXPECT_EQ(Build(*written).status().code(), absl::StatusCode::kInvalidArgument)
        << FamilyName(family);
  }
}

TEST(FamiliesTest, KeysThatOlderReleasesSavedBesideAreNamed) {
  EXPECT_THAT(Expand(Bert{})->ignored_keys, ElementsAre(R"(^(bert\.)?embeddings\.position_ids$)"));
  EXPECT_THAT(Expand(Gpt2{})->ignored_keys,
              ElementsAre(R"(^(transformer\.)?h\.\d+\.attn\.(masked_)?bias$)"));
  EXPECT_TRUE(Expand(ResNet{.depth = 18})->ignored_keys.empty());
}

}  // namespace
}  // namespace relight::network
