// Keeping the training state of a served checkpoint, so that a snapshot can carry it although the
// trainer meanwhile deleted the file or wrote over it in place.
#ifndef RELIGHT_STORAGE_SPOOL_H_
#define RELIGHT_STORAGE_SPOOL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/unique_fd.h"
#include "storage/checkpoint.h"
#include "storage/storage_source.h"

namespace relight::storage {

// An unlinked copy of some storages of one checkpoint, on disk. It goes away with this object, or
// with the process.
//
// Thread-safety: const methods may be called from several threads at once.
class Spool {
 public:
  // Copies storages `indices` of `checkpoint` into an unnamed file in `folder`, verifying CRCs, and
  // checks that the checkpoint did not change meanwhile (being deleted or renamed is no change).
  // `between_chunks` is called every few MiB (pacing, cancelling); may be empty. RESOURCE_EXHAUSTED
  // where the disk is full; IO_ERROR where the checkpoint changed, and whatever
  // Checkpoint::StreamStorage says.
  static absl::StatusOr<Spool> Create(const Checkpoint& checkpoint,
                                      const std::vector<std::uint32_t>& indices,
                                      const std::string& folder,
                                      const std::function<absl::Status()>& between_chunks);

  bool Has(std::uint32_t index) const { return runs_.count(index) > 0; }
  // The whole storage, in order. NOT_FOUND where it is not here; DATA_LOSS (after the last byte
  // went to the sink) where the disk gave back other bytes than it took.
  absl::Status Stream(std::uint32_t index, const ByteSink& sink) const;
  std::uint64_t size_bytes() const { return size_bytes_; }

 private:
  struct Run {
    std::uint64_t offset = 0;
    std::uint64_t size_bytes = 0;
    std::uint32_t crc32 = 0;
  };
  Spool() = default;

  UniqueFd fd_;
  std::map<std::uint32_t, Run> runs_;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_SPOOL_H_
