#include "server/serving/batch_runner.h"

#include <algorithm>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"

namespace relight::serving {
namespace {

// Clients are promised a closed set of codes: what a graph fails with is theirs only where it is
// about their shapes.
absl::Status GraphError(const absl::Status& status) {
  if (absl::IsInvalidArgument(status) || absl::IsInternal(status)) return status;
  return absl::InternalError(status.message());
}

}  // namespace

absl::Status NotServed(const Signature& signature, const Slot& slot,
                       std::optional<std::int64_t> version) {
  const std::string model = absl::StrCat("model ", Escape(signature.model));
  const std::vector<std::int64_t> loaded = slot.LoadedVersions();
  if (!version.has_value()) {
    return absl::UnavailableError(loaded.empty()
                                      ? absl::StrCat(model, ": no checkpoint yet")
                                      : absl::StrCat(model, ": no version is current; loaded: ",
                                                     absl::StrJoin(loaded, ", ")));
  }
  return absl::NotFoundError(
      absl::StrCat(model, ": version ", *version, " is not loaded; ",
                   loaded.empty() ? "none is" : "loaded: ", absl::StrJoin(loaded, ", ")));
}

BatchRunner::BatchRunner(const Signature& signature, const Slot& slot, ModelCounters& counters,
                         const Clock& clock)
    : signature_(signature), slot_(slot), counters_(counters), clock_(clock) {}

void BatchRunner::Run(PendingList batch) {
  std::vector<std::unique_ptr<PendingRequest>> requests;
  requests.reserve(batch.size());
  while (!batch.empty()) requests.push_back(batch.PopFront());
  Outcome outcome = Compute(requests, slot_.Find(requests.front()->admitted.key.version));
  const bool retry_alone = !outcome.outputs.ok() && outcome.reached_graph && requests.size() > 1;
  if (!retry_alone) {
    Answer(requests, std::move(outcome));
    return;
  }
  for (std::unique_ptr<PendingRequest>& pending : requests) RunAlone(std::move(pending));
}

void BatchRunner::Run(std::unique_ptr<PendingRequest> pending, Slot::Handle version) {
  const BatchView batch(&pending, 1);
  Outcome outcome = Compute(batch, version);
  version.reset();  // It may go while answers are on their way.
  Answer(batch, std::move(outcome));
}

void BatchRunner::RunAlone(std::unique_ptr<PendingRequest> pending) {
  pending->drop = ReasonToDrop(pending->request, clock_.Now());
  if (pending->drop != DropReason::kNone) {
    Drop(*pending);
    return;
  }
  Slot::Handle version = slot_.Find(pending->admitted.key.version);
  Run(std::move(pending), std::move(version));
}

void BatchRunner::Drop(PendingRequest& pending) {
  const Failure failure = DropFailure(pending.drop, pending.request);
  counters_.AddFailure(failure.reason);
  pending.done(failure.status);
}

BatchRunner::Outcome BatchRunner::Compute(BatchView batch, const Slot::Handle& version) {
  Outcome outcome;
  outcome.started = outcome.assembled = outcome.computed = std::chrono::steady_clock::now();
  if (version == nullptr) {
    outcome.outputs = NotServed(signature_, slot_, batch.front()->admitted.key.version);
    return outcome;
  }
  outcome.reached_graph = true;
  outcome.version = version->version;
  outcome.generation = version->generation;
  outcome.weights_digest = version->weights_digest;
  outcome.counters = version->counters;
  outcome.outputs = Forward(*version->model, batch, outcome);
  return outcome;
}

absl::StatusOr<std::vector<model::HostTensor>> BatchRunner::Forward(const model::BoundModel& model,
                                                                    BatchView batch,
                                                                    Outcome& outcome) {
  RELIGHT_ASSIGN_OR_RETURN(const std::vector<model::HostTensor> inputs,
                           AssembleInputs(signature_, model, batch, *buffers_));
  outcome.assembled = std::chrono::steady_clock::now();
  absl::StatusOr<std::vector<model::HostTensor>> outputs = model.Forward(inputs);
  outcome.computed = std::chrono::steady_clock::now();
  if (!outputs.ok()) return GraphError(outputs.status());
  RELIGHT_RETURN_IF_ERROR(CheckOutputs(signature_, TotalRows(batch), *outputs));
  return outputs;
}

void BatchRunner::Answer(BatchView batch, Outcome outcome) {
  if (!outcome.outputs.ok()) {
    AnswerFailure(batch, outcome);
    return;
  }
  const std::int64_t rows = TotalRows(batch);
  absl::InlinedVector<InferResult, 1> results;
  results.reserve(batch.size());
  std::int64_t first_row = 0;
  for (const std::unique_ptr<PendingRequest>& pending : batch) {
    results.push_back(
        {outcome.version, outcome.generation, outcome.weights_digest,
         SliceOutputs(signature_, *outcome.outputs, rows, first_row, pending->admitted)});
    first_row += pending->admitted.rows;
  }
  outcome.outputs->clear();  // From here on each answer keeps what it needs.

  // Counted before anybody is told, so that whoever has an answer finds it in the statistics.
  const TimePoint ended = std::chrono::steady_clock::now();
  const BatchTimes times{outcome.assembled - outcome.started, outcome.computed - outcome.assembled,
                         ended - outcome.computed};
  const auto counted_rows = static_cast<std::uint64_t>(rows);
  counters_.AddBatch(counted_rows, ended - outcome.started);
  if (outcome.counters != nullptr) {
    outcome.counters->AddBatch(batch.size(), counted_rows, times, clock_.Now());
  }
  for (const std::unique_ptr<PendingRequest>& pending : batch) {
    counters_.AddSuccess(outcome.started - pending->arrived, ended - pending->arrived);
    if (outcome.counters != nullptr) {
      outcome.counters->AddSuccess(outcome.started - pending->arrived, ended - pending->arrived);
    }
  }
  for (std::size_t i = 0; i < batch.size(); ++i) batch[i]->done(std::move(results[i]));
}

void BatchRunner::AnswerFailure(BatchView batch, const Outcome& outcome) {
  const absl::Status& status = outcome.outputs.status();
  for (const std::unique_ptr<PendingRequest>& pending : batch) {
    counters_.AddFailure(ReasonOf(status));
    if (outcome.counters != nullptr) {
      outcome.counters->AddFailure(std::chrono::steady_clock::now() - pending->arrived);
    }
    pending->done(status);
  }
}

}  // namespace relight::serving
