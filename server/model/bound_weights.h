// A checkpoint's tensors as LibTorch's, on the device and in the precision of a graph.
#ifndef RELIGHT_SERVER_MODEL_BOUND_WEIGHTS_H_
#define RELIGHT_SERVER_MODEL_BOUND_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/config/model_config.h"
#include "server/model/captured_forwards.h"
#include "server/model/derived_tensors.h"
#include "server/model/device.h"
#include "server/model/graph.h"

namespace relight::model {

// A block of memory for weights on a device, and what belongs to its addresses.
struct DeviceArena {
  std::shared_ptr<std::byte> memory;
  std::size_t size_bytes = 0;
  DerivedTensors derived;
  CapturedForwards captured;
};

// The two arenas of a graph on a device with memory of its own. One is used again once nothing
// bound to it is left; one still in use is never written to, a new one takes its place.
//
// Thread-compatible.
class DeviceArenas {
 public:
  // Its derived tensors are rewound.
  absl::StatusOr<std::shared_ptr<DeviceArena>> Take(Device& device, int arena,
                                                    std::size_t size_bytes);

 private:
  std::array<std::shared_ptr<DeviceArena>, 2> arenas_;
};

struct BoundWeights {
  // By the graph's names. Views of `host`'s or `arena`'s memory, or derived tensors.
  // Views that were the same one in the checkpoint are one tensor (tied weights).
  std::map<std::string, at::Tensor> tensors;
  // Of the floating point ones; nullopt where there are none.
  std::optional<at::ScalarType> compute_type;
  std::shared_ptr<const void> host;
  std::shared_ptr<DeviceArena> arena;  // Null where the device shares the host's memory.
};

// INVALID_ARGUMENT lists every weight that does not fit `needed` or that cannot be computed with.
// When it returns, nothing reads `request`'s memory any more unless `host` holds it.
absl::StatusOr<BoundWeights> BindWeights(Device& device, DeviceArenas& arenas,
                                         absl::Span<const ParameterSpec> needed,
                                         config::Precision precision, BindRequest request);

// The floating point type that weights get: `as_saved` where the precision is that.
at::ScalarType ComputeType(config::Precision precision, at::ScalarType as_saved);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_BOUND_WEIGHTS_H_
