// The daemon's flags as plain values, validated together.
#ifndef RELIGHT_SERVER_CONFIG_SERVER_OPTIONS_H_
#define RELIGHT_SERVER_CONFIG_SERVER_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace relight::config {

struct ServerOptions {
  std::string model_repository;
  std::string state_dir;     // Pins and spools. Empty: pins are forgotten, spools go to TMPDIR.
  std::string snapshot_dir;  // Empty: snapshots are refused.

  std::string grpc_address = "0.0.0.0";
  int grpc_port = 8001;  // 0: any free one, written to the log and to `port_file`.
  std::string metrics_address = "0.0.0.0";
  int metrics_port = 8002;   // 0: any free one; negative: none.
  std::string admin_socket;  // Unix socket path. Default: <state-dir>/admin.sock, else
                             // $XDG_RUNTIME_DIR/relight/admin.sock or /run/relight/admin.sock.
  int admin_port = -1;       // Loopback TCP for the admin service as well; negative: none.
  std::string port_file;     // Where to write the ports in use, as lines "name=port"; may be empty.
  bool allow_model_control = false;

  absl::Duration poll_interval = absl::Seconds(1);
  absl::Duration exit_timeout = absl::Seconds(30);
  std::uint64_t max_message_bytes = 0;  // 0: the largest request that the configs allow.
  int compute_threads = 0;              // 0: chosen for the machine.
  int intra_op_threads = 0;             // 0: chosen for the machine.
  int load_threads = 0;                 // 0: chosen for the machine.
  std::string log_level = "info";       // trace, debug, info, warning, error
  std::string log_format = "text";      // text, json
};

// Parses the command line with absl::flags. `--help` and `--version` print and exit.
// INVALID_ARGUMENT lists all that is wrong, each with the flag's name.
absl::StatusOr<ServerOptions> ParseServerFlags(int argc, char** argv);

struct ServerCommand {
  enum class Action { kServe, kHelp, kVersion };
  Action action = Action::kServe;
  ServerOptions options;  // Checked for kServe only.
};

// The same without printing or exiting; `arguments` come without the program's name.
absl::StatusOr<ServerCommand> ParseServerArguments(absl::Span<const std::string> arguments);

// What `--help` prints.
std::string ServerHelp();

// Where the admin service listens when --admin-socket is not given, and where clients look for it.
std::string DefaultAdminSocket(const std::string& state_dir);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_SERVER_OPTIONS_H_
