// Whether a checkpoint that was written reads back as the weights in memory.
#ifndef RELIGHT_STORAGE_WEIGHT_COMPARISON_H_
#define RELIGHT_STORAGE_WEIGHT_COMPARISON_H_

#include <cstddef>
#include <functional>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "storage/checkpoint.h"
#include "storage/state_dict.h"
#include "storage/weights.h"

namespace relight::storage {

// Reads every storage of `written` once through a small buffer, verifying its CRC-32, and compares
// the tensors of `state_dict` (found in it) with those that `plan` has in `block`: the same keys,
// dtypes and shapes and, however each lies in its storage, the same elements bit for bit (bools as
// truth values). Memory use depends on the number of tensors alone, not on their sizes.
//
// `between_chunks` (may be empty) ends the comparison with a status other than OK.
// DATA_LOSS lists up to 8 tensors that differ; else what reading says.
absl::Status CompareWithBlock(const Checkpoint& written, const StateDict& state_dict,
                              const WeightPlan& plan, absl::Span<const std::byte> block,
                              const std::function<absl::Status()>& between_chunks = {});

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WEIGHT_COMPARISON_H_
