// How work beside the requests gives way to them: loading, and what follows a swap. The scheduler
// prefers requests already (see WorkerPool), but what runs on a core is not always interrupted at
// once, and all cores share one way to memory.
#ifndef RELIGHT_SERVER_SERVING_GIVE_WAY_H_
#define RELIGHT_SERVER_SERVING_GIVE_WAY_H_

#include <chrono>

namespace relight::serving {

class ComputePool;

// To be called between pieces of work of a fraction of a millisecond. Waits while all threads of
// `pool` compute, but no longer than kMostWaiting times as long as this thread has worked since the
// last call, so that it gets on where requests never pause, and no longer than kLongestWait, so
// that it hears when nobody wants its work any more.
inline constexpr int kMostWaiting = 4;
inline constexpr std::chrono::nanoseconds kLongestWait = std::chrono::milliseconds(10);
void GiveWay(ComputePool& pool);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_GIVE_WAY_H_
