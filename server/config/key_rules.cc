#include "server/config/key_rules.h"

#include <re2/re2.h>

#include "absl/strings/str_cat.h"
#include "base/escape.h"

namespace relight::config {
namespace {

re2::RE2::Options Options() {
  re2::RE2::Options options;
  options.set_encoding(re2::RE2::Options::EncodingLatin1);  // Keys may be any bytes.
  options.set_log_errors(false);
  return options;
}

}  // namespace

absl::Status CheckKeyRule(const RenameRule& rule) {
  const std::string subject = absl::StrCat("pattern \"", Escape(rule.pattern), "\"");
  if (rule.pattern.empty()) return absl::InvalidArgumentError("a rule has no pattern");
  const re2::RE2 pattern(rule.pattern, Options());
  if (!pattern.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(subject, " is no regular expression: ", Escape(pattern.error())));
  }
  std::string error;
  if (!pattern.CheckRewriteString(rule.replacement, &error)) {
    return absl::InvalidArgumentError(absl::StrCat("replacement \"", Escape(rule.replacement),
                                                   "\" does not go with ", subject, ": ",
                                                   Escape(error)));
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

}  // namespace relight::config
