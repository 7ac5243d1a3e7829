// One load, from a path to a version that is ready to be published: open, find the weights, compare
// them with what the graph needs, read and check them into a block, bind, warm up, ask what the
// answers are known to.
//
// Thread-safety: loads of different models may run at once; the graph of one is bound by one thread
// at a time.
#ifndef RELIGHT_SERVER_SERVING_CHECKPOINT_LOADER_H_
#define RELIGHT_SERVER_SERVING_CHECKPOINT_LOADER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config/model_config.h"
#include "server/model/graph.h"
#include "server/serving/arena.h"
#include "server/serving/served_version.h"
#include "server/serving/version_policy.h"
#include "storage/checkpoint.h"
#include "storage/state_dict.h"
#include "storage/weights.h"

namespace relight::serving {

// What a load is for.
struct LoadOrder {
  std::string path = {};
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  // Whether a file without checksums may be taken, where it still is what it was when that was
  // found.
  bool settled = true;
  storage::FileIdentity listed = {};
  std::shared_ptr<VersionCounters> counters = {};
  // Whether the graph has run at every warm-up size before.
  bool graph_is_warm = false;
  // Weights with this digest are not bound: they serve already.
  std::optional<storage::WeightsDigest> unchanged = {};
};

// What a load works with. All of it outlives the load.
struct LoadTools {
  const config::ModelConfig& config;
  model::Graph& graph;
  // Gives the block to read into; may wait for an old version to be let go of and destroy it.
  std::function<absl::StatusOr<std::shared_ptr<Arena::Lease>>(std::size_t size_bytes)> acquire;
  // Runs the version once; see RequestPath::WarmUp.
  std::function<absl::Status(const ServedVersion&, std::int64_t batch_size)> warm_up;
  // Asks the version what its answers are known to; may be empty. See GoldenRequests.
  std::function<absl::Status(const ServedVersion&)> accept;
  storage::LoadHooks hooks;
  // Where `acquire` takes the version that serves out of memory: gives memory to read and check the
  // weights in beforehand, a storage at a time, so that a bad file, or the same weights again,
  // leave that version serving.
  storage::ScratchMemory scratch = {};
};

// A checkpoint whose weights are bound.
struct LoadedCheckpoint {
  std::shared_ptr<const storage::Checkpoint> checkpoint;
  storage::StateDict state_dict;
  std::vector<std::string> left_aside;  // Keys that the graph does not know (strict: false).
  storage::WeightPlan plan;
  storage::WeightsDigest digest;
  // Holds the weights that the plan describes, for as long as it lives.
  std::shared_ptr<const Arena::Lease> lease;
  std::shared_ptr<const ServedVersion> served;
};

using Phases = std::vector<std::pair<std::string, absl::Duration>>;

struct LoadResult {
  // kServed, kUnchanged, kUnsettled, kTorn, kRefused or kTransient.
  Verdict verdict = Verdict::kRefused;
  absl::Status status;                            // OK for the first two.
  std::optional<storage::FileIdentity> identity;  // Of what was opened, where it was.
  std::optional<LoadedCheckpoint> loaded;         // Exactly for kServed.
  Phases phases;                                  // "open", "rehearse", "read", "bind", "warm_up", "accept".
};

// CANCELLED comes back as kTransient.
LoadResult LoadCheckpoint(const LoadOrder& order, const LoadTools& tools);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_CHECKPOINT_LOADER_H_
