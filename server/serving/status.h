// What is served and why, as plain values for the admin service, the log and the metrics.
#ifndef RELIGHT_SERVER_SERVING_STATUS_H_
#define RELIGHT_SERVER_SERVING_STATUS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/config/model_config.h"
#include "server/network/tensor_spec.h"

namespace relight::serving {

enum class ModelState {
  kWaiting,   // No checkpoint yet.
  kServing,   // A version answers requests.
  kFailed,    // Nothing serves, and what was tried failed.
  kUnloaded,  // Unloaded by an admin.
};

// The life of a version; version_state.h has the transitions.
enum class VersionState {
  kFound,       // In the folder, not tried.
  kWaiting,     // Not whole or not still yet.
  kLoading,     // Being read, checked, bound and warmed up.
  kServing,     // Answers requests that name no version.
  kLoaded,      // Whole in memory; answers requests that name it.
  kRetired,     // Served before; no longer in memory.
  kRefused,     // Cannot be served; tried again only when the file changes.
  kRetrying,    // Failed for a reason that may pass; tried again with back-off.
  kPassedOver,  // Not a candidate.
};

struct LoadedVersion {
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  std::string weights_digest;
  std::string file;         // Name below the watched folder; any bytes.
  std::string file_sha256;  // Hex; empty until it has been taken.
  VersionState state = VersionState::kLoaded;
  absl::Time loaded_at;
  bool training_state = false;
  std::string training_state_reason;
  friend bool operator==(const LoadedVersion&, const LoadedVersion&) = default;
};

struct CandidateStatus {
  std::string file;
  std::optional<std::int64_t> version;
  VersionState state = VersionState::kFound;
  std::string reason;
  std::uint64_t size_bytes = 0;
  absl::Time modified;
  friend bool operator==(const CandidateStatus&, const CandidateStatus&) = default;
};

struct ModelStatus {
  std::string name;
  ModelState state = ModelState::kWaiting;
  std::string reason;
  std::vector<LoadedVersion> loaded;
  std::vector<CandidateStatus> candidates;
  std::string version_rule;
  std::optional<std::int64_t> pinned_version;
  std::string last_error;
  std::optional<absl::Time> last_good_load;
  std::uint64_t generation = 0;
  std::string device;
  friend bool operator==(const ModelStatus&, const ModelStatus&) = default;
};

enum class HistoryEvent {
  kServed,
  kRefused,
  kRetrying,
  kUnchanged,
  kRetired,
  kPinned,
  kUnpinned,
  kRolledBack,
  kUnloaded,
  kSnapshot,
  kConfigChanged,
  kConfigRefused,
  kPushed,
};

struct HistoryEntry {
  absl::Time time = {};
  HistoryEvent event = HistoryEvent::kServed;
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  std::string file = {};
  std::string file_sha256 = {};
  std::string weights_digest = {};
  std::string reason = {};
  std::vector<std::pair<std::string, absl::Duration>> phases = {};  // "open", "read", "bind", ...
};

// What clients may know of a model before they ask.
struct ModelInfo {
  std::string name;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  config::Batching batching;
  std::string platform;  // "relight_network", "relight_torchscript".
  bool on_gpu = false;
  std::vector<std::int64_t> loaded_versions;  // Newest first.
};

std::string_view Name(ModelState state);
std::string_view Name(VersionState state);
std::string_view Name(HistoryEvent event);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_STATUS_H_
