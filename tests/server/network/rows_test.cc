// How inference follows the rows of a batch: which nets may put requests together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "server/network/network.h"

namespace relight::network {
namespace {

using ::testing::HasSubstr;

struct Row {
  const char* situation;
  std::vector<TensorSpec> inputs;
  std::vector<Layer> layers;
  const char* obstacle;  // A part of it; empty: rows stay apart.
};

Layer Make(std::string name, LayerKind kind, std::vector<std::string> inputs = {}) {
  return {.name = std::move(name), .inputs = std::move(inputs), .kind = std::move(kind)};
}

TEST(RowsTest, AreFollowedThroughTheNet) {
  const TensorSpec x{.name = "x", .shape = {-1, 4, 6}};
  const TensorSpec y{.name = "y", .shape = {-1, 4, 6}};
  const TensorSpec ids{.name = "ids", .dtype = DType::kInt64, .shape = {-1, -1}};
  const std::vector<Row> rows = {
      {"permuted there and back",
       {x},
       {Make("a", Permute{.dims = {1, 0, 2}}), Make("b", Transpose{})},
       ""},
      {"permuted and left so",
       {x},
       {Make("a", Permute{.dims = {1, 0, 2}})},
       "output \"output\" has"},
      {"computed with in another dimension",
       {x},
       {Make("a", Transpose{}), Make("r", Recurrent{.hidden_size = 3}), Make("b", Transpose{})},
       ""},
      {"the sequence taken for the batch",
       {x},
       {Make("r", Recurrent{.hidden_size = 3})},
       "layer \"r\" (lstm) mixes rows"},
      {"the last state",
       {x},
       {Make("r", Recurrent{.hidden_size = 3, .batch_first = true}),
        Make("last", Select{.index = -1}, {"r:1"})},
       ""},
      {"a row selected", {x}, {Make("a", Select{})}, "layer \"a\" (select) mixes rows"},
      {"a position selected", {x}, {Make("a", Select{.dim = 1})}, ""},
      {"some rows sliced off", {x}, {Make("a", Slice{.start = 1})}, "(slice) mixes rows"},
      {"the mean over positions", {x}, {Make("a", Reduce{.dim = {1}})}, ""},
      {"the mean over all", {x}, {Make("a", Reduce{})}, "(mean) mixes rows"},
      {"reshaped by the first dimension", {x}, {Make("a", Reshape{.shape = {0, -1}})}, ""},
      {"reshaped by what is left", {x}, {Make("a", Reshape{.shape = {-1, 24}})}, ""},
      {"reshaped across rows", {x}, {Make("a", Reshape{.shape = {-1, 12}})}, "(reshape) mixes"},
      {"reshaped with a free size",
       {{.name = "x", .shape = {-1, 4, -1}}},
       {Make("a", Reshape{.shape = {-1, 24}})},
       "(reshape) mixes rows"},
      {"as many rows as only some batches have",
       {{.name = "x", .shape = {-1, 4}}},
       {Make("a", Unflatten{.dim = 0, .sizes = {2}})},
       "(unflatten) mixes rows"},
      {"heads split off and merged",
       {x},
       {Make("a", Unflatten{.dim = -1, .sizes = {2, 3}}),
        Make("b", Transpose{.dim0 = 1, .dim1 = 2}), Make("c", Flatten{.start_dim = 2})},
       ""},
      {"two inputs", {x, y}, {Make("a", Elementwise{}, {"x", "y"})}, ""},
      {"one input against another's rows",
       {x, y},
       {Make("a", Unsqueeze{.dim = 1}, {"x"}), Make("b", Elementwise{}, {"a", "y"})},
       "layer \"b\" (add) mixes rows"},
      {"a parameter for all rows",
       {x},
       {Make("p", Parameter{.shape = {4, 6}}), Make("a", Elementwise{}, {"x", "p"})},
       ""},
      {"a parameter for each row",
       {x},
       {Make("p", Parameter{.shape = {5, 4, 6}}), Make("a", Elementwise{}, {"x", "p"})},
       "layer \"a\" (add) mixes rows"},
      {"a class token",
       {x},
       {Make("p", Parameter{.shape = {1, 1, 6}}), Make("e", ExpandAs{.dim = {0}}, {"p", "x"}),
        Make("a", Concat{}, {"e", "x"})},
       ""},
      {"positions",
       {ids},
       {Make("at", Arange{}), Make("p", Embedding{.num_embeddings = 9, .embedding_dim = 4}),
        Make("t", Embedding{.num_embeddings = 7, .embedding_dim = 4}, {"ids"}),
        Make("sum", Elementwise{}, {"t", "p"})},
       ""},
      {"rows in two dimensions",
       {{.name = "x", .shape = {-1, 4}}},
       {Make("t", Transpose{}, {"x"}), Make("s", Reduce{.dim = {1}, .keepdim = true}, {"x"}),
        Make("e", ExpandAs{.dim = {1}}, {"s", "t"}),
        Make("sum", Reduce{.dim = {1}, .keepdim = true})},
       "layer \"e\" (expand_as) mixes rows"},
      {"a parameter for every row and each other",
       {{.name = "x", .shape = {-1, 4}}},
       {Make("t", Transpose{}, {"x"}), Make("p", Parameter{.shape = {1, 1}}),
        Make("e", ExpandAs{.dim = {0}}, {"p", "x"}), Make("f", ExpandAs{.dim = {1}}, {"e", "t"})},
       "layer \"f\" (expand_as) mixes rows"},
      {"positions stretched to the rows",
       {{.name = "x", .shape = {-1, -1}}},
       {Make("at", Arange{}, {"x"}), Make("f", Cast{}), Make("s", Select{.dim = 1}, {"x"}),
        Make("e", ExpandAs{}, {"f", "s"}), Make("sum", Reduce{.dim = {0}, .keepdim = true}),
        Make("all", Elementwise{}, {"x", "sum"})},
       "layer \"e\" (expand_as) mixes rows"},
      {"rows stretched to positions",
       {{.name = "x", .shape = {-1, -1}}},
       {Make("s", Select{.dim = 1}, {"x"}), Make("at", Arange{}, {"x"}),
        Make("e", ExpandAs{}, {"s", "at"})},
       "layer \"e\" (expand_as) mixes rows"},
      {"positions where the rows are",
       {{.name = "x", .shape = {-1, -1}}},
       {Make("m", Reduce{.dim = {1}}, {"x"}), Make("at", Arange{}, {"x"}),
        Make("sum", Elementwise{}, {"m", "at"})},
       "layer \"sum\" (add) mixes rows"},
      {"positions beside the rows",
       {{.name = "x", .dtype = DType::kInt64, .shape = {-1, -1}}},
       {Make("s", Select{.dim = 1}, {"x"}), Make("at", Arange{}, {"x"}),
        Make("both", Stack{.dim = 1}, {"s", "at"})},
       "layer \"both\" (stack) mixes rows"},
      {"how many rows there are",
       {ids},
       {Make("at", Arange{.dim = 0}), Make("f", Cast{}), Make("u", Unsqueeze{.dim = 1}),
        Make("i", Cast{}, {"ids"}), Make("sum", Elementwise{}, {"u", "i"})},
       "layer \"at\" (arange) mixes rows"},
      {"attention within each row",
       {x},
       {Make("a", MultiheadAttention{.num_heads = 2, .batch_first = true})},
       ""},
      {"a query for all rows",
       {x},
       {Make("p", Parameter{.shape = {1, 2, 6}}),
        Make("a", MultiheadAttention{.num_heads = 2, .batch_first = true}, {"p", "x", "x"})},
       ""},
      {"a query for each row",
       {x},
       {Make("p", Parameter{.shape = {3, 2, 6}}),
        Make("a", MultiheadAttention{.num_heads = 2, .batch_first = true}, {"p", "x", "x"})},
       "(multihead_attention) mixes rows"},
      {"one sequence with a padding for each row",
       {{.name = "m", .dtype = DType::kBool, .shape = {-1, 2}}},
       {Make("p", Parameter{.shape = {1, 2, 6}}),
        Make("a", MultiheadAttention{.num_heads = 2, .batch_first = true},
             {"p", "key_padding_mask=m"})},
       ""},
      {"a mask whose positions are rows",
       {{.name = "m", .shape = {-1, 4}}},
       {Make("p", Parameter{.shape = {1, 3}}), Make("t", Transpose{}, {"m"}),
        Make("a", ScaledDotProductAttention{}, {"p", "p", "p", "t"}), Make("b", Transpose{})},
       "(scaled_dot_product_attention) mixes rows"},
      {"a first state for all rows",
       {x},
       {Make("p", Parameter{.shape = {1, 1, 3}}),
        Make("r", Recurrent{.op = RecurrentOp::kGru, .hidden_size = 3, .batch_first = true},
             {"x", "p"})},
       ""},
      {"attention across rows",
       {x},
       {Make("a", MultiheadAttention{.num_heads = 2})},
       "(multihead_attention) mixes rows"},
      {"a mask for each row's heads",
       {x, {.name = "m", .shape = {-1, 4, 4}}},
       {Make("a", MultiheadAttention{.num_heads = 2, .batch_first = true}, {"x", "attn_mask=m"})},
       "(multihead_attention) mixes rows"},
      {"padding of each row",
       {x, {.name = "m", .dtype = DType::kBool, .shape = {-1, 4}}},
       {Make("a", MultiheadAttention{.num_heads = 2, .batch_first = true},
             {"x", "key_padding_mask=m"})},
       ""},
      {"rows with a matrix each",
       {x},
       {Make("t", Transpose{.dim0 = 1, .dim1 = 2}), Make("a", Matmul{}, {"x", "t"})},
       ""},
      {"rows summed over",
       {{.name = "x", .shape = {-1, 4}}},
       {Make("t", Transpose{}), Make("a", Matmul{}, {"t", "x"})},
       "layer \"a\" (matmul) mixes rows"},
      {"a matrix that is a parameter",
       {{.name = "x", .shape = {-1, 4}}},
       {Make("p", Parameter{.shape = {4, 5}}), Make("a", Matmul{}, {"x", "p"})},
       ""},
      {"channels that are rows",
       {{.name = "x", .shape = {-1, 4, 6}}},
       {Make("t", Transpose{}), Make("p", MaxPool{.spatial_dims = 1, .kernel_size = {2}}),
        Make("b", Transpose{})},
       "(max_pool1d) mixes rows"},
      {"rows normalised", {x}, {Make("n", Normalize{.dim = 0})}, "(normalize) mixes rows"},
      {"rows split", {x}, {Make("s", Split{.split_size = {1, 2}})}, "(split) mixes rows"},
      {"positions split",
       {x},
       {Make("s", Split{.split_size = {2}, .dim = 1}), Make("a", Concat{}, {"s:1", "s"})},
       ""},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.situation);
    NetworkDescription description{.inputs = row.inputs, .outputs = {}, .layers = row.layers};
    const absl::StatusOr<Network> network = Network::Build(std::move(description));
    ASSERT_TRUE(network.ok()) << network.status();
    EXPECT_THAT(network->batching_obstacle(), HasSubstr(row.obstacle));
    if (*row.obstacle == '\0') {
      EXPECT_EQ(network->batching_obstacle(), "");
    }
  }
}

}  // namespace
}  // namespace relight::network
