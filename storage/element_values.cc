#include "storage/element_values.h"

#include <cstdint>
#include <cstring>

namespace relight::storage {
namespace {

template <typename T>
void FlipSigns(std::byte* bytes, std::size_t count, std::size_t first, std::size_t step) {
  constexpr T kSign = T{1} << (8 * sizeof(T) - 1);
  for (std::size_t i = first; i < count; i += step) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    value = static_cast<T>(value ^ kSign);
    std::memcpy(bytes + i * sizeof(T), &value, sizeof(T));
  }
}

template <typename T>
void NegateIntegers(std::byte* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    value = static_cast<T>(T{0} - value);
    std::memcpy(bytes + i * sizeof(T), &value, sizeof(T));
  }
}

}  // namespace

bool CanNegate(DType dtype) {
  switch (dtype) {
    case DType::kFloat8E4M3FN:
    case DType::kFloat8E5M2:
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
    case DType::kComplex32:
    case DType::kComplex64:
    case DType::kComplex128:
      return true;
    default:
      return false;
  }
}

void NormaliseBools(std::byte* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] = bytes[i] == std::byte{0} ? std::byte{0} : std::byte{1};
  }
}

void Conjugate(DType dtype, std::byte* bytes, std::size_t count) {
  if (dtype == DType::kComplex32) FlipSigns<std::uint16_t>(bytes, 2 * count, 1, 2);
  if (dtype == DType::kComplex64) FlipSigns<std::uint32_t>(bytes, 2 * count, 1, 2);
  if (dtype == DType::kComplex128) FlipSigns<std::uint64_t>(bytes, 2 * count, 1, 2);
}

void Negate(DType dtype, std::byte* bytes, std::size_t count) {
  switch (dtype) {
    case DType::kFloat8E4M3FN:
    case DType::kFloat8E5M2:
      return FlipSigns<std::uint8_t>(bytes, count, 0, 1);
    case DType::kComplex32:
      return FlipSigns<std::uint16_t>(bytes, 2 * count, 0, 1);
    case DType::kFloat16:
    case DType::kBFloat16:
      return FlipSigns<std::uint16_t>(bytes, count, 0, 1);
    case DType::kFloat32:
      return FlipSigns<std::uint32_t>(bytes, count, 0, 1);
    case DType::kFloat64:
      return FlipSigns<std::uint64_t>(bytes, count, 0, 1);
    case DType::kComplex64:
      return FlipSigns<std::uint32_t>(bytes, 2 * count, 0, 1);
    case DType::kComplex128:
      return FlipSigns<std::uint64_t>(bytes, 2 * count, 0, 1);
    case DType::kUInt8:
    case DType::kInt8:
      return NegateIntegers<std::uint8_t>(bytes, count);
    case DType::kInt16:
      return NegateIntegers<std::uint16_t>(bytes, count);
    case DType::kInt32:
      return NegateIntegers<std::uint32_t>(bytes, count);
    case DType::kInt64:
      return NegateIntegers<std::uint64_t>(bytes, count);
    default:
      return;
  }
}

}  // namespace relight::storage
