#include "server/serving/record_storages.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"

namespace relight::serving {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{4} << 20;

}  // namespace

RecordStorages::RecordStorages(const VersionRecord& record, Aftermath aftermath)
    : record_(record), aftermath_(std::move(aftermath)) {
  for (const storage::WeightPiece& piece : record_.plan.pieces) {
    if (piece.verbatim) in_block_[piece.storage] = &piece;
  }
}

absl::Status RecordStorages::Stream(std::uint32_t index, const storage::ByteSink& sink) const {
  if (in_block_.contains(index)) {
    for (absl::Span<const std::byte> left = InMemory(index); !left.empty();) {
      const std::size_t size = std::min(left.size(), kChunkBytes);
      RELIGHT_RETURN_IF_ERROR(sink(left.first(size)));
      left.remove_prefix(size);
    }
    return absl::OkStatus();
  }
  if (aftermath_.spool != nullptr && aftermath_.spool->Has(index)) {
    return aftermath_.spool->Stream(index, sink);
  }
  if (aftermath_.source != nullptr) return StreamSource(index, sink);
  return absl::FailedPreconditionError(
      absl::StrCat("storage ", record_.storages[index].key, " of ", Escape(record_.file),
                   " was not set aside: ", aftermath_.training_state_reason));
}

std::uint64_t RecordStorages::SizeBytes(std::uint32_t index) const {
  return record_.storages[index].size_bytes;
}

DType RecordStorages::ElementType(std::uint32_t index) const {
  return record_.storages[index].dtype;
}

bool RecordStorages::IsUntyped(std::uint32_t index) const {
  return record_.storages[index].untyped;
}

absl::Span<const std::byte> RecordStorages::InMemory(std::uint32_t index) const {
  const auto found = in_block_.find(index);
  if (found == in_block_.end()) return {};
  return record_.lease->bytes().subspan(found->second->offset_bytes, found->second->size_bytes);
}

absl::Status RecordStorages::StreamSource(std::uint32_t index,
                                          const storage::ByteSink& sink) const {
  RELIGHT_RETURN_IF_ERROR(Unchanged());
  std::vector<std::byte> buffer(kChunkBytes);
  RELIGHT_RETURN_IF_ERROR(aftermath_.source->StreamStorage(
      index, absl::MakeSpan(buffer),
      [&](std::uint64_t, absl::Span<const std::byte> bytes) { return sink(bytes); }));
  return Unchanged();
}

absl::Status RecordStorages::Unchanged() const {
  if (aftermath_.source->CheckContentUnchanged().ok()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the training state is gone: ", Escape(record_.file),
      " was written over since it was loaded (training_state: OPEN_FILE); ask for weights_only"));
}

}  // namespace relight::serving
