#include "server/serving/batch_former.h"

#include <algorithm>

namespace relight::serving {

BatchDecision DecideBatch(const config::Batching& batching, absl::Span<const std::int64_t> rows,
                          absl::Duration oldest_waited) {
  if (batching.max_batch_size <= 0) return {1, absl::ZeroDuration()};

  const std::vector<std::int64_t>& preferred = batching.preferred_batch_sizes;
  std::size_t fitting = 0;
  std::size_t with_preferred_size = 0;
  std::int64_t sum = 0;
  while (fitting < rows.size() && rows[fitting] <= batching.max_batch_size - sum) {
    sum += rows[fitting++];
    if (std::find(preferred.begin(), preferred.end(), sum) != preferred.end()) {
      with_preferred_size = fitting;
    }
  }
  const absl::Duration delay = batching.max_queue_delay;
  if (delay <= absl::ZeroDuration() || sum == batching.max_batch_size) return {fitting, {}};
  if (with_preferred_size > 0) return {with_preferred_size, {}};
  const bool cannot_grow = fitting < rows.size();
  if (cannot_grow || oldest_waited >= delay) return {fitting, {}};
  return {0, delay - oldest_waited};
}

}  // namespace relight::serving
