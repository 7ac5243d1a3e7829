// The daemon's command line.
#include "server/config/server_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "tests/paths.h"

namespace relight::config {
namespace {

using ::testing::HasSubstr;

const char kRepository[] = "--model-repository=" RELIGHT_TEST_DATA;

ServerOptions MustParse(std::vector<std::string> arguments) {
  arguments.emplace_back(kRepository);
  absl::StatusOr<ServerCommand> command = ParseServerArguments(arguments);
  EXPECT_TRUE(command.ok()) << command.status();
  return command.ok() ? command->options : ServerOptions();
}

std::string Refusal(std::vector<std::string> arguments) {
  arguments.emplace_back(kRepository);
  const absl::StatusOr<ServerCommand> command = ParseServerArguments(arguments);
  EXPECT_EQ(command.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(command.status().message());
}

TEST(ServerOptionsTest, TheRepositoryIsEnough) {
  const ServerOptions options = MustParse({"--state-dir=/tmp"});
  EXPECT_EQ(options.model_repository, RELIGHT_TEST_DATA);
  EXPECT_EQ(options.grpc_address, "0.0.0.0");
  EXPECT_EQ(options.grpc_port, 8001);
  EXPECT_EQ(options.metrics_port, 8002);
  EXPECT_EQ(options.admin_port, -1);
  EXPECT_EQ(options.admin_socket, "/tmp/admin.sock");
  EXPECT_FALSE(options.allow_model_control);
  EXPECT_EQ(options.poll_interval, absl::Seconds(1));
  EXPECT_EQ(options.exit_timeout, absl::Seconds(30));
  EXPECT_EQ(options.log_level, "info");
}

TEST(ServerOptionsTest, EveryFlagArrives) {
  const ServerOptions options = MustParse({"--state-dir=/tmp",
                                           "--snapshot-dir",
                                           "/tmp/not-there-yet",
                                           "--grpc-address=::1",
                                           "--grpc-port",
                                           "0",
                                           "--metrics-address=localhost",
                                           "--metrics-port=-1",
                                           "--admin-socket=/tmp/a.sock",
                                           "--admin-port",
                                           "-1",
                                           "--port-file=/tmp/ports",
                                           "--allow-model-control",
                                           "--poll-interval=500ms",
                                           "--exit-timeout",
                                           "2m",
                                           "--max-message-bytes=1000",
                                           "--compute-threads=2",
                                           "--intra-op-threads=3",
                                           "--load-threads=4",
                                           "--log-level=debug",
                                           "--log-format=json"});
  EXPECT_EQ(options.state_dir, "/tmp");
  EXPECT_EQ(options.snapshot_dir, "/tmp/not-there-yet");
  EXPECT_EQ(options.grpc_address, "::1");
  EXPECT_EQ(options.grpc_port, 0);
  EXPECT_EQ(options.metrics_address, "localhost");
  EXPECT_EQ(options.metrics_port, -1);
  EXPECT_EQ(options.admin_socket, "/tmp/a.sock");
  EXPECT_EQ(options.admin_port, -1);
  EXPECT_EQ(options.port_file, "/tmp/ports");
  EXPECT_TRUE(options.allow_model_control);
  EXPECT_EQ(options.poll_interval, absl::Milliseconds(500));
  EXPECT_EQ(options.exit_timeout, absl::Minutes(2));
  EXPECT_EQ(options.max_message_bytes, 1000u);
  EXPECT_EQ(options.compute_threads, 2);
  EXPECT_EQ(options.intra_op_threads, 3);
  EXPECT_EQ(options.load_threads, 4);
  EXPECT_EQ(options.log_level, "debug");
  EXPECT_EQ(options.log_format, "json");
}

TEST(ServerOptionsTest, UnderscoresAndNegationsWorkToo) {
  EXPECT_EQ(MustParse({"--grpc_port=9000"}).grpc_port, 9000);
  EXPECT_FALSE(
      MustParse({"--allow-model-control", "--no-allow-model-control"}).allow_model_control);
  EXPECT_FALSE(MustParse({"--allow-model-control=false"}).allow_model_control);
}

TEST(ServerOptionsTest, TheLastValueWins) {
  EXPECT_EQ(MustParse({"--grpc-port=9000", "--grpc-port=9001"}).grpc_port, 9001);
}

TEST(ServerOptionsTest, OneParseLeavesNothingToTheNext) {
  EXPECT_EQ(MustParse({"--grpc-port=9000"}).grpc_port, 9000);
  EXPECT_EQ(MustParse({}).grpc_port, 8001);
}

TEST(ServerOptionsTest, HelpAndVersionNeedNothingElse) {
  const auto action = [](std::vector<std::string> arguments) {
    const auto command = ParseServerArguments(arguments);
    EXPECT_TRUE(command.ok()) << command.status();
    return command.ok() ? command->action : ServerCommand::Action::kServe;
  };
  EXPECT_EQ(action({"--help"}), ServerCommand::Action::kHelp);
  EXPECT_EQ(action({"-h"}), ServerCommand::Action::kHelp);
  EXPECT_EQ(action({"--version"}), ServerCommand::Action::kVersion);
  EXPECT_EQ(action({"--no-such-flag", "--help"}), ServerCommand::Action::kHelp);
}

TEST(ServerOptionsTest, HelpDescribesEveryFlagInKebabCase) {
  const std::string help = ServerHelp();
  for (const char* flag :
       {"--model-repository FOLDER", "--state-dir FOLDER", "--snapshot-dir FOLDER",
        "--grpc-address ADDRESS (default 0.0.0.0)", "--grpc-port PORT (default 8001)",
        "--metrics-address ADDRESS", "--metrics-port PORT (default 8002)", "--admin-socket FILE",
        "--admin-port PORT (default -1)", "--port-file FILE",
        "--allow-model-control (default false)", "--poll-interval DURATION (default 1s)",
        "--exit-timeout DURATION (default 30s)", "--max-message-bytes BYTES (default 0)",
        "--compute-threads N", "--intra-op-threads N", "--load-threads N",
        "--log-level LEVEL (default info)", "--log-format FORMAT (default text)"}) {
    EXPECT_THAT(help, HasSubstr(flag));
  }
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 90u) << line;
}

struct Row {
  std::vector<std::string> arguments;
  const char* message;
};

TEST(ServerOptionsTest, EveryRefusalNamesItsFlag) {
  const std::vector<Row> rows = {
      {{"--grcp-port=1"}, "unknown flag --grcp-port; did you mean --grpc-port?"},
      {{"--xyz"}, "unknown flag --xyz; --help lists them all"},
      {{"--no-grpc-port"}, "unknown flag --no-grpc-port"},
      {{"models"}, "argument \"models\" is not a flag"},
      {{"--"}, "argument \"--\" is not a flag"},
      {{"--grpc-port"}, "--grpc-port needs a value: --grpc-port=PORT"},
      {{"--grpc-port=abc"}, "--grpc-port is \"abc\", which is not a whole number that fits"},
      {{"--grpc-port=99999999999"}, "which is not a whole number that fits"},
      {{"--max-message-bytes=-1"}, "--max-message-bytes is \"-1\", which is not a whole number"},
      {{"--poll-interval=5"}, "--poll-interval is \"5\", which is not a duration such as"},
      {{"--allow-model-control=maybe"}, "--allow-model-control is \"maybe\", which is neither"},
      {{"--grpc-port=-1"}, "--grpc-port is -1, it must be from 0 to 65535"},
      {{"--grpc-port=65536"}, "--grpc-port is 65536, it must be from 0 to 65535"},
      {{"--metrics-port=-2"}, "--metrics-port is -2, it must be from -1 to 65535"},
      {{"--admin-port=70000"}, "--admin-port is 70000, it must be from -1 to 65535"},
      {{"--metrics-port=8001"}, "--metrics-port and --grpc-port are both 8001"},
      {{"--admin-port=8002"}, "--admin-port and --metrics-port are both 8002"},
      {{"--grpc-address="}, "--grpc-address is empty: 0.0.0.0 means every address"},
      {{"--metrics-address=a b"}, "--metrics-address is \"a b\", which is neither an address"},
      {{"--state-dir=/dev/null"}, "--state-dir: \"/dev/null\" is not a folder"},
      {{"--snapshot-dir=/dev/null"}, "--snapshot-dir: \"/dev/null\" is not a folder"},
      {{"--snapshot-dir=/dev/null/x"},
       "--snapshot-dir: \"/dev/null/x\" lies below something that is not a folder"},
      {{"--port-file=/nonexistent/ports"}, "--port-file: \"/nonexistent\" does not exist"},
      {{"--admin-socket=/tmp/" + std::string(200, 'x')},
       "has 205 bytes, the most that a socket's path can have is 107"},
      {{"--state-dir=/tmp/" + std::string(200, 'x')}, "the most that a socket's path can have"},
      {{"--poll-interval=0s"}, "--poll-interval is 0, it must be from 10ms to 1h"},
      {{"--exit-timeout=-1s"}, "--exit-timeout is -1s, it must be from 0 to 24h"},
      {{"--exit-timeout=inf"}, "--exit-timeout is inf, it must be from 0 to 24h"},
      {{"--max-message-bytes=2147483648"}, "--max-message-bytes is 2147483648, the most is"},
      {{"--compute-threads=-1"}, "--compute-threads is -1, it must be from 0 to 1024"},
      {{"--intra-op-threads=2000"}, "--intra-op-threads is 2000"},
      {{"--load-threads=-5"}, "--load-threads is -5"},
      {{"--log-level=warn"},
       "--log-level is \"warn\", it can be trace, debug, info, warning, error"},
      {{"--log-format=xml"}, "--log-format is \"xml\", it can be text, json"},
      {{"--log-level=a\nb"}, "\"a\\x0ab\""},
  };
  for (const Row& row : rows) {
    EXPECT_THAT(Refusal(row.arguments), HasSubstr(row.message)) << row.arguments[0];
  }
}

TEST(ServerOptionsTest, RepositoryMustBeGivenAndBeThere) {
  const auto refusal = [](std::vector<std::string> arguments) {
    return std::string(ParseServerArguments(arguments).status().message());
  };
  EXPECT_THAT(refusal({}), HasSubstr("--model-repository is missing: give the folder"));
  EXPECT_THAT(refusal({"--model-repository=/nonexistent"}),
              HasSubstr("--model-repository: \"/nonexistent\" does not exist"));
  EXPECT_THAT(refusal({"--model-repository=/dev/null"}), HasSubstr("is not a folder"));
}

TEST(ServerOptionsTest, AllErrorsComeAtOnce) {
  const std::string message = Refusal(
      {"--grpc-prot", "8001", "--log-level=loud", "--metrics-port=x", "--exit-timeout=-1s"});
  EXPECT_EQ(message,
            "unknown flag --grpc-prot; did you mean --grpc-port?\n"
            "--metrics-port is \"x\", which is not a whole number that fits\n"
            "--exit-timeout is -1s, it must be from 0 to 24h\n"
            "--log-level is \"loud\", it can be trace, debug, info, warning, error");
}

TEST(ServerOptionsTest, AdminSocketFollowsTheStateFolder) {
  EXPECT_EQ(DefaultAdminSocket("/state"), "/state/admin.sock");
  ::setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
  EXPECT_EQ(DefaultAdminSocket(""), "/run/user/7/relight/admin.sock");
  ::unsetenv("XDG_RUNTIME_DIR");
  EXPECT_EQ(DefaultAdminSocket(""), "/run/relight/admin.sock");
}

}  // namespace
}  // namespace relight::config
