// Which of the waiting requests go into the next batch, and when. Pure.
#ifndef RELIGHT_SERVER_SERVING_BATCH_FORMER_H_
#define RELIGHT_SERVER_SERVING_BATCH_FORMER_H_

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/config/model_config.h"

namespace relight::serving {

struct BatchDecision {
  std::size_t take = 0;  // How many of the oldest go now; 0: none yet.
  absl::Duration wait;   // Where none goes: when to ask again if nothing arrives before.
};

// `rows`: of the waiting requests that may share a batch, oldest first, each from 1 to
// max_batch_size. One more than fits says that the batch cannot grow; the rest may be left out.
// `oldest_waited`: for how long the first has waited.
//
// Without a delay everything that fits goes at once. With one, a batch goes when it cannot grow,
// when it has a preferred size (the largest that can be made of what waits), or when its oldest
// request has waited for max_queue_delay.
// REQUIRES: `rows` is not empty.
BatchDecision DecideBatch(const config::Batching& batching, absl::Span<const std::int64_t> rows,
                          absl::Duration oldest_waited);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_BATCH_FORMER_H_
