// CheckFinite: looks for NaN and infinity in the weights, by the bits of each dtype.
#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "storage/strided.h"
#include "storage/weights.h"

namespace relight::storage {
namespace {

constexpr std::size_t kMaxShownTensors = 8;
constexpr std::size_t kChunkElements = 4096;

// How a floating point type marks NaN and infinity: the exponent's bits are all ones, and for
// infinity the fraction's are all zero.
template <typename Bits>
struct Masks {
  Bits exponent;
  Bits fraction;
};

struct Findings {
  std::uint64_t nans = 0;
  std::uint64_t infinities = 0;
  std::uint64_t first_nan = 0;
  std::uint64_t first_infinity = 0;
};

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

template <typename Bits>
void Examine(const std::byte* bytes, std::size_t count, std::uint64_t first_index,
             Masks<Bits> masks, Findings& findings) {
  if (!AnyNotFinite<Bits>(bytes, count, masks.exponent)) return;
  for (std::size_t i = 0; i < count; ++i) {
    Bits value;
    std::memcpy(&value, bytes + i * sizeof(Bits), sizeof(Bits));
    if ((value & masks.exponent) != masks.exponent) continue;
    const bool nan = (value & masks.fraction) != 0;
    std::uint64_t& number = nan ? findings.nans : findings.infinities;
    if (number++ == 0) (nan ? findings.first_nan : findings.first_infinity) = first_index + i;
  }
}

// `count` real numbers: complex ones are two each.
void ExamineChunk(DType dtype, const std::byte* bytes, std::size_t count, std::uint64_t first_index,
                  Findings& findings) {
  switch (dtype) {
    case DType::kFloat16:
      return Examine<std::uint16_t>(bytes, count, first_index, {0x7C00, 0x03FF}, findings);
    case DType::kBFloat16:
      return Examine<std::uint16_t>(bytes, count, first_index, {0x7F80, 0x007F}, findings);
    case DType::kFloat32:
    case DType::kComplex64:
      return Examine<std::uint32_t>(bytes, count, first_index, {0x7F800000, 0x007FFFFF}, findings);
    case DType::kFloat64:
    case DType::kComplex128:
      return Examine<std::uint64_t>(bytes, count, first_index,
                                    {0x7FF0000000000000, 0x000FFFFFFFFFFFFF}, findings);
    default:
      return;
  }
}

bool HasExponent(DType dtype) {
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

Findings ExamineTensor(const WeightTensor& tensor, absl::Span<const std::byte> block) {
  Findings findings;
  const std::size_t parts = IsComplex(tensor.dtype) ? 2 : 1;
  const std::size_t item = ItemSize(tensor.dtype);
  const std::byte* const first = block.data() + tensor.offset_bytes;
  if (IsDense(tensor.shape, tensor.stride)) {
    const std::uint64_t count = CountElements(tensor.shape);
    for (std::uint64_t at = 0; at < count; at += kChunkElements) {
      const std::size_t chunk = std::min<std::uint64_t>(kChunkElements, count - at);
      ExamineChunk(tensor.dtype, first + at * item, chunk * parts, at * parts, findings);
    }
  } else {
    std::vector<std::byte> buffer(kChunkElements * item);
    StridedReader reader(first, tensor.shape, tensor.stride, item);
    std::uint64_t at = 0;
    while (const std::size_t got = reader.Read(buffer.data(), kChunkElements)) {
      ExamineChunk(tensor.dtype, buffer.data(), got * parts, at * parts, findings);
      at += got;
    }
  }
  findings.first_nan /= parts;
  findings.first_infinity /= parts;
  return findings;
}

std::string ShowIndex(std::uint64_t index, const std::vector<std::int64_t>& shape) {
  std::vector<std::uint64_t> position(shape.size());
  for (std::size_t i = shape.size(); i-- > 0;) {
    position[i] = index % static_cast<std::uint64_t>(shape[i]);
    index /= static_cast<std::uint64_t>(shape[i]);
  }
  return absl::StrCat("[", absl::StrJoin(position, ", "), "]");
}

std::string Describe(const WeightTensor& tensor, const Findings& findings, bool allow_infinite) {
  std::vector<std::string> parts;
  if (findings.nans > 0) {
    parts.push_back(absl::StrCat(findings.nans, " NaN, the first at ",
                                 ShowIndex(findings.first_nan, tensor.shape)));
  }
  if (findings.infinities > 0 && !allow_infinite) {
    parts.push_back(absl::StrCat(findings.infinities, " infinite, the first at ",
                                 ShowIndex(findings.first_infinity, tensor.shape)));
  }
  return absl::StrCat(Escape(tensor.original_key), ": ", absl::StrJoin(parts, "; "));
}

}  // namespace

absl::Status CheckFinite(const WeightPlan& plan, absl::Span<const std::byte> block,
                         const std::function<bool(const std::string& key)>& allow_infinite,
                         const ParallelFor& parallel_for) {
  std::vector<Findings> findings(plan.tensors.size());
  parallel_for(plan.tensors.size(), [&](std::size_t i) {
    if (HasExponent(plan.tensors[i].dtype)) findings[i] = ExamineTensor(plan.tensors[i], block);
  });
  std::vector<std::string> shown;
  std::size_t bad = 0;
  for (std::size_t i = 0; i < plan.tensors.size(); ++i) {
    const WeightTensor& tensor = plan.tensors[i];
    const bool infinite_is_fine =
        findings[i].infinities == 0 || (allow_infinite && allow_infinite(tensor.key));
    if (findings[i].nans == 0 && infinite_is_fine) continue;
    ++bad;
    if (shown.size() < kMaxShownTensors) {
      shown.push_back(Describe(tensor, findings[i], infinite_is_fine));
    }
  }
  if (bad == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(bad, " tensors hold values that are not finite: ", absl::StrJoin(shown, "; "),
                   bad > shown.size() ? absl::StrCat("; and ", bad - shown.size(), " more") : ""));
}

}  // namespace relight::storage
