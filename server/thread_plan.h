// How many threads of which kind suit a machine.
#ifndef RELIGHT_SERVER_THREAD_PLAN_H_
#define RELIGHT_SERVER_THREAD_PLAN_H_

#include "server/config/server_options.h"

namespace relight {

struct ThreadPlan {
  int compute = 1;   // Batches computed at the same time.
  int intra_op = 1;  // Threads that one batch may use.
  int load = 1;      // Checkpoints read at the same time.
};

// What the flags say; where they say nothing, compute * intra_op fills `cores` with about as many
// batches at once as threads in each: small models gain from the first, large ones from the second.
ThreadPlan PlanThreads(const config::ServerOptions& options, int cores);

}  // namespace relight

#endif  // RELIGHT_SERVER_THREAD_PLAN_H_
