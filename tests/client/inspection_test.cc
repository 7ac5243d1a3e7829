// Inspections of every fixture, in this process.
#include "client/ctl/inspection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "client/ctl/inspection_json.h"
#include "client/ctl/inspection_text.h"
#include "storage/error.h"
#include "tests/storage/fixtures.h"
#include "tests/storage/made_checkpoint.h"

namespace relight::ctl {
namespace {

using storage::DataPath;
using storage::ErrorCode;
using storage::ExpectedFixtures;
using storage::FixtureNames;
using storage::GetErrorCode;
using storage::NodeId;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::ordered_json;

std::string TextOf(const Inspection& inspection, InspectionStyle style = {}) {
  return InspectionText(inspection, style);
}

// Nothing that a terminal would obey, and UTF-8.
void ExpectClean(const std::string& text) {
  EXPECT_TRUE(IsUtf8(text));
  EXPECT_TRUE(std::all_of(text.begin(), text.end(), [](char c) {
    return c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F);
  })) << text;
}

std::size_t LongestLine(const std::string& text) {
  std::size_t longest = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    longest = std::max(longest, end - at);
    at = end + 1;
  }
  return longest;
}

class GoodFileInspection : public testing::TestWithParam<std::string> {};

TEST_P(GoodFileInspection, ShowsWhatIsThere) {
  const Json& expected = ExpectedFixtures().at("good").at(GetParam());
  const Inspection inspection = Inspect(DataPath(GetParam()), {});
  if (expected.value("container", "") == "torchscript") {
    EXPECT_EQ(inspection.outcome, Outcome::kRefused);
    EXPECT_EQ(GetErrorCode(inspection.error), ErrorCode::kTorchScriptArchive);
    return;
  }
  ASSERT_TRUE(inspection.checkpoint.has_value()) << inspection.error;
  if (inspection.outcome != Outcome::kAcceptable) {
    // Whole, but nothing that a server could load.
    EXPECT_EQ(inspection.outcome, Outcome::kRefused) << inspection.error;
    const std::optional<ErrorCode> code = GetErrorCode(inspection.error);
    EXPECT_TRUE(code == ErrorCode::kNoStateDict || code == ErrorCode::kUnsupportedDType ||
                code == ErrorCode::kUnsupportedLayout)
        << inspection.error;
  }
  const Json json = ToJson(inspection, "");
  EXPECT_EQ(json.at("sha256"), expected.at("sha256"));
  if (expected.contains("state_dict_at") && expected.at("state_dict_at").is_string()) {
    std::string at = json.at("weights").at("at");
    if (!json.at("weights").at("module_class").is_null()) at += "/@state_dict";
    EXPECT_EQ(at, expected.at("state_dict_at"));
    EXPECT_EQ(inspection.outcome, Outcome::kAcceptable) << inspection.error;
    EXPECT_EQ(json.at("weights").at("digest").get<std::string>().size(), 32u);
  }
  for (const std::size_t width : {0U, 80U, 200U}) {
    const std::string text = TextOf(inspection, {.width = width, .all = true});
    ExpectClean(text);
    EXPECT_EQ(text.back(), '\n');
    EXPECT_THAT(text, Not(HasSubstr(" \n")));
  }
}

// The tensors of state dicts and of what lies beside them, against what torch said of them.
TEST_P(GoodFileInspection, DescribesTensorsAsTorchDoes) {
  const Json& expected = ExpectedFixtures().at("good").at(GetParam());
  const Inspection inspection = Inspect(DataPath(GetParam()), {.quick = true});
  if (!inspection.checkpoint.has_value() || !expected.contains("leaves")) return;
  const Json json = ToJson(inspection, "");
  std::map<std::string, Json> tensors;
  if (!json.at("weights").is_null()) {
    for (const Json& tensor : json.at("weights").at("tensors")) {
      const std::string prefix =
          json.at("weights").at("at").get<std::string>() +
          (json.at("weights").at("module_class").is_null() ? "/" : "/@state_dict/");
      tensors.emplace(prefix + tensor.at("original_key").get<std::string>(), tensor);
    }
  }
  for (const Json& tensor : json.at("held_tensors")) {
    tensors.emplace(tensor.at("at").get<std::string>(), tensor);
  }
  for (const auto& [at, leaf] : expected.at("leaves").items()) {
    if (leaf.at("kind") != "tensor") continue;
    const auto found = tensors.find(at);
    // One that was shown under another path already is not shown again.
    if (found == tensors.end()) continue;
    SCOPED_TRACE(at);
    const Json& tensor = found->second;
    EXPECT_EQ(tensor.at("dtype"), leaf.at("dtype"));
    EXPECT_EQ(tensor.at("shape"), leaf.at("shape"));
    if (leaf.contains("stride")) {
      EXPECT_EQ(tensor.at("stride"), leaf.at("stride"));
      EXPECT_EQ(tensor.at("offset"), leaf.at("offset"));
    }
    tensors.erase(found);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoodFileInspection, testing::ValuesIn(FixtureNames("good")),
                         [](const auto& tested) { return storage::TestNameOf(tested.param); });

TEST(InspectionTest, HostileFilesAreRefusedWithAListedCode) {
  for (const std::string& name : FixtureNames("hostile")) {
    SCOPED_TRACE(name);
    const Inspection inspection = Inspect(DataPath(name), {});
    EXPECT_EQ(inspection.outcome, Outcome::kRefused) << inspection.error;
    const std::optional<ErrorCode> code = GetErrorCode(inspection.error);
    ASSERT_TRUE(code.has_value()) << inspection.error;
    const auto listed = ExpectedFixtures().at("hostile").at(name).at("error");
    EXPECT_THAT(listed.get<std::vector<std::string>>(),
                testing::Contains(std::string(storage::Name(*code))));
    const std::string json = ToJson(inspection, "").dump();
    EXPECT_LT(json.size(), 64u << 10);
    if (inspection.checkpoint.has_value()) {
      const std::string text = TextOf(inspection, {.all = true});
      ExpectClean(text);
      EXPECT_LT(text.size(), 64u << 10);
    }
  }
  EXPECT_FALSE(std::filesystem::exists("relight_pickle_executed.marker"));
}

class MadeInspectionTest : public testing::Test {
 protected:
  Inspection InspectMade(NodeId root, const InspectOptions& options = {}) {
    const auto written = made_.WriteAndOpen(root, folder_.Path("made.pt"));
    EXPECT_TRUE(written.ok()) << written.status();
    return Inspect(folder_.Path("made.pt"), options);
  }
  NodeId Text(const std::string& text) {
    return made_.tree.AddText(storage::NodeKind::kString, text);
  }

  storage::TempFolder folder_;
  storage::MadeCheckpoint made_;
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST_F(MadeInspectionTest, NamesFromTheFileCannotReachTheTerminal) {
  const NodeId root = made_.AddDict({
      {"state_dict", made_.AddDict({{"w\x1b[31m\n", made_.AddFloats({1})},
                                    {"\xed\xa0\x80", made_.AddFloats({2})}})},
      {"evil\x1b[2J", Text("\x07 bell")},
  });
  const Inspection inspection = InspectMade(root);
  EXPECT_EQ(inspection.outcome, Outcome::kAcceptable) << inspection.error;
  const std::string text = TextOf(inspection);
  ExpectClean(text);
  EXPECT_THAT(text, AllOf(HasSubstr("w\\x1b[31m\\x0a  float32"), HasSubstr("\\xed\\xa0\\x80"),
                          HasSubstr("evil\\x1b[2J  \"\\x07 bell\"")));
  const Json json = ToJson(inspection, "");
  EXPECT_EQ(json.at("weights").at("tensors")[0].at("key"), "w\\x1b[31m\\x0a");
  EXPECT_EQ(json.at("held")[0].at("at"), "/evil\\x1b[2J");
}

TEST_F(MadeInspectionTest, TiedTensorsCountOnceAndViewsSayWhatTheyAre) {
  const std::uint32_t storage =
      made_.AddStorage(DType::kFloat32, std::vector<float>{1, 2, 3, 4, 5, 6});
  const NodeId whole = made_.AddTensor(storage, {2, 3}, {3, 1});
  const NodeId transposed = made_.AddTensor(storage, {3, 2}, {1, 3});
  const NodeId slice = made_.AddTensor(storage, {2}, {1}, 4);
  const Inspection inspection = InspectMade(made_.AddDict({{"a", whole},
                                                           {"b", whole},
                                                           {"t", transposed},
                                                           {"s", slice},
                                                           {"own", made_.AddFloats({7})}}));
  ASSERT_EQ(inspection.weights.size(), 5u);
  EXPECT_EQ(inspection.weights[1].tied_to, 0u);
  EXPECT_FALSE(inspection.weights[4].shares_storage);
  EXPECT_EQ(inspection.elements, 6u + 6u + 2u + 1u);
  EXPECT_EQ(inspection.held.weight_bytes, 24u + 4u);
  EXPECT_THAT(TextOf(inspection),
              AllOf(HasSubstr("tied to a\n"), HasSubstr("view of storage 0 from 0 on\n"),
                    HasSubstr("view of storage 0 from 0 on, stride [1, 3]\n"),
                    HasSubstr("view of storage 0 from 4 on\n"),
                    HasSubstr("own  float32  [1]      4 bytes\n")));
  const Json json = ToJson(inspection, "");
  EXPECT_EQ(json.at("weights").at("tensors")[1].at("tied_to"), "a");
  EXPECT_EQ(json.at("weights").at("tensors")[2].at("contiguous"), false);
}

TEST_F(MadeInspectionTest, NanIsShownAndOnlyAConfigRefusesIt) {
  const NodeId root = made_.AddDict(
      {{"fc1.weight", made_.AddFloats({1, kNan, kNan})}, {"ok", made_.AddFloats({1})}});
  const Inspection inspection = InspectMade(root);
  EXPECT_EQ(inspection.outcome, Outcome::kAcceptable);
  EXPECT_THAT(TextOf(inspection), AllOf(HasSubstr("1 of the tensors hold NaN or infinity"),
                                        HasSubstr("2 NaN, first at [1]\n")));
  EXPECT_EQ(ToJson(inspection, "").at("weights").at("tensors")[0].at("nan"), 2);
  EXPECT_FALSE(ToJson(inspection, "").at("weights").at("tensors")[1].contains("nan"));
}

TEST_F(MadeInspectionTest, LongListsEndWithACount) {
  std::vector<std::pair<std::string, NodeId>> entries;
  const NodeId shared = made_.AddFloats({1});
  for (int i = 0; i < 250; ++i) entries.emplace_back(absl::StrCat("k", i), shared);
  const Inspection inspection = InspectMade(made_.AddDict(entries));
  EXPECT_THAT(TextOf(inspection), AllOf(HasSubstr("k99 "), Not(HasSubstr("k100 ")),
                                        HasSubstr("  and 150 more; --all lists them\n")));
  EXPECT_THAT(TextOf(inspection, {.all = true}), AllOf(HasSubstr("k249 "), Not(HasSubstr("more"))));
  EXPECT_EQ(ToJson(inspection, "").at("weights").at("tensors").size(), 250u);
}

TEST_F(MadeInspectionTest, NotesStandBelowTheirRowsWhereTheTerminalIsNarrow) {
  const NodeId shared = made_.AddFloats({1});
  const std::string long_key = "encoder.layers.11.attention.self.query.weight";
  const Inspection inspection =
      InspectMade(made_.AddDict({{long_key, shared}, {"decoder." + long_key, shared}}));
  const std::string narrow = TextOf(inspection, {.width = 80});
  EXPECT_LE(LongestLine(narrow), 80u) << narrow;
  EXPECT_THAT(narrow, HasSubstr("\n    tied to " + long_key + "\n"));
  EXPECT_THAT(narrow, Not(HasSubstr("NOTES")));
  EXPECT_THAT(TextOf(inspection, {.width = 200}), HasSubstr("4 bytes  tied to " + long_key + "\n"));
}

TEST_F(MadeInspectionTest, ColoursAreOnlyColours) {
  const Inspection inspection = InspectMade(made_.AddDict({{"w", made_.AddFloats({kNan})}}));
  std::string text = TextOf(inspection, {.color = true});
  EXPECT_THAT(text, HasSubstr("\x1b[1mmade.pt\x1b[0m"));
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      i = text.find('m', i);
    } else {
      plain += text[i];
    }
  }
  EXPECT_EQ(plain, TextOf(inspection));
}

TEST_F(MadeInspectionTest, QuickLeavesTheBytesAlone) {
  const Inspection inspection =
      InspectMade(made_.AddDict({{"w", made_.AddFloats({kNan})}}), {.quick = true});
  EXPECT_EQ(inspection.outcome, Outcome::kAcceptable);
  EXPECT_FALSE(inspection.digest.has_value());
  EXPECT_TRUE(inspection.files.empty());
  EXPECT_FALSE(inspection.weights[0].non_finite.has_value());
  EXPECT_THAT(TextOf(inspection), HasSubstr("not read (--quick)"));
  EXPECT_TRUE(ToJson(inspection, "").at("sha256").is_null());
}

TEST_F(MadeInspectionTest, SaysHowFarItIs) {
  std::vector<std::string> passes;
  std::uint64_t last = 0;
  InspectOptions options;
  options.progress = [&](const char* pass, std::uint64_t done, std::uint64_t total) {
    if (passes.empty() || passes.back() != pass) passes.emplace_back(pass);
    EXPECT_LE(done, total);
    last = done;
    if (done == total) passes.back() += " to the end";
  };
  InspectMade(made_.AddDict({{"w", made_.AddFloats({1, 2, 3})}}), options);
  EXPECT_THAT(passes,
              ElementsAre("checking the file to the end", "reading the weights to the end"));
  EXPECT_EQ(last, 12u);
}

TEST(InspectionTest, OptimizersAndSchedulesAreRecognised) {
  const std::string text = TextOf(Inspect(DataPath("good/optim_groups_sched.pth"), {}));
  EXPECT_THAT(text, AllOf(HasSubstr("optimizer Adam: state of "), HasSubstr("group 0, "),
                          HasSubstr("schedule of the learning rate, of the kind StepLR")));
  const Json json = ToJson(Inspect(DataPath("good/lightning_like.ckpt"), {}), "");
  std::vector<std::string> kinds;
  for (const Json& held : json.at("held")) {
    kinds.push_back(held.at("at").get<std::string>() + " " + held.at("kind").get<std::string>());
  }
  EXPECT_THAT(kinds, testing::IsSupersetOf({"/optimizer_states/0 optimizer", "/lr_schedulers value",
                                            "/epoch value"}));
}

TEST(InspectionTest, StepsInTensorsAreShownAsNumbers) {
  const Json json = ToJson(Inspect(DataPath("good/checkpoint.pth"), {}), "");
  for (const Json& held : json.at("held")) {
    if (!held.contains("optimizer")) continue;
    EXPECT_TRUE(held.at("optimizer").at("step").is_number()) << held.dump();
    EXPECT_EQ(held.at("optimizer").at("groups")[0].at("settings").at("lr"), 0.01);
    EXPECT_EQ(held.at("tensors"), 12);
    return;
  }
  FAIL() << "no optimizer in " << json.at("held").dump();
}

TEST(InspectionTest, DamageNamesTheRecordAndItsTensor) {
  const Inspection inspection = Inspect(DataPath("hostile/crc_flip_storage.pth"), {});
  EXPECT_FALSE(inspection.digest.has_value());
  const std::string text = TextOf(inspection);
  EXPECT_THAT(text, AllOf(HasSubstr("1 of "), HasSubstr(" records is damaged:"),
                          HasSubstr("RECORD  "), HasSubstr("digest     none")));
  const Json json = ToJson(inspection, "");
  std::size_t damaged = 0;
  for (const Json& record : json.at("files")[0].at("records")) {
    if (record.at("crc32") == "differs") ++damaged;
  }
  EXPECT_EQ(damaged, 1u);
  EXPECT_EQ(json.at("error").at("code"), "CRC_MISMATCH");
}

// A record that the server would not read to serve the weights.
TEST(InspectionTest, DamageBesideTheWeightsIsARefusalToo) {
  const Inspection whole = Inspect(DataPath("good/checkpoint.pth"), {});
  ASSERT_EQ(whole.outcome, Outcome::kAcceptable) << whole.error;
  const std::string at = "/optimizer_state_dict/state/0/exp_avg";
  const auto held = std::find_if(whole.held.tensors.begin(), whole.held.tensors.end(),
                                 [&](const HeldTensor& tensor) { return tensor.at == at; });
  ASSERT_NE(held, whole.held.tensors.end());
  const storage::Checkpoint& checkpoint = *whole.checkpoint;
  const std::uint64_t offset =
      checkpoint.storages()[checkpoint.tree().tensor(held->node).storage].file_offset;
  std::string content = storage::ReadWholeFile(DataPath("good/checkpoint.pth"));
  content[offset] ^= 1;
  const storage::TempFolder folder;
  folder.Write("damaged.pth", content);
  const Inspection damaged = Inspect(folder.Path("damaged.pth"), {});
  EXPECT_EQ(damaged.outcome, Outcome::kRefused);
  EXPECT_EQ(GetErrorCode(damaged.error), ErrorCode::kCrcMismatch);
  ASSERT_TRUE(damaged.digest.has_value()) << "the weights are whole";
  EXPECT_EQ(damaged.digest->ToHex(), whole.digest->ToHex());
  EXPECT_THAT(TextOf(damaged), HasSubstr(at));
}

TEST(InspectionTest, AnIndexShowsItsShards) {
  const Inspection inspection =
      Inspect(DataPath("good/st_sharded/model.safetensors.index.json"), {});
  EXPECT_EQ(inspection.outcome, Outcome::kAcceptable) << inspection.error;
  EXPECT_THAT(TextOf(inspection), AllOf(HasSubstr("index of 2 shards"), HasSubstr("in 3 files"),
                                        HasSubstr("model-00002-of-00002.safetensors")));
}

TEST(InspectionTest, AFileThatIsNotThereIsAFailureAndNoRefusal) {
  const Inspection inspection = Inspect("/nowhere/a.pt", {});
  EXPECT_EQ(inspection.outcome, Outcome::kFailed);
  EXPECT_EQ(ToJson(inspection, "").at("error").at("code"), "IO_ERROR");
}

}  // namespace
}  // namespace relight::ctl
