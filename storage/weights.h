// From a state dict to bytes in memory that the server owns: which storages to read, where each
// goes in one block of memory, and the one pass that reads, checks and digests them.
//
// The layout keeps storages whole: a storage that a wanted tensor views is copied verbatim to a
// 64-byte aligned place in the block, and tensors are strided views into it. So tied weights stay
// tied, a read needs no second copy, and a snapshot can write the same storages again. A tensor
// that cannot be served like that (a slice of a much larger storage, a lazy conjugation) gets a
// dense place of its own.
#ifndef RELIGHT_STORAGE_WEIGHTS_H_
#define RELIGHT_STORAGE_WEIGHTS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "storage/checkpoint.h"
#include "storage/dtype.h"
#include "storage/parallel_for.h"
#include "storage/state_dict.h"

namespace relight::storage {

inline constexpr std::size_t kWeightAlignment = 64;

struct WeightTensor {
  std::string key;           // The graph's.
  std::string original_key;  // The file's.
  NodeId node = kNoNode;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> stride;  // In elements.
  std::uint64_t offset_bytes = 0;    // Of element [0, ..., 0] in the block.
  std::size_t piece = 0;             // Which of WeightPlan::pieces holds it.
};

// A run of the block, filled from one storage.
struct WeightPiece {
  std::uint32_t storage = 0;
  std::uint64_t offset_bytes = 0;  // Multiple of kWeightAlignment.
  std::uint64_t size_bytes = 0;
  bool verbatim = true;  // The whole storage; else one dense tensor (`node`).
  NodeId node = kNoNode;
};

struct WeightPlan {
  std::vector<WeightPiece> pieces;
  std::vector<WeightTensor> tensors;  // In the state dict's order.
  std::uint64_t total_bytes = 0;      // Size of the block.
};

// Plans the tensors of `state_dict` whose keys are in `keys` (in the state dict's order; all of
// them where `keys` is empty). UNSUPPORTED_DTYPE or UNSUPPORTED_LAYOUT names every wanted key that
// cannot be served.
absl::StatusOr<WeightPlan> PlanWeights(const Checkpoint& checkpoint, const StateDict& state_dict,
                                       absl::Span<const std::string> keys);

// XXH3-128 over the tensors in ascending order of their keys' bytes: for each, the length of the
// key (u64) and the key, the length of the dtype's torch name (u64) and the name, the rank (u64)
// and the sizes (u64 each), and the XXH3-128 of its elements in row-major order; all integers
// little-endian. Equal on every replica and whatever file the weights came in: formats that sort
// the tensors, or name tied ones apart, give the same weights in another order.
struct WeightsDigest {
  std::array<std::uint8_t, 16> bytes{};
  std::string ToHex() const;
  friend bool operator==(const WeightsDigest&, const WeightsDigest&) = default;
};

struct LoadHooks {
  ParallelFor parallel_for = SerialFor;
  // Called between chunks of a fraction of a MiB, on the reading threads: where a loader yields to
  // requests. A status other than OK ends the load with it.
  std::function<absl::Status()> between_chunks;
};

// One tensor whose values are not all finite.
struct NonFinite {
  std::size_t tensor = 0;  // Index into WeightPlan::tensors.
  std::uint64_t nans = 0;
  std::uint64_t infinities = 0;
  // Elements in row-major order (PositionOf, storage/strided.h); 0 where there is none.
  std::uint64_t first_nan = 0;
  std::uint64_t first_infinity = 0;
};

// What one pass over the weights shows.
struct ExaminedWeights {
  WeightsDigest digest;
  bool crc_absent = false;
  // The tensors of floating point or complex type, in the plan's order, that hold NaN or infinity.
  std::vector<NonFinite> non_finite;
};

// Reads every piece of `plan` into `block` (exactly plan.total_bytes, kWeightAlignment aligned),
// verifying CRCs; digests the tensors and looks for values that are not finite. Ends with
// Checkpoint::CheckUnchanged. On error the block's contents are unspecified.
absl::StatusOr<ExaminedWeights> LoadWeights(const Checkpoint& checkpoint, const WeightPlan& plan,
                                            absl::Span<std::byte> block,
                                            const LoadHooks& hooks = {});

// INVALID_ARGUMENT for NaN and (unless `allow_infinite(key)`) infinity: lists up to 8 keys, each
// with the first index and the count.
absl::Status RefuseNonFinite(const WeightPlan& plan, absl::Span<const NonFinite> found,
                             const std::function<bool(const std::string& key)>& allow_infinite);

// Gives memory that is kWeightAlignment aligned.
using ScratchMemory =
    std::function<absl::StatusOr<std::shared_ptr<std::byte>>(std::size_t size_bytes)>;

struct ExamineTools {
  // For the storages that cannot be looked at as they pass by: those of views. What was asked for
  // one storage is given back before the next.
  ScratchMemory scratch;
  // Called with the bytes read since the last call, a fraction of a MiB. A status other than OK
  // ends the pass with it. May be empty.
  std::function<absl::Status(std::uint64_t bytes)> between_chunks = {};
};

// What LoadWeights would find, without a block: for who wants to know and not to serve.
absl::StatusOr<ExaminedWeights> ExamineWeights(const Checkpoint& checkpoint, const WeightPlan& plan,
                                               const ExamineTools& tools);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WEIGHTS_H_
