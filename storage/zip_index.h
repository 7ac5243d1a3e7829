// The directory of a zip file as PyTorch writes them, read so strictly that no second parser can
// see other records in it: the end record is the last thing in the file, central and local headers
// agree, and the entries tile the file without gap or overlap.
#ifndef RELIGHT_STORAGE_ZIP_INDEX_H_
#define RELIGHT_STORAGE_ZIP_INDEX_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/checkpoint.h"
#include "storage/input_file.h"

namespace relight::storage {

struct ZipEntry {
  std::string name;  // Without the root folder; ends in '/' for a folder.
  std::uint16_t flags = 0;
  std::uint16_t method = 0;
  std::uint32_t crc32 = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t compressed_bytes = 0;
  std::uint64_t header_offset = 0;
  std::uint64_t data_offset = 0;
  std::uint64_t end_offset = 0;  // Behind the data and its descriptor.
};

// Thread-safety: immutable once read.
class ZipIndex {
 public:
  // Refuses compressed entries unless `IsTorchScript`, whose code is legitimately compressed.
  static absl::StatusOr<ZipIndex> Read(const InputFile& file, const ReadOptions& options);

  // In the order of the directory.
  const std::vector<ZipEntry>& entries() const { return entries_; }
  const ZipEntry* Find(std::string_view name) const;
  bool IsTorchScript() const { return Find("constants.pkl") != nullptr; }

 private:
  friend class ZipIndexReader;
  std::vector<ZipEntry> entries_;
  std::vector<std::uint32_t> by_name_;  // Indices into entries_, sorted by name.
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_ZIP_INDEX_H_
