#include "server/config/key_rules.h"

#include <re2/re2.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"

namespace relight::config {
namespace {

re2::RE2::Options Options() {
  re2::RE2::Options options;
  options.set_encoding(re2::RE2::Options::EncodingLatin1);  // Keys may be any bytes.
  options.set_log_errors(false);
  return options;
}

std::string Subject(const std::string& pattern) {
  return absl::StrCat("pattern \"", Escape(pattern), "\"");
}

}  // namespace

absl::Status CheckKeyPattern(const std::string& pattern) {
  if (pattern.empty()) return absl::InvalidArgumentError("a pattern is missing or empty");
  const re2::RE2 compiled(pattern, Options());
  if (compiled.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(Subject(pattern), " is no regular expression: ", Escape(compiled.error())));
}

absl::Status CheckKeyRule(const RenameRule& rule) {
  RELIGHT_RETURN_IF_ERROR(CheckKeyPattern(rule.pattern));
  const re2::RE2 pattern(rule.pattern, Options());
  std::string error;
  if (!pattern.CheckRewriteString(rule.replacement, &error)) {
    return absl::InvalidArgumentError(absl::StrCat("replacement \"", Escape(rule.replacement),
                                                   "\" does not go with ", Subject(rule.pattern),
                                                   ": ", Escape(error)));
  }
  return absl::OkStatus();
}

KeyRules::KeyRules(absl::Span<const RenameRule> rules) {
  for (const RenameRule& rule : rules) {
    rules_.push_back({std::make_shared<const re2::RE2>(rule.pattern, Options()), rule.replacement});
  }
}

std::string KeyRules::operator()(std::string key) const {
  for (const Rule& rule : rules_) {
    if (key.size() > kMaxKeyBytes) break;
    re2::RE2::GlobalReplace(&key, *rule.pattern, rule.replacement);
  }
  return key;
}

KeyPatterns::KeyPatterns(absl::Span<const std::string> patterns) {
  for (const std::string& pattern : patterns) {
    patterns_.push_back(std::make_shared<const re2::RE2>(pattern, Options()));
  }
}

bool KeyPatterns::Matches(const std::string& key) const {
  if (key.size() > KeyRules::kMaxKeyBytes) return false;
  return std::any_of(patterns_.begin(), patterns_.end(),
                     [&key](const auto& pattern) { return re2::RE2::PartialMatch(key, *pattern); });
}

}  // namespace relight::config
