// Name, element type and shape of what goes into or comes out of a graph.
#ifndef RELIGHT_SERVER_NETWORK_TENSOR_SPEC_H_
#define RELIGHT_SERVER_NETWORK_TENSOR_SPEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "storage/dtype.h"

namespace relight {

struct TensorSpec {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape = {};  // -1 for a free dimension; a batch dimension is first.
  int line = 0;                          // Where it stands in model.textproto; 0 where unknown.
};

// "[-1, 10]"
std::string ShapeText(absl::Span<const std::int64_t> shape);

}  // namespace relight

#endif  // RELIGHT_SERVER_NETWORK_TENSOR_SPEC_H_
