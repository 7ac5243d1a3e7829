// From a config to a graph. The implementation is the only place that knows LibTorch; tests put
// fakes in its place.
#ifndef RELIGHT_SERVER_MODEL_GRAPH_FACTORY_H_
#define RELIGHT_SERVER_MODEL_GRAPH_FACTORY_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/config/model_config.h"
#include "server/model/graph.h"

namespace relight::model {

// Thread-safe.
class GraphFactory {
 public:
  virtual ~GraphFactory() = default;

  // Builds the graph that `config` describes on the device that it asks for. INVALID_ARGUMENT or
  // FAILED_PRECONDITION says what is wrong with the archive, the device or the precision; NOT_FOUND
  // that there is no archive.
  virtual absl::StatusOr<std::unique_ptr<Graph>> Create(const config::ModelConfig& config) = 0;

  // Host memory for weights that `device` can read from fast (page-locked for CUDA): zeroed, its
  // pages already present, 64-byte aligned. RESOURCE_EXHAUSTED with both numbers where it does not
  // fit the machine or the cgroup.
  virtual absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(const std::string& device,
                                                                  std::size_t size_bytes) = 0;
};

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_GRAPH_FACTORY_H_
