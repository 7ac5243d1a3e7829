// What crosses the admin service's connection: checkpoints on their way in, snapshots on their way
// out.
#include <spdlog/spdlog.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/exception_fence.h"
#include "base/log_fields.h"
#include "base/status_macros.h"
#include "server/serving/core.h"
#include "server/serving/failure.h"
#include "server/serving/incoming_file.h"
#include "server/serving/snapshot.h"

namespace relight::serving {
namespace {

// Each has a file open, and most of the time waits for its client.
constexpr int kMaxTransfers = 16;

const LoadedVersion* FindServing(const ModelStatus& status) {
  for (const LoadedVersion& loaded : status.loaded) {
    if (loaded.state == VersionState::kServing) return &loaded;
  }
  return nullptr;
}

// Why the candidate `pushed` does not serve, as far as the model's status tells.
std::string WhyNot(const PushResult& pushed, const ModelStatus& status) {
  if (!pushed.reason.empty()) return pushed.reason;
  const LoadedVersion* serving = FindServing(status);
  const bool served =
      pushed.state == VersionState::kLoaded || pushed.state == VersionState::kRetired;
  if (served && serving != nullptr) {
    return absl::StrCat("it served, and version ", serving->version, " from ",
                        Escape(serving->file), " serves now");
  }
  if (pushed.state == VersionState::kServing) {
    return "it was replaced by another file of that name meanwhile";
  }
  if (status.state == ModelState::kUnloaded) {
    return "the model is unloaded: reload it to serve the newest checkpoint";
  }
  if (status.pinned_version.has_value()) {
    return absl::StrCat("the model is pinned to version ", *status.pinned_version,
                        ": unpin it to serve the newest checkpoint");
  }
  return status.reason;
}

// Says of `pushed` what `status` knows of it.
void Judge(const ModelStatus& status, PushResult& pushed) {
  for (const CandidateStatus& candidate : status.candidates) {
    if (candidate.file != pushed.file) continue;
    pushed.state = candidate.state;
    pushed.version = candidate.version;
    pushed.reason = candidate.reason;
  }
  const LoadedVersion* serving = FindServing(status);
  if (serving != nullptr && serving->weights_digest == pushed.weights_digest) {
    const bool by_this_file = serving->file == pushed.file;
    pushed.serves = true;
    pushed.generation = serving->generation;
    pushed.state = VersionState::kServing;
    if (by_this_file) pushed.version = serving->version;
    pushed.reason = by_this_file ? ""
                                 : absl::StrCat("these weights serve already, as version ",
                                                serving->version, " from ", Escape(serving->file));
    return;
  }
  pushed.reason = WhyNot(pushed, status);
}

// One of the transfers that may be under way.
class TransferSlot {
 public:
  static absl::StatusOr<TransferSlot> Take(std::atomic<int>& taken) {
    if (++taken <= kMaxTransfers) return TransferSlot(taken);
    --taken;
    return absl::ResourceExhaustedError(
        absl::StrCat(kMaxTransfers,
                     " pushes and downloads are under way, and no more are taken: "
                     "try again when one of them has ended"));
  }

 private:
  explicit TransferSlot(std::atomic<int>& taken) : taken_(&taken) {}

  struct GiveBack {
    void operator()(std::atomic<int>* taken) const { --*taken; }
  };
  std::unique_ptr<std::atomic<int>, GiveBack> taken_;
};

// A snapshot on its way out, which takes a place there.
class Download final : public OutgoingSnapshot {
 public:
  Download(TransferSlot slot, std::unique_ptr<OutgoingSnapshot> snapshot)
      : slot_(std::move(slot)), snapshot_(std::move(snapshot)) {}

  const SnapshotResult& result() const override { return snapshot_->result(); }
  absl::StatusOr<std::size_t> Read(absl::Span<std::byte> buffer) override {
    return snapshot_->Read(buffer);
  }

 private:
  const TransferSlot slot_;
  const std::unique_ptr<OutgoingSnapshot> snapshot_;
};

// The steps of a push, whose surroundings are the core's.
class Push final : public IncomingCheckpoint {
 public:
  using Targets = std::function<absl::StatusOr<std::vector<ModelManager::PushTarget>>()>;
  using After =
      std::function<PushResult(const PushResult& pushed, const std::function<bool()>& wanted)>;

  Push(TransferSlot slot, std::unique_ptr<IncomingFile> file, Targets targets,
       storage::ScratchMemory scratch, After after)
      : slot_(std::move(slot)),
        file_(std::move(file)),
        targets_(std::move(targets)),
        scratch_(std::move(scratch)),
        after_(std::move(after)) {}

  absl::Status Write(absl::Span<const std::byte> bytes) override { return file_->Write(bytes); }

  absl::StatusOr<PushResult> Commit(const std::string& file_sha256,
                                    const std::function<bool()>& wanted) override {
    RELIGHT_ASSIGN_OR_RETURN(const PushResult pushed,
                             WithinFence("the push", [&] { return TakeIn(file_sha256, wanted); }));
    slot_.reset();
    return after_(pushed, wanted);
  }

 private:
  absl::StatusOr<PushResult> TakeIn(const std::string& file_sha256,
                                    const std::function<bool()>& wanted) {
    PushResult pushed;
    RELIGHT_ASSIGN_OR_RETURN(pushed.file_sha256, file_->CheckWhole(file_sha256));
    RELIGHT_ASSIGN_OR_RETURN(const storage::WeightsDigest digest, CheckAccepted(wanted));
    // In place it is no failure any more, whatever else was left to do.
    const absl::Status moved = file_->MoveIntoPlace();
    if (!moved.ok() && !file_->is_in_place()) return moved;
    if (!moved.ok()) pushed.reason = std::string(moved.message());
    pushed.weights_digest = digest.ToHex();
    pushed.file = file_->name();
    pushed.size_bytes = file_->size_bytes();
    return pushed;
  }

  // By one of the model's configs, in the folder that it is being written to. The config may have
  // changed while it came.
  absl::StatusOr<storage::WeightsDigest> CheckAccepted(const std::function<bool()>& wanted) const {
    RELIGHT_ASSIGN_OR_RETURN(const auto targets, targets_());
    const storage::ExamineTools tools = {
        scratch_, [&wanted](std::uint64_t) { return wanted() ? absl::OkStatus() : Unwanted(); }};
    absl::StatusOr<storage::WeightsDigest> first = absl::AbortedError(
        absl::StrCat("the watched folder is another now; push ", Escape(file_->name()), " again"));
    bool tried = false;
    for (const ModelManager::PushTarget& target : targets) {
      if (target.config.checkpoints.folder != file_->folder()) continue;
      if (!wanted()) return Unwanted();
      absl::StatusOr<storage::WeightsDigest> digest = file_->CheckAccepted(target, tools);
      if (digest.ok()) return digest;
      if (!std::exchange(tried, true)) first = std::move(digest);
    }
    return first;
  }

  static absl::Status Unwanted() {
    return absl::CancelledError("the push was cancelled; nothing was left behind");
  }

  std::optional<TransferSlot> slot_;  // Until it is in place.
  const std::unique_ptr<IncomingFile> file_;
  const Targets targets_;
  const storage::ScratchMemory scratch_;
  const After after_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<IncomingCheckpoint>> Core::BeginPush(const PushRequest& request) {
  RELIGHT_ASSIGN_OR_RETURN(const Entry entry, Find(request.model));
  if (surroundings_.draining) return Draining();
  RELIGHT_ASSIGN_OR_RETURN(TransferSlot slot, TransferSlot::Take(open_transfers_));
  RELIGHT_ASSIGN_OR_RETURN(const auto targets, entry.manager->PushTargets());
  RELIGHT_ASSIGN_OR_RETURN(std::unique_ptr<IncomingFile> file,
                           IncomingFile::Create(request, targets.front().config.checkpoints));
  return std::make_unique<Push>(
      std::move(slot), std::move(file),
      [manager = entry.manager] { return manager->PushTargets(); },
      [this](std::size_t bytes) { return surroundings_.factory.AllocateHost("cpu", bytes); },
      [this, model = request.model, wait = request.wait](const PushResult& pushed,
                                                         const std::function<bool()>& wanted) {
        return AwaitPushed(model, pushed, wait, wanted);
      });
}

// The file is in its folder: whatever goes wrong from here on is no failure of the push.
PushResult Core::AwaitPushed(const std::string& model, const PushResult& pushed, bool wait,
                             const std::function<bool()>& wanted) {
  PushResult result = pushed;
  const std::string warning = std::exchange(result.reason, "");
  if (const absl::StatusOr<Entry> entry = Find(model); entry.ok()) {
    entry->manager->journal().Add({.time = clock_.Now(),
                                   .event = HistoryEvent::kPushed,
                                   .file = result.file,
                                   .file_sha256 = result.file_sha256,
                                   .weights_digest = result.weights_digest});
  }
  {
    const LogScope about({.model = model, .event = Name(HistoryEvent::kPushed)});
    spdlog::info("model {}: {} was pushed ({} bytes, SHA-256 {}, weights {})", Escape(model),
                 Escape(result.file), result.size_bytes, result.file_sha256, result.weights_digest);
    if (!warning.empty()) spdlog::warn("model {}: {}", Escape(model), warning);
  }
  if (!wait) {
    watcher_->Wake();
    result.reason = "it was not waited for";
    return result;
  }
  const absl::StatusOr<ReloadResult> settled =
      Execute(model, Command::Kind::kTakeIn, 0, result.file, wanted);
  // Where there was no waiting for the outcome, the status still says how far it has come.
  const absl::StatusOr<ModelStatus> status =
      settled.ok() ? absl::StatusOr<ModelStatus>(settled->status) : GetStatus(model);
  if (status.ok()) Judge(*status, result);
  if (!result.serves && result.reason.empty()) {
    result.reason =
        settled.ok() ? "it is no longer in the folder" : std::string(settled.status().message());
  }
  if (!warning.empty()) {
    absl::StrAppend(&result.reason, result.reason.empty() ? "" : "; ", warning);
  }
  return result;
}

absl::StatusOr<std::unique_ptr<OutgoingSnapshot>> Core::OpenSnapshot(
    const SnapshotRequest& request, const SnapshotProgress& progress) {
  RELIGHT_ASSIGN_OR_RETURN(const Entry entry, Find(request.model));
  RELIGHT_ASSIGN_OR_RETURN(const ModelManager::SnapshotSource source,
                           entry.manager->FindForSnapshot(request.version));
  RELIGHT_ASSIGN_OR_RETURN(TransferSlot slot, TransferSlot::Take(open_transfers_));
  // Files of such a size are expected in the first of these, and none stays.
  const std::string& folder =
      options_.snapshot_dir.empty() ? surroundings_.spool_folder : options_.snapshot_dir;
  RELIGHT_ASSIGN_OR_RETURN(std::unique_ptr<OutgoingSnapshot> snapshot,
                           WriteSnapshotForReader(request, source, folder, progress));
  const SnapshotResult& result = snapshot->result();
  entry.manager->journal().Add({.time = clock_.Now(),
                                .event = HistoryEvent::kSnapshot,
                                .version = result.version,
                                .generation = result.generation,
                                .file_sha256 = result.file_sha256,
                                .weights_digest = result.weights_digest,
                                .reason = "for a download"});
  const LogScope about({.model = request.model,
                        .version = result.version,
                        .generation = result.generation,
                        .event = Name(HistoryEvent::kSnapshot)});
  spdlog::info("model {}: wrote version {}, generation {} for a client to download",
               Escape(request.model), result.version, result.generation);
  return std::make_unique<Download>(std::move(slot), std::move(snapshot));
}

}  // namespace relight::serving
