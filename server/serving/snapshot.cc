#include "server/serving/snapshot.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/exception_fence.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "server/config/acceptance.h"
#include "server/serving/aftercare.h"
#include "storage/sha256.h"
#include "storage/snapshot_tree.h"
#include "storage/writer.h"

namespace relight::serving {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{4} << 20;
constexpr absl::Duration kProgressEvery = absl::Milliseconds(200);

// The storages of a version: those of the weights from its block, the others from where they were
// set aside.
class RecordStorages final : public storage::StorageSource {
 public:
  RecordStorages(const VersionRecord& record, Aftermath aftermath)
      : record_(record), aftermath_(std::move(aftermath)) {
    for (const storage::WeightPiece& piece : record_.plan.pieces) {
      if (piece.verbatim) in_block_[piece.storage] = &piece;
    }
  }

  absl::Status Stream(std::uint32_t index, const storage::ByteSink& sink) const override {
    if (const auto found = in_block_.find(index); found != in_block_.end()) {
      return StreamBlock(*found->second, sink);
    }
    if (aftermath_.spool != nullptr && aftermath_.spool->Has(index)) {
      return aftermath_.spool->Stream(index, sink);
    }
    if (aftermath_.source != nullptr) return StreamSource(index, sink);
    return absl::FailedPreconditionError(
        absl::StrCat("storage ", record_.storages[index].key, " of ", Escape(record_.file),
                     " was not set aside: ", aftermath_.training_state_reason));
  }
  std::uint64_t SizeBytes(std::uint32_t index) const override {
    return record_.storages[index].size_bytes;
  }
  DType ElementType(std::uint32_t index) const override { return record_.storages[index].dtype; }
  bool IsUntyped(std::uint32_t index) const override { return record_.storages[index].untyped; }

 private:
  absl::Status StreamBlock(const storage::WeightPiece& piece, const storage::ByteSink& sink) const {
    absl::Span<const std::byte> left =
        record_.lease->bytes().subspan(piece.offset_bytes, piece.size_bytes);
    while (!left.empty()) {
      const std::size_t size = std::min(left.size(), kChunkBytes);
      RELIGHT_RETURN_IF_ERROR(sink(left.first(size)));
      left.remove_prefix(size);
    }
    return absl::OkStatus();
  }

  absl::Status StreamSource(std::uint32_t index, const storage::ByteSink& sink) const {
    RELIGHT_RETURN_IF_ERROR(Unchanged());
    std::vector<std::byte> buffer(kChunkBytes);
    RELIGHT_RETURN_IF_ERROR(aftermath_.source->StreamStorage(
        index, absl::MakeSpan(buffer),
        [&](std::uint64_t, absl::Span<const std::byte> bytes) { return sink(bytes); }));
    return Unchanged();
  }

  absl::Status Unchanged() const {
    if (aftermath_.source->CheckContentUnchanged().ok()) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "the training state is gone: ", Escape(record_.file),
        " was written over since it was loaded (training_state: OPEN_FILE); ask for weights_only"));
  }

  const VersionRecord& record_;
  const Aftermath aftermath_;
  std::map<std::uint32_t, const storage::WeightPiece*> in_block_;
};

// One snapshot in the making.
class SnapshotWriter {
 public:
  SnapshotWriter(const SnapshotRequest& request, const ModelManager::SnapshotSource& source,
                 const std::string& folder, model::GraphFactory& factory,
                 const ServerCore::SnapshotProgress& progress)
      : request_(request),
        source_(source),
        record_(*source.record),
        generation_(record_.generation),
        folder_(folder),
        factory_(factory),
        progress_(progress) {}

  absl::StatusOr<SnapshotResult> Run() {
    RELIGHT_RETURN_IF_ERROR(AwaitTrainingState());
    RELIGHT_ASSIGN_OR_RETURN(
        const storage::SnapshotTree tree,
        storage::MakeSnapshotTree(*record_.tree, record_.state_dict, request_.weights_only));
    const RecordStorages storages(record_, record_.aftermath());
    RELIGHT_ASSIGN_OR_RETURN(total_bytes_,
                             storage::PredictCheckpointBytes(tree.tree, tree.root, storages));
    RELIGHT_RETURN_IF_ERROR(Report());

    RELIGHT_ASSIGN_OR_RETURN(storage::AtomicFile file, CreateFile());
    storage::Sha256 sha256;
    const storage::ByteSink sink = [&](absl::Span<const std::byte> bytes) -> absl::Status {
      RELIGHT_RETURN_IF_ERROR(file.Write(bytes));
      sha256.Update(bytes);
      written_bytes_ += bytes.size();
      return Report();
    };
    RELIGHT_ASSIGN_OR_RETURN(storage::WriteReport report,
                             storage::WriteCheckpoint(tree.tree, tree.root, storages,
                                                      {.lossless = request_.lossless}, sink));
    RELIGHT_RETURN_IF_ERROR(file.Sync());
    RELIGHT_RETURN_IF_ERROR(Verify(file.temporary_path()));
    RELIGHT_RETURN_IF_ERROR(file.Commit());

    SnapshotResult result;
    result.path = AbsolutePath();
    result.size_bytes = written_bytes_;
    result.file_sha256 = sha256.FinishHex();
    result.version = record_.version;
    result.generation = generation_;
    result.weights_digest = record_.digest.ToHex();
    result.training_state = !request_.weights_only && HoldsMoreThanWeights(record_);
    result.left_out = std::move(report.left_out);
    return result;
  }

 private:
  absl::Status Report() const {
    if (!progress_ || progress_(written_bytes_, total_bytes_)) return absl::OkStatus();
    return absl::CancelledError("the snapshot was cancelled; nothing was left behind");
  }

  // It is set aside after the swap, which may be just now.
  absl::Status AwaitTrainingState() const {
    if (request_.weights_only && WeightsNeedNothingElse(record_)) return absl::OkStatus();
    ++record_.awaited;
    absl::Status waiting;
    while (waiting.ok() && !record_.AwaitAftermath(kProgressEvery)) waiting = Report();
    --record_.awaited;
    RELIGHT_RETURN_IF_ERROR(waiting);
    const Aftermath aftermath = record_.aftermath();
    if (request_.weights_only || aftermath.training_state || !HoldsMoreThanWeights(record_)) {
      return absl::OkStatus();
    }
    return absl::FailedPreconditionError(
        absl::StrCat("version ", record_.version, " has no training state to write: ",
                     aftermath.training_state_reason, "; ask for weights_only"));
  }

  std::string RelativePath() const {
    if (!request_.path.empty()) return request_.path;
    return absl::StrCat(request_.model, "/", record_.version, "-", generation_, "-",
                        record_.digest.ToHex().substr(0, 8), ".pt");
  }

  std::string AbsolutePath() const {
    std::error_code error;
    const std::filesystem::path folder = std::filesystem::absolute(folder_, error);
    return ((error ? std::filesystem::path(folder_) : folder) / RelativePath()).string();
  }

  absl::StatusOr<storage::AtomicFile> CreateFile() const {
    const UniqueFd folder(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "cannot open --snapshot-dir ", Escape(folder_, 1024), ": ", std::strerror(errno)));
    }
    absl::StatusOr<storage::AtomicFile> file =
        storage::AtomicFile::Create(folder.get(), RelativePath(), request_.overwrite);
    if (absl::IsAlreadyExists(file.status())) {
      return absl::AlreadyExistsError(absl::StrCat("snapshot ", Escape(RelativePath(), 1024),
                                                   " exists; ask for overwrite to replace it"));
    }
    return file;
  }

  // Reads back what was written: every checksum, and that the weights are those that are served.
  absl::Status Verify(const std::string& path) const {
    RELIGHT_ASSIGN_OR_RETURN(const storage::Checkpoint written, storage::Checkpoint::Open(path));
    std::vector<std::byte> buffer(kChunkBytes);
    const auto ignore = [](std::uint64_t, absl::Span<const std::byte>) { return absl::OkStatus(); };
    for (std::size_t i = 0; i < written.storages().size(); ++i) {
      RELIGHT_RETURN_IF_ERROR(written.StreamStorage(i, absl::MakeSpan(buffer), ignore));
      RELIGHT_RETURN_IF_ERROR(Report());
    }
    config::Checkpoints where = source_.config.checkpoints;
    if (request_.weights_only) where.state_dict_key.clear();
    RELIGHT_ASSIGN_OR_RETURN(const storage::StateDict state_dict,
                             config::FindWeights(written, where, source_.parameters));
    RELIGHT_ASSIGN_OR_RETURN(const storage::WeightPlan plan,
                             config::PlanFor(written, state_dict, source_.parameters));
    RELIGHT_ASSIGN_OR_RETURN(
        const std::shared_ptr<std::byte> block,
        factory_.AllocateHost("cpu", std::max<std::size_t>(plan.total_bytes, 1)));
    RELIGHT_ASSIGN_OR_RETURN(const storage::LoadedWeights weights,
                             storage::LoadWeights(written, plan, {block.get(), plan.total_bytes}));
    if (weights.digest == record_.digest) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("the snapshot reads back with weights ",
                                            weights.digest.ToHex(), ", not ",
                                            record_.digest.ToHex(), " as served; check the disk"));
  }

  const SnapshotRequest& request_;
  const ModelManager::SnapshotSource& source_;
  const VersionRecord& record_;
  const std::uint64_t generation_;  // When the snapshot was asked for.
  const std::string& folder_;
  model::GraphFactory& factory_;
  const ServerCore::SnapshotProgress& progress_;
  std::uint64_t written_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace

absl::StatusOr<SnapshotResult> WriteSnapshot(const SnapshotRequest& request,
                                             const ModelManager::SnapshotSource& source,
                                             const std::string& snapshot_dir,
                                             model::GraphFactory& factory,
                                             const ServerCore::SnapshotProgress& progress) {
  return WithinFence("the snapshot", [&] {
    return SnapshotWriter(request, source, snapshot_dir, factory, progress).Run();
  });
}

}  // namespace relight::serving
