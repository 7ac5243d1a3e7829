#include "server/rpc/status_text.h"

#include <cstddef>
#include <limits>

#include "base/escape.h"

namespace relight::rpc {
namespace {

constexpr std::size_t kMaxEncodedBytes = 6000;
constexpr std::string_view kCut = " ... (cut)";

std::size_t EncodedSize(char c) { return c >= 0x20 && c < 0x7f && c != '%' ? 1 : 3; }

bool ContinuesCharacter(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

}  // namespace

std::string Utf8(std::string_view text) {
  return IsUtf8(text) ? std::string(text) : EscapeWhole(text);
}

std::string EscapeWhole(std::string_view name) {
  return Escape(name, std::numeric_limits<std::size_t>::max());
}

std::string FitTrailer(std::string_view message) {
  std::string text = Utf8(message);
  std::size_t encoded = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    encoded += EncodedSize(text[i]);
    if (encoded <= kMaxEncodedBytes) continue;
    while (i > 0 && ContinuesCharacter(text[i])) --i;
    return text.substr(0, i).append(kCut);
  }
  return text;
}

}  // namespace relight::rpc
