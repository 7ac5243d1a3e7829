// Numbers that request threads add to without a lock.
//
// Thread-safe. Reads see each addition that happened before them, and may see a part of others.
#ifndef RELIGHT_SERVER_SERVING_HISTOGRAM_H_
#define RELIGHT_SERVER_SERVING_HISTOGRAM_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "server/serving/statistics.h"

namespace relight::serving {

class AtomicDuration {
 public:
  void Add(std::chrono::nanoseconds duration, std::uint64_t times = 1) {
    count_.fetch_add(times, std::memory_order_relaxed);
    const auto nanoseconds = static_cast<std::uint64_t>(duration.count());
    nanoseconds_.fetch_add(nanoseconds * times, std::memory_order_relaxed);
  }
  DurationTotal Read() const {
    return {count_.load(std::memory_order_relaxed), nanoseconds_.load(std::memory_order_relaxed)};
  }

 private:
  std::atomic<std::uint64_t> count_{0};
  std::atomic<std::uint64_t> nanoseconds_{0};
};

class Histogram {
 public:
  // `bounds`: upper bounds (inclusive), increasing.
  explicit Histogram(std::vector<double> bounds);

  void Observe(double value);
  HistogramSnapshot Read() const;

  // 50 µs to 10 s, in seconds.
  static std::vector<double> LatencyBounds();
  // Powers of two up to the first that is not below `largest`.
  static std::vector<double> BatchSizeBounds(std::int64_t largest);

 private:
  const std::vector<double> bounds_;
  const std::unique_ptr<std::atomic<std::uint64_t>[]> counts_;  // bounds_.size() + 1, by bucket.
  std::atomic<double> sum_{0};
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_HISTOGRAM_H_
