// Whether a request fits a model's signature: what is checked before anything is queued.
//
// Pure: no clock, lock or queue. Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_ADMISSION_H_
#define RELIGHT_SERVER_SERVING_ADMISSION_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "server/serving/infer.h"
#include "server/serving/request_path.h"

namespace relight::serving {

// Requests may share a batch where their keys are equal.
struct BatchKey {
  std::optional<std::int64_t> version;  // As asked for; absent: whichever is served.
  // What the request has in the signature's free dimensions other than the batch's, in order.
  std::vector<std::int64_t> free_dims;

  friend auto operator<=>(const BatchKey&, const BatchKey&) = default;
};

using Positions = absl::InlinedVector<std::size_t, 4>;

struct AdmittedRequest {
  std::int64_t rows = 1;         // Along the batch dimension; 1 where there is none.
  std::uint64_t size_bytes = 0;  // Of all inputs.
  BatchKey key;
  Positions inputs;   // For each input of the signature, where it is in InferRequest::inputs.
  Positions outputs;  // What to answer, in order, as positions in the signature's outputs.
};

class Admission {
 public:
  // `signature` must outlive this.
  explicit Admission(const Signature& signature);

  // INVALID_ARGUMENT with all that is wrong. On success the bytes of each input are exactly what
  // its shape needs, and every sum and product of sizes fits.
  absl::StatusOr<AdmittedRequest> Check(const InferRequest& request) const;

 private:
  class Problems;

  void CheckInputs(const InferRequest& request, AdmittedRequest& admitted,
                   Problems& problems) const;
  bool CheckShape(const TensorSpec& spec, const InputTensor& input, Problems& problems) const;
  void CheckBytes(const InputTensor& input, AdmittedRequest& admitted, Problems& problems) const;
  void CheckRows(const InputTensor& input, const InputTensor& first, Problems& problems) const;
  void CheckOutputs(const InferRequest& request, AdmittedRequest& admitted,
                    Problems& problems) const;
  void FillKey(const InferRequest& request, AdmittedRequest& admitted) const;
  bool batched() const { return signature_.batching.max_batch_size > 0; }

  const Signature& signature_;
};

// The largest request in bytes that can be admitted: never more than the queue may hold. Free
// dimensions other than the batch's are counted as 1, and such a model then gets at least
// kFreeShapeRequestBytes, because its shapes bound nothing.
inline constexpr std::uint64_t kFreeShapeRequestBytes = std::uint64_t{64} << 20;
std::uint64_t LargestRequestBytes(const Signature& signature);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_ADMISSION_H_
