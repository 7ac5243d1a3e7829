#include "server/serving/batch_buffers.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>
#include <utility>

namespace relight::serving {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::uint64_t kSmallest = 4096;
constexpr std::uint64_t kMostFreeBytes = std::uint64_t{64} << 20;

}  // namespace

BatchBuffers::~BatchBuffers() {
  MutexLock lock(mutex_);
  for (FreeBuffer* buffer : free_) {
    while (buffer != nullptr) std::free(std::exchange(buffer, buffer->next));
  }
}

std::shared_ptr<std::byte> BatchBuffers::Acquire(std::uint64_t size_bytes) {
  constexpr std::uint64_t kLargest = std::uint64_t{1} << 62;
  if (size_bytes > kLargest) return nullptr;
  const std::uint64_t capacity = std::bit_ceil(std::max(size_bytes, kSmallest));
  const auto size_class = static_cast<std::size_t>(std::countr_zero(capacity));
  void* memory = nullptr;
  {
    MutexLock lock(mutex_);
    if (FreeBuffer* buffer = free_[size_class]; buffer != nullptr) {
      free_[size_class] = buffer->next;
      free_bytes_ -= capacity;
      memory = buffer;
    }
  }
  if (memory == nullptr) memory = std::aligned_alloc(kAlignment, capacity);
  if (memory == nullptr) return nullptr;
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                    [self = shared_from_this(), size_class](std::byte* buffer) {
                                      self->Release(buffer, size_class);
                                    });
}

void BatchBuffers::Release(std::byte* buffer, std::size_t size_class) {
  const std::uint64_t capacity = std::uint64_t{1} << size_class;
  {
    MutexLock lock(mutex_);
    if (free_bytes_ + capacity <= kMostFreeBytes) {
      free_[size_class] = new (buffer) FreeBuffer{free_[size_class]};
      free_bytes_ += capacity;
      return;
    }
  }
  std::free(buffer);
}

}  // namespace relight::serving
