#include "server/model/tensor_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "base/block_pool.h"

namespace relight::model {
namespace {

constexpr std::uint64_t kMostKeptBytes = std::uint64_t{1} << 30;
// What is smaller the C library keeps by itself.
constexpr std::size_t kLarge = std::size_t{1} << 20;

// LibTorch frees by a bare pointer: what must be known of a block lies before the tensor's bytes.
struct alignas(BlockPool::kAlignment) Header {
  std::size_t block_bytes;  // With the header.
};

BlockPool& Pool() {
  static auto* const pool = new BlockPool(kMostKeptBytes);  // Tensors may outlive main.
  return *pool;
}

void* Allocate(std::size_t size_bytes) {
  if (size_bytes > std::numeric_limits<std::size_t>::max() - 2 * sizeof(Header)) return nullptr;
  // A whole number of headers, as aligned_alloc wants it.
  const std::size_t block_bytes =
      (size_bytes + 2 * sizeof(Header) - 1) / sizeof(Header) * sizeof(Header);
  void* const block = block_bytes >= kLarge ? Pool().Take(block_bytes)
                                            : std::aligned_alloc(alignof(Header), block_bytes);
  return block == nullptr ? nullptr : new (block) Header{block_bytes} + 1;
}

void Free(void* data) {
  if (data == nullptr) return;
  Header* const header = static_cast<Header*>(data) - 1;
  if (header->block_bytes >= kLarge) {
    Pool().Give(header, header->block_bytes);
  } else {
    std::free(header);
  }
}

c10::DataPtr MakeData(std::size_t size_bytes) {
  void* const data = size_bytes == 0 ? nullptr : Allocate(size_bytes);
  TORCH_CHECK(size_bytes == 0 || data != nullptr, "not enough memory: a tensor needs ", size_bytes,
              " bytes");
  return {data, data, &Free, c10::Device(c10::DeviceType::CPU)};
}

// Releases of LibTorch differ in whether allocate is const, and newer ones have copy_data: without
// `override` each finds what it asks for.
// NOLINTBEGIN(modernize-use-override)
class TensorMemory final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t size_bytes) const { return MakeData(size_bytes); }
  c10::DataPtr allocate(std::size_t size_bytes) { return MakeData(size_bytes); }
  c10::DeleterFnPtr raw_deleter() const { return &Free; }
  void copy_data(void* to, const void* from, std::size_t size_bytes) const {
    std::memcpy(to, from, size_bytes);
  }
};
// NOLINTEND(modernize-use-override)

}  // namespace

void KeepTensorMemory() {
  static auto* const memory = new TensorMemory;
  c10::SetCPUAllocator(memory);
}

void TrimTensorMemory() { Pool().Trim(); }

}  // namespace relight::model
