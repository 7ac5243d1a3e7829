// What the requests of one model came to, over all versions.
//
// Thread-safe; adding takes no lock.
#ifndef RELIGHT_SERVER_SERVING_MODEL_COUNTERS_H_
#define RELIGHT_SERVER_SERVING_MODEL_COUNTERS_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "server/serving/failure.h"
#include "server/serving/histogram.h"
#include "server/serving/statistics.h"

namespace relight::serving {

class ModelCounters {
 public:
  explicit ModelCounters(std::int64_t max_batch_size);

  void AddBatch(std::uint64_t rows, std::chrono::nanoseconds compute);
  void AddSuccess(std::chrono::nanoseconds queue, std::chrono::nanoseconds total);
  void AddFailure(FailureReason reason);

  // Fills what is counted here; every reason is present.
  void Read(ModelStatistics& out) const;

 private:
  std::atomic<std::uint64_t> succeeded_{0};
  std::array<std::atomic<std::uint64_t>, kFailureReasons> failed_{};
  std::atomic<std::uint64_t> rows_{0};
  std::atomic<std::uint64_t> batches_{0};
  // Of requests that were answered: refusals would hide how long the others take.
  Histogram request_seconds_, queue_seconds_;
  Histogram compute_seconds_, batch_size_;  // Of batches.
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_MODEL_COUNTERS_H_
