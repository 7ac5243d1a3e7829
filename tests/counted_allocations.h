// Counts what a test program allocates. Linking counted_allocations.cc replaces operator new, which
// the sanitizers want for themselves: only binaries of their own do that, and only without them.
#ifndef RELIGHT_TESTS_COUNTED_ALLOCATIONS_H_
#define RELIGHT_TESTS_COUNTED_ALLOCATIONS_H_

#include <cstddef>

namespace relight {

// The most that is allocated at any time from its construction on, beyond what was then. One at a
// time. Thread-safe.
class PeakMemory {
 public:
  PeakMemory();
  std::size_t bytes() const;

 private:
  const std::size_t before_bytes_;
};

// How much was allocated since its construction, whatever became of it. One at a time.
// Thread-safe.
class AllocationCount {
 public:
  AllocationCount();
  std::size_t allocations() const;
  std::size_t bytes() const;
};

}  // namespace relight

#endif  // RELIGHT_TESTS_COUNTED_ALLOCATIONS_H_
