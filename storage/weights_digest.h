// The pieces of a WeightsDigest (storage/weights.h says what it is over).
#ifndef RELIGHT_STORAGE_WEIGHTS_DIGEST_H_
#define RELIGHT_STORAGE_WEIGHTS_DIGEST_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "storage/weights.h"

struct XXH3_state_s;

namespace relight::storage {

// The XXH3-128 of a tensor's elements in row-major order.
using ElementsHash = std::array<std::uint8_t, 16>;

// Streaming XXH3-128. Thread-compatible.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void Add(const void* bytes, std::size_t size);
  void AddNumber(std::uint64_t value);  // Eight bytes, little-endian.
  void AddText(std::string_view text);  // Its length as a number, then its bytes.
  ElementsHash Finish() const;

 private:
  XXH3_state_s* const state_;
};

// The digest of a plan's tensors out of the hashes of their elements, in the plan's order.
WeightsDigest CombineHashes(const WeightPlan& plan, absl::Span<const ElementsHash> hashes);

// The digest of a plan whose block has been filled. `between_tensors` (may be empty) ends the work
// with a status other than OK.
absl::StatusOr<WeightsDigest> DigestBlock(const WeightPlan& plan, absl::Span<const std::byte> block,
                                          const std::function<absl::Status()>& between_tensors);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WEIGHTS_DIGEST_H_
