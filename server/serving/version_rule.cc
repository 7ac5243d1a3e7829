#include "server/serving/version_rule.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"

namespace relight::serving {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

std::string_view TrailingDigits(std::string_view stem) {
  std::size_t begin = stem.size();
  while (begin > 0 && IsDigit(stem[begin - 1])) --begin;
  return stem.substr(begin);
}

absl::StatusOr<std::int64_t> ParseDigits(std::string_view digits) {
  if (digits.empty() || !std::all_of(digits.begin(), digits.end(), IsDigit)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the version rule finds \"", Escape(digits), "\" in its name, not a number"));
  }
  if (digits.size() > kMaxVersionDigits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "its name has ", digits.size(), " digits, a version has at most ", kMaxVersionDigits));
  }
  std::int64_t version = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), version);
  return version;
}

// The standard library's regular expressions throw on patterns and texts that are too much for
// them.
std::shared_ptr<const std::regex> Compile(const std::string& pattern) {
  try {
    auto regex = std::make_shared<const std::regex>(pattern, std::regex::ECMAScript);
    return regex->mark_count() >= 1 ? regex : nullptr;
  } catch (const std::regex_error&) {
    return nullptr;
  }
}

std::optional<std::string> FirstGroup(const std::regex& regex, std::string_view stem) {
  try {
    std::match_results<std::string_view::const_iterator> match;
    if (!std::regex_search(stem.begin(), stem.end(), match, regex)) return std::nullopt;
    return match.str(1);
  } catch (const std::regex_error&) {
    return std::nullopt;
  }
}

}  // namespace

VersionReader VersionReader::Choose(const config::VersionRule& rule,
                                    absl::Span<const std::string> stems) {
  VersionReader reader;
  if (rule.from == config::VersionSource::kMtime) {
    reader.words_ = "mtime: as configured";
    return reader;
  }
  if (!rule.pattern.empty()) {
    reader.source_ = Source::kPattern;
    reader.pattern_ = rule.pattern;
    reader.regex_ = Compile(rule.pattern);
    reader.words_ = absl::StrCat("pattern ", Escape(rule.pattern), ": as configured");
    return reader;
  }
  if (rule.from == config::VersionSource::kName) {
    reader.source_ = Source::kTrailingDigits;
    reader.words_ = "name: as configured";
    return reader;
  }
  for (const std::string& stem : stems) {
    const std::size_t digits = TrailingDigits(stem).size();
    if (digits >= 1 && digits <= kMaxVersionDigits) continue;
    reader.words_ = digits == 0
                        ? absl::StrCat("mtime: the name ", Escape(stem), " does not end in digits")
                        : absl::StrCat("mtime: the name ", Escape(stem), " ends in more than ",
                                       kMaxVersionDigits, " digits");
    return reader;
  }
  reader.source_ = Source::kTrailingDigits;
  reader.words_ = "name: every candidate's name ends in digits";
  return reader;
}

absl::StatusOr<std::int64_t> VersionReader::Read(std::string_view stem, absl::Time modified) const {
  switch (source_) {
    case Source::kMtime:
      return absl::ToUnixMillis(modified);
    case Source::kTrailingDigits: {
      const std::string_view digits = TrailingDigits(stem);
      if (digits.empty()) {
        return absl::InvalidArgumentError(
            "its name does not end in digits, and versions come from names");
      }
      return ParseDigits(digits);
    }
    case Source::kPattern:
      break;
  }
  if (regex_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the pattern ", Escape(pattern_),
                                                   " is not a regular expression with one group"));
  }
  const std::optional<std::string> group = FirstGroup(*regex_, stem);
  if (!group.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("its name does not match the pattern ", Escape(pattern_)));
  }
  return ParseDigits(*group);
}

}  // namespace relight::serving
