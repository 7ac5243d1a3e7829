// The rules by which a config renames the keys of a checkpoint, and leaves some aside.
#ifndef RELIGHT_SERVER_CONFIG_KEY_RULES_H_
#define RELIGHT_SERVER_CONFIG_KEY_RULES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/config/model_config.h"

namespace re2 {
class RE2;
}

namespace relight::config {

// INVALID_ARGUMENT where the pattern is empty or no regular expression of RE2.
absl::Status CheckKeyPattern(const std::string& pattern);

// The same, also where the replacement names a group that the pattern does not have.
absl::Status CheckKeyRule(const RenameRule& rule);

// Renames keys: each rule replaces every match in what the rule before made of the key, as Python's
// re.sub does. A key of more than kMaxKeyBytes, which no parameter has, stays as it is from there
// on. Takes time in proportion to the length of the key, whatever the pattern. Thread-safe; copies
// share what was compiled.
class KeyRules {
 public:
  static constexpr std::size_t kMaxKeyBytes = 4096;

  // All of `rules` have passed CheckKeyRule.
  explicit KeyRules(absl::Span<const RenameRule> rules);

  std::string operator()(std::string key) const;

 private:
  struct Rule {
    std::shared_ptr<const re2::RE2> pattern;
    std::string replacement;
  };
  std::vector<Rule> rules_;
};

// Which keys to leave aside: those in which one of the patterns is found, as Python's re.search
// does it. Costs and thread-safety are those of KeyRules; no key of more than kMaxKeyBytes is one.
class KeyPatterns {
 public:
  // All of `patterns` have passed CheckKeyPattern.
  explicit KeyPatterns(absl::Span<const std::string> patterns);

  bool Matches(const std::string& key) const;

 private:
  std::vector<std::shared_ptr<const re2::RE2>> patterns_;
};

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_KEY_RULES_H_
