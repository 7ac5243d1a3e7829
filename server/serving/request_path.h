// The request side of one model: admission, the bounded queue, batches, statistics. It knows nothing
// of files or versions beyond the slot that it reads.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_REQUEST_PATH_H_
#define RELIGHT_SERVER_SERVING_REQUEST_PATH_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/config/model_config.h"
#include "server/serving/infer.h"
#include "server/serving/slot.h"
#include "server/serving/statistics.h"

namespace relight::serving {

// The threads that run batches, shared by all models. Destroying it finishes what was handed in.
class ComputePool;
std::shared_ptr<ComputePool> MakeComputePool(int threads);

// What a model's clients may send: fixed for the life of one RequestPath.
struct Signature {
  std::string model;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  config::Batching batching;
};

class RequestPath {
 public:
  virtual ~RequestPath() = default;  // Finishes requests in flight first.

  // Validates against the signature, admits to the queue and returns.
  virtual void Infer(InferRequest request, InferDone done) = 0;

  virtual Slot& slot() = 0;

  // Runs zeros of `batch_size` rows through `version` on the calling thread (the loader's), so that
  // first-run work is done before it serves.
  virtual absl::Status WarmUp(const ServedVersion& version, std::int64_t batch_size,
                              std::int64_t free_dim) const = 0;

  // From now on new requests get `reason` (UNAVAILABLE); those that are queued are still answered.
  virtual void StopAdmitting(absl::Status reason) = 0;
  virtual void ResumeAdmitting() = 0;
  // Whether nothing is queued or running.
  virtual bool WaitIdle(absl::Time deadline) = 0;

  virtual std::uint64_t MaxRequestBytes() const = 0;
  virtual std::vector<VersionStatistics> VersionRows() const = 0;  // Loaded ones, newest first.
  // Fills the request side's fields of `out`; leaves the reload side's alone.
  virtual void FillStatistics(ModelStatistics& out) const = 0;
};

std::unique_ptr<RequestPath> MakeRequestPath(Signature signature,
                                             std::shared_ptr<ComputePool> pool);

// For ServedVersion::counters.
std::shared_ptr<VersionCounters> MakeVersionCounters();

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_REQUEST_PATH_H_
