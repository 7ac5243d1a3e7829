// One checkpoint bound to the graph, as requests see it.
#ifndef RELIGHT_SERVER_SERVING_SERVED_VERSION_H_
#define RELIGHT_SERVER_SERVING_SERVED_VERSION_H_

#include <cstdint>
#include <memory>
#include <string>

#include "server/model/graph.h"

namespace relight::serving {

class VersionCounters;

// Immutable but for its counters. Going back to a version that is still in memory publishes it
// again under a new generation: two of these may share a model, and the counters, for as long as a
// batch still holds the first.
struct ServedVersion {
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  std::shared_ptr<const std::string> weights_digest;  // Hex.
  std::shared_ptr<const model::BoundModel> model;
  std::shared_ptr<VersionCounters> counters;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_SERVED_VERSION_H_
