#include "storage/buffered_sink.h"

#include <cstddef>

#include "base/status_macros.h"
#include "storage/bytes.h"

namespace relight::storage {
namespace {

constexpr std::size_t kPendingBytes = std::size_t{256} << 10;

}  // namespace

absl::Status BufferedSink::Put(std::string_view text) { return Put(AsBytes(text)); }

absl::Status BufferedSink::Put(absl::Span<const std::byte> bytes) {
  if (pending_.size() + bytes.size() > kPendingBytes) RELIGHT_RETURN_IF_ERROR(Flush());
  if (bytes.size() > kPendingBytes) return sink_(bytes);
  pending_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return absl::OkStatus();
}

absl::Status BufferedSink::Flush() {
  if (pending_.empty()) return absl::OkStatus();
  const absl::Status flushed = sink_(AsBytes(pending_));
  pending_.clear();
  return flushed;
}

}  // namespace relight::storage
