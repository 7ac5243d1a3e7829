#include "tests/counted_allocations.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::size_t> allocated_bytes{0};
std::atomic<std::size_t> peak_bytes{0};
std::atomic<std::size_t> counted{0};
std::atomic<std::size_t> counted_bytes{0};

void* Allocate(std::size_t size) {
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) return nullptr;
  ++counted;
  counted_bytes += size;
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

namespace relight {

PeakMemory::PeakMemory() : before_bytes_(allocated_bytes.load()) {
  peak_bytes.store(before_bytes_);
}

std::size_t PeakMemory::bytes() const { return peak_bytes.load() - before_bytes_; }

AllocationCount::AllocationCount() { counted = counted_bytes = 0; }

std::size_t AllocationCount::allocations() const { return counted; }
std::size_t AllocationCount::bytes() const { return counted_bytes; }

}  // namespace relight
