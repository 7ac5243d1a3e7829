// Between our element types and LibTorch's.
#ifndef RELIGHT_SERVER_MODEL_TORCH_TYPES_H_
#define RELIGHT_SERVER_MODEL_TORCH_TYPES_H_

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/types/span.h"
#include "storage/dtype.h"

namespace relight::model {

// The type with the same bytes; nullopt where this LibTorch has none that it can compute with.
std::optional<at::ScalarType> ToScalarType(DType dtype);

// The other way round; nullopt for types that we do not serve.
std::optional<DType> FromScalarType(at::ScalarType type);

// The type in which `dtype` is computed: itself, or the wider signed one that stands in for the
// unsigned types that LibTorch 1.13 lacks (UINT16 as int32, UINT32 and UINT64 as int64).
std::optional<at::ScalarType> TravelType(DType dtype);

// "[2, -1, 5]"
std::string ShapeString(absl::Span<const std::int64_t> shape);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_TORCH_TYPES_H_
