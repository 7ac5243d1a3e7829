#include "storage/checkpoint.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "libdeflate.h"
#include "storage/bytes.h"
#include "storage/container.h"
#include "storage/error.h"
#include "storage/input_file.h"

namespace relight::storage {
namespace {

// Large enough that a system call costs little, small enough that the checksum and the hook still
// find the bytes in a core's own cache: with 2 MiB a load takes twice as long.
constexpr std::size_t kChunkBytes = std::size_t{256} << 10;

absl::Status CheckAllUnchanged(const std::vector<InputFile>& files) {
  for (const InputFile& file : files) RELIGHT_RETURN_IF_ERROR(file.CheckUnchanged());
  return absl::OkStatus();
}

}  // namespace

std::string_view Name(Format format) {
  switch (format) {
    case Format::kZip:
      return "zip";
    case Format::kLegacyStream:
      return "legacy stream";
    case Format::kSafetensors:
      return "safetensors";
    case Format::kShardedIndex:
      return "sharded index";
  }
  return "?";
}

struct Checkpoint::Impl {
  std::string path;
  std::vector<InputFile> files;
  FileIdentity identity;  // Of all of them.
  Contents contents;

  // Calls `next` for the bytes of a storage chunk by chunk; it says where each chunk goes.
  absl::Status Read(const StorageInfo& storage,
                    const std::function<absl::Span<std::byte>(std::uint64_t offset)>& place,
                    const Checkpoint::ChunkHook& on_chunk) const;
  absl::Status ReadContents(const ReadOptions& options);
};

absl::Status Checkpoint::Impl::ReadContents(const ReadOptions& options) {
  RELIGHT_ASSIGN_OR_RETURN(const Format format, SniffFormat(files[0], path));
  if (format == Format::kShardedIndex) {
    RELIGHT_ASSIGN_OR_RETURN(ShardedContents sharded, ReadShardedIndex(files[0], path, options));
    contents = std::move(sharded.contents);
    for (InputFile& shard : sharded.shards) files.push_back(std::move(shard));
  } else {
    RELIGHT_ASSIGN_OR_RETURN(contents, ReadSingleFile(files[0], format, options));
  }
  if (options.require_crc && contents.summary.crc_absent) {
    return MarkTorn(
        MakeError(ErrorCode::kCrcMismatch,
                  absl::StrCat(files[0].shown_name(), ": carries no CRC-32 for its contents")),
        false);
  }
  return absl::OkStatus();
}

absl::StatusOr<Checkpoint> Checkpoint::Open(const std::string& path, const ReadOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->path = path;
  RELIGHT_ASSIGN_OR_RETURN(InputFile file, InputFile::Open(path, options.limits.max_file_bytes));
  impl->files.push_back(std::move(file));
  const absl::Status status = impl->ReadContents(options);
  std::vector<FileIdentity> identities;
  for (const InputFile& part : impl->files) identities.push_back(part.identity());
  impl->identity = IdentityOfAll(identities);
  // What a parser says of a file that is being written to is beside the point.
  RELIGHT_RETURN_IF_ERROR(CheckAllUnchanged(impl->files));
  RELIGHT_RETURN_IF_ERROR(status);
  return Checkpoint(std::move(impl));
}

Checkpoint::Checkpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

const std::string& Checkpoint::path() const { return impl_->path; }
const Tree& Checkpoint::tree() const { return *impl_->contents.tree; }
std::shared_ptr<const Tree> Checkpoint::shared_tree() const { return impl_->contents.tree; }
const std::vector<StorageInfo>& Checkpoint::storages() const { return impl_->contents.storages; }
const Summary& Checkpoint::summary() const { return impl_->contents.summary; }
const FileIdentity& Checkpoint::identity() const { return impl_->identity; }
const std::vector<InputFile>& Checkpoint::files() const { return impl_->files; }
int Checkpoint::fd(std::uint32_t file) const { return impl_->files[file].fd(); }
absl::Status Checkpoint::CheckUnchanged() const { return CheckAllUnchanged(impl_->files); }

absl::Status Checkpoint::CheckContentUnchanged() const {
  for (const InputFile& file : impl_->files) {
    RELIGHT_RETURN_IF_ERROR(file.CheckContentUnchanged());
  }
  return absl::OkStatus();
}

absl::Status Checkpoint::Impl::Read(
    const StorageInfo& storage,
    const std::function<absl::Span<std::byte>(std::uint64_t offset)>& place,
    const Checkpoint::ChunkHook& on_chunk) const {
  const InputFile& file = files[storage.file];
  std::uint32_t crc = 0;
  std::uint64_t offset = 0;
  while (offset < storage.size_bytes) {
    absl::Span<std::byte> chunk = place(offset);
    chunk = chunk.first(static_cast<std::size_t>(
        std::min<std::uint64_t>(chunk.size(), storage.size_bytes - offset)));
    RELIGHT_RETURN_IF_ERROR(file.ReadAt(storage.file_offset + offset, chunk));
    if (storage.crc32.has_value()) crc = libdeflate_crc32(crc, chunk.data(), chunk.size());
    SwapUnits(chunk, storage.swap_unit_bytes);
    if (on_chunk) RELIGHT_RETURN_IF_ERROR(on_chunk(offset, chunk));
    offset += chunk.size();
  }
  if (!storage.crc32.has_value()) return absl::OkStatus();
  std::array<std::byte, 16> tail;
  assert(storage.tail_bytes < tail.size());
  const absl::Span<std::byte> rest(tail.data(), static_cast<std::size_t>(storage.tail_bytes));
  RELIGHT_RETURN_IF_ERROR(file.ReadAt(storage.file_offset + storage.size_bytes, rest));
  crc = libdeflate_crc32(crc, rest.data(), rest.size());
  if (crc == *storage.crc32) return absl::OkStatus();
  return MakeError(ErrorCode::kCrcMismatch,
                   absl::StrCat(file.shown_name(), ": record data/", Escape(storage.key),
                                " does not have the CRC-32 that the file gives: it was damaged"));
}

absl::Status Checkpoint::ReadStorage(std::size_t index, absl::Span<std::byte> destination,
                                     const ChunkHook& on_chunk) const {
  const StorageInfo& storage = storages()[index];
  if (destination.size() != storage.size_bytes) {
    return absl::InternalError("the destination is not as long as the storage");
  }
  return impl_->Read(
      storage,
      [&](std::uint64_t offset) {
        return destination.subspan(static_cast<std::size_t>(offset), kChunkBytes);
      },
      on_chunk);
}

absl::Status Checkpoint::StreamStorage(std::size_t index, absl::Span<std::byte> buffer,
                                       const ChunkHook& on_chunk) const {
  // Whole elements per chunk.
  constexpr std::size_t kUnit = 64;
  if (buffer.size() < kUnit)
    return absl::InternalError("the buffer is too short to stream through");
  const absl::Span<std::byte> chunk = buffer.first(buffer.size() / kUnit * kUnit);
  return impl_->Read(
      storages()[index], [&](std::uint64_t) { return chunk; }, on_chunk);
}

}  // namespace relight::storage
