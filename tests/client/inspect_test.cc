// relightctl inspect, from outside: what it prints, and its exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/client/run_relightctl.h"
#include "tests/paths.h"
#include "tests/storage/made_checkpoint.h"
#include "tests/storage/temp_folder.h"

namespace relight::client {
namespace {

using Json = nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kSimpleNet[] = R"(network {
  layer { name: "fc1" linear { in_features: 10 out_features: 5 } }
  layer { name: "relu" relu {} }
  layer { name: "fc2" linear { out_features: 2 } }
}
)";
constexpr int kRefused = 6;

std::string Good(const std::string& name) { return RELIGHT_TEST_DATA "/good/" + name; }
std::string Hostile(const std::string& name) { return RELIGHT_TEST_DATA "/hostile/" + name; }

class InspectTest : public testing::Test {
 protected:
  Outcome Run(std::vector<std::string> words, std::vector<std::string> environment = {}) {
    words.insert(words.begin(), "inspect");
    environment.emplace_back("TZ=UTC");
    return RunRelightctl(outputs_.path(), std::move(words), "", std::move(environment));
  }

  // The folder of a model with this config.
  std::string Model(const std::string& name, const std::string& config) {
    folder_.MakeFolder(name);
    folder_.Write(name + "/model.textproto", config);
    return folder_.Path(name);
  }

  // A copy whose time of writing is known.
  std::string Copy(const std::string& file, const std::string& name) {
    const std::string path = folder_.Path(name);
    std::filesystem::copy_file(file, path);
    std::filesystem::last_write_time(
        path, std::chrono::file_clock::from_sys(std::chrono::sys_time<std::chrono::seconds>(
                  std::chrono::seconds(1'700'000'000))));
    return path;
  }

  const storage::TempFolder folder_;
  const storage::TempFolder outputs_;
};

TEST_F(InspectTest, ABundleReadsLikeThis) {
  const Outcome outcome = Run({Copy(Good("checkpoint.pth"), "step-7.pth")});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.out, R"(step-7.pth  torch.save, laid out as PyTorch 1.6 to 2.0 does
  size       5.4 KiB (5,547 bytes), written 2023-11-14 22:13:20
  sha256     085473b5e6f9a36edfb7f9060df7dd1192fcf89e3597378aea13622f0a384872
  checksums  all 18 records match their CRC-32

weights  at /model_state_dict, 4 tensors, 67 numbers, 268 bytes
  digest     cac34fec138f9183cd18b410ffd442db
  _metadata  4 modules of version 1

  KEY         TYPE     SHAPE         SIZE
  fc1.weight  float32  [5, 10]  200 bytes
  fc1.bias    float32  [5]       20 bytes
  fc2.weight  float32  [2, 5]    40 bytes
  fc2.bias    float32  [2]        8 bytes

beside the weights
  epoch                 50
  optimizer_state_dict  optimizer Adam: state of 4 parameters, 12 tensors, 552 bytes, step 1
                        lr 0.01, betas (0.9, 0.999), eps 1e-08, weight_decay 0
  loss                  0.846275806427002
)");
}

TEST_F(InspectTest, AConfigThatFitsAccepts) {
  const std::string model = Model("simplenet", kSimpleNet);
  for (const std::string& config : {model, model + "/model.textproto"}) {
    for (const char* file :
         {"checkpoint.pth", "ddp_prefixed.pth", "compiled_prefixed.pth", "model.safetensors",
          "entire_model.pth", "model_state_legacy.pth", "lightning_like.ckpt", "hf_sharded"}) {
      const Outcome outcome = Run({Good(file), "--config", config});
      EXPECT_EQ(outcome.code, 0) << file << ": " << outcome.err;
      EXPECT_THAT(outcome.out, HasSubstr("\n" + config + "  accepts it\n")) << file;
    }
  }
  const Json json = Run({Good("checkpoint.pth"), "--config", model, "--json"}).json();
  EXPECT_EQ(json["outcome"], "acceptable");
  EXPECT_EQ(json["config"]["accepts"], true);
  EXPECT_EQ(json["config"]["parameters"], 4);
}

TEST_F(InspectTest, EverythingThatAConfigObjectsToIsListed) {
  const std::string model = Model("other", R"(network {
    layer { name: "fc1" linear { in_features: 10 out_features: 8 } }
    layer { name: "fc3" linear { out_features: 2 bias: false } }
  })");
  const std::string file = Good("model_state.pth");
  const Outcome outcome = Run({file, "--config", model});
  EXPECT_EQ(outcome.code, kRefused);
  EXPECT_THAT(outcome.out,
              HasSubstr("\n" + model +
                        "  would not accept it: 1 missing, 2 unexpected, 2 of another shape" +
                        R"(
  PROBLEM     KEY         CHECKPOINT         GRAPH NEEDS
  missing     fc3.weight  is it fc2.weight?  float32 [2, 8]
  unexpected  fc2.weight  float32 [2, 5]
  unexpected  fc2.bias    float32 [2]
  shape       fc1.weight  [5, 10]            [8, 10]
  shape       fc1.bias    [5]                [8]
)"));
  EXPECT_EQ(outcome.err, "relightctl: INVALID_ARGUMENT: " + model + " would not accept " + file +
                             ": 1 missing, 2 unexpected, 2 of another shape\n");

  const Outcome programs = Run({file, "--config", model, "--json"});
  EXPECT_EQ(programs.code, kRefused);
  const Json json = programs.json();
  EXPECT_EQ(json["outcome"], "refused");
  EXPECT_EQ(json["config"]["accepts"], false);
  EXPECT_THAT(json["config"]["missing"], ElementsAre("fc3.weight"));
  EXPECT_THAT(json["config"]["unexpected"], ElementsAre("fc2.weight", "fc2.bias"));
  EXPECT_EQ(json["config"]["misshaped"][0],
            Json::parse(R"({"key": "fc1.weight", "checkpoint": [5, 10], "graph": [8, 10]})"));
  // What the server would say, word for word.
  EXPECT_THAT(
      json["error"]["message"].get<std::string>(),
      AllOf(StartsWith("the checkpoint does not fit the graph: 1 missing: fc3.weight (is "
                       "it fc2.weight?); 2 unexpected: "),
            HasSubstr("parameter fc1.bias: checkpoint has shape [5], the graph needs [8]")));
  EXPECT_EQ(Json::parse(programs.err)["error"]["code"], "INVALID_ARGUMENT");
}

TEST_F(InspectTest, TypesAreComparedToo) {
  storage::MadeCheckpoint made;
  const std::uint32_t ints = made.AddStorage(DType::kInt32, std::vector<std::int32_t>(2));
  const auto written = made.WriteAndOpen(
      made.AddDict({{"fc.weight", made.AddTensor(ints, {1, 2}, {2, 1})}}), folder_.Path("ints.pt"));
  ASSERT_TRUE(written.ok()) << written.status();
  const std::string model = Model(
      "net",
      R"(network { layer { name: "fc" linear { in_features: 2 out_features: 1 bias: false } } })");
  const Outcome outcome = Run({folder_.Path("ints.pt"), "--config", model});
  EXPECT_EQ(outcome.code, kRefused);
  EXPECT_THAT(outcome.out, HasSubstr("  type     fc.weight  int32       float32, float64, float16 "
                                     "or bfloat16\n"));
  EXPECT_THAT(outcome.err, HasSubstr("1 of another type"));
}

TEST_F(InspectTest, NanIsRefusedByAConfigUnlessItAllowsIt) {
  storage::MadeCheckpoint made;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::uint32_t values = made.AddStorage(DType::kFloat32, std::vector<float>{1, nan});
  const auto written =
      made.WriteAndOpen(made.AddDict({{"fc.weight", made.AddTensor(values, {1, 2}, {2, 1})}}),
                        folder_.Path("nan.pt"));
  ASSERT_TRUE(written.ok()) << written.status();
  const std::string net =
      R"(network { layer { name: "fc" linear { in_features: 2 out_features: 1 bias: false } } })";
  const std::string strict = Model("strict", net);
  const Outcome refused = Run({folder_.Path("nan.pt"), "--config", strict});
  EXPECT_EQ(refused.code, kRefused);
  EXPECT_THAT(refused.out,
              HasSubstr("  values   fc.weight  1 NaN, first at [0, 1]  finite values\n"));
  EXPECT_THAT(refused.err, HasSubstr("hold values that are not finite: fc.weight: 1 NaN"));
  const std::string lenient = Model("lenient", net + " accept { allow_non_finite: true }");
  EXPECT_EQ(Run({folder_.Path("nan.pt"), "--config", lenient}).code, 0);
  EXPECT_EQ(Run({folder_.Path("nan.pt"), "--config", strict, "--quick"}).code, 0)
      << "its names, shapes and types are right";
  const Outcome alone = Run({folder_.Path("nan.pt")});
  EXPECT_EQ(alone.code, 0);
  EXPECT_THAT(alone.out, HasSubstr("1 NaN, first at [0, 1]\n"));
}

TEST_F(InspectTest, WhatOnlyTheConfigRefusesIsShownAllTheSame) {
  const std::string model =
      Model("careful", std::string(kSimpleNet) + "checkpoints { require_crc: true }");
  const Outcome outcome = Run({Good("model.safetensors"), "--config", model});
  EXPECT_EQ(outcome.code, kRefused);
  EXPECT_THAT(outcome.err, HasSubstr("CRC_MISMATCH: model.safetensors: carries no CRC-32"));
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("fc1.weight"), HasSubstr("would not accept it\n")));
}

TEST_F(InspectTest, ATorchScriptGraphIsLeftToTheServer) {
  folder_.MakeFolder("scripted");
  std::filesystem::copy_file(Good("torchscript.pt"), folder_.Path("scripted/graph.pt"));
  const std::string model = Model("scripted", R"(
    torchscript { file: "graph.pt" }
    input { name: "x" datatype: "FP32" shape: [-1, 10] }
    output { name: "y" datatype: "FP32" shape: [-1, 2] })");
  const Outcome outcome = Run({Good("model_state.pth"), "--config", model});
  EXPECT_EQ(outcome.code, 1) << outcome.out;
  EXPECT_THAT(outcome.err, HasSubstr("has a TorchScript graph: only relightd"));
  const Json json = Run({Good("model_state.pth"), "--config", model, "--json"}).json();
  EXPECT_EQ(json["outcome"], "undecided");
  EXPECT_TRUE(json["config"]["accepts"].is_null());
  // What is wrong for every graph is still a refusal.
  EXPECT_EQ(Run({Hostile("crc_flip_storage.pth"), "--config", model}).code, kRefused);
}

TEST_F(InspectTest, ABrokenConfigNamesItsLines) {
  const std::string model = Model("bad", "network {\n  layer { nonsense {} }\n}\n");
  const Outcome outcome = Run({Good("model_state.pth"), "--config", model});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("model.textproto:2:"));
  EXPECT_EQ(outcome.out, "");
  EXPECT_EQ(Run({Good("model_state.pth"), "--config", folder_.Path("none")}).code, 4);
}

TEST_F(InspectTest, RefusalsCarryTheServersCode) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {Hostile("exec_os_system.pt"), "UNSAFE_GLOBAL"},
      {Hostile("truncated_50.pth"), "ZIP_CORRUPT"},
      {Hostile("gzipped.pt"), "UNSUPPORTED_FORMAT"},
      {Hostile("crc_flip_storage.pth"), "CRC_MISMATCH"},
      {Hostile("state_value_not_tensor.pt"), "NO_STATE_DICT"},
      {Hostile("memo_bomb_list.pt"), "LIMIT_EXCEEDED"},
      {Hostile("index_traversal.index.json"), "INDEX_INVALID"},
      {Good("torchscript.pt"), "TORCHSCRIPT_ARCHIVE"},
  };
  for (const auto& [file, code] : cases) {
    const Outcome people = Run({file});
    EXPECT_EQ(people.code, kRefused) << file;
    EXPECT_THAT(people.err, AllOf(StartsWith("relightctl: "), HasSubstr(": " + code + ": ")))
        << file;
    const Outcome programs = Run({file, "--json"});
    EXPECT_EQ(programs.code, kRefused) << file;
    EXPECT_EQ(programs.json()["error"]["code"], code) << file;
    EXPECT_EQ(programs.json()["outcome"], "refused") << file;
  }
  EXPECT_THAT(Run({Hostile("truncated_50.pth")}).err,
              HasSubstr("It has 2,773 bytes now: is it whole"));
}

TEST_F(InspectTest, WhatHoldsNoWeightsIsStillShown) {
  const Outcome outcome = Run({Good("scalars.pt")});
  EXPECT_EQ(outcome.code, kRefused);
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("weights  none found\n"), HasSubstr("in the file\n"),
                                 HasSubstr("\n  none      None\n")));
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("NO_STATE_DICT"), HasSubstr("--key says where")));
}

TEST_F(InspectTest, KeyChoosesAmongSeveral) {
  const Json json = Run({Good("nested_state.pth"), "--key", "net/encoder", "--json"}).json();
  EXPECT_EQ(json["weights"]["at"], "/net/encoder");
  const Outcome none = Run({Good("nested_state.pth"), "--key", "net/none"});
  EXPECT_EQ(none.code, kRefused);
  EXPECT_THAT(none.err, HasSubstr("there is no key none"));
}

TEST_F(InspectTest, FoldersLeadToTheirOnlyCheckpoint) {
  folder_.MakeFolder("checkpoint-500");
  const std::string file = Copy(Good("model.safetensors"), "checkpoint-500/model.safetensors");
  Copy(Good("checkpoint.pth"), "checkpoint-500/optimizer.pt");
  folder_.Write("checkpoint-500/config.json", "{}");
  const Json json = Run({folder_.Path("checkpoint-500"), "--json"}).json();
  EXPECT_EQ(json["path"], file);
  EXPECT_EQ(json["format"], "safetensors");
  EXPECT_EQ(Run({Good("st_sharded"), "--json"}).json()["files"].size(), 3u);

  const Outcome several = Run({RELIGHT_TEST_DATA "/good"});
  EXPECT_EQ(several.code, 1);
  EXPECT_THAT(several.err, HasSubstr("name one of them"));
  folder_.MakeFolder("empty");
  EXPECT_EQ(Run({folder_.Path("empty")}).code, 4);
  folder_.MakeFolder("dcp");
  folder_.Write("dcp/__0_0.distcp");
  const Outcome distributed = Run({folder_.Path("dcp")});
  EXPECT_EQ(distributed.code, kRefused);
  EXPECT_THAT(distributed.err, HasSubstr("UNSUPPORTED_FORMAT"));
  EXPECT_EQ(Run({folder_.Path("dcp"), "--json"}).json()["error"]["code"], "UNSUPPORTED_FORMAT");
}

TEST_F(InspectTest, PathsMayBeAnyBytes) {
  const std::string path = Copy(Good("model_state.pth"), "od\xff\x1b[31md.pt");
  const Outcome outcome = Run({path});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, StartsWith("od\\xff\\x1b[31md.pt  torch.save"));
  const Json json = Run({path, "--json"}).json();
  EXPECT_THAT(json["path"].get<std::string>(), HasSubstr("od\\xff\\x1b[31md.pt"));
  const Outcome gone = Run({folder_.Path("gone\xff.pt")});
  EXPECT_EQ(gone.code, 4);
  EXPECT_THAT(gone.err, HasSubstr("gone\\xff.pt: no such file"));
}

TEST_F(InspectTest, WhatIsNoFileDoesNotHang) {
  const std::string fifo = folder_.Path("fifo.pt");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const Outcome outcome = Run({fifo});
  EXPECT_EQ(outcome.code, kRefused);
  EXPECT_THAT(outcome.err, HasSubstr("NOT_A_CHECKPOINT: fifo.pt: is a FIFO"));
}

TEST_F(InspectTest, ColoursAreForTerminalsUnlessAskedFor) {
  const std::string file = Good("model_state.pth");
  EXPECT_THAT(Run({file}).out, Not(HasSubstr("\x1b")));
  EXPECT_THAT(Run({file, "--color", "always"}).out, HasSubstr("\x1b[1mmodel_state.pth\x1b[0m"));
  EXPECT_THAT(Run({file, "--color", "auto"}, {"NO_COLOR=1"}).out, Not(HasSubstr("\x1b")));
}

TEST_F(InspectTest, MistakesAreUsageErrors) {
  const std::string file = Good("model_state.pth");
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{},
                                             {file, file},
                                             {file, "--confg", "x"},
                                             {file, "--config"},
                                             {file, "--quick=yes"},
                                             {file, "--config", "x", "--key", "y"},
                                             {file, "--config", "x", "--strip-prefix", "y"}}) {
    EXPECT_EQ(Run(words).code, 2) << testing::PrintToString(words);
  }
}

}  // namespace
}  // namespace relight::client
