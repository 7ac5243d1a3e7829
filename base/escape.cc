#include "base/escape.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/str_cat.h"

namespace relight {
namespace {

// Length of the well-formed UTF-8 sequence that starts at `at`, or 0.
std::size_t SequenceLength(std::string_view s, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(s[at + i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  std::size_t length = 0;
  std::uint32_t code = 0;
  std::uint32_t smallest = 0;
  if ((lead & 0xE0) == 0xC0) {
    length = 2, code = lead & 0x1F, smallest = 0x80;
  } else if ((lead & 0xF0) == 0xE0) {
    length = 3, code = lead & 0x0F, smallest = 0x800;
  } else if ((lead & 0xF8) == 0xF0) {
    length = 4, code = lead & 0x07, smallest = 0x10000;
  } else {
    return 0;
  }
  if (s.size() - at < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = (code << 6) | (byte(i) & 0x3F);
  }
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (code < smallest || code > 0x10FFFF || surrogate) return 0;
  return length;
}

}  // namespace

bool IsUtf8(std::string_view bytes) {
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = SequenceLength(bytes, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

std::string Escape(std::string_view bytes, std::size_t max_bytes) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    std::string piece;
    const auto byte = static_cast<std::uint8_t>(bytes[at]);
    std::size_t length = SequenceLength(bytes, at);
    // C1 controls (U+0080..U+009F) are two bytes, C2 80..9F.
    const bool c1 = length == 2 && byte == 0xC2 && static_cast<std::uint8_t>(bytes[at + 1]) < 0xA0;
    if (byte == '\\') {
      piece = "\\\\";
    } else if (length == 0 || byte < 0x20 || byte == 0x7F || c1) {
      if (length == 0) length = 1;
      for (std::size_t i = 0; i < length; ++i) {
        const auto b = static_cast<std::uint8_t>(bytes[at + i]);
        piece += {'\\', 'x', kHex[b >> 4], kHex[b & 15]};
      }
    } else {
      piece = std::string(bytes.substr(at, length));
    }
    if (out.size() + piece.size() > max_bytes) return out + "...";
    out += piece;
    at += length;
  }
  return out;
}

std::string EscapeList(const std::vector<std::string>& names, std::size_t most) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), most); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ", ", Escape(names[i]));
  }
  if (names.size() > most) absl::StrAppend(&text, " and ", names.size() - most, " more");
  return text;
}

}  // namespace relight
