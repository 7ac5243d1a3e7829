#include "bench/load/latencies.h"

#include <algorithm>
#include <cmath>

namespace relight::bench {

void Latencies::Add(const Latencies& others) {
  samples_.insert(samples_.end(), others.samples_.begin(), others.samples_.end());
}

std::int64_t Latencies::QuantileNs(double q) const {
  if (samples_.empty()) return 0;
  if (sorted_.size() != samples_.size()) {
    sorted_.clear();
    sorted_.reserve(samples_.size());
    for (const Sample& sample : samples_) sorted_.push_back(sample.latency_ns);
    std::sort(sorted_.begin(), sorted_.end());
  }
  const double rank = std::ceil(q * static_cast<double>(sorted_.size()));
  const double last = static_cast<double>(sorted_.size());
  return sorted_[static_cast<std::size_t>(std::clamp(rank, 1.0, last)) - 1];
}

double Latencies::MeanNs() const {
  if (samples_.empty()) return 0;
  double sum = 0;
  for (const Sample& sample : samples_) sum += static_cast<double>(sample.latency_ns);
  return sum / static_cast<double>(samples_.size());
}

}  // namespace relight::bench
