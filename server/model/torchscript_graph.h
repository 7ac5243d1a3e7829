// A graph that torch.jit exported once, whose weights every checkpoint replaces.
#ifndef RELIGHT_SERVER_MODEL_TORCHSCRIPT_GRAPH_H_
#define RELIGHT_SERVER_MODEL_TORCHSCRIPT_GRAPH_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "server/config/model_config.h"
#include "server/model/device.h"
#include "server/model/execution.h"
#include "server/model/graph.h"

namespace relight::model {

// The sizes that stand in for free dimensions when the archive is tried at load.
struct TrialSizes {
  std::int64_t batch = 2;  // For a free first dimension.
  std::int64_t free_dim = 1;
};

// Loads the archive at `path` (trusted: LibTorch's own loader reads it), tries it, and empties it
// of its weights. NOT_FOUND where there is no such file; INVALID_ARGUMENT where it is no
// TorchScript archive, does not fit `signature`, was frozen, or was traced in training mode. Unless
// `strict`, the archive's own value stands in for any that a checkpoint lacks.
absl::StatusOr<std::unique_ptr<Graph>> LoadTorchScriptGraph(
    const std::string& path, Signature signature, std::shared_ptr<Device> device,
    config::Precision precision, const TrialSizes& sizes, bool strict = true);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_TORCHSCRIPT_GRAPH_H_
