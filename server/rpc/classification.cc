#include "server/rpc/classification.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "absl/status/status.h"
#include "base/escape.h"
#include "server/rpc/concat.h"

namespace relight::rpc {
namespace {

// The two short formats as what they widen to.
struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

template <typename T>
T Widen(T value) {
  return value;
}

float Widen(BFloat16 value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16);
}

float Widen(Half value) {
  constexpr int kMantissaBits = 10;
  const int exponent = value.bits >> kMantissaBits & 0x1f;
  const int mantissa = value.bits & 0x3ff;
  float magnitude = 0;
  if (exponent == 0x1f) {
    magnitude = mantissa == 0 ? HUGE_VALF : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa | 0x400), exponent - 25);
  }
  return (value.bits & 0x8000) != 0 ? -magnitude : magnitude;
}

template <typename Stored>
void RankRow(const std::byte* row, std::uint64_t columns, std::uint64_t k,
             std::vector<std::string>& out) {
  const auto value = [row](std::uint64_t i) {
    Stored stored;
    std::memcpy(&stored, row + i * sizeof(stored), sizeof(stored));
    return Widen(stored);
  };
  const auto before = [&value](std::uint64_t a, std::uint64_t b) {
    const auto left = value(a);
    const auto right = value(b);
    if constexpr (std::is_floating_point_v<decltype(left)>) {
      if (std::isnan(left) || std::isnan(right)) {
        if (std::isnan(left) != std::isnan(right)) return std::isnan(right);
        return a < b;
      }
    }
    return left != right ? left > right : a < b;
  };
  // A heap of the best so far, the least of them in front: memory for k, however long the row.
  std::vector<std::uint64_t> best;
  best.reserve(k);
  for (std::uint64_t i = 0; i < columns; ++i) {
    if (best.size() == k) {
      if (!before(i, best.front())) continue;
      std::pop_heap(best.begin(), best.end(), before);
      best.pop_back();
    }
    best.push_back(i);
    std::push_heap(best.begin(), best.end(), before);
  }
  std::sort_heap(best.begin(), best.end(), before);
  for (const std::uint64_t i : best) out.push_back(Concat(std::to_string(value(i)), ":", i));
}

using Ranker = void (*)(const std::byte*, std::uint64_t, std::uint64_t, std::vector<std::string>&);

Ranker RankerOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kUInt8:
      return RankRow<std::uint8_t>;
    case DType::kInt8:
      return RankRow<std::int8_t>;
    case DType::kUInt16:
      return RankRow<std::uint16_t>;
    case DType::kInt16:
      return RankRow<std::int16_t>;
    case DType::kUInt32:
      return RankRow<std::uint32_t>;
    case DType::kInt32:
      return RankRow<std::int32_t>;
    case DType::kUInt64:
      return RankRow<std::uint64_t>;
    case DType::kInt64:
      return RankRow<std::int64_t>;
    case DType::kFloat16:
      return RankRow<Half>;
    case DType::kBFloat16:
      return RankRow<BFloat16>;
    case DType::kFloat32:
      return RankRow<float>;
    case DType::kFloat64:
      return RankRow<double>;
    default:
      return nullptr;
  }
}

}  // namespace

absl::StatusOr<Classes> TopClasses(const serving::OutputTensor& output, std::uint64_t k,
                                   bool batched) {
  const Ranker rank = RankerOf(output.dtype);
  if (rank == nullptr) {
    return absl::InvalidArgumentError(Concat("output ", Escape(output.name), ": ",
                                             Name(output.dtype), " has no order to classify"));
  }
  const std::uint64_t elements = output.size_bytes / ItemSize(output.dtype);
  const bool by_row = batched && !output.shape.empty();
  const std::uint64_t rows = by_row ? static_cast<std::uint64_t>(output.shape.front()) : 1;
  const std::uint64_t columns = rows == 0 ? 0 : elements / rows;
  k = std::min(k, columns);

  Classes classes;
  if (by_row) classes.shape.push_back(output.shape.front());
  classes.shape.push_back(static_cast<std::int64_t>(k));
  classes.elements.reserve(rows * k);
  for (std::uint64_t row = 0; row < rows && k > 0; ++row) {
    const std::uint64_t offset = row * columns * ItemSize(output.dtype);
    rank(output.data.get() + offset, columns, k, classes.elements);
  }
  return classes;
}

}  // namespace relight::rpc
