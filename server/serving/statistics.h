// What a model's requests cost, counted without a lock on the request path.
//
// Thread-safe. Reads are not a consistent cut: each number is exact, but they may be a request
// apart.
#ifndef RELIGHT_SERVER_SERVING_STATISTICS_H_
#define RELIGHT_SERVER_SERVING_STATISTICS_H_

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace relight::serving {

struct DurationTotal {
  std::uint64_t count = 0;
  std::uint64_t nanoseconds = 0;
};

// Cumulative, as Prometheus wants it: counts[i] observations were at most bounds[i]; the last count
// is all of them.
struct HistogramSnapshot {
  std::vector<double> bounds;
  std::vector<std::uint64_t> counts;  // bounds.size() + 1
  double sum = 0;
};

struct BatchTotal {
  std::uint64_t batch_size = 0;
  DurationTotal compute_input, compute_infer, compute_output;
};

// One version of one model.
struct VersionStatistics {
  std::int64_t version = 0;
  absl::Time last_inference = absl::UnixEpoch();
  std::uint64_t inference_count = 0;  // Rows.
  std::uint64_t execution_count = 0;  // Batches.
  DurationTotal success, fail, queue, compute_input, compute_infer, compute_output;
  std::vector<BatchTotal> batches;
};

// One model, over all versions, for the metrics.
struct ModelStatistics {
  std::string model;
  std::uint64_t requests_succeeded = 0;
  // By reason: "rejected", "cancelled", "deadline", "invalid", "unavailable", "internal".
  std::map<std::string, std::uint64_t> requests_failed;
  std::uint64_t rows = 0;
  std::uint64_t batches = 0;
  std::uint64_t queued_requests = 0;
  std::uint64_t queued_bytes = 0;
  HistogramSnapshot request_seconds, queue_seconds, compute_seconds, batch_size;
  // By outcome: "served", "unchanged", "refused", "retrying".
  std::map<std::string, std::uint64_t> reloads;
  // Totals by phase: "open", "read", "bind", "warm_up", "accept", "publish".
  std::map<std::string, DurationTotal> reload_phases;
  std::int64_t served_version = 0;  // 0: none.
  std::uint64_t generation = 0;
  std::string weights_digest;
  double seconds_since_last_good_load = -1;  // Negative: never.
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_STATISTICS_H_
