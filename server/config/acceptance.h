// Whether a model takes a checkpoint: the one validation that runs wherever a file enters. The
// loader, a push before its file appears, the check of a snapshot that was just written, and
// `relightctl inspect --config` all call these, in this order:
//
//   Checkpoint::Open(path, ReadOptionsOf(config.checkpoints))
//   FindWeights     names, shapes and types, all mismatches at once; CompareWeights where one also
//                   wants to know what does not fit, or what is left aside
//   PlanFor         types and layouts that can be served at all
//   LoadWeights or ExamineWeights (storage/weights.h)
//   CheckValues     finite where they must be
//
// Binding and the warm-up, which need the graph itself, come after. A snapshot's weights are
// compared with those in memory (storage/weight_comparison.h) instead of planned and checked again.
#ifndef RELIGHT_SERVER_CONFIG_ACCEPTANCE_H_
#define RELIGHT_SERVER_CONFIG_ACCEPTANCE_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/config/model_config.h"
#include "server/network/parameters.h"
#include "storage/checkpoint.h"
#include "storage/state_dict.h"
#include "storage/tree.h"
#include "storage/weights.h"

namespace relight::config {

// How a model's checkpoints are opened.
storage::ReadOptions ReadOptionsOf(const Checkpoints& config);

// Where the config says that the weights are in a checkpoint, and how their keys are rewritten.
storage::StateDictOptions WhereWeightsAre(const Checkpoints& config);

struct WeightsComparison {
  storage::StateDict state_dict;
  ParameterMismatch mismatch;  // Empty where it fits.
  // Keys that no parameter wants, where `strict` is false; without those that the config ignores.
  std::vector<std::string> left_aside;
};

// Compares a state dict with `parameters`, without the keys that the config ignores.
ParameterMismatch CompareStateDict(const storage::Tree& tree, const storage::StateDict& state_dict,
                                   absl::Span<const std::string> ignored_keys,
                                   absl::Span<const ParameterSpec> parameters);

// Finds the weights of `checkpoint` where the config says, and compares them with `parameters`. An
// error only where there are none.
absl::StatusOr<WeightsComparison> CompareWeights(const storage::Checkpoint& checkpoint,
                                                 const Checkpoints& config,
                                                 absl::Span<const ParameterSpec> parameters);

// The same where only a fit will do.
absl::StatusOr<storage::StateDict> FindWeights(const storage::Checkpoint& checkpoint,
                                               const Checkpoints& config,
                                               absl::Span<const ParameterSpec> parameters);

// The plan for those entries of `state_dict` that `parameters` name.
absl::StatusOr<storage::WeightPlan> PlanFor(const storage::Checkpoint& checkpoint,
                                            const storage::StateDict& state_dict,
                                            absl::Span<const ParameterSpec> parameters);

// Refuses what `found` says of the values, unless the config allows it. Buffers may be infinite.
absl::Status CheckValues(const ModelConfig& config, absl::Span<const ParameterSpec> parameters,
                         const storage::WeightPlan& plan,
                         absl::Span<const storage::NonFinite> found);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_ACCEPTANCE_H_
