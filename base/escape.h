// The one escape that every name from a file, a path or a client passes before it enters a message,
// JSON, a log line or a metric label.
#ifndef RELIGHT_BASE_ESCAPE_H_
#define RELIGHT_BASE_ESCAPE_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace relight {

inline constexpr std::size_t kMaxEscapedBytes = 128;

// Returns valid UTF-8 without control characters: bytes that are not well-formed UTF-8, control
// characters and the backslash become \xNN (\\ for the backslash). Longer results are cut at a
// character boundary at most `max_bytes` in and end in "...".
std::string Escape(std::string_view bytes, std::size_t max_bytes = kMaxEscapedBytes);

// "a, b and 3 more": the first `most` of `names`, escaped.
std::string EscapeList(const std::vector<std::string>& names, std::size_t most);

// Whether `bytes` is well-formed UTF-8 (no surrogates, no overlong forms, nothing above U+10FFFF).
bool IsUtf8(std::string_view bytes);

}  // namespace relight

#endif  // RELIGHT_BASE_ESCAPE_H_
