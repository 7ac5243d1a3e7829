#include "server/serving/snapshot.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/exception_fence.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "server/config/acceptance.h"
#include "server/serving/aftercare.h"
#include "server/serving/record_storages.h"
#include "server/serving/snapshot_format.h"
#include "storage/error.h"
#include "storage/posix_error.h"
#include "storage/safetensors_writer.h"
#include "storage/sha256.h"
#include "storage/snapshot_tree.h"
#include "storage/weight_comparison.h"
#include "storage/weights_digest.h"
#include "storage/writer.h"

namespace relight::serving {
namespace {

constexpr absl::Duration kProgressEvery = absl::Milliseconds(200);
// Of what is written for a reader, before its name is taken away.
constexpr char kNameForReader[] = "download";

class UnlinkedSnapshot final : public OutgoingSnapshot {
 public:
  UnlinkedSnapshot(UniqueFd file, SnapshotResult result)
      : file_(std::move(file)), result_(std::move(result)) {}

  const SnapshotResult& result() const override { return result_; }

  absl::StatusOr<std::size_t> Read(absl::Span<std::byte> buffer) override {
    const std::uint64_t left = result_.size_bytes - offset_;
    buffer = buffer.first(static_cast<std::size_t>(std::min<std::uint64_t>(left, buffer.size())));
    std::size_t got = 0;
    while (got < buffer.size()) {
      const ssize_t n = ::pread(file_.get(), buffer.data() + got, buffer.size() - got,
                                static_cast<off_t>(offset_ + got));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return storage::PosixError("reading the snapshot", errno);
      if (n == 0) return absl::DataLossError("reading the snapshot: the file was cut short");
      got += static_cast<std::size_t>(n);
    }
    offset_ += got;
    return got;
  }

 private:
  const UniqueFd file_;
  const SnapshotResult result_;
  std::uint64_t offset_ = 0;
};

// LIMIT_EXCEEDED, which was said of a checkpoint, as it is said of a snapshot; others as they are.
absl::Status OfLimits(const absl::Status& status) {
  if (storage::GetErrorCode(status) != storage::ErrorCode::kLimitExceeded) return status;
  absl::Status said(
      status.code(),
      absl::StrCat("the model could not load this snapshot: ", std::string(status.message()),
                   "; raise that limit in `checkpoints { limits { ... } }` of its "
                   "config"));
  status.ForEachPayload(
      [&said](absl::string_view url, const absl::Cord& payload) { said.SetPayload(url, payload); });
  return said;
}

// One snapshot in the making.
class SnapshotWriter {
 public:
  SnapshotWriter(const SnapshotRequest& request, const ModelManager::SnapshotSource& source,
                 const std::string& folder, const ServerCore::SnapshotProgress& progress)
      : request_(request),
        source_(source),
        record_(*source.record),
        generation_(record_.generation),
        folder_(folder),
        progress_(progress) {}

  absl::StatusOr<SnapshotResult> Run() {
    RELIGHT_ASSIGN_OR_RETURN(Written written, WriteAndVerify([this] { return CreateFile(); }));
    RELIGHT_RETURN_IF_ERROR(written.file.Commit());
    written.result.path = AbsolutePath();
    return std::move(written.result);
  }

  absl::StatusOr<std::unique_ptr<OutgoingSnapshot>> RunForReader() {
    RELIGHT_ASSIGN_OR_RETURN(Written written,
                             WriteAndVerify([this] { return CreateFileForReader(); }));
    RELIGHT_ASSIGN_OR_RETURN(UniqueFd file, std::move(written.file).Unlink());
    return std::make_unique<UnlinkedSnapshot>(std::move(file), std::move(written.result));
  }

 private:
  struct Written {
    storage::AtomicFile file;
    SnapshotResult result;
  };

  template <typename Create>
  absl::StatusOr<Written> WriteAndVerify(Create create) {
    RELIGHT_ASSIGN_OR_RETURN(
        format_, ChooseSnapshotFormat(
                     request_, {record_.file, record_.format, HoldsMoreThanWeights(record_)}));
    RELIGHT_RETURN_IF_ERROR(AwaitTrainingState());
    RELIGHT_ASSIGN_OR_RETURN(
        const storage::SnapshotTree tree,
        storage::MakeSnapshotTree(*record_.tree, record_.state_dict, !is_bundle()));
    const RecordStorages storages(record_, record_.aftermath());
    RELIGHT_ASSIGN_OR_RETURN(total_bytes_, Predict(tree, storages));
    RELIGHT_RETURN_IF_ERROR(CheckFileSize());
    RELIGHT_RETURN_IF_ERROR(Report());
    storage::WriteReport report;
    report.left_out = LeftOutUnasked();
    if (request_.lossless) RELIGHT_RETURN_IF_ERROR(storage::CheckLossless(report.left_out));

    RELIGHT_ASSIGN_OR_RETURN(storage::AtomicFile file, create());
    storage::Sha256 sha256;
    const storage::ByteSink sink = [&](absl::Span<const std::byte> bytes) -> absl::Status {
      RELIGHT_RETURN_IF_ERROR(file.Write(bytes));
      sha256.Update(bytes);
      written_bytes_ += bytes.size();
      return Report();
    };
    RELIGHT_ASSIGN_OR_RETURN(const storage::WriteReport written, Write(tree, storages, sink));
    RELIGHT_RETURN_IF_ERROR(file.Sync());
    RELIGHT_RETURN_IF_ERROR(Verify(file.temporary_path()));
    RELIGHT_RETURN_IF_ERROR(VerifyBlock());
    AddWithin(tree, written.left_out, report.left_out);
    AddWithin(tree, written.converted, report.converted);

    SnapshotResult result;
    result.size_bytes = written_bytes_;
    result.file_sha256 = sha256.FinishHex();
    result.version = record_.version;
    result.generation = generation_;
    result.weights_digest = record_.digest.ToHex();
    result.training_state = is_bundle();
    result.format = format_;
    result.left_out = std::move(report.left_out);
    result.converted = std::move(report.converted);
    return Written{std::move(file), std::move(result)};
  }

  bool is_bundle() const { return format_ == SnapshotFormat::kBundle; }
  bool is_safetensors() const { return format_ == SnapshotFormat::kSafetensors; }

  absl::Status Report() const {
    if (!progress_ || progress_(written_bytes_, total_bytes_)) return absl::OkStatus();
    return absl::CancelledError("the snapshot was cancelled; nothing was left behind");
  }

  // It is set aside after the swap, which may be just now.
  absl::Status AwaitTrainingState() const {
    if (!is_bundle() && WeightsNeedNothingElse(record_)) return absl::OkStatus();
    ++record_.awaited;
    absl::Status waiting;
    while (waiting.ok() && !record_.AwaitAftermath(kProgressEvery)) waiting = Report();
    --record_.awaited;
    RELIGHT_RETURN_IF_ERROR(waiting);
    const Aftermath aftermath = record_.aftermath();
    if (!is_bundle() || aftermath.training_state) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat("version ", record_.version, " has no training state to write: ",
                     aftermath.training_state_reason, "; ask for weights_only"));
  }

  absl::StatusOr<std::uint64_t> Predict(const storage::SnapshotTree& tree,
                                        const RecordStorages& storages) const {
    if (is_safetensors()) return storage::PredictSafetensorsBytes(tree.tree, tree.root);
    const absl::StatusOr<std::uint64_t> bytes =
        storage::PredictCheckpointBytes(tree.tree, tree.root, storages, Options());
    if (!bytes.ok()) return OfLimits(bytes.status());
    return bytes;
  }

  // A snapshot is one file, whatever the checkpoint was.
  absl::Status CheckFileSize() const {
    const std::uint64_t limit = Options().limits.max_file_bytes;
    if (total_bytes_ <= limit) return absl::OkStatus();
    return OfLimits(storage::MakeError(
        storage::ErrorCode::kLimitExceeded,
        absl::StrCat("it is ", total_bytes_, " bytes long, the limit is ", limit)));
  }

  absl::StatusOr<storage::WriteReport> Write(const storage::SnapshotTree& tree,
                                             const RecordStorages& storages,
                                             const storage::ByteSink& sink) const {
    if (is_safetensors()) {
      return storage::WriteSafetensors(tree.tree, tree.root, storages, Options(), sink);
    }
    return storage::WriteCheckpoint(tree.tree, tree.root, storages, Options(), sink);
  }

  // By the limits that the model's own checkpoints are read with: what is written is read back.
  storage::WriteOptions Options() const {
    return {.lossless = request_.lossless, .limits = source_.config.checkpoints.limits};
  }

  // What the format has no room for, where nobody asked for the weights alone.
  std::vector<std::string> LeftOutUnasked() const {
    if (!is_safetensors() || request_.weights_only) return {};
    return storage::BesideStateDict(*record_.tree, record_.state_dict);
  }

  // The writer's paths begin at what it was given, the result's at the root of the checkpoint.
  void AddWithin(const storage::SnapshotTree& tree, const std::vector<std::string>& lines,
                 std::vector<std::string>& out) const {
    const bool from_root = is_bundle() || tree.root == record_.tree->root();
    const std::string prefix = from_root ? "" : Escape(record_.state_dict.location);
    for (const std::string& line : lines) out.push_back(absl::StrCat(prefix, line));
  }

  std::string RelativePath() const {
    if (!request_.path.empty()) return request_.path;
    return absl::StrCat(request_.model, "/", record_.version, "-", generation_, "-",
                        record_.digest.ToHex().substr(0, 8), std::string(SuffixOf(format_)));
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

  absl::StatusOr<storage::AtomicFile> CreateFileForReader() const {
    const UniqueFd folder(::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!folder.valid()) {
      return absl::FailedPreconditionError(
          absl::StrCat("cannot open ", Escape(folder_, 1024),
                       ", where the snapshot is written first: ", std::strerror(errno)));
    }
    return storage::AtomicFile::Create(folder.get(), kNameForReader, /*overwrite=*/true);
  }

  absl::Status Verify(const std::string& path) const {
    const absl::Status read_back = ReadBack(path);
    if (storage::GetErrorCode(read_back) == storage::ErrorCode::kLimitExceeded) {
      return OfLimits(read_back);
    }
    const bool says_nothing_of_the_file =
        read_back.ok() || absl::IsCancelled(read_back) || storage::IsTransient(read_back);
    if (says_nothing_of_the_file) return read_back;
    return absl::DataLossError(absl::StrCat(
        "reading the snapshot back: ", std::string(read_back.message()), "; check the disk"));
  }

  // Every checksum, and that the weights are those in the version's block.
  absl::Status ReadBack(const std::string& path) const {
    RELIGHT_ASSIGN_OR_RETURN(
        const storage::Checkpoint written,
        storage::Checkpoint::Open(path, {.limits = source_.config.checkpoints.limits}));
    // What was flushed need not stay cached, so that this asks the disk. A request, not a demand.
    ::posix_fadvise(written.fd(), 0, 0, POSIX_FADV_DONTNEED);
    config::Checkpoints where = source_.config.checkpoints;
    if (!is_bundle()) where.state_dict_key.clear();
    RELIGHT_ASSIGN_OR_RETURN(const storage::StateDict state_dict,
                             config::FindWeights(written, where, source_.parameters));
    return storage::CompareWithBlock(written, state_dict, record_.plan, record_.lease->bytes(),
                                     [this] { return Report(); });
  }

  // That the weights in the block are still what was loaded.
  absl::Status VerifyBlock() const {
    RELIGHT_ASSIGN_OR_RETURN(
        const storage::WeightsDigest digest,
        storage::DigestBlock(record_.plan, record_.lease->bytes(), [this] { return Report(); }));
    if (digest == record_.digest) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("the weights in memory are no longer those that were loaded: their digest is ",
                     digest.ToHex(), ", not ", record_.digest.ToHex(),
                     "; reload the model and check the memory"));
  }

  const SnapshotRequest& request_;
  const ModelManager::SnapshotSource& source_;
  const VersionRecord& record_;
  const std::uint64_t generation_;  // When the snapshot was asked for.
  const std::string& folder_;
  const ServerCore::SnapshotProgress& progress_;
  SnapshotFormat format_ = SnapshotFormat::kAsSource;
  std::uint64_t written_bytes_ = 0;
  std::uint64_t total_bytes_ = 0;
};

}  // namespace

absl::StatusOr<SnapshotResult> WriteSnapshot(const SnapshotRequest& request,
                                             const ModelManager::SnapshotSource& source,
                                             const std::string& snapshot_dir,
                                             const ServerCore::SnapshotProgress& progress) {
  return WithinFence("the snapshot",
                     [&] { return SnapshotWriter(request, source, snapshot_dir, progress).Run(); });
}

absl::StatusOr<std::unique_ptr<OutgoingSnapshot>> WriteSnapshotForReader(
    const SnapshotRequest& request, const ModelManager::SnapshotSource& source,
    const std::string& folder, const ServerCore::SnapshotProgress& progress) {
  return WithinFence("the snapshot", [&] {
    return SnapshotWriter(request, source, folder, progress).RunForReader();
  });
}

}  // namespace relight::serving
