// The models of one repository: what the transport and the admin service talk to.
//
// Infer never blocks: it validates, admits to the model's queue and returns; the answer comes
// through the callback. The admin calls may wait for the manager's thread and for files: call them
// on a thread that may wait, never on a gRPC thread.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_SERVER_CORE_H_
#define RELIGHT_SERVER_SERVING_SERVER_CORE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/clock.h"
#include "server/model/graph_factory.h"
#include "server/serving/infer.h"
#include "server/serving/statistics.h"
#include "server/serving/status.h"

namespace relight::serving {

struct CoreOptions {
  std::string model_repository;
  std::string state_dir;     // Empty: pins are forgotten at exit, spools go to the temp folder.
  std::string snapshot_dir;  // Empty: snapshots are refused.
  absl::Duration poll_interval = absl::Seconds(1);
  int compute_threads = 1;
  int load_threads = 1;
};

enum class SnapshotFormat : std::uint8_t {
  kAsSource,     // What the version came from, or what the suffix of the path says.
  kBundle,       // A torch.save file of the weights and all that was beside them.
  kStateDict,    // A torch.save file of the weights.
  kSafetensors,  // The weights, in that format.
};

struct SnapshotRequest {
  std::string model = {};
  std::string path = {};  // Below snapshot_dir; empty for a default name.
  std::optional<std::int64_t> version = {};
  bool overwrite = false;
  bool weights_only = false;
  bool lossless = false;
  SnapshotFormat format = SnapshotFormat::kAsSource;
};

struct SnapshotResult {
  std::string path;  // Absolute.
  std::uint64_t size_bytes = 0;
  std::string file_sha256;
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  std::string weights_digest;
  bool training_state = false;
  SnapshotFormat format = SnapshotFormat::kAsSource;  // Never that: what was written.
  // Paths within the checkpoint of what could not be carried, each with its class, and of what was
  // written as something else, each with what.
  std::vector<std::string> left_out;
  std::vector<std::string> converted;
};

// The bytes of a snapshot that lies nowhere else: it is gone with this object.
//
// Thread-compatible. Waits for files.
class OutgoingSnapshot {
 public:
  virtual ~OutgoingSnapshot() = default;
  // Without a path.
  virtual const SnapshotResult& result() const = 0;
  // Fills `buffer` with the bytes that come next, all but the last time to its end. 0 when all
  // have been read.
  virtual absl::StatusOr<std::size_t> Read(absl::Span<std::byte> buffer) = 0;
};

struct PushRequest {
  std::string model = {};
  std::string file = {};  // Its name in the watched folder.
  std::uint64_t size_bytes = 0;
  bool overwrite = false;
  bool wait = true;  // For what comes of it.
};

// What came of a file that is in the folder now.
struct PushResult {
  std::string file = {};
  std::uint64_t size_bytes = 0;
  std::string file_sha256 = {};
  std::string weights_digest = {};
  // Whether weights of this digest answer requests that name no version, and as which generation.
  bool serves = false;
  std::uint64_t generation = 0;
  std::optional<std::int64_t> version = {};
  VersionState state = VersionState::kFound;
  std::string reason = {};  // Why not; where another file has the same weights, which.
};

// A checkpoint on its way into a watched folder. Destroying it removes what is not in place.
//
// Thread-compatible. Waits for files.
class IncomingCheckpoint {
 public:
  virtual ~IncomingCheckpoint() = default;
  // After an error only destroying makes sense.
  virtual absl::Status Write(absl::Span<const std::byte> bytes) = 0;
  // Proves that it is what was announced and that the model takes it, moves it into place, and
  // waits for what comes of it. Call once. Gives up, until it is in place, once `wanted` says no.
  //
  // INVALID_ARGUMENT or DATA_LOSS where it is refused, CANCELLED, and what storage/atomic_file.h
  // says. OK does not mean that it serves.
  virtual absl::StatusOr<PushResult> Commit(const std::string& file_sha256,
                                            const std::function<bool()>& wanted) = 0;
};

struct ReloadResult {
  ModelStatus status;
  bool swapped = false;
};

class ServerCore {
 public:
  virtual ~ServerCore() = default;

  // --- the request path: never blocks ---

  // NOT_FOUND for an unknown model; else what `done` is called with (maybe before this returns).
  virtual void Infer(std::string_view model, InferRequest request, InferDone done) = 0;

  // NOT_FOUND for an unknown model.
  virtual absl::StatusOr<std::shared_ptr<const ModelInfo>> GetModelInfo(
      std::string_view model) const = 0;
  // Whether `version` (absent: any) of `model` answers requests now. NOT_FOUND as above.
  virtual absl::StatusOr<bool> IsModelReady(std::string_view model,
                                            std::optional<std::int64_t> version) const = 0;
  // True once every configured model has served, and from then on.
  virtual bool IsReady() const = 0;
  virtual std::vector<std::string> ModelNames() const = 0;
  // One row per loaded version, newest first; `model` empty for all models.
  virtual absl::StatusOr<std::vector<std::pair<std::string, VersionStatistics>>> GetStatistics(
      std::string_view model, std::optional<std::int64_t> version) const = 0;
  // A row per model; a last one without a name where requests were refused that named none of them.
  virtual std::vector<ModelStatistics> GetModelStatistics() const = 0;
  // Counts a request for `model` (which may be none of ours) whose form the transport refused.
  virtual void CountInvalidRequest(std::string_view model) = 0;
  // The largest request in bytes that the models' configs allow.
  virtual std::uint64_t MaxRequestBytes() const = 0;

  // --- the admin path: may wait ---

  virtual std::vector<ModelStatus> GetStatus() const = 0;
  virtual absl::StatusOr<ModelStatus> GetStatus(std::string_view model) const = 0;
  virtual absl::StatusOr<std::vector<HistoryEntry>> GetHistory(std::string_view model,
                                                               std::size_t limit) const = 0;
  virtual absl::StatusOr<ReloadResult> Reload(std::string_view model) = 0;
  virtual absl::StatusOr<ModelStatus> Pin(std::string_view model, std::int64_t version) = 0;
  virtual absl::StatusOr<ModelStatus> Unpin(std::string_view model) = 0;
  virtual absl::StatusOr<ModelStatus> RollBack(std::string_view model) = 0;
  virtual absl::StatusOr<ModelStatus> Unload(std::string_view model) = 0;

  // Returning false from `progress` cancels; the half-written file is removed.
  using SnapshotProgress = std::function<bool(std::uint64_t written, std::uint64_t total)>;
  virtual absl::StatusOr<SnapshotResult> Snapshot(const SnapshotRequest& request,
                                                  const SnapshotProgress& progress) = 0;
  // The same as bytes to be read instead of a file that stays. The request's path only says the
  // format; `overwrite` says nothing.
  virtual absl::StatusOr<std::unique_ptr<OutgoingSnapshot>> OpenSnapshot(
      const SnapshotRequest& request, const SnapshotProgress& progress) = 0;
  // INVALID_ARGUMENT for a name that is none of a checkpoint, or a size that the model's limits
  // exclude; ALREADY_EXISTS; RESOURCE_EXHAUSTED where there is no room, or too many are open;
  // FAILED_PRECONDITION where the model has no usable config. What is returned must not outlive
  // this object.
  virtual absl::StatusOr<std::unique_ptr<IncomingCheckpoint>> BeginPush(
      const PushRequest& request) = 0;

  // `on_change` is called with the name of each model whose status changed (several changes may
  // come as one), and with "" when the server's readiness did; on a manager thread, with no lock
  // held: it must not wait. Once the returned object is destroyed it is not called any more.
  class Subscription {
   public:
    virtual ~Subscription() = default;
  };
  virtual std::unique_ptr<Subscription> Subscribe(
      std::function<void(const std::string& model)> on_change) = 0;

  // --- the end ---

  // From now on new requests are UNAVAILABLE "draining". Returns when no request is in flight, or
  // `deadline` passed (false).
  virtual bool Drain(absl::Time deadline) = 0;
};

// Starts the manager, the loaders and the compute pool, and returns once the repository has been
// scanned once; models may still be loading. NOT_FOUND for a missing repository, INVALID_ARGUMENT
// with all errors of all configs where some model.textproto is wrong at start. `factory` and
// `clock` must outlive the core. Destroying the core stops all of its threads.
absl::StatusOr<std::unique_ptr<ServerCore>> StartServerCore(const CoreOptions& options,
                                                            model::GraphFactory& factory,
                                                            const Clock& clock);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_SERVER_CORE_H_
