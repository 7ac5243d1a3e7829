#include "client/ctl/command.h"

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/escape.h"
#include "client/ctl/output.h"

namespace relight::ctl {
namespace {

constexpr char kVersion[] = RELIGHT_VERSION;

const std::vector<FlagSpec>& GlobalFlags() {
  static const auto* const flags = new std::vector<FlagSpec>{
      {"server", "HOST:PORT", "the inference service (default localhost:8001)"},
      {"admin", "SOCKET", "the admin service: a socket's path, or HOST:PORT"},
      {"timeout", "TIME", "give up after this long, such as 30s or 2m; 0 waits for ever"},
      {"json", "", "print JSON, for programs"},
      {"color", "WHEN", "auto (the default), always or never"},
      {"help", "", "say what a command does, with examples"},
  };
  return *flags;
}

const std::vector<FlagSpec>& FlagsWithoutCommand() {
  static const auto* const flags = [] {
    auto* const all = new std::vector<FlagSpec>(GlobalFlags());
    all->push_back({"version", "", "print the version"});
    return all;
  }();
  return *flags;
}

constexpr char kIntroduction[] = R"(relightctl talks to relightd: it asks for answers, shows what is
served and why, and holds the levers over it.

usage: relightctl COMMAND [ARGUMENTS] [FLAGS]

commands:
)";

constexpr char kClosing[] = R"(
environment:
  RELIGHT_SERVER         the default of --server
  RELIGHT_ADMIN_SOCKET   the default of --admin; else the first that exists of
                         $XDG_RUNTIME_DIR/relight/admin.sock and /run/relight/admin.sock
  NO_COLOR               no colours

exit codes:
  0  done
  1  the server refused or failed; the message begins with its status code
  2  the command line makes no sense
  3  UNAVAILABLE: no server there, it is busy, or the model has no checkpoint yet
  4  NOT_FOUND: no such model, version or file
  5  DEADLINE_EXCEEDED: --timeout passed
  6  the checkpoint is refused, says inspect

"relightctl COMMAND --help" says more about a command.
)";

const std::vector<Command>& Commands() {
  static const auto* const commands = new std::vector<Command>{
      InitCommand(),   DescribeCommand(), InspectCommand(),  InferCommand(),
      StatusCommand(), HistoryCommand(),  WatchCommand(),    PushCommand(),
      ReloadCommand(), PinCommand(),      UnpinCommand(),    RollBackCommand(),
      UnloadCommand(), SnapshotCommand(), DownloadCommand(), HealthCommand()};
  return *commands;
}

std::string FlagLines(const std::vector<FlagSpec>& flags) {
  std::string lines;
  for (const FlagSpec& flag : flags) {
    std::string name = absl::StrCat("--", std::string(flag.name));
    if (!flag.value.empty()) absl::StrAppend(&name, " ", std::string(flag.value));
    absl::StrAppendFormat(&lines, "  %-23s %s%s\n", name, std::string(flag.help),
                          flag.repeats ? " (may repeat)" : "");
  }
  return lines;
}

std::string UsageLine(const Command& command) {
  return absl::StrCat("relightctl ", std::string(command.name),
                      command.positionals.empty() ? "" : " ", std::string(command.positionals));
}

std::string GlobalHelp() {
  std::string help = kIntroduction;
  for (const Command& command : Commands()) {
    absl::StrAppendFormat(&help, "  %-10s %s\n", std::string(command.name),
                          std::string(command.summary));
  }
  absl::StrAppend(&help, "\nflags of every command:\n", FlagLines(GlobalFlags()),
                  "\n\"relightctl --version\" prints the version.\n", kClosing);
  return help;
}

std::string CommandHelp(const Command& command) {
  std::string help =
      absl::StrCat("usage: ", UsageLine(command), " [FLAGS]\n\n", std::string(command.details));
  if (!command.flags.empty()) absl::StrAppend(&help, "\nflags:\n", FlagLines(command.flags));
  absl::StrAppend(&help, "\nflags of every command:\n", FlagLines(GlobalFlags()));
  return help;
}

const Command* FindCommand(std::string_view name) {
  const auto it = std::find_if(Commands().begin(), Commands().end(),
                               [&](const Command& command) { return command.name == name; });
  return it == Commands().end() ? nullptr : &*it;
}

std::vector<FlagSpec> AllFlags() {
  std::vector<FlagSpec> flags = GlobalFlags();
  for (const Command& command : Commands()) {
    flags.insert(flags.end(), command.flags.begin(), command.flags.end());
  }
  return flags;
}

absl::Status UnknownCommand(const std::string& name) {
  std::vector<std::string> known;
  for (const Command& command : Commands()) known.emplace_back(command.name);
  const std::string nearest = Nearest(name, known);
  return UsageError(
      absl::StrCat("unknown command \"", Escape(name), "\"",
                   nearest.empty() ? "" : absl::StrCat(" (did you mean ", nearest, "?)")));
}

absl::Status CheckPositionals(const Command& command, const Arguments& arguments) {
  const std::size_t count = arguments.positionals().size();
  if (count >= command.min_positionals && count <= command.max_positionals) {
    return absl::OkStatus();
  }
  const std::string problem =
      count < command.min_positionals
          ? std::string("an argument is missing")
          : absl::StrCat("unexpected argument \"",
                         Escape(arguments.positionals()[command.max_positionals]), "\"");
  return UsageError(absl::StrCat(problem, "; usage: ", UsageLine(command)));
}

absl::Status Run(const Command& command, const std::vector<std::string>& words) {
  std::vector<FlagSpec> flags = command.flags;
  flags.insert(flags.end(), GlobalFlags().begin(), GlobalFlags().end());
  absl::StatusOr<Arguments> arguments = ParseArguments(words, flags);
  if (!arguments.ok()) return arguments.status();
  if (arguments->Has("help")) {
    std::fputs(CommandHelp(command).c_str(), stdout);
    return absl::OkStatus();
  }
  if (absl::Status status = CheckPositionals(command, *arguments); !status.ok()) return status;
  absl::StatusOr<Session> session = Session::Create(*std::move(arguments));
  if (!session.ok()) return session.status();
  return command.run(*session);
}

// "relightctl --help", "relightctl --version", "relightctl" alone.
absl::Status RunWithoutCommand(const std::vector<std::string>& words) {
  absl::StatusOr<Arguments> arguments = ParseArguments(words, FlagsWithoutCommand());
  if (!arguments.ok()) return arguments.status();
  if (arguments->Has("version")) {
    std::printf("relightctl %s\n", kVersion);
    return absl::OkStatus();
  }
  if (!arguments->Has("help")) return UsageError("no command is given");
  std::fputs(GlobalHelp().c_str(), stdout);
  return absl::OkStatus();
}

absl::Status Dispatch(std::vector<std::string> words) {
  const std::optional<std::size_t> at = FindFirstPositional(words, AllFlags());
  if (!at.has_value()) return RunWithoutCommand(words);
  const std::string name = words[*at];
  words.erase(words.begin() + static_cast<std::ptrdiff_t>(*at));
  if (name == "help") {
    if (words.empty())
      words.emplace_back("--help");
    else
      words.insert(words.begin() + 1, "--help");
    return Dispatch(std::move(words));
  }
  const Command* const command = FindCommand(name);
  if (command == nullptr) return UnknownCommand(name);
  return Run(*command, words);
}

bool Contains(const absl::Status& status, const char* words) {
  return std::string(status.message()).find(words) != std::string::npos;
}

// What to do about gRPC's own words, which say only what happened.
std::string_view Advice(const absl::Status& status) {
  if (absl::IsDeadlineExceeded(status) && status.message() == "Deadline Exceeded") {
    return "\nNothing more came within the time; --timeout says how long to wait.";
  }
  if (!absl::IsUnavailable(status)) return "";
  if (Contains(status, "unix:") && Contains(status, "Permission denied")) {
    return "\nThe admin socket is its owner's alone: run this as the user who runs relightd.";
  }
  if (Contains(status, "failed to connect") ||
      Contains(status, "onnections to all backends failing")) {
    return "\nIs relightd running there? --server and --admin say where to look.";
  }
  return "";
}

void Report(const absl::Status& status, bool json) {
  const std::string code = absl::StatusCodeToString(status.code());
  const std::string message(status.message());
  if (json) {
    const nlohmann::ordered_json error = {
        {"error", {{"code", IsUsageError(status) ? "USAGE" : code}, {"message", message}}}};
    std::fprintf(
        stderr, "%s\n",
        error.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    return;
  }
  if (IsUsageError(status)) {
    std::fprintf(stderr, "relightctl: %s\nTry \"relightctl --help\".\n",
                 Printable(message).c_str());
    return;
  }
  std::fprintf(stderr, "relightctl: %s: %s%s\n", code.c_str(), Printable(message).c_str(),
               std::string(Advice(status)).c_str());
}

}  // namespace

int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  if (IsUsageError(status)) return 2;
  if (IsRefusal(status)) return 6;
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return 3;
    case absl::StatusCode::kNotFound:
      return 4;
    case absl::StatusCode::kDeadlineExceeded:
      return 5;
    default:
      return 1;
  }
}

int RunRelightctl(const std::vector<std::string>& words) {
  absl::Status status = Dispatch(words);
  if (status.ok() && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)) {
    status = absl::DataLossError("the output could not be written");
  }
  if (!status.ok()) {
    Report(status, std::find(words.begin(), words.end(), "--json") != words.end());
  }
  return ExitCode(status);
}

}  // namespace relight::ctl
