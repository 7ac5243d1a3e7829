// One inference as plain values: what a client asked, what it gets, and who keeps the bytes alive.
#ifndef RELIGHT_SERVER_SERVING_INFER_H_
#define RELIGHT_SERVER_SERVING_INFER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "storage/dtype.h"

namespace relight::serving {

// A tensor's bytes as they lie in a message: row-major and dense when put end to end.
using ByteSlices = absl::InlinedVector<absl::Span<const std::byte>, 2>;

struct InputTensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  ByteSlices bytes;  // Borrowed from InferRequest::keep_alive.
};

struct InferRequest {
  std::optional<std::int64_t> version;  // Absent: the newest that is served.
  std::vector<InputTensor> inputs;      // In the client's order.
  std::vector<std::string> outputs;     // Requested ones, in the client's order; empty: all.
  absl::Time deadline = absl::InfiniteFuture();
  // How long it may wait for its batch; what happens then is for the model's queue policy to say.
  absl::Duration queue_timeout = absl::InfiniteDuration();
  // Where the model has levels of priority: the request's, 1 first; 0 for the model's default.
  std::uint64_t priority = 0;
  // Set by the transport when the client has gone; work that has not started is then dropped.
  std::shared_ptr<const std::atomic<bool>> cancelled;
  std::shared_ptr<const void> keep_alive;
};

struct OutputTensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  // Row-major, little-endian; a slice of the batch's output, which it keeps alive.
  std::shared_ptr<const std::byte> data;
  std::uint64_t size_bytes = 0;
};

struct InferResult {
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  std::shared_ptr<const std::string> weights_digest;  // Hex.
  std::vector<OutputTensor> outputs;                  // In the request's order, else the graph's.
};

// Called exactly once, on any thread, with no lock held. CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE
// (queue full, draining, no version yet), NOT_FOUND (version), INVALID_ARGUMENT, INTERNAL.
using InferDone = absl::AnyInvocable<void(absl::StatusOr<InferResult>)>;

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_INFER_H_
