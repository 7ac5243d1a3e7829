#include "server/config/command_line.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/escape.h"
#include "server/network/nearest_name.h"

namespace relight::config {
namespace {

constexpr std::size_t kHelpColumns = 90;

absl::CommandLineFlag* Find(const FlagRow& row) {
  return absl::FindCommandLineFlag(absl::StrReplaceAll(row.name, {{"-", "_"}}));
}

const char* Expected(FlagValue value) {
  switch (value) {
    case FlagValue::kSwitch:
      return "neither true nor false";
    case FlagValue::kNumber:
      return "not a whole number that fits";
    case FlagValue::kDuration:
      return "not a duration such as 500ms, 1s or 2m";
    case FlagValue::kText:
      break;
  }
  return "not a valid value";
}

// "--name=value" taken apart; the name in kebab case.
struct Argument {
  std::string name;
  std::optional<std::string> value;
};

Argument TakeApart(const std::string& argument) {
  const std::size_t equals = argument.find('=');
  Argument out;
  out.name = absl::StrReplaceAll(
      argument.substr(2, equals == std::string::npos ? equals : equals - 2), {{"_", "-"}});
  if (equals != std::string::npos) out.value = argument.substr(equals + 1);
  return out;
}

class Applier {
 public:
  Applier(absl::Span<const std::string> arguments, absl::Span<const FlagGroup> groups)
      : arguments_(arguments) {
    for (const FlagGroup& group : groups) {
      rows_.insert(rows_.end(), group.flags.begin(), group.flags.end());
    }
    std::string ignored;
    for (const FlagRow& row : rows_) Find(row)->ParseFrom(Find(row)->DefaultValue(), &ignored);
  }

  CommandLine Apply() {
    while (next_ < arguments_.size()) {
      const std::string& argument = arguments_[next_++];
      if (argument == "-h") {
        out_.help = true;
      } else if (argument.size() > 2 && argument.starts_with("--")) {
        ApplyFlag(TakeApart(argument));
      } else {
        out_.errors.push_back(absl::StrCat("argument \"", Escape(argument),
                                           "\" is not a flag: everything is given by flags"));
      }
    }
    return std::move(out_);
  }

 private:
  void ApplyFlag(Argument argument) {
    if (argument.name == "help" && !argument.value) {
      out_.help = true;
    } else if (argument.name == "version" && !argument.value) {
      out_.version = true;
    } else if (const FlagRow* row = FindRow(argument.name)) {
      Set(*row, std::move(argument.value));
    } else if (const FlagRow* negated = FindNegated(argument)) {
      Set(*negated, "false");
    } else {
      out_.errors.push_back(
          absl::StrCat("unknown flag --", Escape(argument.name), Suggestion(argument.name)));
      // What follows without dashes was its value.
      if (!argument.value && next_ < arguments_.size() && !arguments_[next_].starts_with("-")) {
        ++next_;
      }
    }
  }

  const FlagRow* FindRow(const std::string& name) const {
    const auto found = std::find_if(rows_.begin(), rows_.end(),
                                    [&](const FlagRow& row) { return row.name == name; });
    return found == rows_.end() ? nullptr : &*found;
  }

  const FlagRow* FindNegated(const Argument& argument) const {
    if (argument.value || !argument.name.starts_with("no-")) return nullptr;
    const FlagRow* row = FindRow(argument.name.substr(3));
    return row != nullptr && row->value == FlagValue::kSwitch ? row : nullptr;
  }

  void Set(const FlagRow& row, std::optional<std::string> value) {
    if (!value && row.value == FlagValue::kSwitch) value = "true";
    if (!value && next_ < arguments_.size() && !arguments_[next_].starts_with("--")) {
      value = arguments_[next_++];
    }
    if (!value) {
      out_.errors.push_back(
          absl::StrCat("--", row.name, " needs a value: --", row.name, "=", row.placeholder));
      return;
    }
    std::string ignored;
    if (Find(row)->ParseFrom(*value, &ignored)) return;
    out_.errors.push_back(absl::StrCat("--", row.name, " is \"", Escape(*value), "\", which is ",
                                       Expected(row.value)));
  }

  std::string Suggestion(const std::string& name) const {
    std::vector<std::string> names = {"help", "version"};
    for (const FlagRow& row : rows_) names.emplace_back(row.name);
    const auto nearest = network::NearestName(name, names);
    if (!nearest.has_value()) return "; --help lists them all";
    return absl::StrCat("; did you mean --", *nearest, "?");
  }

  absl::Span<const std::string> arguments_;
  std::vector<FlagRow> rows_;
  std::size_t next_ = 0;
  CommandLine out_;
};

void AppendWrapped(const std::string& text, std::string& out) {
  constexpr char kIndent[] = "      ";
  std::string line = kIndent;
  for (const absl::string_view word : absl::StrSplit(text, ' ')) {
    if (line.size() + 1 + word.size() > kHelpColumns) {
      absl::StrAppend(&out, line, "\n");
      line = kIndent;
    }
    absl::StrAppend(&line, line == kIndent ? "" : " ", word);
  }
  absl::StrAppend(&out, line, "\n");
}

}  // namespace

CommandLine ApplyArguments(absl::Span<const std::string> arguments,
                           absl::Span<const FlagGroup> groups) {
  return Applier(arguments, groups).Apply();
}

std::string DescribeFlags(absl::Span<const FlagGroup> groups) {
  std::string text;
  for (const FlagGroup& group : groups) {
    absl::StrAppend(&text, "\n", group.title, "\n");
    for (const FlagRow& row : group.flags) {
      const absl::CommandLineFlag* flag = Find(row);
      absl::StrAppend(&text, "  --", row.name);
      if (row.value != FlagValue::kSwitch) absl::StrAppend(&text, " ", row.placeholder);
      const std::string by_default = flag->DefaultValue();
      if (!by_default.empty()) absl::StrAppend(&text, " (default ", by_default, ")");
      text += '\n';
      AppendWrapped(flag->Help(), text);
    }
  }
  return text;
}

}  // namespace relight::config
