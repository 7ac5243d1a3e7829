#include "server/thread_plan.h"

#include <algorithm>

namespace relight {

ThreadPlan PlanThreads(const config::ServerOptions& options, int cores) {
  cores = std::max(cores, 1);
  ThreadPlan plan;
  if (options.compute_threads > 0) {
    plan.compute = options.compute_threads;
  } else if (options.intra_op_threads > 0) {
    plan.compute = std::max(1, cores / options.intra_op_threads);
  } else {
    while (plan.compute * plan.compute < cores) ++plan.compute;
  }
  plan.intra_op =
      options.intra_op_threads > 0 ? options.intra_op_threads : std::max(1, cores / plan.compute);
  plan.load = options.load_threads > 0 ? options.load_threads : std::min(2, cores);
  return plan;
}

}  // namespace relight
