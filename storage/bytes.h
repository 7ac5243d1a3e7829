// Reading little-endian and big-endian numbers out of bytes that nothing is known about.
#ifndef RELIGHT_STORAGE_BYTES_H_
#define RELIGHT_STORAGE_BYTES_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/types/span.h"

namespace relight::storage {

static_assert(std::endian::native == std::endian::little,
              "weights are handed out as the file's little-endian bytes");

// The caller has checked that the bytes are there.
template <typename T>
T LoadLittle(const void* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

inline std::uint64_t LoadBig64(const void* bytes) {
  return __builtin_bswap64(LoadLittle<std::uint64_t>(bytes));
}

inline std::string_view AsText(absl::Span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline absl::Span<const std::byte> AsBytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Reverses every `unit_bytes` long run in place; a shorter rest at the end stays as it is.
inline void SwapUnits(absl::Span<std::byte> bytes, std::size_t unit_bytes) {
  if (unit_bytes < 2) return;
  for (std::size_t at = 0; at + unit_bytes <= bytes.size(); at += unit_bytes) {
    for (std::size_t i = 0; i < unit_bytes / 2; ++i) {
      std::swap(bytes[at + i], bytes[at + unit_bytes - 1 - i]);
    }
  }
}

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_BYTES_H_
