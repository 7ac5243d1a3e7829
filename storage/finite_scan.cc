#include "storage/finite_scan.h"

#include <cstring>

namespace relight::storage {
namespace {

// A branch per 64 bytes and accumulators that stay in registers: vectors as GCC and Clang have
// them, because what they make of plain loops at -O2 takes twice as long.
template <typename Bits>
bool AnyNotFinite(const std::byte* bytes, std::size_t count, Bits exponent) {
  using Vector [[gnu::vector_size(16)]] = Bits;
  constexpr std::size_t kVectors = 4;
  constexpr std::size_t kLanes = sizeof(Vector) / sizeof(Bits);
  const Vector exponents = exponent - Vector{};
  Vector found[kVectors] = {};
  std::size_t i = 0;
  for (; i + kVectors * kLanes <= count; i += kVectors * kLanes) {
    Vector values[kVectors];
    std::memcpy(values, bytes + i * sizeof(Bits), sizeof values);
    // All ones where the exponent is, else zero.
    found[0] |= reinterpret_cast<Vector>((values[0] & exponents) == exponents);
    found[1] |= reinterpret_cast<Vector>((values[1] & exponents) == exponents);
    found[2] |= reinterpret_cast<Vector>((values[2] & exponents) == exponents);
    found[3] |= reinterpret_cast<Vector>((values[3] & exponents) == exponents);
  }
  const Vector all = found[0] | found[1] | found[2] | found[3];
  bool any = false;
  for (std::size_t lane = 0; lane < kLanes; ++lane) any = any || all[lane] != 0;
  for (; i < count; ++i) {
    Bits value;
    std::memcpy(&value, bytes + i * sizeof(Bits), sizeof(Bits));
    any = any || (value & exponent) == exponent;
  }
  return any;
}

}  // namespace

// A floating point type marks NaN and infinity by an exponent of all ones; infinity's fraction is
// zero.
template <typename Bits>
void FiniteScan::Examine(const std::byte* bytes, std::size_t count, Bits exponent, Bits fraction) {
  if (AnyNotFinite<Bits>(bytes, count, exponent)) {
    for (std::size_t i = 0; i < count; ++i) {
      Bits value;
      std::memcpy(&value, bytes + i * sizeof(Bits), sizeof(Bits));
      if ((value & exponent) != exponent) continue;
      const bool nan = (value & fraction) != 0;
      std::uint64_t& number = nan ? nans_ : infinities_;
      if (number++ == 0) (nan ? first_nan_ : first_infinity_) = seen_ + i;
    }
  }
  seen_ += count;
}

void FiniteScan::Add(const std::byte* elements, std::size_t count) {
  switch (dtype_) {
    case DType::kFloat16:
      return Examine<std::uint16_t>(elements, count, 0x7C00, 0x03FF);
    case DType::kBFloat16:
      return Examine<std::uint16_t>(elements, count, 0x7F80, 0x007F);
    case DType::kFloat32:
      return Examine<std::uint32_t>(elements, count, 0x7F800000, 0x007FFFFF);
    case DType::kComplex64:
      return Examine<std::uint32_t>(elements, 2 * count, 0x7F800000, 0x007FFFFF);
    case DType::kFloat64:
      return Examine<std::uint64_t>(elements, count, 0x7FF0000000000000, 0x000FFFFFFFFFFFFF);
    case DType::kComplex128:
      return Examine<std::uint64_t>(elements, 2 * count, 0x7FF0000000000000, 0x000FFFFFFFFFFFFF);
    default:
      return;
  }
}

NonFinite FiniteScan::ForTensor(std::size_t tensor) const {
  const std::uint64_t parts = IsComplex(dtype_) ? 2 : 1;
  return {tensor, nans_, infinities_, first_nan_ / parts, first_infinity_ / parts};
}

}  // namespace relight::storage
