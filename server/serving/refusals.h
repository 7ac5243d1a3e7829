// Requests that no model's queue has seen: refused for their form, for a model that is not here, or
// for one that cannot serve.
//
// Thread-safe; a lock is taken for a refusal only.
#ifndef RELIGHT_SERVER_SERVING_REFUSALS_H_
#define RELIGHT_SERVER_SERVING_REFUSALS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "base/mutex.h"
#include "server/serving/failure.h"
#include "server/serving/statistics.h"

namespace relight::serving {

class Refusals {
 public:
  // `model`: one of the repository, or "" for all others: clients must not be able to add names.
  void Add(std::string_view model, FailureReason reason);

  // Adds those of `out.model` to what it says of failures.
  void AddTo(ModelStatistics& out) const;

 private:
  using Counts = std::array<std::uint64_t, kFailureReasons>;

  mutable Mutex mutex_;
  std::map<std::string, Counts, std::less<>> models_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_REFUSALS_H_
