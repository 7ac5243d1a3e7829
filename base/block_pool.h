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

  // Keeps at most `most_kept_bytes`.
  explicit BlockPool(std::uint64_t most_kept_bytes) : most_kept_bytes_(most_kept_bytes) {}
  // REQUIRES: all blocks were given back.
  ~BlockPool() { Trim(); }
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  // At least `size_bytes`, aligned, with anything in them; null where there is no memory.
  void* Take(std::uint64_t size_bytes);
  // Where too much would be kept, blocks of other sizes go first: nobody may want them any more.
  // REQUIRES: `block` came from Take(size_bytes).
  void Give(void* block, std::uint64_t size_bytes);
  // Frees what is kept.
  void Trim();

  std::uint64_t kept_bytes() const;

 private:
  // Lies in the block itself while it is free.
  struct FreeBlock {
    FreeBlock* next;
  };
  // Four sizes from one power of two to the next, so that at most a fifth of a block is unused.
  static constexpr std::size_t kClasses = 4 * 64;
  using FreeBlocks = std::array<FreeBlock*, kClasses>;

  void TakeAllLocked(FreeBlocks& out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void FreeAll(const FreeBlocks& blocks);

  const std::uint64_t most_kept_bytes_;
  mutable Mutex mutex_;
  FreeBlocks free_ ABSL_GUARDED_BY(mutex_) = {};
  std::uint64_t kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace relight

#endif  // RELIGHT_BASE_BLOCK_POOL_H_
