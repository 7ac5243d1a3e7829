#include "server/serving/version_counters.h"

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "server/serving/request_path.h"

namespace relight::serving {
namespace {

void Add(const DurationTotal& from, DurationTotal& into) {
  into.count += from.count;
  into.nanoseconds += from.nanoseconds;
}

}  // namespace

VersionCounters::~VersionCounters() {
  for (const std::atomic<SizeCounters*>& bucket : sizes_) {
    SizeCounters* counters = bucket.load(std::memory_order_relaxed);
    while (counters != nullptr) {
      const std::unique_ptr<SizeCounters> last(counters);
      counters = last->next;
    }
  }
}

void VersionCounters::AddBatch(std::uint64_t requests, std::uint64_t rows, const BatchTimes& times,
                               absl::Time when) {
  inference_count_.fetch_add(rows, std::memory_order_relaxed);
  execution_count_.fetch_add(1, std::memory_order_relaxed);
  last_inference_ns_.store(absl::ToUnixNanos(when), std::memory_order_relaxed);
  input_.Add(times.input, requests);
  infer_.Add(times.infer, requests);
  output_.Add(times.output, requests);
  SizeCounters& size = ForSize(rows);
  size.input.Add(times.input);
  size.infer.Add(times.infer);
  size.output.Add(times.output);
}

void VersionCounters::AddSuccess(std::chrono::nanoseconds queue, std::chrono::nanoseconds total) {
  queue_.Add(queue);
  success_.Add(total);
}

void VersionCounters::AddFailure(std::chrono::nanoseconds total) { fail_.Add(total); }

VersionStatistics VersionCounters::Read() const {
  VersionStatistics statistics;
  statistics.last_inference =
      absl::FromUnixNanos(last_inference_ns_.load(std::memory_order_relaxed));
  statistics.inference_count = inference_count_.load(std::memory_order_relaxed);
  statistics.execution_count = execution_count_.load(std::memory_order_relaxed);
  statistics.success = success_.Read();
  statistics.fail = fail_.Read();
  statistics.queue = queue_.Read();
  statistics.compute_input = input_.Read();
  statistics.compute_infer = infer_.Read();
  statistics.compute_output = output_.Read();
  for (const std::atomic<SizeCounters*>& bucket : sizes_) {
    for (const SizeCounters* counters = bucket.load(std::memory_order_acquire); counters != nullptr;
         counters = counters->next) {
      statistics.batches.push_back({counters->rows, counters->input.Read(), counters->infer.Read(),
                                    counters->output.Read()});
    }
  }
  std::sort(statistics.batches.begin(), statistics.batches.end(),
            [](const BatchTotal& a, const BatchTotal& b) { return a.batch_size < b.batch_size; });
  return statistics;
}

VersionCounters::SizeCounters& VersionCounters::ForSize(std::uint64_t rows) {
  std::atomic<SizeCounters*>& bucket = sizes_[rows % kBuckets];
  SizeCounters* first = bucket.load(std::memory_order_acquire);
  std::unique_ptr<SizeCounters> added;
  while (true) {
    for (SizeCounters* counters = first; counters != nullptr; counters = counters->next) {
      if (counters->rows == rows) return *counters;
    }
    if (added == nullptr) {
      added = std::make_unique<SizeCounters>();
      added->rows = rows;
    }
    added->next = first;
    if (bucket.compare_exchange_weak(first, added.get(), std::memory_order_acq_rel,
                                     std::memory_order_acquire)) {
      return *added.release();
    }
  }
}

void Merge(const VersionStatistics& from, VersionStatistics& into) {
  into.last_inference = std::max(into.last_inference, from.last_inference);
  into.inference_count += from.inference_count;
  into.execution_count += from.execution_count;
  Add(from.success, into.success);
  Add(from.fail, into.fail);
  Add(from.queue, into.queue);
  Add(from.compute_input, into.compute_input);
  Add(from.compute_infer, into.compute_infer);
  Add(from.compute_output, into.compute_output);
  std::map<std::uint64_t, BatchTotal> by_size;
  const auto add_all = [&by_size](const std::vector<BatchTotal>& batches) {
    for (const BatchTotal& batch : batches) {
      BatchTotal& total = by_size[batch.batch_size];
      total.batch_size = batch.batch_size;
      Add(batch.compute_input, total.compute_input);
      Add(batch.compute_infer, total.compute_infer);
      Add(batch.compute_output, total.compute_output);
    }
  };
  add_all(into.batches);
  add_all(from.batches);
  into.batches.clear();
  for (const auto& [size, total] : by_size) into.batches.push_back(total);
}

std::shared_ptr<VersionCounters> MakeVersionCounters() {
  return std::make_shared<VersionCounters>();
}

}  // namespace relight::serving
