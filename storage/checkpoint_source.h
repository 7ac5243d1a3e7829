// The bytes of an open checkpoint's storages, for writing them again.
#ifndef RELIGHT_STORAGE_CHECKPOINT_SOURCE_H_
#define RELIGHT_STORAGE_CHECKPOINT_SOURCE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "storage/checkpoint.h"
#include "storage/storage_source.h"

namespace relight::storage {

// `checkpoint` must outlive it. Each Stream verifies the storage's CRC-32 as it goes; whether the
// file stayed the same in between is for the caller to ask (Checkpoint::CheckUnchanged).
//
// Thread-safety: const methods may be called from several threads at once.
class CheckpointSource final : public StorageSource {
 public:
  explicit CheckpointSource(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  absl::Status Stream(std::uint32_t index, const ByteSink& sink) const override;
  std::uint64_t SizeBytes(std::uint32_t index) const override;
  DType ElementType(std::uint32_t index) const override;
  bool IsUntyped(std::uint32_t index) const override;

 private:
  const Checkpoint& checkpoint_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_CHECKPOINT_SOURCE_H_
