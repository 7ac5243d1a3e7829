// The bytes of a version's storages, for writing them again.
#ifndef RELIGHT_SERVER_SERVING_RECORD_STORAGES_H_
#define RELIGHT_SERVER_SERVING_RECORD_STORAGES_H_

#include <cstdint>
#include <map>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/serving/version_record.h"
#include "storage/storage_source.h"
#include "storage/weights.h"

namespace relight::serving {

// Those of the weights come from the version's block, the others from where its aftermath has set
// them aside. FAILED_PRECONDITION where one is nowhere, or its source was written over.
//
// Thread-safe. `record` must outlive it.
class RecordStorages final : public storage::StorageSource {
 public:
  RecordStorages(const VersionRecord& record, Aftermath aftermath);

  absl::Status Stream(std::uint32_t index, const storage::ByteSink& sink) const override;
  std::uint64_t SizeBytes(std::uint32_t index) const override;
  DType ElementType(std::uint32_t index) const override;
  bool IsUntyped(std::uint32_t index) const override;
  absl::Span<const std::byte> InMemory(std::uint32_t index) const override;

 private:
  absl::Status StreamSource(std::uint32_t index, const storage::ByteSink& sink) const;
  absl::Status Unchanged() const;

  const VersionRecord& record_;
  const Aftermath aftermath_;
  std::map<std::uint32_t, const storage::WeightPiece*> in_block_;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_RECORD_STORAGES_H_
