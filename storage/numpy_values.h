// numpy scalars and arrays out of the pieces that they are pickled as.
#ifndef RELIGHT_STORAGE_NUMPY_VALUES_H_
#define RELIGHT_STORAGE_NUMPY_VALUES_H_

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/parse_context.h"
#include "storage/tree.h"

namespace relight::storage {

// Each takes the arguments of the numpy function of that name and gives nullopt where the element
// type is none that we decode (strings, objects, records): the value then stays opaque.
// PICKLE_BAD_VALUE where the bytes do not fit the type and shape.

// (dtype, bytes): a kNumpyScalar.
absl::StatusOr<std::optional<NodeId>> DecodeNumpyScalar(ParseContext& context,
                                                        const std::vector<NodeId>& arguments);
// The state of an ndarray: (1, shape, dtype, fortran, bytes).
absl::StatusOr<std::optional<NumpyArrayInfo>> DecodeNumpyState(ParseContext& context, NodeId state);
// (buffer, dtype, shape, order): what _frombuffer gets.
absl::StatusOr<std::optional<NumpyArrayInfo>> DecodeNumpyBuffer(
    ParseContext& context, const std::vector<NodeId>& arguments);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_NUMPY_VALUES_H_
