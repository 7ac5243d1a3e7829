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

// XXH3-128 over the tensors in order: for each, the length of the key (u64) and the key, the
// length of the dtype's torch name (u64) and the name, the rank (u64) and the sizes (u64 each), and
// the XXH3-128 of its elements in row-major order; all integers little-endian. Equal on every
// replica and whatever file the weights came in.
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

struct LoadedWeights {
  WeightsDigest digest;
  bool crc_absent = false;
};

// Reads every piece of `plan` into `block` (exactly plan.total_bytes, kWeightAlignment aligned),
// verifying CRCs, and digests the tensors. Ends with Checkpoint::CheckUnchanged. On error the
// block's contents are unspecified.
absl::StatusOr<LoadedWeights> LoadWeights(const Checkpoint& checkpoint, const WeightPlan& plan,
                                          absl::Span<std::byte> block, const LoadHooks& hooks = {});

// Refuses a floating point tensor that holds NaN, or (unless `allow_infinite(key)`) infinity.
// INVALID_ARGUMENT lists up to 8 keys, each with the first index and the count.
absl::Status CheckFinite(const WeightPlan& plan, absl::Span<const std::byte> block,
                         const std::function<bool(const std::string& key)>& allow_infinite,
                         const ParallelFor& parallel_for = SerialFor);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WEIGHTS_H_
