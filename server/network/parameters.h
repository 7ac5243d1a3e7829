// What a graph needs from a checkpoint, and whether a checkpoint has it.
#ifndef RELIGHT_SERVER_NETWORK_PARAMETERS_H_
#define RELIGHT_SERVER_NETWORK_PARAMETERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "storage/dtype.h"

namespace relight {

struct ParameterSpec {
  std::string name;  // The state dict's key.
  std::vector<std::int64_t> shape = {};
  // kFloat32 stands for any real floating point type; others must match exactly.
  DType dtype = DType::kFloat32;
  bool buffer = false;   // Running statistics and counters: may be infinite, not NaN.
  bool required = true;  // num_batches_tracked may be missing from old files.
  // Not empty: the parameter that this one shares its values with. Where a checkpoint has both,
  // they must be equal.
  std::string same_as = {};
};

// One tensor that a checkpoint offers.
struct OfferedTensor {
  std::string key;
  std::vector<std::int64_t> shape = {};
  DType dtype = DType::kFloat32;
};

struct ShapeMismatch {
  std::string name;
  std::vector<std::int64_t> offered;
  std::vector<std::int64_t> needed;
};

struct TypeMismatch {
  std::string name;
  DType offered = DType::kFloat32;
  DType needed = DType::kFloat32;
};

// Names and keys are as the graph and the file have them: escape before showing.
struct ParameterMismatch {
  std::vector<std::string> missing;
  std::vector<std::string> unexpected;
  std::vector<ShapeMismatch> misshaped;
  std::vector<TypeMismatch> mistyped;
  bool empty() const {
    return missing.empty() && unexpected.empty() && misshaped.empty() && mistyped.empty();
  }
};

// Compares by name, shape and dtype, and lists every difference: what the graph needs in its order,
// what it does not in the order of `offered`.
ParameterMismatch CompareParameters(absl::Span<const ParameterSpec> needed,
                                    absl::Span<const OfferedTensor> offered);

// "parameter fc1.weight: checkpoint has shape [5, 10], the graph needs [8, 10]", escaped.
std::string Describe(const ShapeMismatch& mismatch);
std::string Describe(const TypeMismatch& mismatch);

// The types that a parameter of this one may have in a checkpoint: "float32, float64, float16 or
// bfloat16".
std::string AcceptedTypes(DType needed);

// OK where `mismatch` is empty; else INVALID_ARGUMENT that lists it (64 of each sort, and how many
// more), with the nearest unexpected name beside a missing one where the names look alike.
absl::Status ToStatus(const ParameterMismatch& mismatch);

}  // namespace relight

#endif  // RELIGHT_SERVER_NETWORK_PARAMETERS_H_
