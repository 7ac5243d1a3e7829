#include "base/block_pool.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>
#include <utility>

namespace relight {
namespace {

constexpr std::uint64_t kSmallest = 4096;
constexpr std::uint64_t kLargest = std::uint64_t{1} << 62;

std::uint64_t CapacityFor(std::uint64_t size_bytes) {
  return std::bit_ceil(std::max(size_bytes, kSmallest));
}

std::size_t ClassOf(std::uint64_t capacity) {
  return static_cast<std::size_t>(std::countr_zero(capacity));
}

}  // namespace

BlockPool::~BlockPool() {
  MutexLock lock(mutex_);
  for (FreeBlock* block : free_) {
    while (block != nullptr) std::free(std::exchange(block, block->next));
  }
}

void* BlockPool::Take(std::uint64_t size_bytes) {
  if (size_bytes > kLargest) return nullptr;
  const std::uint64_t capacity = CapacityFor(size_bytes);
  {
    MutexLock lock(mutex_);
    FreeBlock*& first = free_[ClassOf(capacity)];
    if (first != nullptr) {
      kept_bytes_ -= capacity;
      return std::exchange(first, first->next);
    }
  }
  return std::aligned_alloc(kAlignment, capacity);
}

void BlockPool::Give(void* block, std::uint64_t size_bytes) {
  const std::uint64_t capacity = CapacityFor(size_bytes);
  {
    MutexLock lock(mutex_);
    if (capacity <= most_kept_bytes_ && kept_bytes_ <= most_kept_bytes_ - capacity) {
      FreeBlock*& first = free_[ClassOf(capacity)];
      first = new (block) FreeBlock{first};
      kept_bytes_ += capacity;
      return;
    }
  }
  std::free(block);
}

}  // namespace relight
