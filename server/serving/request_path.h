// The request side of one model: admission, the bounded queue, batches, statistics. It knows
// nothing of files or versions beyond the slot that it reads.
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
#include "base/clock.h"
#include "server/config/model_config.h"
#include "server/network/tensor_spec.h"
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
  int batches_at_once = 0;  // The most that run at the same time; 0: as many as there are threads.
};

class RequestPath {
 public:
  // Finishes requests in flight first. REQUIRES: no other call is in progress, and this is not one
  // of the compute threads (an InferDone): the slot's models are destroyed here.
  virtual ~RequestPath() = default;

  // Validates against the signature, admits to the queue and returns. `done` may be called first,
  // on this thread.
  virtual void Infer(InferRequest request, InferDone done) = 0;

  virtual Slot& slot() = 0;

  // Runs zeros of `batch_size` rows through `version` on the calling thread (the loader's), so that
  // first-run work is done before it serves. FAILED_PRECONDITION, naming both sides, where what
  // comes out is not what the signature promises.
  virtual absl::Status WarmUp(const ServedVersion& version, std::int64_t batch_size,
                              std::int64_t free_dim) const = 0;

  // From now on new requests get `reason` (UNAVAILABLE); those that are queued are still answered.
  virtual void StopAdmitting(absl::Status reason) = 0;
  virtual void ResumeAdmitting() = 0;
  // Waits until nothing is queued or running; false where `deadline` (wall time) passes first.
  virtual bool WaitIdle(absl::Time deadline) = 0;

  // The largest request that can be admitted: what the signature allows (64 MiB or more where a
  // dimension other than the batch's is free), and no more than batching.max_queue_bytes.
  virtual std::uint64_t MaxRequestBytes() const = 0;
  // One row per loaded version, newest first; generations of one version count together.
  virtual std::vector<VersionStatistics> VersionRows() const = 0;
  // Fills the request side's fields of `out`; leaves the reload side's alone.
  virtual void FillStatistics(ModelStatistics& out) const = 0;
};

// `clock` tells deadlines and must outlive the path. What is quick (BoundModel::IsQuick) is run on
// the thread that brings it, where none waits before it.
std::unique_ptr<RequestPath> MakeRequestPath(Signature signature, std::shared_ptr<ComputePool> pool,
                                             const Clock& clock = Clock::Real());

// For ServedVersion::counters.
std::shared_ptr<VersionCounters> MakeVersionCounters();

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_REQUEST_PATH_H_
