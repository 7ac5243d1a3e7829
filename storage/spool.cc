#include "storage/spool.h"

#include <fcntl.h>
#include <libdeflate.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/atomic_file.h"
#include "storage/posix_error.h"

namespace relight::storage {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{4} << 20;

absl::StatusOr<UniqueFd> OpenUnnamed(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd.valid()) return fd;
  const std::string what = absl::StrCat("making a spool file in ", Escape(path));
  if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) return PosixError(what, errno);
  // Some file systems have none without a name. A process that is killed before the name is gone
  // leaves what RemoveStaleTemporaries removes.
  const UniqueFd folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) return PosixError(what, errno);
  RELIGHT_ASSIGN_OR_RETURN(AtomicFile file,
                           AtomicFile::Create(folder.get(), "spool", /*overwrite=*/true));
  return std::move(file).Unlink();
}

absl::Status WriteAt(int fd, absl::Span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return PosixError(absl::StrCat("spooling after ", offset, " bytes"), errno);
    bytes.remove_prefix(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Spool> Spool::Create(const Checkpoint& checkpoint,
                                    const std::vector<std::uint32_t>& indices,
                                    const std::string& folder,
                                    const std::function<absl::Status()>& between_chunks) {
  Spool spool;
  RELIGHT_ASSIGN_OR_RETURN(spool.fd_, OpenUnnamed(folder));
  std::vector<std::byte> buffer(kChunkBytes);
  for (const std::uint32_t index : indices) {
    if (spool.Has(index)) continue;
    Run run{.offset = spool.size_bytes_, .size_bytes = 0, .crc32 = 0};
    const auto copy = [&](std::uint64_t, absl::Span<const std::byte> chunk) -> absl::Status {
      RELIGHT_RETURN_IF_ERROR(WriteAt(spool.fd_.get(), chunk, run.offset + run.size_bytes));
      run.crc32 = libdeflate_crc32(run.crc32, chunk.data(), chunk.size());
      run.size_bytes += chunk.size();
      return between_chunks ? between_chunks() : absl::OkStatus();
    };
    RELIGHT_RETURN_IF_ERROR(checkpoint.StreamStorage(index, absl::MakeSpan(buffer), copy));
    spool.size_bytes_ += run.size_bytes;
    spool.runs_.emplace(index, run);
  }
  RELIGHT_RETURN_IF_ERROR(checkpoint.CheckContentUnchanged());
  return spool;
}

absl::Status Spool::Stream(std::uint32_t index, const ByteSink& sink) const {
  const auto found = runs_.find(index);
  if (found == runs_.end()) {
    return absl::NotFoundError(absl::StrCat("storage ", index, " was not spooled"));
  }
  const Run& run = found->second;
  std::vector<std::byte> buffer(std::min<std::uint64_t>(kChunkBytes, run.size_bytes));
  std::uint32_t crc32 = 0;
  for (std::uint64_t at = 0; at < run.size_bytes;) {
    const std::size_t want = std::min<std::uint64_t>(buffer.size(), run.size_bytes - at);
    const ssize_t n = ::pread(fd_.get(), buffer.data(), want, static_cast<off_t>(run.offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return PosixError("reading the spooled training state", errno);
    if (n == 0) return absl::DataLossError("the spooled training state was cut short");
    const absl::Span<const std::byte> chunk(buffer.data(), static_cast<std::size_t>(n));
    crc32 = libdeflate_crc32(crc32, chunk.data(), chunk.size());
    RELIGHT_RETURN_IF_ERROR(sink(chunk));
    at += chunk.size();
  }
  if (crc32 == run.crc32) return absl::OkStatus();
  return absl::DataLossError("the spooled training state came back from the disk with other bytes");
}

}  // namespace relight::storage
