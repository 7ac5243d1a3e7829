#include "client/ctl/arguments.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"

namespace relight::ctl {
namespace {

constexpr char kUsagePayload[] = "relight.ctl/usage";
constexpr char kRefusalPayload[] = "relight.ctl/refusal";

// "--name=value" in parts; "-h" is --help.
struct FlagWord {
  std::string name;
  std::optional<std::string> value;
};

bool IsFlag(std::string_view word) {
  return word == "-h" || (word.size() > 2 && word.starts_with("--"));
}

FlagWord Split(std::string_view word) {
  if (word == "-h") return {"help", std::nullopt};
  word.remove_prefix(2);
  const std::size_t equals = word.find('=');
  if (equals == std::string_view::npos) return {std::string(word), std::nullopt};
  return {std::string(word.substr(0, equals)), std::string(word.substr(equals + 1))};
}

const FlagSpec* FindSpec(std::span<const FlagSpec> flags, std::string_view name) {
  const auto it = std::find_if(flags.begin(), flags.end(),
                               [&](const FlagSpec& flag) { return flag.name == name; });
  return it == flags.end() ? nullptr : &*it;
}

std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

}  // namespace

class ArgumentParser {
 public:
  explicit ArgumentParser(std::span<const FlagSpec> flags) : flags_(flags) {}

  absl::StatusOr<Arguments> Parse(std::span<const std::string> words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (words[i] == "--") {
        const auto rest = words.subspan(i + 1);
        arguments_.positionals_.insert(arguments_.positionals_.end(), rest.begin(), rest.end());
        break;
      }
      if (!IsFlag(words[i])) {
        arguments_.positionals_.push_back(words[i]);
        continue;
      }
      FlagWord word = Split(words[i]);
      const FlagSpec* const spec = FindSpec(flags_, word.name);
      if (spec == nullptr) {
        AddUnknown(word.name);
        continue;
      }
      if (!spec->value.empty() && !word.value.has_value()) {
        if (i + 1 == words.size()) {
          problems_.push_back(
              absl::StrCat("--", word.name, " needs a value (", std::string(spec->value), ")"));
          continue;
        }
        word.value = words[++i];
      }
      Add(*spec, std::move(word));
    }
    if (!problems_.empty()) return UsageError(absl::StrJoin(problems_, "; "));
    return std::move(arguments_);
  }

 private:
  void AddUnknown(const std::string& name) {
    std::vector<std::string> known;
    for (const FlagSpec& flag : flags_) known.emplace_back(flag.name);
    const std::string nearest = Nearest(name, known);
    problems_.push_back(
        absl::StrCat("unknown flag --", Escape(name),
                     nearest.empty() ? "" : absl::StrCat(" (did you mean --", nearest, "?)")));
  }

  void Add(const FlagSpec& spec, FlagWord word) {
    if (spec.value.empty() && word.value.has_value()) {
      problems_.push_back(absl::StrCat("--", word.name, " takes no value"));
      return;
    }
    std::vector<std::string>& values = arguments_.values_[word.name];
    if (!values.empty() && !spec.repeats) {
      problems_.push_back(absl::StrCat("--", word.name, " is given twice"));
      return;
    }
    values.push_back(word.value.value_or(""));
  }

  const std::span<const FlagSpec> flags_;
  Arguments arguments_;
  std::vector<std::string> problems_;
};

std::optional<std::string> Arguments::Get(std::string_view flag) const {
  const auto it = values_.find(flag);
  if (it == values_.end()) return std::nullopt;
  return it->second.back();
}

std::vector<std::string> Arguments::All(std::string_view flag) const {
  const auto it = values_.find(flag);
  return it == values_.end() ? std::vector<std::string>() : it->second;
}

absl::StatusOr<Arguments> ParseArguments(std::span<const std::string> words,
                                         std::span<const FlagSpec> flags) {
  return ArgumentParser(flags).Parse(words);
}

std::optional<std::size_t> FindFirstPositional(std::span<const std::string> words,
                                               std::span<const FlagSpec> flags) {
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--") return std::nullopt;
    if (!IsFlag(words[i])) return i;
    const FlagWord word = Split(words[i]);
    const FlagSpec* const spec = FindSpec(flags, word.name);
    if (spec != nullptr && !spec->value.empty() && !word.value.has_value()) ++i;
  }
  return std::nullopt;
}

std::string Nearest(std::string_view word, std::span<const std::string> candidates) {
  std::string nearest;
  std::size_t best = std::max<std::size_t>(word.size() / 3, 1) + 1;
  for (const std::string& candidate : candidates) {
    const bool begins = word.size() >= 3 && candidate.starts_with(word);
    const std::size_t distance = begins ? 1 : EditDistance(word, candidate);
    if (distance < best) {
      best = distance;
      nearest = candidate;
    }
  }
  return nearest;
}

absl::Status UsageError(std::string_view message) {
  absl::Status status = absl::InvalidArgumentError(std::string(message));
  status.SetPayload(kUsagePayload, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) {
  return status.GetPayload(kUsagePayload).has_value();
}

absl::Status RefusalOf(absl::Status status) {
  status.SetPayload(kRefusalPayload, absl::Cord());
  return status;
}

bool IsRefusal(const absl::Status& status) {
  return status.GetPayload(kRefusalPayload).has_value();
}

}  // namespace relight::ctl
