// One pass over every byte of a checkpoint's files: the SHA-256 of each file, and whether every
// record of it has the CRC-32 that the file gives.
#ifndef RELIGHT_STORAGE_FILE_AUDIT_H_
#define RELIGHT_STORAGE_FILE_AUDIT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/checkpoint.h"

namespace relight::storage {

enum class CrcStatus {
  kMatches,
  kAbsent,   // The writer computed none.
  kDiffers,  // The record was damaged.
};
std::string_view Name(CrcStatus status);

struct RecordAudit {
  std::string name;  // "data.pkl", "data/0".
  std::uint64_t size_bytes = 0;
  std::uint64_t file_offset = 0;  // Of its first byte; StorageInfo::file_offset of a storage.
  CrcStatus crc = CrcStatus::kMatches;
};

struct FileAudit {
  std::string name;  // The base name, escaped.
  std::uint64_t size_bytes = 0;
  std::string sha256;                // Lower-case hex.
  std::vector<RecordAudit> records;  // As they lie in the file; none where the format has none.
};

// One entry per file, in the order of Checkpoint::files(). `between_chunks` is called with the
// bytes read since the last call, about a MiB, and may be empty; a status other than OK ends the
// pass with it. IO_ERROR where a file changes meanwhile. A damaged record is no error.
absl::StatusOr<std::vector<FileAudit>> AuditFiles(
    const Checkpoint& checkpoint,
    const std::function<absl::Status(std::uint64_t bytes)>& between_chunks);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_FILE_AUDIT_H_
