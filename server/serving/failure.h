// Why a request got no answer, as the metrics know it.
#ifndef RELIGHT_SERVER_SERVING_FAILURE_H_
#define RELIGHT_SERVER_SERVING_FAILURE_H_

#include <cstddef>
#include <string_view>

#include "absl/status/status.h"

namespace relight::serving {

enum class FailureReason {
  kRejected,     // The queue was full.
  kCancelled,    // The client had gone before work started.
  kDeadline,     // Its deadline or queue timeout passed before work started.
  kInvalid,      // It does not fit the model, or names a version that is not loaded.
  kUnavailable,  // No version yet, draining, unloaded.
  kInternal,     // The graph failed.
};
inline constexpr std::size_t kFailureReasons = 6;

std::string_view Name(FailureReason reason);

// For what admission, the slot and the graph return.
FailureReason ReasonOf(const absl::Status& status);

struct Failure {
  FailureReason reason;
  absl::Status status;  // For the client.
};

// Of whatever comes once the end has begun.
absl::Status Draining();

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_FAILURE_H_
