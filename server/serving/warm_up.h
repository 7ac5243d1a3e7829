// The first run of a version, before anybody waits for it.
#ifndef RELIGHT_SERVER_SERVING_WARM_UP_H_
#define RELIGHT_SERVER_SERVING_WARM_UP_H_

#include <cstdint>

#include "absl/status/status.h"
#include "server/model/graph.h"
#include "server/serving/request_path.h"

namespace relight::serving {

// Runs zeros through `model` on the calling thread: `batch_size` rows where the model has a batch
// dimension, `free_dim` in every other free dimension. FAILED_PRECONDITION, naming both sides,
// where what comes out is not what the signature promises; INVALID_ARGUMENT where the sizes make no
// sense for the signature; else what the graph failed with.
absl::Status RunWarmUp(const Signature& signature, const model::BoundModel& model,
                       std::int64_t batch_size, std::int64_t free_dim);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_WARM_UP_H_
