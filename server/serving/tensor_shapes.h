// Sizes and texts of shapes, for the checks on both sides of a graph.
#ifndef RELIGHT_SERVER_SERVING_TENSOR_SHAPES_H_
#define RELIGHT_SERVER_SERVING_TENSOR_SHAPES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/types/span.h"
#include "server/network/tensor_spec.h"
#include "storage/dtype.h"

namespace relight::serving {

// Bytes of a dense tensor; absent where a dimension is negative or the product does not fit.
std::optional<std::uint64_t> DenseBytes(DType dtype, absl::Span<const std::int64_t> shape);

// Whether `spec` allows the shape; of a batch's, any number of rows.
bool ShapeFits(const TensorSpec& spec, absl::Span<const std::int64_t> shape, bool batched);

// "[3, 10]"; only the first dimensions of a shape longer than any real one.
std::string FormatShape(absl::Span<const std::int64_t> shape);

// "FP32"; the type's own name where the protocol has none for it.
std::string FormatDType(DType dtype);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_TENSOR_SHAPES_H_
