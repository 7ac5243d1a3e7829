// What refusing a hostile file costs. A binary of its own, because it counts what the program
// allocates.
#include <malloc.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <string>

#include "gtest/gtest.h"
#include "storage/checkpoint.h"
#include "storage/state_dict.h"
#include "storage/weights.h"
#include "tests/storage/fixtures.h"

namespace {

std::atomic<std::size_t> allocated_bytes{0};
std::atomic<std::size_t> peak_bytes{0};

void* Allocate(std::size_t size) {
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) return nullptr;
  const std::size_t now =
      allocated_bytes.fetch_add(::malloc_usable_size(memory)) + ::malloc_usable_size(memory);
  std::size_t peak = peak_bytes.load();
  while (now > peak && !peak_bytes.compare_exchange_weak(peak, now)) {
  }
  return memory;
}

void Release(void* memory) {
  if (memory == nullptr) return;
  allocated_bytes.fetch_sub(::malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t size) {
  void* const memory = Allocate(size);
  if (memory == nullptr) std::abort();
  return memory;
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return Allocate(size); }
void* operator new[](std::size_t size) { return operator new(size); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return Allocate(size); }
void operator delete(void* memory) noexcept { Release(memory); }
void operator delete[](void* memory) noexcept { Release(memory); }
void operator delete(void* memory, std::size_t) noexcept { Release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { Release(memory); }

namespace relight::storage {
namespace {

constexpr std::size_t kMaxPeakBytes = std::size_t{64} << 20;

TEST(PeakMemory, RefusingAHostileFileTakesLittle) {
  for (const std::string& file : FixtureNames("hostile")) {
    SCOPED_TRACE(file);
    const std::string path = DataPath(file);
    const std::size_t before = allocated_bytes.load();
    peak_bytes.store(before);
    {
      const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(path);
      const absl::StatusOr<StateDict> found =
          opened.ok() ? FindStateDict(*opened) : absl::StatusOr<StateDict>(opened.status());
      const absl::StatusOr<WeightPlan> plan = found.ok()
                                                  ? PlanWeights(*opened, *found, {})
                                                  : absl::StatusOr<WeightPlan>(found.status());
      if (plan.ok()) {
        EXPECT_LT(plan->total_bytes, kMaxPeakBytes);
      }
    }
    EXPECT_LT(peak_bytes.load() - before, kMaxPeakBytes);
  }
}

TEST(PeakMemory, TheCounterSeesAllocations) {
  peak_bytes.store(allocated_bytes.load());
  const std::size_t before = allocated_bytes.load();
  { const std::string large(std::size_t{1} << 20, 'x'); }
  EXPECT_GE(peak_bytes.load() - before, std::size_t{1} << 20);
}

}  // namespace
}  // namespace relight::storage
