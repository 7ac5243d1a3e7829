#include "server/config/server_options.h"

#include <sys/un.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "server/config/command_line.h"
#include "server/network/nearest_name.h"
#include "server/version.h"

// The defaults are those of the struct, so that they stand in one place.
using relight::config::ServerOptions;

ABSL_FLAG(
    std::string, model_repository, ServerOptions().model_repository,
    "Folder with a folder for each model: its model.textproto and its checkpoints. Required.");
ABSL_FLAG(
    std::string, state_dir, ServerOptions().state_dir,
    "Folder for what outlives a restart (pins) and for copies of training state that snapshots "
    "need. Without it pins are forgotten and the copies go to TMPDIR.");
ABSL_FLAG(std::string, snapshot_dir, ServerOptions().snapshot_dir,
          "Folder that snapshots are written to. Without it snapshots are refused.");

ABSL_FLAG(std::string, grpc_address, ServerOptions().grpc_address,
          "Address on which inference, health and reflection listen.");
ABSL_FLAG(int, grpc_port, ServerOptions().grpc_port,
          "Port of inference, health and reflection; 0 for any free one.");
ABSL_FLAG(std::string, metrics_address, ServerOptions().metrics_address,
          "Address on which Prometheus metrics listen.");
ABSL_FLAG(int, metrics_port, ServerOptions().metrics_port,
          "Port of Prometheus metrics; 0 for any free one, -1 for none.");
ABSL_FLAG(
    std::string, admin_socket, ServerOptions().admin_socket,
    "Unix socket of the admin service, which relightctl talks to; only its owner may connect. "
    "Without it: admin.sock in --state-dir, else in $XDG_RUNTIME_DIR/relight, else in "
    "/run/relight.");
ABSL_FLAG(int, admin_port, ServerOptions().admin_port,
          "Port for the admin service on the loopback address besides; whoever can connect to it "
          "commands the server. 0 for any free one, -1 for none.");
ABSL_FLAG(std::string, port_file, ServerOptions().port_file,
          "File to write the ports in use to, as lines \"grpc=8001\".");
ABSL_FLAG(bool, allow_model_control, ServerOptions().allow_model_control,
          "Let clients of the inference port load and unload models.");

ABSL_FLAG(absl::Duration, poll_interval, ServerOptions().poll_interval,
          "How often the watched folders are looked at. Where the file system sends events, new "
          "checkpoints are seen sooner.");
ABSL_FLAG(absl::Duration, exit_timeout, ServerOptions().exit_timeout,
          "How long requests under way may take to finish after SIGTERM.");
ABSL_FLAG(std::uint64_t, max_message_bytes, ServerOptions().max_message_bytes,
          "Largest request message in bytes; 0 for the largest request that the models' configs "
          "allow.");
ABSL_FLAG(int, compute_threads, ServerOptions().compute_threads,
          "Batches computed at a time on the CPU; 0 to suit the machine.");
ABSL_FLAG(int, intra_op_threads, ServerOptions().intra_op_threads,
          "Threads that one batch may use on the CPU; 0 to suit the machine.");
ABSL_FLAG(int, load_threads, ServerOptions().load_threads,
          "Checkpoints loaded at a time; 0 to suit the machine.");

ABSL_FLAG(std::string, log_level, ServerOptions().log_level,
          "Least important messages to log: trace, debug, info, warning or error.");
ABSL_FLAG(std::string, log_format, ServerOptions().log_format,
          "text for people, json for machines: one object a line.");

namespace relight::config {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxPort = 65535;
constexpr absl::Duration kLongestExit = absl::Hours(24);
constexpr absl::Duration kShortestPoll = absl::Milliseconds(10);
constexpr absl::Duration kLongestPoll = absl::Hours(1);
// gRPC counts message bytes in an int.
constexpr std::uint64_t kMaxMessageBytes = std::numeric_limits<std::int32_t>::max();

const std::vector<FlagGroup>& Groups() {
  static const auto* const kGroups = new std::vector<FlagGroup>{
      {"Folders",
       {{"model-repository", FlagValue::kText, "FOLDER"},
        {"state-dir", FlagValue::kText, "FOLDER"},
        {"snapshot-dir", FlagValue::kText, "FOLDER"}}},
      {"Network",
       {{"grpc-address", FlagValue::kText, "ADDRESS"},
        {"grpc-port", FlagValue::kNumber, "PORT"},
        {"metrics-address", FlagValue::kText, "ADDRESS"},
        {"metrics-port", FlagValue::kNumber, "PORT"},
        {"admin-socket", FlagValue::kText, "FILE"},
        {"admin-port", FlagValue::kNumber, "PORT"},
        {"port-file", FlagValue::kText, "FILE"},
        {"allow-model-control", FlagValue::kSwitch, ""}}},
      {"Behaviour",
       {{"poll-interval", FlagValue::kDuration, "DURATION"},
        {"exit-timeout", FlagValue::kDuration, "DURATION"},
        {"max-message-bytes", FlagValue::kNumber, "BYTES"},
        {"compute-threads", FlagValue::kNumber, "N"},
        {"intra-op-threads", FlagValue::kNumber, "N"},
        {"load-threads", FlagValue::kNumber, "N"}}},
      {"Logging",
       {{"log-level", FlagValue::kText, "LEVEL"}, {"log-format", FlagValue::kText, "FORMAT"}}},
  };
  return *kGroups;
}

ServerOptions ReadFlags() {
  ServerOptions options;
  options.model_repository = absl::GetFlag(FLAGS_model_repository);
  options.state_dir = absl::GetFlag(FLAGS_state_dir);
  options.snapshot_dir = absl::GetFlag(FLAGS_snapshot_dir);
  options.grpc_address = absl::GetFlag(FLAGS_grpc_address);
  options.grpc_port = absl::GetFlag(FLAGS_grpc_port);
  options.metrics_address = absl::GetFlag(FLAGS_metrics_address);
  options.metrics_port = absl::GetFlag(FLAGS_metrics_port);
  options.admin_socket = absl::GetFlag(FLAGS_admin_socket);
  options.admin_port = absl::GetFlag(FLAGS_admin_port);
  options.port_file = absl::GetFlag(FLAGS_port_file);
  options.allow_model_control = absl::GetFlag(FLAGS_allow_model_control);
  options.poll_interval = absl::GetFlag(FLAGS_poll_interval);
  options.exit_timeout = absl::GetFlag(FLAGS_exit_timeout);
  options.max_message_bytes = absl::GetFlag(FLAGS_max_message_bytes);
  options.compute_threads = absl::GetFlag(FLAGS_compute_threads);
  options.intra_op_threads = absl::GetFlag(FLAGS_intra_op_threads);
  options.load_threads = absl::GetFlag(FLAGS_load_threads);
  options.log_level = absl::GetFlag(FLAGS_log_level);
  options.log_format = absl::GetFlag(FLAGS_log_format);
  if (options.admin_socket.empty()) options.admin_socket = DefaultAdminSocket(options.state_dir);
  return options;
}

// Looks at the options together; adds a line for everything that cannot be.
class Validator {
 public:
  Validator(const ServerOptions& options, std::vector<std::string>& errors)
      : options_(options), errors_(errors) {}

  void Validate() {
    CheckFolders();
    CheckListeners();
    CheckAdminSocket();
    CheckBehaviour();
    CheckLogging();
  }

 private:
  void CheckFolders() {
    if (options_.model_repository.empty()) {
      errors_.push_back(
          "--model-repository is missing: give the folder that has a folder for each model");
    } else {
      CheckFolder("model-repository", options_.model_repository, /*must_exist=*/true);
    }
    CheckFolder("state-dir", options_.state_dir, /*must_exist=*/false);
    CheckFolder("snapshot-dir", options_.snapshot_dir, /*must_exist=*/false);
    if (!options_.port_file.empty()) {
      const auto parent = std::filesystem::path(options_.port_file).parent_path();
      CheckFolder("port-file", parent.empty() ? "." : parent.string(), /*must_exist=*/true);
    }
  }

  // The daemon makes the folders that it writes to, but not the one that it reads.
  void CheckFolder(const char* flag, const std::string& path, bool must_exist) {
    if (path.empty()) return;
    std::error_code error;
    const std::filesystem::file_status status = std::filesystem::status(path, error);
    if (std::filesystem::is_directory(status)) return;
    const std::string subject = absl::StrCat("--", flag, ": \"", Escape(path), "\" ");
    if (error == std::errc::not_a_directory) {
      errors_.push_back(subject + "lies below something that is not a folder");
    } else if (status.type() == std::filesystem::file_type::not_found) {
      if (must_exist) errors_.push_back(subject + "does not exist");
    } else if (status.type() == std::filesystem::file_type::none) {
      errors_.push_back(absl::StrCat(subject, "cannot be looked at: ", error.message()));
    } else {
      errors_.push_back(subject + "is not a folder");
    }
  }

  void CheckListeners() {
    CheckAddress("grpc-address", options_.grpc_address);
    CheckAddress("metrics-address", options_.metrics_address);
    CheckRange("grpc-port", options_.grpc_port, 0, kMaxPort);
    CheckRange("metrics-port", options_.metrics_port, -1, kMaxPort);
    CheckRange("admin-port", options_.admin_port, -1, kMaxPort);
    std::map<int, const char*> taken;
    for (const auto& [flag, port] : {std::pair("grpc-port", options_.grpc_port),
                                     std::pair("metrics-port", options_.metrics_port),
                                     std::pair("admin-port", options_.admin_port)}) {
      if (port <= 0) continue;
      const auto [other, free] = taken.emplace(port, flag);
      if (free) continue;
      errors_.push_back(absl::StrCat("--", flag, " and --", other->second, " are both ", port,
                                     ": give each its own port"));
    }
  }

  void CheckAddress(const char* flag, const std::string& address) {
    if (address.empty()) {
      errors_.push_back(absl::StrCat("--", flag, " is empty: 0.0.0.0 means every address"));
    } else if (!std::all_of(address.begin(), address.end(),
                            [](char c) { return c > ' ' && c < '\x7f' && c != '/'; })) {
      errors_.push_back(absl::StrCat("--", flag, " is \"", Escape(address),
                                     "\", which is neither an address nor a host name"));
    }
  }

  void CheckAdminSocket() {
    constexpr std::size_t kMaxPath = sizeof(sockaddr_un{}.sun_path) - 1;
    if (options_.admin_socket.size() <= kMaxPath) return;
    errors_.push_back(absl::StrCat("--admin-socket \"", Escape(options_.admin_socket), "\" has ",
                                   options_.admin_socket.size(),
                                   " bytes, the most that a socket's path can have is ", kMaxPath));
  }

  void CheckBehaviour() {
    CheckDuration("poll-interval", options_.poll_interval, kShortestPoll, kLongestPoll);
    CheckDuration("exit-timeout", options_.exit_timeout, absl::ZeroDuration(), kLongestExit);
    if (options_.max_message_bytes > kMaxMessageBytes) {
      errors_.push_back(absl::StrCat("--max-message-bytes is ", options_.max_message_bytes,
                                     ", the most is ", kMaxMessageBytes));
    }
    CheckRange("compute-threads", options_.compute_threads, 0, kMaxThreads);
    CheckRange("intra-op-threads", options_.intra_op_threads, 0, kMaxThreads);
    CheckRange("load-threads", options_.load_threads, 0, kMaxThreads);
  }

  void CheckLogging() {
    CheckOneOf("log-level", options_.log_level, {"trace", "debug", "info", "warning", "error"});
    CheckOneOf("log-format", options_.log_format, {"text", "json"});
  }

  void CheckRange(const char* flag, int value, int least, int most) {
    if (value >= least && value <= most) return;
    errors_.push_back(
        absl::StrCat("--", flag, " is ", value, ", it must be from ", least, " to ", most));
  }

  void CheckDuration(const char* flag, absl::Duration value, absl::Duration least,
                     absl::Duration most) {
    if (value >= least && value <= most) return;
    errors_.push_back(absl::StrCat("--", flag, " is ", absl::FormatDuration(value),
                                   ", it must be from ", absl::FormatDuration(least), " to ",
                                   absl::FormatDuration(most)));
  }

  void CheckOneOf(const char* flag, const std::string& value,
                  const std::vector<std::string>& choices) {
    if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
    errors_.push_back(absl::StrCat("--", flag, " is \"", Escape(value), "\", it can be ",
                                   absl::StrJoin(choices, ", "),
                                   network::DidYouMean(value, choices)));
  }

  const ServerOptions& options_;
  std::vector<std::string>& errors_;
};

}  // namespace

absl::StatusOr<ServerCommand> ParseServerArguments(absl::Span<const std::string> arguments) {
  CommandLine line = ApplyArguments(arguments, Groups());
  ServerCommand command;
  if (line.help) {
    command.action = ServerCommand::Action::kHelp;
    return command;
  }
  if (line.version) {
    command.action = ServerCommand::Action::kVersion;
    return command;
  }
  command.options = ReadFlags();
  Validator(command.options, line.errors).Validate();
  if (!line.errors.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(line.errors, "\n"));
  }
  return command;
}

absl::StatusOr<ServerOptions> ParseServerFlags(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  absl::StatusOr<ServerCommand> command = ParseServerArguments(arguments);
  if (!command.ok()) return command.status();
  if (command->action == ServerCommand::Action::kServe) return std::move(command->options);
  const std::string text = command->action == ServerCommand::Action::kHelp
                               ? ServerHelp()
                               : absl::StrCat("relightd ", kVersion, "\n");
  std::fputs(text.c_str(), stdout);
  std::exit(0);
}

std::string ServerHelp() {
  return absl::StrCat(
      "relightd serves PyTorch checkpoints over gRPC and swaps in new ones while it runs.\n\n"
      "Usage: relightd --model-repository FOLDER [flags]\n\n"
      "A model is a folder in the repository, with a model.textproto that describes the graph\n"
      "(\"relightctl init CHECKPOINT\" drafts it) and a folder checkpoints/ that trainers save "
      "to.\n",
      DescribeFlags(Groups()),
      "\nOther\n  --help\n      Prints this.\n  --version\n      Prints the version.\n"
      "\nA duration is a number with a unit: 500ms, 1s, 2m. Stop the server with SIGTERM: it\n"
      "finishes the requests under way first.\n");
}

std::string DefaultAdminSocket(const std::string& state_dir) {
  if (!state_dir.empty()) return (std::filesystem::path(state_dir) / "admin.sock").string();
  const char* const runtime_dir = std::getenv("XDG_RUNTIME_DIR");
  if (runtime_dir != nullptr && *runtime_dir != '\0') {
    return (std::filesystem::path(runtime_dir) / "relight" / "admin.sock").string();
  }
  return "/run/relight/admin.sock";
}

}  // namespace relight::config
