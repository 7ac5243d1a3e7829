// Command lines in kebab case over absl::flags, with every mistake reported at once.
//
// absl::ParseCommandLine exits at the first unknown flag and spells flags with underscores. This
// takes "--grpc-port 8001", "--grpc-port=8001", "--grpc_port=8001", "--allow-model-control" and
// "--no-allow-model-control".
#ifndef RELIGHT_SERVER_CONFIG_COMMAND_LINE_H_
#define RELIGHT_SERVER_CONFIG_COMMAND_LINE_H_

#include <string>
#include <vector>

#include "absl/types/span.h"

namespace relight::config {

enum class FlagValue { kSwitch, kNumber, kDuration, kText };

// A flag that was declared with ABSL_FLAG, as users see it.
struct FlagRow {
  const char* name;  // In kebab case; the absl flag has underscores.
  FlagValue value;
  const char* placeholder;  // Of the value in the help: "PORT".
};

struct FlagGroup {
  const char* title;
  std::vector<FlagRow> flags;
};

struct CommandLine {
  bool help = false;
  bool version = false;
  std::vector<std::string> errors;  // In the order of the arguments.
};

// Sets the absl flags of `groups` from `arguments`, the others of them to their defaults. The last
// value of a flag wins.
CommandLine ApplyArguments(absl::Span<const std::string> arguments,
                           absl::Span<const FlagGroup> groups);

// The flags by group, each with its placeholder, default and meaning.
std::string DescribeFlags(absl::Span<const FlagGroup> groups);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_COMMAND_LINE_H_
