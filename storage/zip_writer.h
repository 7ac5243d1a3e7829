// The container of a checkpoint: a zip file of stored entries, laid out as PyTorch 2.7 and later
// lay it out, so that they may even compute where each storage begins.
#ifndef RELIGHT_STORAGE_ZIP_WRITER_H_
#define RELIGHT_STORAGE_ZIP_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "storage/buffered_sink.h"

namespace relight::storage {

// Writes in one pass: sizes are known when an entry begins, checksums follow its data. Every entry
// lies under the root folder "archive", its data at a multiple of kStorageAlignment. No dates, no
// names of users: the same entries give the same file.
//
// Thread-compatible. `sink` must outlive it. After an error only destroying makes sense.
class ZipWriter {
 public:
  explicit ZipWriter(const ByteSink& sink) : out_(sink) {}

  // Begins the entry "archive/`name`" of exactly `size_bytes`, which Append then gets.
  absl::Status Begin(std::string_view name, std::uint64_t size_bytes);
  absl::Status Append(absl::Span<const std::byte> bytes);
  // Stands for all of the entry's data without writing any: for who only wants to know sizes.
  void SkipData();
  // DATA_LOSS unless exactly the promised bytes came.
  absl::Status End();
  // All of the above for a short entry.
  absl::Status Add(std::string_view name, std::string_view content);
  // Writes the directory. Nothing may follow.
  absl::Status Finish();

  // 40 decimal digits that follow from the names and contents of the entries so far.
  std::string SerializationId() const;
  // Of the file so far.
  std::uint64_t size_bytes() const { return offset_; }

 private:
  struct Entry {
    std::string name;
    std::uint64_t offset = 0;
    std::uint64_t size_bytes = 0;
    std::uint32_t crc32 = 0;
  };

  absl::Status Put(absl::Span<const std::byte> bytes);
  absl::Status Put(std::string_view text);

  BufferedSink out_;
  std::uint64_t offset_ = 0;
  std::uint64_t left_in_entry_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_ZIP_WRITER_H_
