// What a relight server serves and why, and the levers over it: the admin service, which listens
// apart from the inference service, by default on a Unix socket that only its owner can open.
//
//   absl::StatusOr<AdminClient> admin = AdminClient::Connect("unix:/run/relight/admin.sock");
//   absl::StatusOr<ServerStatus> status = admin->GetStatus();
//
// Thread-safety: all methods may be called from several threads at once.
#ifndef RELIGHT_ADMIN_H_
#define RELIGHT_ADMIN_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "relight/export.h"
#include "relight/options.h"

namespace relight::client {

enum class ModelState : std::uint8_t {
  kUnspecified,  // One that this library does not know.
  kWaiting,      // No checkpoint yet.
  kServing,      // A version answers requests.
  kFailed,       // Nothing serves, and what was tried failed.
  kUnloaded,     // Unloaded by an admin.
};

enum class VersionState : std::uint8_t {
  kUnspecified,  // One that this library does not know.
  kFound,        // In the folder, not tried.
  kWaiting,      // Not whole or not still yet.
  kLoading,      // Being read, checked, bound and warmed up.
  kServing,      // Answers requests that name no version.
  kLoaded,       // Whole in memory; answers requests that name it.
  kRetired,      // Served before; no longer in memory.
  kRefused,      // Cannot be served; tried again only when the file changes.
  kRetrying,     // Failed for a reason that may pass; tried again with back-off.
  kPassedOver,   // Not a candidate.
};

enum class HistoryEvent : std::uint8_t {
  kUnspecified,  // One that this library does not know.
  kServed,
  kRefused,
  kRetrying,
  kUnchanged,  // The same weights as served: no swap.
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

// Lower-case words: "serving", "passed over", "rolled back".
RELIGHT_CLIENT_API std::string_view Name(ModelState state);
RELIGHT_CLIENT_API std::string_view Name(VersionState state);
RELIGHT_CLIENT_API std::string_view Name(HistoryEvent event);

struct LoadedVersion {
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  std::string weights_digest;
  std::string file;
  std::string file_sha256;  // In hex; empty until it has been taken.
  VersionState state = VersionState::kUnspecified;
  std::optional<absl::Time> loaded_at;
  // Whether a snapshot of it can hold the training state, and if not, why.
  bool training_state = false;
  std::string training_state_reason;
};

struct Candidate {
  std::string file;
  std::optional<std::int64_t> version;
  VersionState state = VersionState::kUnspecified;
  std::string reason;
  std::uint64_t size_bytes = 0;
  std::optional<absl::Time> modified_at;
};

struct ModelStatus {
  std::string name;
  ModelState state = ModelState::kUnspecified;
  std::string reason;
  std::vector<LoadedVersion> loaded;
  std::vector<Candidate> candidates;
  std::string version_rule;  // Where versions come from, and why.
  std::optional<std::int64_t> pinned_version;
  std::string last_error;  // Why the newest checkpoint is not served; empty when it is.
  std::optional<absl::Time> last_good_load;
  std::uint64_t generation = 0;
  std::string device;

  // The version that answers requests that name none; nullptr where none does.
  const LoadedVersion* Serving() const {
    for (const LoadedVersion& version : loaded) {
      if (version.state == VersionState::kServing) return &version;
    }
    return nullptr;
  }
};

struct ServerStatus {
  std::vector<ModelStatus> models;
  std::string server_version;
  std::optional<absl::Time> started_at;
  bool ready = false;  // Every configured model has served.
};

struct HistoryEntry {
  std::optional<absl::Time> time;
  HistoryEvent event = HistoryEvent::kUnspecified;
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  std::string file;
  std::string file_sha256;
  std::string weights_digest;
  std::string reason;
  std::map<std::string, absl::Duration> phases;
};

struct ReloadResult {
  ModelStatus status;
  bool swapped = false;  // Whether another version serves than before.
};

enum class SnapshotFormat : std::uint8_t {
  kAsSource,     // What the suffix of the path says; else what the version came from.
  kBundle,       // A torch.save file of the weights and all that was beside them.
  kStateDict,    // A torch.save file of the weights.
  kSafetensors,  // The weights, in that format.
};
// "bundle", "state-dict", "safetensors"; empty for the first, and for what only a newer server
// knows.
RELIGHT_CLIENT_API std::string_view Name(SnapshotFormat format);

struct SnapshotOptions {
  std::string path;                     // Below the snapshot folder; empty: the server names it.
  std::optional<std::int64_t> version;  // Absent: the served one.
  bool overwrite = false;
  bool weights_only = false;  // Leave the training state out.
  bool lossless = false;      // Refuse rather than leave out what cannot be written.
  SnapshotFormat format = SnapshotFormat::kAsSource;
};

struct SnapshotResult {
  std::string path;
  std::uint64_t size_bytes = 0;
  std::string file_sha256;
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  std::string weights_digest;
  bool training_state = false;
  SnapshotFormat format = SnapshotFormat::kAsSource;  // Of the file.
  // Paths within the checkpoint of what could not be carried, each with its class, and of what was
  // written as something else, each with what.
  std::vector<std::string> left_out;
  std::vector<std::string> converted;
};

struct DownloadOptions {
  std::optional<std::int64_t> version;  // Absent: the served one.
  bool overwrite = false;
  bool weights_only = false;  // Leave the training state out.
  bool lossless = false;      // Refuse rather than leave out what cannot be written.
  SnapshotFormat format = SnapshotFormat::kAsSource;
};

struct PushOptions {
  std::string file;  // Its name in the watched folder; empty: the one that it has here.
  bool overwrite = false;
  bool wait = true;  // For what comes of it.
};

// What came of a file that is in the watched folder now.
struct PushResult {
  std::string file;
  std::uint64_t size_bytes = 0;
  std::string file_sha256;
  std::string weights_digest;
  // Whether these weights answer requests that name no version, and as which generation.
  bool serves = false;
  std::uint64_t generation = 0;
  std::optional<std::int64_t> version;  // Absent where the file has none.
  VersionState state = VersionState::kUnspecified;
  std::string reason;  // Why not; where another file has the same weights, which.
};

// How far something has come. `total_bytes` is 0 while that is not known.
using Progress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

class RELIGHT_CLIENT_API AdminClient {
 public:
  // As Client::Connect.
  static absl::StatusOr<AdminClient> Connect(const std::string& target,
                                             const ConnectOptions& options = {});

  AdminClient(AdminClient&&) noexcept;
  AdminClient& operator=(AdminClient&&) noexcept;
  ~AdminClient();

  // Of all models where `model` is empty; NOT_FOUND for an unknown one.
  absl::StatusOr<ServerStatus> GetStatus(const std::string& model = "",
                                         const CallOptions& options = {});
  // Newest first; `limit` 0 for all that is kept.
  absl::StatusOr<std::vector<HistoryEntry>> GetHistory(const std::string& model,
                                                       std::uint32_t limit = 0,
                                                       const CallOptions& options = {});
  // Calls `changed` on this thread with the status of every model (of one, where `model` is not
  // empty), then again after every change, until it returns false (OK) or the stream ends (the
  // reason).
  absl::Status Watch(const std::string& model,
                     const std::function<bool(const ModelStatus&)>& changed,
                     const CallOptions& options = {});

  // Scans the model's folder now and waits for the outcome. FAILED_PRECONDITION with the reason
  // when the newest checkpoint was refused.
  absl::StatusOr<ReloadResult> Reload(const std::string& model, const CallOptions& options = {});
  // Serves exactly this version until it is unpinned.
  absl::StatusOr<ModelStatus> Pin(const std::string& model, std::int64_t version,
                                  const CallOptions& options = {});
  absl::StatusOr<ModelStatus> Unpin(const std::string& model, const CallOptions& options = {});
  // Serves the version before the present one, and pins it.
  absl::StatusOr<ModelStatus> RollBack(const std::string& model, const CallOptions& options = {});
  // Stops serving the model until it is reloaded.
  absl::StatusOr<ModelStatus> Unload(const std::string& model, const CallOptions& options = {});

  // Writes what is served as a checkpoint in the server's snapshot folder. `progress`, where there
  // is one, is called on this thread with the bytes written and those there will be in all.
  absl::StatusOr<SnapshotResult> Snapshot(const std::string& model,
                                          const SnapshotOptions& snapshot = {},
                                          const Progress& progress = {},
                                          const CallOptions& options = {});

  // The same, but into a file at `path` on this machine, whose suffix says the format like that of
  // SnapshotOptions::path. It appears there once it is whole and has the SHA-256 that the server
  // gives; the result's path is `path`. `progress` tells the bytes that have come, and (0, 0) while
  // the server still writes.
  //
  // Also ALREADY_EXISTS, DATA_LOSS for other bytes than the server sent, and RESOURCE_EXHAUSTED for
  // a full disk here.
  absl::StatusOr<SnapshotResult> DownloadSnapshot(const std::string& model, const std::string& path,
                                                  const DownloadOptions& download = {},
                                                  const Progress& progress = {},
                                                  const CallOptions& options = {});

  // Puts the file at `path` into the model's watched folder, where it appears once it is whole and
  // the loader's checks have passed, and says what came of it. `progress` tells the bytes that were
  // sent.
  //
  // INVALID_ARGUMENT or DATA_LOSS with the loader's words where the model does not take it,
  // ALREADY_EXISTS, RESOURCE_EXHAUSTED for a full disk there: nothing of it was kept then. OK does
  // not mean that it serves.
  absl::StatusOr<PushResult> Push(const std::string& model, const std::string& path,
                                  const PushOptions& push = {}, const Progress& progress = {},
                                  const CallOptions& options = {});

 private:
  struct Impl;
  explicit AdminClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace relight::client

#endif  // RELIGHT_ADMIN_H_
