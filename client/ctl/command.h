// The commands of relightctl: what each is called, takes and does. One file defines each group.
#ifndef RELIGHT_CLIENT_CTL_COMMAND_H_
#define RELIGHT_CLIENT_CTL_COMMAND_H_

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "client/ctl/arguments.h"
#include "client/ctl/session.h"

namespace relight::ctl {

struct Command {
  std::string_view name;
  std::string_view positionals;  // As the usage line shows them: "MODEL [PATH]".
  std::size_t min_positionals = 0;
  std::size_t max_positionals = 0;
  std::string_view summary;  // One line, of the command list.
  std::string_view details;  // What it does and prints, its exit codes, examples.
  std::vector<FlagSpec> flags;
  std::function<absl::Status(Session&)> run;
};

Command InitCommand();
Command DescribeCommand();
Command InspectCommand();
Command InferCommand();
Command StatusCommand();
Command HistoryCommand();
Command WatchCommand();
Command ReloadCommand();
Command PinCommand();
Command UnpinCommand();
Command RollBackCommand();
Command UnloadCommand();
Command SnapshotCommand();
Command DownloadCommand();
Command PushCommand();
Command HealthCommand();

// Runs the command that `words` (without the program's name) spell; returns the exit code.
int RunRelightctl(const std::vector<std::string>& words);

// 0 ok, 1 refused or failed, 2 usage, 3 UNAVAILABLE, 4 NOT_FOUND, 5 DEADLINE_EXCEEDED, 6 a
// checkpoint that was looked at is refused.
int ExitCode(const absl::Status& status);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_COMMAND_H_
