// The relightctl binary, run as a person or a script runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/client/fake_server.h"
#include "tests/client/run_relightctl.h"
#include "tests/paths.h"

namespace relight::client {
namespace {

using Json = nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class CtlTest : public testing::Test {
 protected:
  // With no more environment than `environment`, so that the tester's own does not matter.
  Outcome RunBare(std::vector<std::string> words, const std::string& input = "",
                  std::vector<std::string> environment = {}) {
    return RunRelightctl(server_.folder().string(), std::move(words), input,
                         std::move(environment));
  }

  Outcome Run(std::vector<std::string> words, const std::string& input = "") {
    words.insert(words.end(), {"--server", server_.target(), "--admin", server_.socket_path()});
    return RunBare(std::move(words), input);
  }

  FakeServer server_;
};

TEST_F(CtlTest, HelpIsForEveryCommand) {
  const Outcome help = RunBare({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.out, HasSubstr("exit codes:"));
  for (const char* command :
       {"init", "describe", "inspect", "infer", "status", "history", "watch", "reload", "pin",
        "unpin", "rollback", "unload", "snapshot", "download", "push", "health"}) {
    EXPECT_THAT(help.out, HasSubstr(std::string("\n  ") + command + " ")) << command;
    const Outcome one = RunBare({command, "--help"});
    EXPECT_EQ(one.code, 0);
    EXPECT_THAT(one.out, AllOf(StartsWith(std::string("usage: relightctl ") + command),
                               HasSubstr("example")));
    EXPECT_EQ(RunBare({"help", command}).out, one.out);
  }
  EXPECT_THAT(RunBare({"--version"}).out, StartsWith("relightctl "));
}

TEST_F(CtlTest, VersionIsAVersionOfTheModelWhereACommandIsGiven) {
  const std::string help = RunBare({"infer", "--help"}).out;
  EXPECT_THAT(help, HasSubstr("  --version N "));
  EXPECT_THAT(help.substr(help.find("\nflags of every")), Not(HasSubstr("--version")));
  EXPECT_EQ(Run({"status", "--version"}).code, 2);
}

TEST_F(CtlTest, ASocketMayBeNamedByARelativePath) {
  const Outcome outcome = RunBare({"status", "--admin", "no/such.sock"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_THAT(outcome.err, HasSubstr("unix:no/such.sock"));
  EXPECT_EQ(RunBare({"status", "--admin", "dns:///127.0.0.1:1"}).code, 3);
}

TEST_F(CtlTest, ASocketIsFoundWhateverItsPathIs) {
  for (const char* name : {"half #1", "what?", "a%41b", "100%", "caf\u00e9", "[x]:1", "a\\b\"<>"}) {
    const std::filesystem::path runtime = server_.folder() / name;
    const std::string path = runtime / "relight" / "admin.sock";
    std::filesystem::create_directories(runtime / "relight");
    std::filesystem::create_hard_link(server_.socket_path(), path);
    for (const Outcome& outcome :
         {RunBare({"status", "--admin", path}), RunBare({"status", "--admin", "unix:" + path}),
          RunBare({"health", "--server", path}),
          RunBare({"status"}, "", {"RELIGHT_ADMIN_SOCKET=" + path}),
          RunBare({"status"}, "", {"XDG_RUNTIME_DIR=" + runtime.string()})}) {
      EXPECT_EQ(outcome.code, 0) << path << ": " << outcome.err;
    }
  }
}

TEST_F(CtlTest, MistakesAreUsageErrorsWithAHint) {
  EXPECT_EQ(RunBare({}).code, 2);
  EXPECT_THAT(RunBare({"statsu"}).err, HasSubstr("did you mean status?"));
  EXPECT_THAT(Run({"status", "--jsn"}).err, HasSubstr("did you mean --json?"));
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"statsu"},
                                             {"status", "--jsn"},
                                             {"status", "one", "two"},
                                             {"pin", "double"},
                                             {"pin", "double", "newest"},
                                             {"pin", "double", "-1"},
                                             {"history", "double", "--limit", "-1"},
                                             {"history", "double", "--limit", "4294967296"},
                                             {"status", "--timeout", "soon"},
                                             {"status", "--color", "blue"},
                                             {"infer", "double", "[1, 2"},
                                             {"infer", "double", "--version", "one", "[[1]]"},
                                             {"infer", "double", "z=[[1, 2, 3, 4]]"}}) {
    EXPECT_EQ(Run(words).code, 2) << words.back();
  }
  EXPECT_EQ(RunBare({"health", "--server", "nowhere"}).code, 2);
}

TEST_F(CtlTest, InferPrintsTheAnswerAndWhoGaveIt) {
  const Outcome outcome = Run({"infer", "double", "[[1, 2, 3, 4.25]]"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out,
            "double version 100, generation 7, digest 00112233445566778899aabbccddeeff\n"
            "y  FP32 [1, 4]\n"
            "  2.0 4.0 6.0 8.5\n");
}

TEST_F(CtlTest, InferPrintsJson) {
  const Outcome outcome = Run({"infer", "double", "--input", "x=[[0.1, 2, 3, 4]]", "--json",
                               "--version", "42", "--id", "seven"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json(), Json::parse(R"({
      "model": "double", "version": "42", "generation": 7, "id": "seven",
      "weights_digest": "00112233445566778899aabbccddeeff",
      "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4],
                   "data": [[0.2, 4.0, 6.0, 8.0]]}]})"));
}

TEST_F(CtlTest, InferReadsStandardInputAndSaves) {
  const std::filesystem::path saved = server_.folder() / "y.npy";
  const Outcome outcome =
      Run({"infer", "double", "@-", "--save", "y=" + saved.string()}, "[[1, 2, 3, 4]]");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  const Outcome again = Run({"infer", "double", "@" + saved.string(), "--json"});
  EXPECT_EQ(again.json()["outputs"][0]["data"], Json::parse("[[4.0, 8.0, 12.0, 16.0]]"));
}

TEST_F(CtlTest, InferSendsSeveralInputsOfSeveralTypes) {
  const Outcome outcome = Run({"infer", "echo", "--input=n=[[9007199254740993]]",
                               "--input=s=[[\"caf\\u00e9\"]]", "--input=h=[[0.5]]", "--json"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["outputs"][0]["data"], Json::parse("[[9007199254740993]]"));
  EXPECT_EQ(outcome.json()["outputs"][1]["data"], Json::parse("[[\"caf\\u00e9\"]]"));
  EXPECT_EQ(outcome.json()["outputs"][2]["data"], Json::parse("[[0.5]]"));
}

TEST_F(CtlTest, ExitCodesTellFailuresApart) {
  const std::string x = "[[1, 2, 3, 4]]";
  const Outcome not_found = Run({"infer", "unknown", x});
  EXPECT_EQ(not_found.code, 4);
  EXPECT_EQ(not_found.err, "relightctl: NOT_FOUND: unknown model unknown\n");
  EXPECT_EQ(not_found.out, "");
  EXPECT_EQ(Run({"infer", "busy", x}).code, 3);
  EXPECT_EQ(Run({"infer", "slow", x, "--timeout", "100ms"}).code, 5);
  EXPECT_EQ(Run({"infer", "double", "@/no/such/file"}).code, 4);
  const Outcome refused = Run({"reload", "broken"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, StartsWith("relightctl: FAILED_PRECONDITION: step-200.pt"));
}

TEST_F(CtlTest, ErrorsAreJsonWhereAskedFor) {
  const Outcome outcome = Run({"infer", "unknown", "[1]", "--json"});
  EXPECT_EQ(outcome.code, 4);
  EXPECT_EQ(Json::parse(outcome.err),
            Json::parse(R"({"error": {"code": "NOT_FOUND", "message": "unknown model unknown"}})"));
  EXPECT_EQ(Json::parse(Run({"infer", "--json"}).err)["error"]["code"], "USAGE");
}

TEST_F(CtlTest, AnAbsentServerSaysWhereToLook) {
  const std::string nowhere = "unix:" + (server_.folder() / "none.sock").string();
  const Outcome health = RunBare({"health", "--server", nowhere});
  EXPECT_EQ(health.code, 3);
  EXPECT_THAT(health.err, HasSubstr("Is relightd running there?"));
}

TEST_F(CtlTest, FindsTheServerThroughTheEnvironment) {
  EXPECT_EQ(RunBare({"health"}, "", {"RELIGHT_SERVER=" + server_.target()}).code, 0);
}

TEST_F(CtlTest, FindsTheAdminSocketThroughTheEnvironment) {
  EXPECT_EQ(RunBare({"status"}, "", {"RELIGHT_ADMIN_SOCKET=" + server_.socket_path()}).code, 0);
  const std::filesystem::path runtime = server_.folder() / "run";
  const Outcome missing = RunBare({"status"}, "", {"XDG_RUNTIME_DIR=" + runtime.string()});
  EXPECT_EQ(missing.code, 3);
  EXPECT_THAT(missing.err, HasSubstr(runtime.string() + "/relight/admin.sock"));
  std::filesystem::create_directories(runtime / "relight");
  std::filesystem::create_hard_link(server_.socket_path(), runtime / "relight" / "admin.sock");
  EXPECT_EQ(RunBare({"status"}, "", {"XDG_RUNTIME_DIR=" + runtime.string()}).code, 0);
}

TEST_F(CtlTest, StatusHasARowPerModel) {
  const Outcome outcome = Run({"status"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, StartsWith("MODEL   STATE    VERSION  GENERATION  DIGEST"));
  EXPECT_THAT(outcome.out, HasSubstr("double  serving  100      7           001122334455  "
                                     "step-100.pt"));
  EXPECT_THAT(outcome.out, HasSubstr("step-200.pt: parameter fc1.weight has NaN\n"));
  EXPECT_THAT(outcome.out, HasSubstr("fresh   waiting  -"));
  EXPECT_THAT(Run({"status", "--color", "always"}).out, HasSubstr("\x1b[32mserving\x1b[0m"));
}

TEST_F(CtlTest, StatusOfAModelShowsItsFolder) {
  for (const std::string& out :
       {Run({"status", "double"}).out, Run({"status", "--candidates"}).out}) {
    EXPECT_THAT(out, AllOf(HasSubstr("version rule  name: every stem ends in digits"),
                           HasSubstr("notes.txt"), HasSubstr("passed over"),
                           HasSubstr("its suffix is none of a checkpoint")));
  }
  EXPECT_EQ(Run({"status", "unknown"}).code, 4);
}

TEST_F(CtlTest, StatusIsJsonForPrograms) {
  const Json json = Run({"status", "--json"}).json();
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["ready"], true);
  EXPECT_EQ(json["started_at"], nullptr);
  const Json& model = json["models"][0];
  EXPECT_EQ(model["state"], "serving");
  EXPECT_EQ(model["version"], 100);
  EXPECT_EQ(model["last_good_load"], "2023-11-14T22:13:20.000Z");
  EXPECT_EQ(model["candidates"][0]["state"], "refused");
  EXPECT_EQ(model["candidates"][1]["version"], nullptr);
  EXPECT_EQ(json["models"][1]["version"], nullptr);
}

TEST_F(CtlTest, HistoryIsATableOrJson) {
  const Outcome table = Run({"history", "double"});
  EXPECT_THAT(table.out, AllOf(HasSubstr("refused"), HasSubstr("25 ms")));
  const Json json = Run({"history", "double", "--json", "--limit", "1"}).json();
  ASSERT_EQ(json.size(), 1U);
  EXPECT_EQ(json[0]["event"], "refused");
  EXPECT_EQ(json[0]["reason"], "parameter fc1.weight has NaN");
}

TEST_F(CtlTest, WatchPrintsALinePerChangeUntilTheServerStops) {
  const Outcome outcome = Run({"watch", "ending", "--json"});
  EXPECT_EQ(outcome.code, 3);
  std::istringstream lines(outcome.out);
  std::string line;
  for (int version : {100, 200}) {
    ASSERT_TRUE(std::getline(lines, line));
    EXPECT_EQ(Json::parse(line)["version"], version);
  }
  EXPECT_FALSE(std::getline(lines, line));
  EXPECT_THAT(Run({"watch", "ending"}).out, HasSubstr("double  serving  version 200"));
}

TEST_F(CtlTest, LeversSayWhatServesNow) {
  const std::string served = ", generation 7, digest 00112233445566778899aabbccddeeff";
  EXPECT_EQ(Run({"reload", "double"}).out, "double serves version 300" + served + ", since now\n");
  EXPECT_EQ(Run({"pin", "double", "5"}).out, "double serves version 5" + served + " (pinned)\n");
  EXPECT_EQ(Run({"unpin", "double"}).out, "double serves version 100" + served + "\n");
  EXPECT_EQ(Run({"rollback", "double"}).out, "double serves version 99" + served + " (pinned)\n");
  EXPECT_EQ(Run({"unload", "double"}).out, "double is unloaded\n");
  EXPECT_EQ(Run({"reload", "double", "--json"}).json()["swapped"], true);
  EXPECT_EQ(Run({"pin", "double", "5", "--json"}).json()["pinned_version"], 5);
  EXPECT_EQ(Run({"pin", "double", "404"}).code, 4);
}

TEST_F(CtlTest, PushSaysWhatCameOfIt) {
  const std::filesystem::path path = server_.folder() / "last.pt";
  std::ofstream(path) << "hello";
  const Outcome outcome = Run({"push", "double", path, "--as", "step-200.pt", "--overwrite"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out,
              StartsWith("step-200.pt is in the watched folder of double and serves\n"));
  EXPECT_THAT(outcome.out, HasSubstr("version    200, generation 8\n"));
  EXPECT_EQ(server_.last_push_header(),
            "model: \"double\" file: \"step-200.pt\" size_bytes: 5 overwrite: true");
  const auto json = Run({"push", "double", path, "--json", "--no-wait"}).json();
  EXPECT_EQ(json["serves"], true);
  EXPECT_EQ(json["state"], "serving");
  EXPECT_EQ(json["version"], 200);
  EXPECT_EQ(server_.last_push_header(),
            "model: \"double\" file: \"last.pt\" size_bytes: 5 no_wait: true");
}

TEST_F(CtlTest, PushThatDoesNotServeFailsOnlyWhereItCannot) {
  const std::filesystem::path path = server_.folder() / "step-200.pt";
  std::ofstream(path) << "hello";
  const Outcome pinned = Run({"push", "pinned", path});
  EXPECT_EQ(pinned.code, 0) << pinned.err;
  EXPECT_THAT(pinned.out, HasSubstr("does not serve: the model is pinned to version 100\n"));
  const Outcome refused = Run({"push", "refusing", path});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("FAILED_PRECONDITION: the warm-up fails"));
  const Outcome broken = Run({"push", "broken", path});
  EXPECT_EQ(broken.code, 1);
  EXPECT_THAT(broken.err, HasSubstr("INVALID_ARGUMENT: parameter fc1.weight has NaN"));
  EXPECT_EQ(Run({"push", "double", server_.folder() / "nothing.pt"}).code, 4);
}

TEST_F(CtlTest, DownloadBringsTheFile) {
  const std::string path = server_.folder() / "best.pt";
  const Outcome outcome = Run({"download", "double", path});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, StartsWith(path + "\n"));
  EXPECT_EQ(ReadAll(path), "hello");
  EXPECT_EQ(Run({"download", "double", path}).code, 1);
  const Outcome again = Run({"download", "double", path, "--overwrite", "--json", "--version", "7",
                             "--format", "state-dict", "--weights-only", "--lossless"});
  EXPECT_EQ(again.json()["path"], path);
  EXPECT_EQ(server_.last_download_request(),
            "model: \"double\" file: \"best.pt\" version: 7 weights_only: true lossless: true "
            "format: SNAPSHOT_STATE_DICT");
  EXPECT_EQ(Run({"download", "lying", server_.folder() / "other.pt"}).code, 1);
  EXPECT_FALSE(std::filesystem::exists(server_.folder() / "other.pt"));
  EXPECT_EQ(Run({"download", "double"}).code, 2);
}

TEST_F(CtlTest, SnapshotPrintsThePathFirst) {
  const Outcome outcome = Run({"snapshot", "double"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, StartsWith("/snapshots/double/100-7.pt\n"));
  EXPECT_THAT(outcome.out,
              AllOf(HasSubstr("4.0 KiB (4096 bytes)"), HasSubstr("sha256     abcdef"),
                    HasSubstr("format     bundle\n"), HasSubstr("left out   /scheduler: torch"),
                    HasSubstr("converted  /loss: numpy scalar")));
  EXPECT_EQ(outcome.err, "");
  const auto json = Run({"snapshot", "double", "--json"}).json();
  EXPECT_EQ(json["path"], "/snapshots/double/100-7.pt");
  EXPECT_EQ(json["format"], "bundle");
  EXPECT_EQ(json["converted"].size(), 1U);
}

TEST_F(CtlTest, SnapshotFlagsReachTheServer) {
  const Outcome refused = Run({"snapshot", "double", "taken.pt"});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, StartsWith("relightctl: ALREADY_EXISTS:"));
  EXPECT_EQ(Run({"snapshot", "double", "taken.pt", "--overwrite", "--weights-only", "--lossless",
                 "--version", "42", "--format", "state-dict"})
                .code,
            0);
  EXPECT_EQ(server_.last_snapshot_request(),
            "model: \"double\" path: \"taken.pt\" version: 42 overwrite: true weights_only: true "
            "lossless: true format: SNAPSHOT_STATE_DICT");
  const Outcome unknown = Run({"snapshot", "double", "--format", "onnx"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err,
              HasSubstr("--format is \"onnx\", not bundle, state-dict or safetensors"));
}

TEST_F(CtlTest, SnapshotTakesVersionZeroAtItsWord) {
  EXPECT_EQ(Run({"snapshot", "double", "--version", "0"}).code, 0);
  EXPECT_EQ(server_.last_snapshot_request(), "model: \"double\" version: 0");
}

TEST_F(CtlTest, InitDraftsWithoutAServer) {
  const std::string checkpoint = RELIGHT_TEST_DATA "/good/entire_model.pth";
  const Outcome printed = RunBare({"init", checkpoint});
  EXPECT_EQ(printed.code, 0) << printed.err;
  EXPECT_THAT(printed.out, HasSubstr("layer { name: \"fc1\" linear {"));
  const std::filesystem::path file = server_.folder() / "model.textproto";
  const Outcome written = RunBare({"init", checkpoint, "--output", server_.folder().string()});
  EXPECT_EQ(written.out, "wrote " + file.string() + "\n");
  EXPECT_EQ(ReadAll(file), printed.out);
}

TEST_F(CtlTest, DescribePrintsWhatAFamilyStandsFor) {
  const std::filesystem::path file = server_.folder() / "model.textproto";
  std::ofstream(file) << "resnet { depth: 18 num_classes: 10 }";
  const Outcome printed = RunBare({"describe", server_.folder().string()});
  EXPECT_EQ(printed.code, 0) << printed.err;
  EXPECT_THAT(
      printed.out,
      AllOf(StartsWith("input { name: \"input\" datatype: \"FP32\" shape: [-1, 3, -1, -1] }\n"),
            HasSubstr("layer { name: \"fc\" linear { in_features: 512 out_features: 10 } }")));
  EXPECT_EQ(RunBare({"describe", file.string()}).out, printed.out);
  const Outcome json = RunBare({"describe", file.string(), "--json"});
  EXPECT_EQ(json.json(), Json({{"model_textproto", printed.out}})) << json.out;
  std::ofstream(file) << printed.out;
  EXPECT_EQ(RunBare({"describe", file.string()}).out, printed.out);
}

TEST_F(CtlTest, DescribeSaysWhatIsWrongWithAConfig) {
  const std::filesystem::path file = server_.folder() / "wrong.textproto";
  std::ofstream(file) << "resnet { depth: 20 }";
  const Outcome outcome = RunBare({"describe", file.string()});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "");
  EXPECT_THAT(outcome.err, HasSubstr("wrong.textproto:1: resnet: depth is 20, it can be 18"));
  EXPECT_EQ(RunBare({"describe", "/no/such/model"}).code, 4);
}

TEST_F(CtlTest, InitPrintsJsonForPrograms) {
  const std::string checkpoint = RELIGHT_TEST_DATA "/good/entire_model.pth";
  const std::string draft = RunBare({"init", checkpoint}).out;
  const Outcome printed = RunBare({"init", checkpoint, "--json"});
  EXPECT_EQ(printed.code, 0) << printed.err;
  EXPECT_EQ(printed.json(), Json({{"path", nullptr}, {"model_textproto", draft}})) << printed.out;
  const std::filesystem::path file = server_.folder() / "model.textproto";
  const Outcome written = RunBare({"init", checkpoint, "--json", "--output", file.string()});
  EXPECT_EQ(written.json(), Json({{"path", file.string()}, {"model_textproto", draft}}));
  EXPECT_EQ(ReadAll(file), draft);
}

TEST_F(CtlTest, InitNeverOverwrites) {
  const std::filesystem::path file = server_.folder() / "mine.textproto";
  std::ofstream(file) << "precious";
  const Outcome outcome =
      RunBare({"init", RELIGHT_TEST_DATA "/good/model_state.pth", "--output", file.string()});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, StartsWith("relightctl: ALREADY_EXISTS:"));
  EXPECT_EQ(ReadAll(file), "precious");
}

TEST_F(CtlTest, InitDraftsFromEveryGoodFileOrSaysWhyNot) {
  int drafts = 0;
  for (const auto& entry : std::filesystem::directory_iterator(RELIGHT_TEST_DATA "/good")) {
    if (!entry.is_regular_file()) continue;
    const Outcome outcome = RunBare({"init", entry.path().string()});
    if (outcome.code == 0) {
      ++drafts;
      EXPECT_THAT(outcome.out, AllOf(StartsWith("# Drafted from "), HasSubstr("network {")))
          << entry.path();
    } else {
      EXPECT_EQ(outcome.code, 1) << entry.path();
      EXPECT_EQ(outcome.out, "") << entry.path();
      EXPECT_THAT(outcome.err, StartsWith("relightctl: INVALID_ARGUMENT: ")) << entry.path();
    }
  }
  EXPECT_GE(drafts, 40);
}

TEST_F(CtlTest, InitNamesItsFlagWhereThereAreNoWeights) {
  EXPECT_THAT(RunBare({"init", RELIGHT_TEST_DATA "/good/scalars.pt"}).err, HasSubstr("--key"));
}

TEST_F(CtlTest, InitSaysWhatIsWrongWithAFile) {
  EXPECT_EQ(RunBare({"init", "/no/such/file.pt"}).code, 4);
  EXPECT_EQ(RunBare({"init", server_.folder().string()}).code, 1);
  EXPECT_EQ(RunBare({"init", server_.socket_path()}).code, 1);
  EXPECT_EQ(RunBare({"init", RELIGHT_TEST_DATA "/good/model_state.pth", "--output",
                     "/no/such/folder/model.textproto"})
                .code,
            4);
}

TEST_F(CtlTest, HealthIsAnExitCode) {
  EXPECT_EQ(Run({"health"}).out, "serving\n");
  EXPECT_EQ(Run({"health"}).code, 0);
  EXPECT_EQ(Run({"health", "--wait"}).code, 0);
  EXPECT_EQ(Run({"health", "--service", "unknown"}).code, 4);
  server_.SetServing(false);
  const Outcome outcome = Run({"health"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_EQ(outcome.out, "not serving\n");
  EXPECT_EQ(Run({"health", "--json"}).json()["status"], "not serving");
  const Outcome waited = Run({"health", "--wait", "--timeout", "100ms"});
  EXPECT_EQ(waited.code, 5);
  EXPECT_THAT(waited.err, HasSubstr("was not serving"));
}

TEST_F(CtlTest, WaitingForAnUnknownServiceEndsAtOnce) {
  const Outcome outcome = Run({"health", "--wait", "--service", "unknown"});
  EXPECT_EQ(outcome.code, 4);
  EXPECT_THAT(outcome.err, AllOf(StartsWith("relightctl: NOT_FOUND:"), HasSubstr("unknown")));
}

TEST_F(CtlTest, WaitingForAServerThatNeverComesSaysSo) {
  const Outcome outcome =
      RunBare({"health", "--wait", "--timeout", "100ms", "--server", "127.0.0.1:1"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.err, HasSubstr("127.0.0.1:1: no server was there"));
}

TEST_F(CtlTest, ATimeThatIsOverNamesItsFlag) {
  const Outcome outcome = Run({"infer", "slow", "[[1, 2, 3, 4]]", "--timeout", "100ms"});
  EXPECT_EQ(outcome.code, 5);
  EXPECT_THAT(outcome.err, HasSubstr("--timeout says how long to wait"));
}

}  // namespace
}  // namespace relight::client
