#include "server/serving/refusals.h"

#include <cstddef>

namespace relight::serving {

void Refusals::Add(std::string_view model, FailureReason reason) {
  MutexLock lock(mutex_);
  auto it = models_.find(model);
  if (it == models_.end()) it = models_.emplace(std::string(model), Counts{}).first;
  ++it->second[static_cast<std::size_t>(reason)];
}

void Refusals::AddTo(ModelStatistics& out) const {
  MutexLock lock(mutex_);
  const auto it = models_.find(out.model);
  if (it == models_.end()) return;
  for (std::size_t i = 0; i < kFailureReasons; ++i) {
    if (it->second[i] == 0) continue;
    out.requests_failed[std::string(Name(static_cast<FailureReason>(i)))] += it->second[i];
  }
}

}  // namespace relight::serving
