// Arithmetic that says when it would wrap. Every size, offset and count that comes out of a file or
// a message goes through these.
#ifndef RELIGHT_BASE_CHECKED_MATH_H_
#define RELIGHT_BASE_CHECKED_MATH_H_

#include <concepts>
#include <optional>

namespace relight {

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> CheckedAdd(T a, T b) {
  T result;
  if (__builtin_add_overflow(a, b, &result)) return std::nullopt;
  return result;
}

template <std::integral T>
[[nodiscard]] constexpr std::optional<T> CheckedMul(T a, T b) {
  T result;
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}

}  // namespace relight

#endif  // RELIGHT_BASE_CHECKED_MATH_H_
