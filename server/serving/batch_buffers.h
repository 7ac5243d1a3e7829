// Memory for the inputs of batches, used again and again: fresh pages cost more than copying into
// them.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_BATCH_BUFFERS_H_
#define RELIGHT_SERVER_SERVING_BATCH_BUFFERS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/mutex.h"

namespace relight::serving {

class BatchBuffers : public std::enable_shared_from_this<BatchBuffers> {
 public:
  static std::shared_ptr<BatchBuffers> Create() {
    return std::shared_ptr<BatchBuffers>(new BatchBuffers);
  }
  ~BatchBuffers();
  BatchBuffers(const BatchBuffers&) = delete;
  BatchBuffers& operator=(const BatchBuffers&) = delete;

  // At least `size_bytes`, 64-byte aligned, with anything in them; null where there is no memory.
  // They come back by themselves, and may outlive what acquired them.
  std::shared_ptr<std::byte> Acquire(std::uint64_t size_bytes);

 private:
  // Lies in the buffer itself while it is free.
  struct FreeBuffer {
    FreeBuffer* next;
  };
  static constexpr std::size_t kClasses = 64;  // By the power of two that is the buffer's size.

  BatchBuffers() = default;
  void Release(std::byte* buffer, std::size_t size_class);

  Mutex mutex_;
  std::array<FreeBuffer*, kClasses> free_ ABSL_GUARDED_BY(mutex_) = {};
  std::uint64_t free_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_BATCH_BUFFERS_H_
