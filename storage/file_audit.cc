#include "storage/file_audit.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/types/span.h"
#include "base/status_macros.h"
#include "libdeflate.h"
#include "storage/input_file.h"
#include "storage/sha256.h"
#include "storage/zip_index.h"

namespace relight::storage {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

// Takes the CRC-32 of each entry as the bytes of the file pass by, first to last.
class RecordChecker {
 public:
  explicit RecordChecker(std::vector<ZipEntry> entries) : entries_(std::move(entries)) {
    std::sort(entries_.begin(), entries_.end(),
              [](const ZipEntry& a, const ZipEntry& b) { return a.data_offset < b.data_offset; });
  }

  // The bytes from `at` on.
  void Add(std::uint64_t at, absl::Span<const std::byte> chunk) {
    const std::uint64_t end = at + chunk.size();
    while (next_ < entries_.size() && entries_[next_].data_offset < end) {
      const ZipEntry& entry = entries_[next_];
      const std::uint64_t from = std::max(entry.data_offset, at);
      const std::uint64_t to = std::min(entry.data_offset + entry.size_bytes, end);
      if (from < to) crc_ = libdeflate_crc32(crc_, chunk.data() + (from - at), to - from);
      if (entry.data_offset + entry.size_bytes > end) return;
      Finish(entry);
    }
  }

  std::vector<RecordAudit> TakeRecords() { return std::move(records_); }

 private:
  void Finish(const ZipEntry& entry) {
    RecordAudit record{entry.name, entry.size_bytes, entry.data_offset, CrcStatus::kMatches};
    if (crc_ != entry.crc32) {
      record.crc = entry.crc32 == 0 ? CrcStatus::kAbsent : CrcStatus::kDiffers;
    }
    records_.push_back(std::move(record));
    crc_ = 0;
    ++next_;
  }

  std::vector<ZipEntry> entries_;
  std::vector<RecordAudit> records_;
  std::size_t next_ = 0;
  std::uint32_t crc_ = 0;
};

absl::StatusOr<std::vector<ZipEntry>> EntriesOf(const InputFile& file) {
  constexpr std::array<std::byte, 4> kZipMagic = {std::byte{'P'}, std::byte{'K'}, std::byte{3},
                                                  std::byte{4}};
  std::array<std::byte, 4> head{};
  if (file.size_bytes() < head.size()) return std::vector<ZipEntry>();
  RELIGHT_RETURN_IF_ERROR(file.ReadAt(0, absl::MakeSpan(head)));
  if (head != kZipMagic) return std::vector<ZipEntry>();
  // It was opened under the caller's limits already.
  ReadOptions options;
  options.zip_allow_gaps = true;
  options.limits.max_entries = UINT64_MAX;
  RELIGHT_ASSIGN_OR_RETURN(const ZipIndex index, ZipIndex::Read(file, options));
  return index.entries();
}

absl::StatusOr<FileAudit> AuditFile(
    const InputFile& file, const std::function<absl::Status(std::uint64_t)>& between_chunks) {
  RELIGHT_ASSIGN_OR_RETURN(std::vector<ZipEntry> entries, EntriesOf(file));
  RecordChecker checker(std::move(entries));
  Sha256 sha256;
  std::vector<std::byte> buffer(
      static_cast<std::size_t>(std::min<std::uint64_t>(kChunkBytes, file.size_bytes())));
  for (std::uint64_t at = 0; at < file.size_bytes();) {
    const absl::Span<std::byte> chunk = absl::MakeSpan(buffer).first(
        static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), file.size_bytes() - at)));
    RELIGHT_RETURN_IF_ERROR(file.ReadAt(at, chunk));
    sha256.Update(chunk);
    checker.Add(at, chunk);
    at += chunk.size();
    if (between_chunks) RELIGHT_RETURN_IF_ERROR(between_chunks(chunk.size()));
  }
  return FileAudit{file.shown_name(), file.size_bytes(), sha256.FinishHex(), checker.TakeRecords()};
}

}  // namespace

std::string_view Name(CrcStatus status) {
  switch (status) {
    case CrcStatus::kMatches:
      return "matches";
    case CrcStatus::kAbsent:
      return "absent";
    case CrcStatus::kDiffers:
      return "differs";
  }
  return "?";
}

absl::StatusOr<std::vector<FileAudit>> AuditFiles(
    const Checkpoint& checkpoint,
    const std::function<absl::Status(std::uint64_t bytes)>& between_chunks) {
  std::vector<FileAudit> audits;
  for (const InputFile& file : checkpoint.files()) {
    RELIGHT_ASSIGN_OR_RETURN(FileAudit audit, AuditFile(file, between_chunks));
    audits.push_back(std::move(audit));
  }
  RELIGHT_RETURN_IF_ERROR(checkpoint.CheckUnchanged());
  return audits;
}

}  // namespace relight::storage
