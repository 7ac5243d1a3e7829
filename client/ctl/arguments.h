// Command-line words into flags and positionals. Flags may stand anywhere, as --name value or
// --name=value; "--" ends them.
#ifndef RELIGHT_CLIENT_CTL_ARGUMENTS_H_
#define RELIGHT_CLIENT_CTL_ARGUMENTS_H_

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace relight::ctl {

struct FlagSpec {
  std::string_view name;   // Without the dashes.
  std::string_view value;  // What the help calls its value; empty for a switch.
  std::string_view help;
  bool repeats = false;
};

class Arguments {
 public:
  bool Has(std::string_view flag) const { return values_.find(flag) != values_.end(); }
  // The last one given.
  std::optional<std::string> Get(std::string_view flag) const;
  std::vector<std::string> All(std::string_view flag) const;
  const std::vector<std::string>& positionals() const { return positionals_; }

 private:
  friend class ArgumentParser;
  std::map<std::string, std::vector<std::string>, std::less<>> values_;
  std::vector<std::string> positionals_;
};

// A usage error that lists everything wrong with `words`: unknown flags (with the nearest known
// one), values missing or not wanted, flags given twice that do not repeat.
absl::StatusOr<Arguments> ParseArguments(std::span<const std::string> words,
                                         std::span<const FlagSpec> flags);

// The first word that is neither a flag of `flags` nor the value of one: the command's name.
std::optional<std::size_t> FindFirstPositional(std::span<const std::string> words,
                                               std::span<const FlagSpec> flags);

// The candidate that `word` was probably meant to be; empty where none is near.
std::string Nearest(std::string_view word, std::span<const std::string> candidates);

// The caller's mistake, found before anything was asked of a server.
absl::Status UsageError(std::string_view message);
bool IsUsageError(const absl::Status& status);

// `status` where it says that a checkpoint is refused; an exit code of its own tells scripts.
absl::Status RefusalOf(absl::Status status);
bool IsRefusal(const absl::Status& status);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_ARGUMENTS_H_
