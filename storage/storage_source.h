// Where writers get the bytes of storages from, and what takes the bytes of a file.
#ifndef RELIGHT_STORAGE_STORAGE_SOURCE_H_
#define RELIGHT_STORAGE_STORAGE_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "storage/dtype.h"

namespace relight::storage {

// Takes the bytes of a file in order.
using ByteSink = std::function<absl::Status(absl::Span<const std::byte>)>;

// The storages that a tree's tensors view. Indices are those of Checkpoint::storages() of the
// checkpoint that the tree is from.
class StorageSource {
 public:
  virtual ~StorageSource() = default;
  // Streams storage `index` in order, exactly its size_bytes, little-endian.
  virtual absl::Status Stream(std::uint32_t index, const ByteSink& sink) const = 0;
  virtual std::uint64_t SizeBytes(std::uint32_t index) const = 0;
  virtual DType ElementType(std::uint32_t index) const = 0;
  // Matters only where the storage itself, without a tensor, is a value in the tree.
  virtual bool IsUntyped(std::uint32_t /*index*/) const { return false; }
  // The whole storage where it lies in memory as it is streamed, for as long as the source lives;
  // else empty.
  virtual absl::Span<const std::byte> InMemory(std::uint32_t /*index*/) const { return {}; }
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_STORAGE_SOURCE_H_
