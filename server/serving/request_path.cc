#include "server/serving/request_path.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "server/serving/admission.h"
#include "server/serving/batch_runner.h"
#include "server/serving/compute_pool.h"
#include "server/serving/failure.h"
#include "server/serving/model_counters.h"
#include "server/serving/pending_request.h"
#include "server/serving/request_queue.h"
#include "server/serving/version_counters.h"
#include "server/serving/warm_up.h"

namespace relight::serving {
namespace {

class QueuedRequestPath final : public RequestPath, private BatchSource {
 public:
  QueuedRequestPath(Signature signature, std::shared_ptr<ComputePool> pool, const Clock& clock)
      : BatchSource(signature.batches_at_once),
        signature_(std::move(signature)),
        clock_(clock),
        admission_(signature_),
        counters_(signature_.batching.max_batch_size),
        queue_(signature_.batching),
        runner_(signature_, slot_, counters_, clock_),
        pool_(std::move(pool)) {}

  ~QueuedRequestPath() override {
    StopAdmitting(absl::UnavailableError("the model is being unloaded"));
    WaitIdle(absl::InfiniteFuture());
    pool_->Detach(*this);
  }

  void Infer(InferRequest request, InferDone done) override {
    auto pending = std::make_unique<PendingRequest>();
    pending->arrived = std::chrono::steady_clock::now();
    pending->request = std::move(request);
    pending->done = std::move(done);
    const absl::Time now = clock_.Now();
    Slot::Handle version;
    std::optional<Failure> failure = Admit(*pending, now, version);
    if (!failure.has_value()) {
      const std::uint64_t size_bytes = pending->admitted.size_bytes;
      if (version->model->IsQuick(size_bytes) && queue_.TakeAtOnce(size_bytes)) {
        return RunHere(std::move(pending), std::move(version));
      }
      version.reset();
      failure = Enqueue(pending, now);
    }
    if (failure.has_value()) {
      counters_.AddFailure(failure->reason);
      pending->done(failure->status);
      return;
    }
    pool_->Schedule(*this);
  }

  Slot& slot() override { return slot_; }

  absl::Status WarmUp(const ServedVersion& version, std::int64_t batch_size,
                      std::int64_t free_dim) const override {
    return RunWarmUp(signature_, *version.model, batch_size, free_dim);
  }

  void StopAdmitting(absl::Status reason) override {
    queue_.Stop(std::move(reason));
    pool_->Schedule(*this);  // Those that wait for company go now.
  }
  void ResumeAdmitting() override { queue_.Resume(); }
  bool WaitIdle(absl::Time deadline) override { return queue_.WaitIdle(deadline); }

  std::uint64_t MaxRequestBytes() const override { return LargestRequestBytes(signature_); }

  std::vector<VersionStatistics> VersionRows() const override {
    std::vector<VersionStatistics> rows;
    std::vector<const VersionCounters*> seen;
    for (const Slot::Handle& handle : slot_.Loaded()) {
      const VersionCounters* counters = handle->counters.get();
      VersionStatistics read;
      if (counters != nullptr && std::find(seen.begin(), seen.end(), counters) == seen.end()) {
        read = counters->Read();
        seen.push_back(counters);
      }
      read.version = handle->version;
      const auto same = std::find_if(
          rows.begin(), rows.end(),
          [&read](const VersionStatistics& row) { return row.version == read.version; });
      if (same == rows.end()) {
        rows.push_back(std::move(read));
      } else {
        Merge(read, *same);  // An overwritten file: two generations, one version.
      }
    }
    return rows;
  }

  void FillStatistics(ModelStatistics& out) const override {
    out.model = signature_.model;
    counters_.Read(out);
    const RequestQueue::Level level = queue_.level();
    out.queued_requests = level.requests;
    out.queued_bytes = level.bytes;
  }

 private:
  // Finds the version that `pending` asks for, or says why it may not be run.
  std::optional<Failure> Admit(PendingRequest& pending, absl::Time now,
                               Slot::Handle& version) const {
    const InferRequest& request = pending.request;
    const DropReason drop = ReasonToDrop(request, now);
    if (drop != DropReason::kNone) return DropFailure(drop, request);
    absl::StatusOr<AdmittedRequest> admitted = admission_.Check(request);
    if (!admitted.ok()) return Failure{FailureReason::kInvalid, admitted.status()};
    version = slot_.Find(request.version);
    if (version == nullptr) {
      absl::Status status = queue_.stop_reason();
      if (status.ok()) status = NotServed(signature_, slot_, request.version);
      return Failure{ReasonOf(status), status};
    }
    pending.admitted = std::move(admitted).value();
    return std::nullopt;
  }

  // Queues `pending`, or leaves it with the caller and says why.
  std::optional<Failure> Enqueue(std::unique_ptr<PendingRequest>& pending, absl::Time now) {
    const std::size_t level = LevelOf(pending->request.priority);
    const config::QueuePolicy& policy = signature_.batching.levels[level];
    pending->rank = 2 * level;
    if (!policy.allow_timeout_override) pending->request.queue_timeout = policy.default_timeout;
    pending->request.queue_timeout =
        std::min(pending->request.queue_timeout, policy.default_timeout);
    pending->queue_deadline = now + pending->request.queue_timeout;
    return queue_.Push(pending, now);
  }

  std::size_t LevelOf(std::uint64_t priority) const {
    const config::Batching& batching = signature_.batching;
    const bool exists = priority >= 1 && priority <= batching.levels.size();
    return exists ? static_cast<std::size_t>(priority) - 1 : batching.default_level;
  }

  // On the thread that brought `pending`. Ends the process, as it would on a compute thread, where
  // memory runs out for it.
  void RunHere(std::unique_ptr<PendingRequest> pending, Slot::Handle version) noexcept {
    runner_.Run(std::move(pending), std::move(version));
    queue_.Finished(1);
  }

  void RunOne() override {
    RequestQueue::Taken taken = queue_.Take(clock_.Now(), std::chrono::steady_clock::now());
    if (taken.more) {
      pool_->Schedule(*this);
    } else if (taken.look_again.has_value()) {
      pool_->ScheduleAt(*this, *taken.look_again);
    }
    const std::size_t requests = taken.batch.size() + taken.dropped.size();
    if (requests == 0) return;
    while (!taken.dropped.empty()) runner_.Drop(*taken.dropped.PopFront());
    if (!taken.batch.empty()) runner_.Run(std::move(taken.batch));
    queue_.Finished(requests);
  }

  const Signature signature_;
  const Clock& clock_;
  const Admission admission_;
  Slot slot_;
  ModelCounters counters_;
  RequestQueue queue_;
  BatchRunner runner_;
  const std::shared_ptr<ComputePool> pool_;
};

}  // namespace

std::unique_ptr<RequestPath> MakeRequestPath(Signature signature, std::shared_ptr<ComputePool> pool,
                                             const Clock& clock) {
  return std::make_unique<QueuedRequestPath>(std::move(signature), std::move(pool), clock);
}

}  // namespace relight::serving
