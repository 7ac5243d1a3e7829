#include "server/serving/tensor_shapes.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checked_math.h"

namespace relight::serving {

std::optional<std::uint64_t> DenseBytes(DType dtype, absl::Span<const std::int64_t> shape) {
  std::optional<std::uint64_t> bytes = ItemSize(dtype);
  for (const std::int64_t dimension : shape) {
    if (dimension < 0) return std::nullopt;
    bytes = CheckedMul(*bytes, static_cast<std::uint64_t>(dimension));
    if (!bytes.has_value()) return std::nullopt;
  }
  return bytes;
}

bool ShapeFits(const TensorSpec& spec, absl::Span<const std::int64_t> shape, bool batched) {
  if (shape.size() != spec.shape.size()) return false;
  for (std::size_t i = batched ? 1 : 0; i < shape.size(); ++i) {
    if (spec.shape[i] >= 0 && shape[i] != spec.shape[i]) return false;
  }
  return true;
}

std::string FormatShape(absl::Span<const std::int64_t> shape) {
  constexpr std::size_t kMaxDimensions = 16;
  const absl::Span<const std::int64_t> shown = shape.subspan(0, kMaxDimensions);
  return absl::StrCat("[", absl::StrJoin(shown, ", "),
                      shown.size() < shape.size() ? ", ...]" : "]");
}

std::string FormatDType(DType dtype) {
  const std::string_view protocol_name = ProtocolName(dtype);
  return std::string(protocol_name.empty() ? Name(dtype) : protocol_name);
}

}  // namespace relight::serving
