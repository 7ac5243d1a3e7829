// model.textproto as plain values, checked and with every default filled in.
#ifndef RELIGHT_SERVER_CONFIG_MODEL_CONFIG_H_
#define RELIGHT_SERVER_CONFIG_MODEL_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/network/network.h"
#include "storage/checkpoint.h"

namespace relight::config {

inline constexpr char kModelConfigName[] = "model.textproto";

enum class Precision { kFloat32, kBFloat16, kFloat16, kAsSaved };

// Which device the graph runs on. `index` counts CUDA devices.
struct DeviceChoice {
  enum class Kind { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  int index = 0;
};

struct TorchScriptGraph {
  std::string path;  // Resolved against the model's folder.
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
};

// What becomes of the requests of one level while they wait.
struct QueuePolicy {
  absl::Duration default_timeout = absl::InfiniteDuration();  // Of requests that name none.
  bool allow_timeout_override = true;  // Whether a request may name a shorter one.
  bool delay_late = false;             // Late ones let others go first instead of being refused.
  std::int64_t max_queue_size = std::numeric_limits<std::int64_t>::max();

  friend bool operator==(const QueuePolicy&, const QueuePolicy&) = default;
};

struct Batching {
  std::int64_t max_batch_size = 0;  // 0: no batch dimension, one request at a time.
  std::vector<std::int64_t> preferred_batch_sizes;
  absl::Duration max_queue_delay = absl::ZeroDuration();
  std::int64_t max_queue_size = 1024;
  std::uint64_t max_queue_bytes = std::uint64_t{256} << 20;
  // Levels of priority; those of the first go first. One where requests go as they come.
  std::vector<QueuePolicy> levels = {QueuePolicy{}};
  std::size_t default_level = 0;  // Of `levels`, for requests that name none.
};

// Like re.sub(pattern, replacement, key). RE2's syntax, valid.
struct RenameRule {
  std::string pattern;
  std::string replacement;
};

struct Checkpoints {
  std::string folder;  // Resolved against the model's folder.
  std::string state_dict_key;
  std::string strip_prefix;
  absl::Duration settle_time = absl::Seconds(1);
  absl::Duration torn_timeout = absl::Seconds(30);
  bool require_crc = false;
  bool reject_unknown_classes = false;
  std::vector<RenameRule> rename;
  bool strict = true;
  std::vector<std::string> ignore;  // Regular expressions of RE2: keys to leave aside.
  storage::ReadLimits limits;
};

enum class VersionSource { kAuto, kName, kMtime };

struct VersionRule {
  VersionSource from = VersionSource::kAuto;
  std::string pattern;  // ECMAScript regular expression with one group, or empty.
};

enum class TrainingState { kSpool, kOpenFile, kNone };

struct WarmUp {
  std::vector<std::int64_t> batch_sizes;
  std::int64_t free_dim = 1;
};

// What values an output may have.
struct OutputRange {
  std::string name;  // One of the model's outputs.
  std::optional<double> min = std::nullopt;
  std::optional<double> max = std::nullopt;
  bool allow_non_finite = false;
};

// What each checkpoint is asked before it serves.
struct GoldenRequest {
  std::string file;                                 // Resolved against the model's folder.
  double tolerance = 1e-3;                          // Over the largest absolute value expected.
  std::optional<double> max_change = std::nullopt;  // Likewise, from the serving version's answer.
  std::vector<OutputRange> ranges = {};             // At most one for each output.
};

struct ModelConfig {
  std::string name;    // The folder's.
  std::string folder;  // Absolute or as given.
  // The signature; follows from the network where the file leaves it out.
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  std::variant<network::Network, TorchScriptGraph> graph;
  Batching batching;
  DeviceChoice device;
  std::optional<Precision> precision;  // Absent: the device's default.
  Checkpoints checkpoints;
  VersionRule version;
  WarmUp warm_up;
  bool allow_non_finite = false;
  std::vector<GoldenRequest> golden_requests;
  int arenas = 2;
  bool cuda_graphs = true;
  TrainingState training_state = TrainingState::kSpool;
};

// Reads `folder`/model.textproto. The model's name is the folder's last component. INVALID_ARGUMENT
// lists every error, one per line, as "model.textproto:LINE: what"; NOT_FOUND where there is none.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& folder);

// The same for a path that may also be the file itself, whatever it is called; the model's folder
// is then the one that it lies in.
absl::StatusOr<ModelConfig> LoadModelConfigAt(const std::string& path);

// What there is to parse at such a path: the arguments of ParseModelConfig.
struct ModelConfigFile {
  std::string text;
  std::string folder;
  std::string name;
};
absl::StatusOr<ModelConfigFile> ReadModelConfigAt(const std::string& path);

// The same from text in memory; `folder` is only used to resolve paths and to name the model,
// `file_name` in messages.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view text, const std::string& folder,
                                             std::string_view file_name = kModelConfigName);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_MODEL_CONFIG_H_
