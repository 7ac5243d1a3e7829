// Memory for the inputs of batches, used again and again.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_BATCH_BUFFERS_H_
#define RELIGHT_SERVER_SERVING_BATCH_BUFFERS_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/block_pool.h"

namespace relight::serving {

class BatchBuffers : public std::enable_shared_from_this<BatchBuffers> {
 public:
  static std::shared_ptr<BatchBuffers> Create() {
    return std::shared_ptr<BatchBuffers>(new BatchBuffers);
  }

  // At least `size_bytes`, 64-byte aligned, with anything in them; null where there is no memory.
  // They come back by themselves, and may outlive what acquired them.
  std::shared_ptr<std::byte> Acquire(std::uint64_t size_bytes);

 private:
  static constexpr std::uint64_t kMostFreeBytes = std::uint64_t{64} << 20;

  BatchBuffers() = default;

  BlockPool pool_{kMostFreeBytes};
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_BATCH_BUFFERS_H_
