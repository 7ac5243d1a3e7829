// Fuzzes the zip container: the index, every record behind it, and what is made of them.
#include <algorithm>
#include <string_view>
#include <vector>

#include "storage/error.h"
#include "storage/input_file.h"
#include "storage/zip_index.h"
#include "tests/fuzz/checkpoint_run.h"
#include "tests/fuzz/fuzz_target.h"

namespace relight::fuzz {
namespace {

using storage::ErrorCode;
using storage::ZipEntry;
using storage::ZipIndex;

// Entries have names of their own and share no byte; without gaps, every byte is some entry's.
void CheckIndex(const ZipIndex& index, std::uint64_t file_bytes, bool gaps) {
  std::vector<const ZipEntry*> order;
  for (const ZipEntry& entry : index.entries()) {
    Require(index.Find(entry.name) == &entry, "an entry is not found by its name");
    Require(entry.method != 0 || entry.compressed_bytes == entry.size_bytes,
            "a stored entry has two sizes");
    Require(entry.header_offset < entry.data_offset && entry.data_offset <= entry.end_offset &&
                entry.end_offset <= file_bytes &&
                entry.compressed_bytes <= entry.end_offset - entry.data_offset,
            "an entry's parts are out of order or out of the file");
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const ZipEntry* a, const ZipEntry* b) {
    return a->header_offset < b->header_offset;
  });
  std::uint64_t at = 0;
  for (const ZipEntry* entry : order) {
    Require(gaps ? entry->header_offset >= at : entry->header_offset == at,
            "entries overlap, or leave a gap");
    at = entry->end_offset;
  }
}

absl::Status Run(const ScratchFile& file, const storage::ReadOptions& options) {
  const auto input = storage::InputFile::Open(file.path(), options.limits.max_file_bytes);
  Require(input.ok(), input.status().ToString());
  const auto index = ZipIndex::Read(*input, options);
  if (!index.ok()) {
    CheckRefusal(index.status());
    return index.status();
  }
  CheckIndex(*index, input->size_bytes(), options.zip_allow_gaps);
  return RunCheckpoint(file.path(), options);
}

}  // namespace
}  // namespace relight::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace relight::fuzz;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  static const ScratchFile file;
  file.Write(bytes);
  relight::storage::ReadOptions options = SmallLimits();
  const absl::Status strict = Run(file, options);
  // Most damage that moves an entry ends there; with gaps allowed it goes further.
  if (relight::storage::GetErrorCode(strict) != ErrorCode::kZipCorrupt) return 0;
  options.zip_allow_gaps = true;
  static_cast<void>(Run(file, options));
  return 0;
}
