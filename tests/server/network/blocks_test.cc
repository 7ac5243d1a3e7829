// Names and wires of layers in blocks, once they are written out.
#include "server/network/blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace relight::network {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

BlockEntry One(std::string name, LayerKind kind, std::vector<std::string> inputs = {}) {
  return {Layer{.name = std::move(name), .inputs = std::move(inputs), .kind = std::move(kind)}};
}

BlockEntry Of(Block block) { return {std::move(block)}; }

// "name(input, ...)" for each layer.
std::vector<std::string> Expanded(const std::vector<BlockEntry>& entries) {
  const absl::StatusOr<std::vector<Layer>> layers = ExpandBlocks(entries, "x");
  EXPECT_TRUE(layers.ok()) << layers.status();
  std::vector<std::string> texts;
  if (!layers.ok()) return texts;
  for (const Layer& layer : *layers) {
    std::string text = layer.name + "(";
    for (const std::string& input : layer.inputs) {
      text += (text.back() == '(' ? "" : ", ") + input;
    }
    texts.push_back(text + ")");
  }
  return texts;
}

std::string Refusal(const std::vector<BlockEntry>& entries) {
  const absl::StatusOr<std::vector<Layer>> layers = ExpandBlocks(entries, "x");
  EXPECT_EQ(layers.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(layers.status().message());
}

const Linear kLinear{.out_features = 3};

TEST(BlocksTest, LayersCarryTheBlocksName) {
  EXPECT_THAT(Expanded({Of({.name = "trunk", .entries = {One("fc", kLinear), One("", Gelu{})}}),
                        One("head", kLinear)}),
              ElementsAre("trunk.fc(x)", "#1()", "head()"));
}

TEST(BlocksTest, ABlockWithoutANameOnlyGathers) {
  EXPECT_THAT(Expanded({Of({.entries = {One("fc", kLinear)}})}), ElementsAre("fc(x)"));
}

TEST(BlocksTest, EachTimeIsFedWhatTheOneBeforeGave) {
  EXPECT_THAT(
      Expanded({One("stem", kLinear), Of({.name = "layers",
                                          .entries = {One("fc", kLinear), One("", Activation{}),
                                                      One("sum", Elementwise{}, {"fc", "input"})},
                                          .repeat = 2,
                                          .first = 1})}),
      ElementsAre("stem(x)", "layers.1.fc(stem)", "#2()", "layers.1.sum(layers.1.fc, stem)",
                  "layers.2.fc(layers.1.sum)", "#5()", "layers.2.sum(layers.2.fc, layers.1.sum)"));
}

TEST(BlocksTest, OtherInputsStayWhatTheyAre) {
  EXPECT_THAT(Expanded({Of({.name = "decoder",
                            .inputs = {"x", "memory"},
                            .entries = {One("attn", MultiheadAttention{.num_heads = 1},
                                            {"input", "input:1", "input:1", "attn_mask=mask"})},
                            .repeat = 2})}),
              ElementsAre("decoder.0.attn(x, memory, memory, attn_mask=mask)",
                          "decoder.1.attn(decoder.0.attn, memory, memory, attn_mask=mask)"));
}

TEST(BlocksTest, TheInnermostNameIsMeant) {
  EXPECT_THAT(
      Expanded({One("fc", kLinear),
                Of({.name = "a", .entries = {One("fc", kLinear), One("out", kLinear, {"fc"})}}),
                Of({.name = "b", .entries = {One("out", kLinear, {"fc"})}})}),
      ElementsAre("fc(x)", "a.fc(fc)", "a.out(a.fc)", "b.out(fc)"));
}

TEST(BlocksTest, ABlocksNameIsItsOutput) {
  EXPECT_THAT(Expanded({Of({.name = "a", .entries = {One("fc", kLinear)}}),
                        One("b", kLinear, {"x"}), One("sum", Elementwise{}, {"a", "b"})}),
              ElementsAre("a.fc(x)", "b(x)", "sum(a.fc, b)"));
}

TEST(BlocksTest, OutputsOfLayersInBlocksKeepTheirNumbers) {
  EXPECT_THAT(Expanded({Of({.name = "rnn",
                            .entries = {One("gru", Recurrent{.op = RecurrentOp::kGru}),
                                        One("last", Select{}, {"gru:1"})}})}),
              ElementsAre("rnn.gru(x)", "rnn.last(rnn.gru:1)"));
}

TEST(BlocksTest, BlocksNest) {
  const Block inner{.name = "inner", .entries = {One("fc", kLinear, {"input"})}, .repeat = 2};
  EXPECT_THAT(Expanded({Of({.name = "outer", .entries = {Of(inner)}, .repeat = 2})}),
              ElementsAre("outer.0.inner.0.fc(x)", "outer.0.inner.1.fc(outer.0.inner.0.fc)",
                          "outer.1.inner.0.fc(outer.0.inner.1.fc)",
                          "outer.1.inner.1.fc(outer.1.inner.0.fc)"));
}

TEST(BlocksTest, AParameterThatComesFirstIsFedNothing) {
  EXPECT_THAT(Expanded({Of({.name = "embed",
                            .entries = {One("token", Parameter{.shape = {1, 3}}),
                                        One("sum", Elementwise{}, {"input", "token"})}})}),
              ElementsAre("embed.token()", "embed.sum(x, embed.token)"));
}

TEST(BlocksTest, SharedParametersAreLookedForAsInputsAre) {
  Layer again{.name = "again", .kind = kLinear, .parameters_of = "fc"};
  const auto layers =
      ExpandBlocks({Of({.name = "a", .entries = {One("fc", kLinear), {again}}})}, "x");
  ASSERT_TRUE(layers.ok()) << layers.status();
  EXPECT_EQ(layers->back().parameters_of, "a.fc");
}

TEST(BlocksTest, RefusalsNameTheBlock) {
  EXPECT_THAT(Refusal({Of({.name = "a", .entries = {}, .line = 7})}),
              HasSubstr("line 7: block \"a\": holds no"));
  EXPECT_THAT(Refusal({Of({.entries = {One("fc", kLinear)}, .repeat = 2})}),
              HasSubstr("a block that is repeated needs a name"));
  EXPECT_THAT(Refusal({Of({.name = "a", .entries = {One("fc", kLinear)}, .repeat = 0})}),
              HasSubstr("repeat is 0, it can be from 1 to 100000"));
  EXPECT_THAT(Refusal({Of({.name = "a", .entries = {One("fc", kLinear)}, .first = -1})}),
              HasSubstr("first is -1"));
}

TEST(BlocksTest, AFewLinesCannotAskForMoreThanSoMuch) {
  Block block{.name = "a", .entries = {One("fc", kLinear)}, .repeat = 400};
  for (int i = 0; i < 2; ++i) {
    block = Block{.name = "a", .entries = {Of(block)}, .repeat = 400};
  }
  EXPECT_THAT(Refusal({Of(block)}), HasSubstr("the network has more than 100000 layers"));
  const std::vector<std::string> inputs(2000, "x");
  EXPECT_THAT(
      Refusal({Of({.name = "a", .entries = {One("sum", Elementwise{}, inputs)}, .repeat = 2000})}),
      HasSubstr("take more than 67108864 bytes"));
  EXPECT_THAT(Refusal({Of({.name = "a",
                           .entries = {One("s", Split{.split_size = Sizes(10'000, 1)})},
                           .repeat = 2000})}),
              HasSubstr("take more than 67108864 bytes"));
  Block deep{.name = "a", .entries = {One("fc", kLinear)}};
  for (int i = 0; i < 40; ++i) deep = Block{.name = "a", .entries = {Of(deep)}};
  EXPECT_THAT(Refusal({Of(deep)}), HasSubstr("blocks nest more than 32 deep"));
}

}  // namespace
}  // namespace relight::network
