#include "server/config/acceptance.h"

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "server/config/key_rules.h"

namespace relight::config {
namespace {

std::vector<std::string> NamesOf(absl::Span<const ParameterSpec> parameters) {
  std::vector<std::string> names;
  names.reserve(parameters.size());
  for (const ParameterSpec& parameter : parameters) names.push_back(parameter.name);
  return names;
}

}  // namespace

storage::ReadOptions ReadOptionsOf(const Checkpoints& config) {
  storage::ReadOptions options;
  options.require_crc = config.require_crc;
  options.reject_unknown_globals = config.reject_unknown_classes;
  options.limits = config.limits;
  return options;
}

storage::StateDictOptions WhereWeightsAre(const Checkpoints& config) {
  storage::StateDictOptions options;
  options.key = config.state_dict_key;
  options.strip_prefix = config.strip_prefix;
  if (!config.rename.empty()) options.rename = KeyRules(config.rename);
  return options;
}

ParameterMismatch CompareStateDict(const storage::Tree& tree, const storage::StateDict& state_dict,
                                   absl::Span<const std::string> ignored_keys,
                                   absl::Span<const ParameterSpec> parameters) {
  std::vector<OfferedTensor> offered;
  offered.reserve(state_dict.entries.size());
  for (const storage::StateDictEntry& entry : state_dict.entries) {
    const storage::TensorInfo& tensor = tree.tensor(entry.node);
    offered.push_back({entry.key, tensor.shape, tensor.dtype});
  }
  ParameterMismatch mismatch = CompareParameters(parameters, offered);
  const KeyPatterns ignored(ignored_keys);
  std::erase_if(mismatch.unexpected,
                [&ignored](const std::string& key) { return ignored.Matches(key); });
  return mismatch;
}

absl::StatusOr<WeightsComparison> CompareWeights(const storage::Checkpoint& checkpoint,
                                                 const Checkpoints& config,
                                                 absl::Span<const ParameterSpec> parameters) {
  const std::vector<std::string> names = NamesOf(parameters);
  storage::StateDictOptions options = WhereWeightsAre(config);
  options.wanted_keys = names;
  WeightsComparison comparison;
  RELIGHT_ASSIGN_OR_RETURN(comparison.state_dict, storage::FindStateDict(checkpoint, options));
  comparison.mismatch =
      CompareStateDict(checkpoint.tree(), comparison.state_dict, config.ignore, parameters);
  // Beside a missing key they may be what it was meant to be.
  if (!config.strict && comparison.mismatch.missing.empty()) {
    comparison.left_aside = std::exchange(comparison.mismatch.unexpected, {});
  }
  return comparison;
}

absl::StatusOr<storage::StateDict> FindWeights(const storage::Checkpoint& checkpoint,
                                               const Checkpoints& config,
                                               absl::Span<const ParameterSpec> parameters) {
  RELIGHT_ASSIGN_OR_RETURN(WeightsComparison comparison,
                           CompareWeights(checkpoint, config, parameters));
  RELIGHT_RETURN_IF_ERROR(ToStatus(comparison.mismatch));
  return std::move(comparison.state_dict);
}

absl::StatusOr<storage::WeightPlan> PlanFor(const storage::Checkpoint& checkpoint,
                                            const storage::StateDict& state_dict,
                                            absl::Span<const ParameterSpec> parameters) {
  const std::vector<std::string> names = NamesOf(parameters);
  // No names would stand for all of them.
  if (names.empty()) return storage::WeightPlan{};
  return storage::PlanWeights(checkpoint, state_dict, names);
}

absl::Status CheckValues(const ModelConfig& config, absl::Span<const ParameterSpec> parameters,
                         const storage::WeightPlan& plan,
                         absl::Span<const storage::NonFinite> found) {
  if (config.allow_non_finite) return absl::OkStatus();
  std::unordered_set<std::string> buffers;
  for (const ParameterSpec& parameter : parameters) {
    if (parameter.buffer) buffers.insert(parameter.name);
  }
  return storage::RefuseNonFinite(plan, found,
                                  [&](const std::string& key) { return buffers.contains(key); });
}

}  // namespace relight::config
