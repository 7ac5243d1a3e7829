// What can be told of a checkpoint without a server: what it is, what is in it, whether it is
// sound, and whether a given config would accept it. The checks are those of the server's loader
// (server/config/acceptance.h); this only runs all of them and keeps what they find.
#ifndef RELIGHT_CLIENT_CTL_INSPECTION_H_
#define RELIGHT_CLIENT_CTL_INSPECTION_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/ctl/held_values.h"
#include "server/config/model_config.h"
#include "server/network/parameters.h"
#include "storage/checkpoint.h"
#include "storage/file_audit.h"
#include "storage/state_dict.h"
#include "storage/weights.h"

namespace relight::ctl {

// Lists of an inspection end here, so that no file makes it use memory without bound.
inline constexpr std::size_t kMostListed = 200'000;

struct InspectOptions {
  // Where the state dict is and what to strip from its keys; only without a config, which says so
  // itself.
  std::string state_dict_key = {};
  std::string strip_prefix = {};
  // Whether the config's checks run, and what it is called.
  const config::ModelConfig* config = nullptr;
  std::string config_name = {};
  // Leave the tensors' bytes alone: no digests, checksums or values.
  bool quick = false;
  // Told how far each pass is. May be empty.
  std::function<void(const char* pass, std::uint64_t done_bytes, std::uint64_t total_bytes)>
      progress = {};
};

// A tensor of the state dict; more about it is in the tree.
struct InspectedWeight {
  std::string key;           // After stripping; any bytes.
  std::string original_key;  // As in the file.
  storage::NodeId node = storage::kNoNode;
  std::uint64_t size_bytes = 0;  // Of its elements.
  std::optional<std::size_t> tied_to =
      {};                       // The first entry that is the same view of the same storage.
  bool shares_storage = false;  // With an entry that is another view.
  bool contiguous = true;
  std::optional<storage::NonFinite> non_finite = {};
};

struct ConfigFindings {
  // The graph is TorchScript: only the server, which has LibTorch, knows its parameters.
  bool graph_unknown = false;
  bool allow_non_finite = false;
  std::vector<ParameterSpec> parameters;  // What the graph needs.
  ParameterMismatch mismatch;
  std::vector<std::string> left_aside;  // Keys that the graph does not know (strict: false).
};

enum class Outcome {
  kAcceptable,  // Sound, with weights that a server could load; accepted by the config, if any.
  kRefused,     // `error` says by whom.
  kUndecided,   // Nothing wrong, but not everything could be checked.
  kFailed,      // Not the checkpoint's fault: I/O, memory.
};
std::string_view Name(Outcome outcome);

struct Inspection {
  std::string path;
  Outcome outcome = Outcome::kFailed;
  // What the server's loader would say; where that has nothing to say, a damaged record that it
  // would not read. OK for kAcceptable.
  absl::Status error;

  // Everything below is absent where the file cannot be opened.
  std::optional<storage::Checkpoint> checkpoint;
  std::optional<storage::StateDict> state_dict;
  absl::Status weights_error;  // Why there is no state dict, or no digest.
  std::vector<InspectedWeight> weights;
  std::size_t omitted_weights = 0;
  std::uint64_t elements = 0;       // Of all weights; tied ones once.
  std::uint64_t element_bytes = 0;  // The same in bytes.
  HeldValues held;
  std::vector<storage::FileAudit> files;  // Empty for `quick`.
  std::optional<storage::WeightsDigest> digest;
  std::optional<ConfigFindings> config;
};

// Never fails: what goes wrong is in the result.
Inspection Inspect(const std::string& path, const InspectOptions& options);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_INSPECTION_H_
