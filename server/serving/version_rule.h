// Where a checkpoint's version comes from: its name, or its modification time. Pure.
#ifndef RELIGHT_SERVER_SERVING_VERSION_RULE_H_
#define RELIGHT_SERVER_SERVING_VERSION_RULE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <regex>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/config/model_config.h"

namespace relight::serving {

// More digits than this do not fit an int64 for certain.
inline constexpr std::size_t kMaxVersionDigits = 18;

// The rule in force for one set of candidates. One rule for all of them: numbers from names and
// modification times are never compared with each other.
//
// Immutable.
class VersionReader {
 public:
  // `stems` are those of all candidates. AUTO becomes NAME only where every stem ends in 1 to 18
  // digits.
  static VersionReader Choose(const config::VersionRule& rule, absl::Span<const std::string> stems);

  // INVALID_ARGUMENT says why a file has no version under this rule.
  absl::StatusOr<std::int64_t> Read(std::string_view stem, absl::Time modified) const;

  // "name: every candidate's name ends in digits", ...
  const std::string& words() const { return words_; }

 private:
  enum class Source { kTrailingDigits, kPattern, kMtime };
  Source source_ = Source::kMtime;
  std::string pattern_;
  std::shared_ptr<const std::regex> regex_;  // Null where the pattern is no regular expression.
  std::string words_;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_VERSION_RULE_H_
