// Reading the storages that a plan of weights needs, one pass over each: what loading them into a
// block and merely examining them have in common.
#ifndef RELIGHT_STORAGE_WEIGHT_READER_H_
#define RELIGHT_STORAGE_WEIGHT_READER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "storage/checkpoint.h"
#include "storage/weights.h"
#include "storage/weights_digest.h"

namespace relight::storage {

// Thread-safety: jobs may be run by several threads at once, each by one.
class WeightReader {
 public:
  // Everything that is filled from one storage. Indices into the plan's pieces and tensors.
  struct Job {
    std::uint32_t storage = 0;
    std::optional<std::size_t> whole_piece;
    std::vector<std::size_t> dense_pieces;
    std::vector<std::size_t> tensors;
  };

  using BetweenChunks = std::function<absl::Status(std::uint64_t bytes)>;

  // `scratch` is for storages of which only parts are wanted; `between_chunks` may be empty. All
  // but the functions must outlive the reader.
  WeightReader(const Checkpoint& checkpoint, const WeightPlan& plan, ScratchMemory scratch,
               BetweenChunks between_chunks);

  // The longest storage first.
  const std::vector<Job>& jobs() const { return jobs_; }

  // Where the bytes of a piece go; before a job that fills it.
  void SetPlace(std::size_t piece, std::byte* place) { places_[piece] = place; }
  // Element [0, ..., 0] of a tensor whose job was run.
  const std::byte* AddressOf(const WeightTensor& tensor) const;

  // Fills the pieces of `job`, verifies the storage's CRC-32, and digests the tensors and looks for
  // values that are not finite.
  absl::Status Run(const Job& job);

  // The tensor whose elements are just the storage's bytes, in order, where the job wants no other.
  // Such a job needs no places:
  const WeightTensor* OnlyTensor(const Job& job) const;
  // Like Run, but keeps nothing. REQUIRES: OnlyTensor(job).
  absl::Status Stream(const Job& job);

  // After all jobs.
  ExaminedWeights Result() const;

 private:
  class ElementsSeen;

  void MakeJobs();
  absl::Status RunDense(const Job& job);
  absl::Status Passed(std::uint64_t bytes) const;
  void ExtendRange(const WeightPiece& piece, std::uint64_t& begin, std::uint64_t& end) const;
  void Gather(const WeightPiece& piece, const std::byte* source, std::uint64_t source_begin,
              std::byte* out) const;
  bool HoldsBools(const Job& job) const;
  std::optional<std::size_t> CoveringTensor(const Job& job) const;
  bool SameView(std::size_t a, std::size_t b) const;
  void LookAt(std::size_t tensor);
  void Keep(const ElementsSeen& seen, std::size_t tensor);

  const Checkpoint& checkpoint_;
  const WeightPlan& plan_;
  const ScratchMemory scratch_;
  const BetweenChunks between_chunks_;
  std::vector<Job> jobs_;
  std::vector<std::byte*> places_;  // Of the plan's pieces.
  // Of the plan's tensors.
  std::vector<ElementsHash> hashes_;
  std::vector<NonFinite> non_finite_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WEIGHT_READER_H_
