// When the requests of an open loop are due.
#ifndef RELIGHT_BENCH_LOAD_ARRIVALS_H_
#define RELIGHT_BENCH_LOAD_ARRIVALS_H_

#include <cstdint>
#include <random>

namespace relight::bench {

// A Poisson process: what many clients make that know nothing of each other. The same seed gives
// the same times. Not thread-safe.
class Arrivals {
 public:
  // REQUIRES: per_second > 0.
  Arrivals(std::int64_t begin_ns, double per_second, std::uint64_t seed)
      : due_ns_(static_cast<double>(begin_ns)), random_(seed), gap_ns_(per_second / 1e9) {}

  // Never less than the one before.
  std::int64_t NextNs() {
    due_ns_ += gap_ns_(random_);
    return static_cast<std::int64_t>(due_ns_);
  }

 private:
  double due_ns_;
  std::mt19937_64 random_;
  std::exponential_distribution<double> gap_ns_;
};

}  // namespace relight::bench

#endif  // RELIGHT_BENCH_LOAD_ARRIVALS_H_
