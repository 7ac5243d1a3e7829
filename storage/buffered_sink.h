// Collects the small pieces of a file, so that who takes it sees few calls.
#ifndef RELIGHT_STORAGE_BUFFERED_SINK_H_
#define RELIGHT_STORAGE_BUFFERED_SINK_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "storage/storage_source.h"

namespace relight::storage {

// Thread-compatible. `sink` must outlive it. After an error only destroying makes sense.
class BufferedSink {
 public:
  explicit BufferedSink(const ByteSink& sink) : sink_(sink) {}

  absl::Status Put(absl::Span<const std::byte> bytes);
  absl::Status Put(std::string_view text);
  // Hands on what is left: the last call.
  absl::Status Flush();

 private:
  const ByteSink& sink_;
  std::string pending_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_BUFFERED_SINK_H_
