// Whether a device computes a network in a precision, seen before there are weights.
#ifndef RELIGHT_SERVER_MODEL_PRECISION_TRIAL_H_
#define RELIGHT_SERVER_MODEL_PRECISION_TRIAL_H_

#include <cstdint>

#include "absl/status/status.h"
#include "server/model/graph.h"

namespace relight::model {

// Binds zeros to `graph` and computes zeros: `batch` of them in a free first dimension, `free_dim`
// in every other. Takes the memory of one parameter of each shape for as long as it runs.
// INVALID_ARGUMENT, with LibTorch's words, where an operation is missing. What fails for other
// reasons is left for the warm-up of real weights to tell.
absl::Status TryPrecision(Graph& graph, std::int64_t batch, std::int64_t free_dim);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_PRECISION_TRIAL_H_
