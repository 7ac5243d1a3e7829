#include "base/block_pool.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>
#include <utility>

namespace relight {
namespace {

constexpr std::uint64_t kSmallest = 4096;
constexpr std::uint64_t kLargest = std::uint64_t{1} << 47;  // What a process can address.

// The size of a block, and the place of such blocks.
struct SizeClass {
  std::uint64_t capacity;
  std::size_t index;
};

SizeClass ClassFor(std::uint64_t size_bytes) {
  const std::uint64_t size = std::max(size_bytes, kSmallest);
  const auto power = static_cast<std::size_t>(std::bit_width(size - 1)) - 1;  // 2^power < size.
  const std::uint64_t step = std::uint64_t{1} << (power - 2);
  const std::uint64_t steps = (size + step - 1) / step;  // 5 to 8.
  return {steps * step, 4 * power + static_cast<std::size_t>(steps) - 5};
}

}  // namespace

void* BlockPool::Take(std::uint64_t size_bytes) {
  if (size_bytes > kLargest) return nullptr;
  const SizeClass size_class = ClassFor(size_bytes);
  {
    MutexLock lock(mutex_);
    FreeBlock*& first = free_[size_class.index];
    if (first != nullptr) {
      kept_bytes_ -= size_class.capacity;
      return std::exchange(first, first->next);
    }
  }
  void* const block = std::aligned_alloc(kAlignment, size_class.capacity);
  if (block != nullptr) return block;
  Trim();
  return std::aligned_alloc(kAlignment, size_class.capacity);
}

void BlockPool::Give(void* block, std::uint64_t size_bytes) {
  const SizeClass size_class = ClassFor(size_bytes);
  if (size_class.capacity > most_kept_bytes_) return std::free(block);
  FreeBlocks freed = {};
  bool kept;
  {
    MutexLock lock(mutex_);
    FreeBlock*& first = free_[size_class.index];
    const std::uint64_t most_before = most_kept_bytes_ - size_class.capacity;
    // Where it is full of blocks like this one, there is one too many of them.
    if (kept_bytes_ > most_before && first == nullptr) TakeAllLocked(freed);
    kept = kept_bytes_ <= most_before;
    if (kept) {
      first = new (block) FreeBlock{first};
      kept_bytes_ += size_class.capacity;
    }
  }
  if (!kept) std::free(block);
  FreeAll(freed);
}

void BlockPool::Trim() {
  FreeBlocks freed = {};
  {
    MutexLock lock(mutex_);
    TakeAllLocked(freed);
  }
  FreeAll(freed);
}

void BlockPool::TakeAllLocked(FreeBlocks& out) {
  out = std::exchange(free_, {});
  kept_bytes_ = 0;
}

void BlockPool::FreeAll(const FreeBlocks& blocks) {
  for (FreeBlock* block : blocks) {
    while (block != nullptr) std::free(std::exchange(block, block->next));
  }
}

std::uint64_t BlockPool::kept_bytes() const {
  MutexLock lock(mutex_);
  return kept_bytes_;
}

}  // namespace relight
