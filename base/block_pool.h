// Blocks of memory that are kept when they are given back: fresh pages cost more than copying into
// them.
//
// Thread-safe.
#ifndef RELIGHT_BASE_BLOCK_POOL_H_
#define RELIGHT_BASE_BLOCK_POOL_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/mutex.h"

namespace relight {

class BlockPool {
 public:
  static constexpr std::size_t kAlignment = 64;

  // Keeps at most `most_kept_bytes`. A block counts with the power of two that holds it.
  explicit BlockPool(std::uint64_t most_kept_bytes) : most_kept_bytes_(most_kept_bytes) {}
  // REQUIRES: all blocks were given back.
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // At least `size_bytes`, aligned, with anything in them; null where there is no memory.
  void* Take(std::uint64_t size_bytes);
  // REQUIRES: `block` came from Take(size_bytes).
  void Give(void* block, std::uint64_t size_bytes);

 private:
  // Lies in the block itself while it is free.
  struct FreeBlock {
    FreeBlock* next;
  };
  static constexpr std::size_t kClasses = 64;  // By the power of two.

  const std::uint64_t most_kept_bytes_;
  Mutex mutex_;
  std::array<FreeBlock*, kClasses> free_ ABSL_GUARDED_BY(mutex_) = {};
  std::uint64_t kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace relight

#endif  // RELIGHT_BASE_BLOCK_POOL_H_
