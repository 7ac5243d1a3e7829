// LoadWeights and ExamineWeights: reads the pieces of a plan, into a block or only past.
#include <memory>
#include <new>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/weight_reader.h"
#include "storage/weights.h"

namespace relight::storage {
namespace {

absl::StatusOr<std::shared_ptr<std::byte>> FromTheHeap(std::size_t size_bytes) {
  std::shared_ptr<std::byte> memory(new (std::nothrow) std::byte[size_bytes],
                                    std::default_delete<std::byte[]>());
  if (memory != nullptr) return memory;
  return absl::ResourceExhaustedError(
      absl::StrCat("no memory for ", size_bytes, " bytes of a storage"));
}

// One job after another, each in memory of its own where it needs any.
class Examiner {
 public:
  Examiner(const WeightPlan& plan, const ExamineTools& tools, WeightReader& reader)
      : plan_(plan), tools_(tools), reader_(reader) {}

  absl::Status Run() {
    for (const WeightReader::Job& job : reader_.jobs()) RELIGHT_RETURN_IF_ERROR(RunJob(job));
    return absl::OkStatus();
  }

 private:
  absl::Status RunJob(const WeightReader::Job& job) {
    if (reader_.OnlyTensor(job) != nullptr) return reader_.Stream(job);
    std::vector<std::size_t> pieces = job.dense_pieces;
    if (job.whole_piece.has_value()) pieces.push_back(*job.whole_piece);
    // Padded as in the block, so that the sum is below the block's size.
    std::size_t size_bytes = 0;
    for (const std::size_t piece : pieces) size_bytes += PaddedBytes(piece);
    RELIGHT_ASSIGN_OR_RETURN(const std::shared_ptr<std::byte> memory, tools_.scratch(size_bytes));
    std::byte* place = memory.get();
    for (const std::size_t piece : pieces) {
      reader_.SetPlace(piece, place);
      place += PaddedBytes(piece);
    }
    return reader_.Run(job);
  }

  // At least one unit, for an address.
  std::size_t PaddedBytes(std::size_t piece) const {
    return (static_cast<std::size_t>(plan_.pieces[piece].size_bytes) / kWeightAlignment + 1) *
           kWeightAlignment;
  }

  const WeightPlan& plan_;
  const ExamineTools& tools_;
  WeightReader& reader_;
};

}  // namespace

absl::StatusOr<ExaminedWeights> LoadWeights(const Checkpoint& checkpoint, const WeightPlan& plan,
                                            absl::Span<std::byte> block, const LoadHooks& hooks) {
  if (block.size() != plan.total_bytes ||
      reinterpret_cast<std::uintptr_t>(block.data()) % kWeightAlignment != 0) {
    return absl::InternalError("the block for the weights has a wrong size or alignment");
  }
  WeightReader reader(checkpoint, plan, FromTheHeap, [&](std::uint64_t) {
    return hooks.between_chunks ? hooks.between_chunks() : absl::OkStatus();
  });
  for (std::size_t i = 0; i < plan.pieces.size(); ++i) {
    reader.SetPlace(i, block.data() + plan.pieces[i].offset_bytes);
  }
  const std::vector<WeightReader::Job>& jobs = reader.jobs();
  std::vector<absl::Status> statuses(jobs.size());
  hooks.parallel_for(jobs.size(), [&](std::size_t i) { statuses[i] = reader.Run(jobs[i]); });
  // The file's state first: what reading it made of a half-written file matters less.
  RELIGHT_RETURN_IF_ERROR(checkpoint.CheckUnchanged());
  for (const absl::Status& status : statuses) RELIGHT_RETURN_IF_ERROR(status);
  return reader.Result();
}

absl::StatusOr<ExaminedWeights> ExamineWeights(const Checkpoint& checkpoint, const WeightPlan& plan,
                                               const ExamineTools& tools) {
  WeightReader reader(checkpoint, plan, tools.scratch, tools.between_chunks);
  Examiner examiner(plan, tools, reader);
  const absl::Status status = examiner.Run();
  RELIGHT_RETURN_IF_ERROR(checkpoint.CheckUnchanged());
  RELIGHT_RETURN_IF_ERROR(status);
  return reader.Result();
}

}  // namespace relight::storage
