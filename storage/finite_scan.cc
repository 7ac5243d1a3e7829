#include "storage/finite_scan.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "storage/strided.h"

namespace relight::storage {
namespace {

constexpr std::size_t kChunkElements = 4096;

// Independent lanes of a fixed length, without a branch: what compilers turn into vector
// instructions at -O2 as well.
template <typename Bits>
bool AnyNotFinite(const std::byte* bytes, std::size_t count, Bits exponent) {
  constexpr std::size_t kLanes = 64 / sizeof(Bits);
  Bits lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Bits values[kLanes];
    std::memcpy(values, bytes + i * sizeof(Bits), sizeof values);
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      // All ones where the exponent is, else zero.
      lanes[lane] = static_cast<Bits>(lanes[lane] | static_cast<Bits>(-static_cast<Bits>(
                                                        (values[lane] & exponent) == exponent)));
    }
  }
  Bits found = 0;
  for (const Bits lane : lanes) found = static_cast<Bits>(found | lane);
  for (; i < count; ++i) {
    Bits value;
    std::memcpy(&value, bytes + i * sizeof(Bits), sizeof(Bits));
    found = static_cast<Bits>(found | static_cast<Bits>((value & exponent) == exponent));
  }
  return found != 0;
}

}  // namespace

bool MayBeNonFinite(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
    case DType::kComplex64:
    case DType::kComplex128:
      return true;
    default:
      return false;
  }
}

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

FiniteScan ScanTensor(const WeightTensor& tensor, const std::byte* first) {
  FiniteScan scan(tensor.dtype);
  if (!MayBeNonFinite(tensor.dtype)) return scan;
  const std::size_t item = ItemSize(tensor.dtype);
  if (IsDense(tensor.shape, tensor.stride)) {
    const std::uint64_t count = CountElements(tensor.shape);
    for (std::uint64_t at = 0; at < count; at += kChunkElements) {
      scan.Add(first + at * item, std::min<std::uint64_t>(kChunkElements, count - at));
    }
    return scan;
  }
  std::vector<std::byte> buffer(kChunkElements * item);
  StridedReader reader(first, tensor.shape, tensor.stride, item);
  while (const std::size_t got = reader.Read(buffer.data(), kChunkElements)) {
    scan.Add(buffer.data(), got);
  }
  return scan;
}

}  // namespace relight::storage
