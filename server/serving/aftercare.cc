#include "server/serving/aftercare.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/exception_fence.h"
#include "base/status_macros.h"
#include "storage/input_file.h"
#include "storage/sha256.h"
#include "storage/snapshot_tree.h"
#include "storage/spool.h"
#include "storage/writer.h"

namespace relight::serving {
namespace {

// What a snapshot needs and the block does not hold as it was in the file. Weights are in the
// block, but for odd ones: a slice of a much larger storage, say.
absl::StatusOr<std::set<std::uint32_t>> BesideTheBlock(const VersionRecord& record,
                                                       bool weights_only) {
  RELIGHT_ASSIGN_OR_RETURN(
      const storage::SnapshotTree snapshot,
      storage::MakeSnapshotTree(*record.tree, record.state_dict, weights_only));
  RELIGHT_ASSIGN_OR_RETURN(const std::vector<std::uint32_t> needed,
                           storage::NeededStorages(snapshot.tree, snapshot.root));
  std::set<std::uint32_t> beside(needed.begin(), needed.end());
  for (const storage::WeightPiece& piece : record.plan.pieces) {
    if (piece.verbatim) beside.erase(piece.storage);
  }
  return beside;
}

absl::Status SetAside(const VersionRecord& record, const storage::Checkpoint& source,
                      bool weights_only, const std::string& folder,
                      const std::function<absl::Status()>& pace, Aftermath& out) {
  RELIGHT_ASSIGN_OR_RETURN(const std::set<std::uint32_t> storages,
                           BesideTheBlock(record, weights_only));
  if (storages.empty()) return absl::OkStatus();
  RELIGHT_ASSIGN_OR_RETURN(
      storage::Spool spool,
      storage::Spool::Create(source, {storages.begin(), storages.end()}, folder, pace));
  out.spool = std::make_shared<const storage::Spool>(std::move(spool));
  return absl::OkStatus();
}

void SetTrainingStateAside(const VersionRecord& record,
                           const std::shared_ptr<const storage::Checkpoint>& source,
                           config::TrainingState how, const std::string& spool_folder,
                           const std::function<absl::Status()>& pace, Aftermath& out) {
  const absl::Status status = WithinFence("setting it aside", [&] {
    if (how != config::TrainingState::kOpenFile) {
      return SetAside(record, *source, how == config::TrainingState::kNone, spool_folder, pace,
                      out);
    }
    out.source = source;
    return BesideTheBlock(record, /*weights_only=*/false).status();
  });
  if (!HoldsMoreThanWeights(record)) {
    out.training_state_reason = "the checkpoint holds nothing beside the weights";
  } else if (how == config::TrainingState::kNone) {
    out.training_state_reason = "the config says training_state: NONE";
  } else if (!status.ok()) {
    out.training_state_reason =
        absl::StrCat("it could not be set aside: ", std::string(status.message()));
  } else {
    out.training_state = true;
    out.training_state_reason.clear();
  }
}

}  // namespace

bool HoldsMoreThanWeights(const VersionRecord& record) {
  return storage::HoldsMoreThanWeights(*record.tree, record.state_dict);
}

bool WeightsNeedNothingElse(const VersionRecord& record) {
  const absl::StatusOr<std::set<std::uint32_t>> beside =
      BesideTheBlock(record, /*weights_only=*/true);
  return beside.ok() && beside->empty();
}

void TakeCareOf(VersionRecord& record, std::shared_ptr<const storage::Checkpoint> source,
                config::TrainingState how, const std::string& spool_folder,
                const std::function<absl::Status()>& pace) {
  Aftermath aftermath;
  SetTrainingStateAside(record, source, how, spool_folder, pace, aftermath);
  aftermath.complete = true;
  record.SetAftermath(aftermath);
  absl::StatusOr<std::string> sha256 =
      WithinFence("reading it once more", [&] { return Sha256OfSource(*source, pace); });
  if (!sha256.ok()) return;
  aftermath.file_sha256 = *std::move(sha256);
  record.SetAftermath(std::move(aftermath));
}

absl::StatusOr<std::string> Sha256OfSource(const storage::Checkpoint& checkpoint,
                                           const std::function<absl::Status()>& pace) {
  // Of an index alone: its shards are not one file with it.
  const storage::InputFile& file = checkpoint.files().front();
  RELIGHT_ASSIGN_OR_RETURN(std::string sha256,
                           storage::Sha256OfFile(file.fd(), file.size_bytes(), pace));
  RELIGHT_RETURN_IF_ERROR(checkpoint.CheckContentUnchanged());
  return sha256;
}

}  // namespace relight::serving
