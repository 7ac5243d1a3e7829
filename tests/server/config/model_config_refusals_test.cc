// Configs that are wrong: each refusal with its line and its words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/config/model_config.h"

namespace relight::config {
namespace {

using ::testing::HasSubstr;

// One line, so that what a row adds stands in line 2.
constexpr char kNet[] =
    R"(network { layer { name: "fc1" linear { in_features: 10 out_features: 5 } } })";

std::string Refusal(std::string_view text, const std::string& folder = "models/net") {
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(text, folder);
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(config.status().message());
}

struct Row {
  std::string text;
  const char* message;
};

TEST(ModelConfigRefusalsTest, FieldsBesideAGoodNetwork) {
  const std::vector<Row> rows = {
      {"device: \"gpu\"",
       "model.textproto:2: device \"gpu\" is none of \"auto\", \"cpu\" and \"cuda:N\" with N from "
       "0 to 127"},
      {"device: \"cuda\"", "device \"cuda\" is none of"},
      {"device: \"cuda:\"", "device \"cuda:\" is none of"},
      {"device: \"cuda:-1\"", "device \"cuda:-1\" is none of"},
      {"device: \"cuda:128\"", "device \"cuda:128\" is none of"},
      {"device: \"cuda:1x\"", "device \"cuda:1x\" is none of"},
      {"device: \"CPU\"", "device \"CPU\" is none of"},
      {"device: \"cpu\"\nprecision: FP16",
       "model.textproto:3: precision FP16 does not exist on the CPU: use FP32 or BF16 there"},
      {"accept { request { } }", "model.textproto:2: request: file is missing"},
      {"accept { request { file: \"a.pt\" tolerance: -1 } }",
       "model.textproto:2: request: tolerance is -1, it must be a number from 0 on"},
      {"accept { request { file: \"a.pt\" max_change: nan } }", "request: max_change is nan"},
      {"arenas: 1 accept { request { file: \"a.pt\" max_change: 0.5 } }",
       "which with arenas: 1 has made way already: set arenas: 2"},
      {"accept { request { file: \"a.pt\" output { name: \"outptu\" } } }",
       "request: output \"outptu\" is none of the model's, \"output\"; did you mean \"output\"?"},
      {"accept { request { file: \"a.pt\" output { name: \"output\" min: 2 max: 1 } } }",
       "request: no value is from min 2 to max 1"},
      {"accept { request { file: \"a.pt\" output { name: \"output\" max: nan } } }",
       "request: max is nan, give a number"},
      {"accept { request { file: \"a.pt\" output { name: \"output\" }\noutput { name: \"output\" } "
       "} }",
       "model.textproto:3: request: output \"output\" is there twice"},
      {"batching { max_batch_size: 1048577 }",
       "model.textproto:2: max_batch_size is 1048577, the most is 1048576"},
      {"batching { preferred_batch_size: [8, 64] }",
       "preferred_batch_size is 64, it must be from 1 to max_batch_size, which is 32"},
      {"batching { max_batch_size: 4 preferred_batch_size: 0 }", "preferred_batch_size is 0"},
      {"batching { max_queue_delay_microseconds: 600000001 }",
       "max_queue_delay_microseconds is 600000001, the most is 600000000"},
      {"batching { max_batch_size: 0\n max_queue_delay_microseconds: 5 }",
       "model.textproto:3: max_queue_delay_microseconds has no meaning while max_batch_size is 0"},
      {"batching { max_queue_size: 0 }", "max_queue_size is 0, the least is 1"},
      {"batching { priority_levels: 101 default_priority_level: 1 }",
       "model.textproto:2: priority_levels is 101, the most is 100"},
      {"batching {\n priority_levels: 3 }",
       "model.textproto:2: default_priority_level is missing, it must be from 1 to "
       "priority_levels, "
       "which is 3"},
      {"batching { priority_levels: 3\n default_priority_level: 4 }",
       "model.textproto:3: default_priority_level is 4, it must be from 1 to"},
      {"batching { default_priority_level: 1 }", "have no meaning while priority_levels is 0"},
      {"batching { priority_queue_policy { key: 1 } }",
       "have no meaning while priority_levels is 0"},
      {"batching { priority_levels: 2 default_priority_level: 1\n priority_queue_policy { key: 3 } "
       "}",
       "model.textproto:3: priority_queue_policy: key is 3, it must be from 1 to priority_levels, "
       "which is 2"},
      {"batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 1 }\n"
       "priority_queue_policy { key: 1 } }",
       "model.textproto:3: priority_queue_policy: key 1 is there twice"},
      {"batching { max_queue_bytes: 39 }",
       "max_queue_bytes is 39, the least is 40: what one request takes"},
      {"checkpoints { folder: \"../other\" }",
       "model.textproto:2: checkpoints.folder \"../other\" must not contain \"..\""},
      {"checkpoints { folder: \"/a/../b\" }", "must not contain \"..\""},
      {"checkpoints { folder: \"a\\000b\" }", "checkpoints.folder is no path"},
      {"checkpoints { settle_time_ms: 86400001 }",
       "settle_time_ms is 86400001, the most is 86400000"},
      {"checkpoints { torn_timeout_ms: 86400001 }", "torn_timeout_ms is 86400001"},
      {"checkpoints {\n rename { pattern: \"a\" }\n rename { pattern: \"(\" } }",
       "model.textproto:4: rename: pattern \"(\" is no regular expression"},
      {"checkpoints { rename { replacement: \"a\" } }", "rename: a pattern is missing or empty"},
      {"checkpoints { rename { pattern: \"a(b)\" replacement: \"\\\\2\" } }",
       "rename: replacement \"\\\\2\" does not go with pattern \"a(b)\""},
      {"checkpoints { limits {\n max_nodes: 0 } }",
       "model.textproto:3: max_nodes is 0, it must be from 1 to 2147483648"},
      {"checkpoints { limits { max_tensor_bytes: 281474976710657 } }",
       "max_tensor_bytes is 281474976710657, it must be from 1 to 281474976710656"},
      {"version { from: MTIME pattern: \"(\\\\d+)\" }",
       "version: pattern reads names, but from is MTIME: remove one of them"},
      {"version { pattern: \"step\" }", "version: pattern \"step\" has 0 groups, it needs exactly"},
      {"version { pattern: \"(a)(b)\" }", "has 2 groups, it needs exactly one"},
      {"version { pattern: \"(a\" }", "is no ECMAScript regular expression"},
      {"version { pattern: \"((a{1000}){1000}){1000}\" }", "is no ECMAScript regular expression"},
      {absl::StrCat("version { pattern: \"(", std::string(300, 'a'), ")\" }"),
       "version: pattern has 302 bytes, the most is 256"},
      {"warm_up { batch_size: 33 }",
       "warm_up: batch_size is 33, it must be from 1 to max_batch_size, which is 32"},
      {"warm_up { batch_size: 0 }", "warm_up: batch_size is 0"},
      {"batching { max_batch_size: 0 } warm_up { batch_size: 2 }",
       "warm_up: batch_size has no meaning while max_batch_size is 0"},
      {"warm_up { free_dim: 0 }", "warm_up: free_dim is 0, it must be from 1 to 1048576"},
      {"arenas: 0", "model.textproto:2: arenas is 0, it can be 1 or 2"},
      {"arenas: 3", "arenas is 3, it can be 1 or 2"},
      {"input { name: \"x\" datatype: \"BYTES\" shape: [-1, 10] }",
       "model.textproto:2: datatype BYTES: a graph computes on numbers"},
      {"input { name: \"x\" datatype: \"FP31\" shape: [-1, 10] }",
       "unknown datatype \"FP31\"; did you mean \"FP32\"?"},
      {"input { name: \"x\" datatype: \"float32\" shape: [-1, 10] }",
       "unknown datatype \"float32\""},
      {"input { name: \"\\xff\" shape: [-1, 10] }", "the name \"\\xff\" is not UTF-8"},
      {absl::StrCat("input { name: \"", std::string(513, 'x'), "\" shape: [-1, 10] }"),
       "a name has 513 bytes, the most is 512"},
      {"torchscript { file: \"graph.pt\" }", "another member of oneof"},
      // What protobuf itself says.
      {"arenas: -1", "model.textproto:2:"},
      {"arenas: 1 arenas: 2", "specified multiple times"},
      {"precision: FP8", "Unknown enumeration value of \"FP8\""},
      {"device: 5", "model.textproto:2:9:"},
      {"batching {", "model.textproto:2:"},
      {"}", "model.textproto:2:1:"},
      {"batchng { max_batch_size: 2 }",
       "model.textproto:2: unknown field \"batchng\"; did you mean \"batching\"?"},
      {"batching { max_batchsize: 2 }",
       "unknown field \"max_batchsize\"; did you mean \"max_batch_size\"?"},
  };
  for (const Row& row : rows) {
    EXPECT_THAT(Refusal(absl::StrCat(kNet, "\n", row.text)), HasSubstr(row.message)) << row.text;
  }
}

TEST(ModelConfigRefusalsTest, LayersThatAreNone) {
  const std::vector<Row> rows = {
      {"linear {}", "layer \"x\" (linear): out_features is missing or 0: give at least 1"},
      {"linear { out_features: 18446744073709551615 }", "out_features is 9223372036854775807"},
      {"linear { out_features: -5 }", "model.textproto:3:"},
      {"conv2d { out_channels: 2 }", "layer \"x\" (conv2d): kernel_size is missing or 0"},
      {"conv2d { out_channels: 2 kernel_size: [1, 2, 3] }",
       "model.textproto:3: layer \"x\" (conv2d): kernel_size has 3 values: give one for all "
       "dimensions, or 2"},
      {"max_pool2d { kernel_size: 2 count_include_pad: true }",
       "model.textproto:3: max_pool2d has no argument count_include_pad"},
      {"avg_pool2d { kernel_size: 2 dilation: 2 }", "avg_pool2d has no argument dilation"},
      {"adaptive_avg_pool2d {}", "output_size is missing or 0"},
      {"dropout { p: 1.5 }", "(dropout): p is 1.5, a probability is from 0 to 1"},
      {"dropout { p: nan }", "(dropout): p is nan, which is not a finite number"},
      {"gelu { approximate: \"tan\" }",
       "(gelu): approximate is \"tan\", it can be \"none\" or \"tanh\""},
      {"block {}", "model.textproto:3: block \"x\": holds no layers"},
      {"block { repeat: 0 layer { relu {} } }", "block \"x\": repeat is 0, it can be from 1 to"},
      {"parameters_of: \"y\" block { layer { relu {} } }",
       "parameters_of is for layers, not for blocks"},
      {"to { datatype: \"FLOAT\" }", "unknown datatype \"FLOAT\""},
      {"", "model.textproto:3: layer \"x\" does not say what it is, as in linear"},
      {"liner { out_features: 5 }", "unknown field \"liner\"; did you mean \"linear\"?"},
      {"relu {} tanh {}", "another member of oneof"},
      {"name: \"y\"", "specified multiple times"},
  };
  for (const Row& row : rows) {
    const std::string text =
        absl::StrCat("input { name: \"in\" shape: [-1, 3, 8, 8] }\nnetwork {\nlayer { name: \"x\" ",
                     row.text, " } }");
    EXPECT_THAT(Refusal(text), HasSubstr(row.message)) << row.text;
  }
}

TEST(ModelConfigRefusalsTest, BatchesOfWhatCannotShareOne) {
  EXPECT_THAT(
      Refusal("input { name: \"x\" shape: [1, 4] } network { layer { relu {} } }\n"
              "batching { max_batch_size: 8 }"),
      HasSubstr("model.textproto:2: max_batch_size is 8, but requests cannot share a batch: "
                "input \"x\" has no free first dimension"));
  EXPECT_THAT(Refusal("input { name: \"x\" shape: [-1, 4] } network { layer { softmax { dim: 0 } } "
                      "}\nbatching { max_batch_size: 8 }"),
              HasSubstr("layer \"#0\" (softmax) mixes rows"));
  EXPECT_THAT(Refusal("input { name: \"x\" shape: [-1, 4] } output { name: \"y\" shape: [4] }\n"
                      "torchscript { file: \"g.pt\" } batching { max_batch_size: 8 }"),
              HasSubstr("some input or output has no free (-1) first dimension"));
}

TEST(ModelConfigRefusalsTest, TorchScriptThatSaysTooLittle) {
  const std::string in = "input { name: \"x\" shape: [-1, 4] }\n";
  const std::string out = "output { name: \"y\" shape: [-1, 4] }\n";
  const std::vector<Row> rows = {
      {out + "torchscript { file: \"g.pt\" }",
       "model.textproto:2: a torchscript graph does not say its inputs: declare input"},
      {in + "torchscript { file: \"g.pt\" }", "does not say its outputs: declare output"},
      {in + out + "torchscript {}", "model.textproto:3: torchscript: file is missing"},
      {in + out + "torchscript { file: \"../g.pt\" }",
       "torchscript: file \"../g.pt\" must be the plain name of a file beside model.textproto"},
      {in + out + "torchscript { file: \"/g.pt\" }", "must be the plain name"},
      {in + out + "torchscript { file: \"..\" }", "must be the plain name"},
      {in + out + "torchscript { file: \"g\\000.pt\" }", "must be the plain name"},
      {in + in + out + "torchscript { file: \"g.pt\" }",
       "model.textproto:2: input \"x\" is declared twice"},
      {in + "output { name: \"y\" }\ntorchscript { file: \"g.pt\" }",
       "output \"y\" has no shape: give one"},
      {in + "output { shape: [2] }\ntorchscript { file: \"g.pt\" }", "an output has no name"},
      {in + "output { name: \"y\" shape: [0] }\ntorchscript { file: \"g.pt\" }",
       "output \"y\" has a dimension of 0"},
      {in +
           "output { name: \"y\" shape: [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1] }\ntorchscript { file: "
           "\"g.pt\" }",
       "has 17 dimensions, the most is 16"},
  };
  for (const Row& row : rows) {
    EXPECT_THAT(Refusal(row.text), HasSubstr(row.message)) << row.text;
  }
}

TEST(ModelConfigRefusalsTest, EmptyFileSaysWhatIsMissing) {
  EXPECT_THAT(Refusal(""),
              HasSubstr("model.textproto:1: there is no graph: describe it as network"));
  EXPECT_THAT(Refusal("# nothing yet\n"), HasSubstr("there is no graph"));
  EXPECT_EQ(Refusal("network {}"), "model.textproto:1: the network has no layers");
}

TEST(ModelConfigRefusalsTest, AllErrorsComeAtOnceWithTheirLines) {
  EXPECT_EQ(
      Refusal(R"(arenas: 7
device: "tpu"
network {
  layer { name: "fc1" linear { in_features: 10 out_features: 5 } }
  layer { name: "fc2" linear { in_features: 6 outfeatures: 2 } }
  layer { name: "fc3" input: "fc_1" relu { inplace: true } }
}
checkpoints { folder: ".." }
)"),
      "model.textproto:1: arenas is 7, it can be 1 or 2\n"
      "model.textproto:2: device \"tpu\" is none of \"auto\", \"cpu\" and \"cuda:N\" with N "
      "from 0 to 127\n"
      "model.textproto:5: unknown field \"outfeatures\"; did you mean \"out_features\"?\n"
      "model.textproto:5: layer \"fc2\" (linear): out_features is missing or 0: give at least "
      "1\n"
      "model.textproto:6: unknown field \"inplace\"\n"
      "model.textproto:6: layer \"fc3\" (relu): input \"fc_1\" is neither a layer nor an input "
      "of the network; did you mean \"fc1\"?\n"
      "model.textproto:8: checkpoints.folder \"..\" must not contain \"..\": give a path below "
      "the model's folder or an absolute one");
}

TEST(ModelConfigRefusalsTest, TextThatIsNone) {
  EXPECT_THAT(Refusal(std::string("arenas: 1\n\xff\xfe\n")),
              HasSubstr("model.textproto:2: not UTF-8 text"));
  EXPECT_THAT(Refusal(std::string((1 << 20) + 1, '\n')),
              HasSubstr("the file has 1048577 bytes, the most is 1048576"));
}

TEST(ModelConfigRefusalsTest, DeepNestingNeverReachesTheParser) {
  std::string deep = "\n";
  for (int i = 0; i < 100000; ++i) deep += "a {";
  EXPECT_THAT(Refusal(deep), HasSubstr("model.textproto:2: braces nest deeper than 32"));
  std::string lists = "a: ";
  lists += std::string(500000, '[');
  EXPECT_THAT(Refusal(lists), HasSubstr("braces nest deeper than 32"));
  std::string in_a_string = absl::StrCat("device: \"", std::string(100, '{'), "\" ", kNet);
  EXPECT_THAT(Refusal(in_a_string), HasSubstr("is none of"));
}

TEST(ModelConfigRefusalsTest, LongListsOfErrorsAreCut) {
  std::string text(kNet);
  for (int i = 0; i < 500; ++i) text += "\ntypo: 1";
  const std::string message = Refusal(text);
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 100);
  EXPECT_THAT(message, ::testing::EndsWith("and 400 more"));
}

TEST(ModelConfigRefusalsTest, FoldersThatCannotNameAModel) {
  EXPECT_THAT(Refusal(kNet, "models/a\xff"), HasSubstr("the folder's name a\\xff cannot name"));
  EXPECT_THAT(Refusal(kNet, "models/a\nb"), HasSubstr("the folder's name a\\x0ab cannot name"));
  EXPECT_THAT(Refusal(kNet, "/"), HasSubstr("the folder has no name"));
}

TEST(ModelConfigRefusalsTest, Families) {
  EXPECT_EQ(Refusal("\nresnet {\n depth: 20 }"),
            "model.textproto:2: resnet: depth is 20, it can be 18, 34, 50, 101 or 152");
  EXPECT_EQ(Refusal("bert { hidden_size: 100 hidden_act: \"swish\" }"),
            "model.textproto:1: bert: hidden_act is \"swish\", it can be \"gelu\", \"gelu_new\", "
            "\"gelu_pytorch_tanh\", \"relu\", \"silu\" or \"tanh\"");
  EXPECT_EQ(Refusal("gpt2 { n_layer: 18446744073709551615 }"),
            "model.textproto:1: gpt2: n_layer is 9223372036854775807, the most is 512");
  EXPECT_EQ(Refusal("input { name: \"image\" shape: [-1, 3, 30, 224] } vision_transformer { "
                    "patch_size: 16 num_layers: 1 num_heads: 1 hidden_dim: 8 mlp_dim: 8 }"),
            "model.textproto:1: layer \"#7\" (add): its inputs do not broadcast in "
            "dimension 1: [-1, 15, 8] and [1, 197, 8]");
  EXPECT_THAT(Refusal("vgg { depth: 11 width: 3 }"), HasSubstr("width"));
  EXPECT_THAT(Refusal("resnet { depth: 18 } vgg { depth: 11 }"), HasSubstr("oneof"));
}

TEST(ModelConfigRefusalsTest, IgnoredKeys) {
  const std::string net = std::string(kNet) + "\n";
  EXPECT_EQ(Refusal(net + "checkpoints { ignore: \"a\"\n ignore: \"(\" }"),
            "model.textproto:3: ignore: pattern \"(\" is no regular expression: missing ): (");
  EXPECT_EQ(Refusal(net + "checkpoints { ignore: \"\" }"),
            "model.textproto:2: ignore: a pattern is missing or empty");
}

}  // namespace
}  // namespace relight::config
