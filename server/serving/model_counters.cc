#include "server/serving/model_counters.h"

#include <string>

namespace relight::serving {
namespace {

double Seconds(std::chrono::nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

ModelCounters::ModelCounters(std::int64_t max_batch_size)
    : request_seconds_(Histogram::LatencyBounds()),
      queue_seconds_(Histogram::LatencyBounds()),
      compute_seconds_(Histogram::LatencyBounds()),
      batch_size_(Histogram::BatchSizeBounds(max_batch_size)) {}

void ModelCounters::AddBatch(std::uint64_t rows, std::chrono::nanoseconds compute) {
  rows_.fetch_add(rows, std::memory_order_relaxed);
  batches_.fetch_add(1, std::memory_order_relaxed);
  compute_seconds_.Observe(Seconds(compute));
  batch_size_.Observe(static_cast<double>(rows));
}

void ModelCounters::AddSuccess(std::chrono::nanoseconds queue, std::chrono::nanoseconds total) {
  succeeded_.fetch_add(1, std::memory_order_relaxed);
  queue_seconds_.Observe(Seconds(queue));
  request_seconds_.Observe(Seconds(total));
}

void ModelCounters::AddFailure(FailureReason reason) {
  failed_[static_cast<std::size_t>(reason)].fetch_add(1, std::memory_order_relaxed);
}

void ModelCounters::Read(ModelStatistics& out) const {
  out.requests_succeeded = succeeded_.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < kFailureReasons; ++i) {
    out.requests_failed[std::string(Name(static_cast<FailureReason>(i)))] =
        failed_[i].load(std::memory_order_relaxed);
  }
  out.rows = rows_.load(std::memory_order_relaxed);
  out.batches = batches_.load(std::memory_order_relaxed);
  out.request_seconds = request_seconds_.Read();
  out.queue_seconds = queue_seconds_.Read();
  out.compute_seconds = compute_seconds_.Read();
  out.batch_size = batch_size_.Read();
}

}  // namespace relight::serving
