#include "server/serving/batch_buffers.h"

namespace relight::serving {

std::shared_ptr<std::byte> BatchBuffers::Acquire(std::uint64_t size_bytes) {
  void* const memory = pool_.Take(size_bytes);
  if (memory == nullptr) return nullptr;
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                    [self = shared_from_this(), size_bytes](std::byte* buffer) {
                                      self->pool_.Give(buffer, size_bytes);
                                    });
}

}  // namespace relight::serving
