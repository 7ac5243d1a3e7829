// Runs a batch: takes the version, computes, and gives each request its answer.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_BATCH_RUNNER_H_
#define RELIGHT_SERVER_SERVING_BATCH_RUNNER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "server/serving/batch_buffers.h"
#include "server/serving/batch_tensors.h"
#include "server/serving/model_counters.h"
#include "server/serving/pending_request.h"
#include "server/serving/request_path.h"
#include "server/serving/slot.h"
#include "server/serving/version_counters.h"

namespace relight::serving {

// NOT_FOUND naming what is loaded for a version that is not; UNAVAILABLE where none was named.
absl::Status NotServed(const Signature& signature, const Slot& slot,
                       std::optional<std::int64_t> version);

class BatchRunner {
 public:
  // All must outlive this.
  BatchRunner(const Signature& signature, const Slot& slot, ModelCounters& counters,
              const Clock& clock);

  // Answers all of `batch`, which shares a key. Where the graph fails for several requests
  // together, each is run alone, so that none fails for its neighbour's sake.
  void Run(PendingList batch);
  // The same for one, by the version that its key asks for.
  void Run(std::unique_ptr<PendingRequest> pending, Slot::Handle version);

  // Answers a request that is not run; `drop` says why.
  void Drop(PendingRequest& pending);

 private:
  using TimePoint = std::chrono::steady_clock::time_point;

  // What came of one execution. Holds no handle: the version may go while answers are on their way.
  struct Outcome {
    absl::StatusOr<std::vector<model::HostTensor>> outputs;
    bool reached_graph = false;
    std::int64_t version = 0;
    std::uint64_t generation = 0;
    std::shared_ptr<const std::string> weights_digest;
    std::shared_ptr<VersionCounters> counters;
    TimePoint started, assembled, computed;
  };

  // By the version that the batch's key asks for; null where it is not loaded.
  Outcome Compute(BatchView batch, const Slot::Handle& version);
  absl::StatusOr<std::vector<model::HostTensor>> Forward(const model::BoundModel& model,
                                                         BatchView batch, Outcome& outcome);
  void Answer(BatchView batch, Outcome outcome);
  void AnswerFailure(BatchView batch, const Outcome& outcome);
  void RunAlone(std::unique_ptr<PendingRequest> pending);

  const Signature& signature_;
  const Slot& slot_;
  ModelCounters& counters_;
  const Clock& clock_;
  const std::shared_ptr<BatchBuffers> buffers_ = BatchBuffers::Create();
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_BATCH_RUNNER_H_
