// How the storage layer uses more than one core without owning a thread.
#ifndef RELIGHT_STORAGE_PARALLEL_FOR_H_
#define RELIGHT_STORAGE_PARALLEL_FOR_H_

#include <cstddef>
#include <functional>

namespace relight::storage {

// Calls `body(i)` once for every i in [0, n), on any threads and in any order, and returns when all
// calls have. What a call throws is thrown on when no call is under way any more; others may then
// have been left out.
using ParallelFor =
    std::function<void(std::size_t n, const std::function<void(std::size_t)>& body)>;

// On the calling thread.
inline void SerialFor(std::size_t n, const std::function<void(std::size_t)>& body) {
  for (std::size_t i = 0; i < n; ++i) body(i);
}

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_PARALLEL_FOR_H_
