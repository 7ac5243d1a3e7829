#include "storage/checkpoint_source.h"

#include <algorithm>
#include <vector>

namespace relight::storage {

absl::Status CheckpointSource::Stream(std::uint32_t index, const ByteSink& sink) const {
  constexpr std::uint64_t kSmallestBuffer = 64;
  constexpr std::uint64_t kChunkBytes = std::uint64_t{4} << 20;
  std::vector<std::byte> buffer(std::clamp(SizeBytes(index), kSmallestBuffer, kChunkBytes));
  return checkpoint_.StreamStorage(
      index, absl::MakeSpan(buffer),
      [&](std::uint64_t, absl::Span<const std::byte> chunk) { return sink(chunk); });
}

std::uint64_t CheckpointSource::SizeBytes(std::uint32_t index) const {
  return checkpoint_.storages()[index].size_bytes;
}

DType CheckpointSource::ElementType(std::uint32_t index) const {
  return checkpoint_.storages()[index].dtype;
}

bool CheckpointSource::IsUntyped(std::uint32_t index) const {
  return checkpoint_.storages()[index].untyped;
}

}  // namespace relight::storage
