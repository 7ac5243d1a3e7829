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
};

// One tensor that a checkpoint offers.
struct OfferedTensor {
  std::string key;
  std::vector<std::int64_t> shape = {};
  DType dtype = DType::kFloat32;
};

struct ParameterMismatch {
  std::vector<std::string> missing;     // Keys, as the graph has them.
  std::vector<std::string> unexpected;  // Keys, as the file has them: escape before showing.
  // Escaped: "parameter fc1.weight: checkpoint has shape [5, 10], the graph needs [8, 10]"
  std::vector<std::string> misshaped;
  std::vector<std::string> mistyped;
  bool empty() const {
    return missing.empty() && unexpected.empty() && misshaped.empty() && mistyped.empty();
  }
};

// Compares by name, shape and dtype, and lists every difference: what the graph needs in its order,
// what it does not in the order of `offered`.
ParameterMismatch CompareParameters(absl::Span<const ParameterSpec> needed,
                                    absl::Span<const OfferedTensor> offered);

// OK where `mismatch` is empty; else INVALID_ARGUMENT that lists it (64 of each sort, and how many
// more), with the nearest unexpected name beside a missing one where the names look alike.
absl::Status ToStatus(const ParameterMismatch& mismatch);

}  // namespace relight

#endif  // RELIGHT_SERVER_NETWORK_PARAMETERS_H_
