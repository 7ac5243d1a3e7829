// How long the requests of a run took.
#ifndef RELIGHT_BENCH_LOAD_LATENCIES_H_
#define RELIGHT_BENCH_LOAD_LATENCIES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace relight::bench {

// One answered request, in nanoseconds of CLOCK_MONOTONIC.
struct Sample {
  // When it was to be sent. With an open loop that goes by the clock, however late the client is.
  std::int64_t due_ns = 0;
  std::int64_t latency_ns = 0;  // From due_ns until the answer was there.
};

// Keeps every sample, so that its quantiles are exact. Not thread-safe.
class Latencies {
 public:
  void Add(const Sample& sample) { samples_.push_back(sample); }
  void Add(const Latencies& others);

  std::size_t count() const { return samples_.size(); }
  // In the order in which they were added.
  const std::vector<Sample>& samples() const { return samples_; }

  // The latency that a fraction `q` in (0, 1] of the samples do not exceed: that of the sample of
  // rank ceil(q * count). 0 where there is none.
  std::int64_t QuantileNs(double q) const;
  double MeanNs() const;

 private:
  std::vector<Sample> samples_;
  mutable std::vector<std::int64_t> sorted_;  // Of the first sorted_.size() samples.
};

}  // namespace relight::bench

#endif  // RELIGHT_BENCH_LOAD_LATENCIES_H_
