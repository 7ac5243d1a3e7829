#include "server/rpc/metrics.h"

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <string_view>

#include "server/rpc/status_text.h"

namespace relight::rpc {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using serving::ModelStatistics;
using serving::VersionStatistics;
using Labels = std::vector<ClientMetric::Label>;

// Collects samples under their family's name, in the order in which the families appear.
class Families {
 public:
  void Counter(std::string_view name, std::string_view help, Labels labels, double value) {
    Add(name, help, MetricType::Counter, std::move(labels)).counter.value = value;
  }
  void Gauge(std::string_view name, std::string_view help, Labels labels, double value) {
    Add(name, help, MetricType::Gauge, std::move(labels)).gauge.value = value;
  }
  void Histogram(std::string_view name, std::string_view help, Labels labels,
                 const serving::HistogramSnapshot& snapshot) {
    ClientMetric::Histogram& out =
        Add(name, help, MetricType::Histogram, std::move(labels)).histogram;
    out.sample_sum = snapshot.sum;
    out.sample_count = snapshot.counts.empty() ? 0 : snapshot.counts.back();
    for (std::size_t i = 0; i < snapshot.counts.size(); ++i) {
      ClientMetric::Bucket bucket;
      bucket.cumulative_count = snapshot.counts[i];
      bucket.upper_bound =
          i < snapshot.bounds.size() ? snapshot.bounds[i] : std::numeric_limits<double>::infinity();
      out.bucket.push_back(bucket);
    }
  }

  std::vector<MetricFamily> Take() && { return std::move(families_); }

 private:
  ClientMetric& Add(std::string_view name, std::string_view help, MetricType type, Labels labels) {
    const auto [it, inserted] = index_.try_emplace(std::string(name), families_.size());
    if (inserted) {
      families_.push_back(MetricFamily{std::string(name), std::string(help), type, {}});
    }
    ClientMetric& metric = families_[it->second].metric.emplace_back();
    metric.label = std::move(labels);
    return metric;
  }

  std::vector<MetricFamily> families_;
  std::map<std::string, std::size_t> index_;
};

double Number(std::uint64_t value) { return static_cast<double>(value); }

double Seconds(const serving::DurationTotal& total) { return Number(total.nanoseconds) * 1e-9; }

double Microseconds(const serving::DurationTotal& total) {
  return Number(total.nanoseconds) * 1e-3;
}

constexpr std::string_view kRequests = "relight_inference_requests_total";
constexpr std::string_view kRequestsHelp = "Requests that were answered, by outcome";

void AddFailures(const ModelStatistics& model, Families& out) {
  const ClientMetric::Label name{"model", EscapeWhole(model.model)};
  std::uint64_t failed = 0;
  for (const auto& [reason, count] : model.requests_failed) {
    failed += count;
    out.Counter("relight_inference_failures_total", "Requests that failed, by reason",
                {name, {"reason", EscapeWhole(reason)}}, Number(count));
  }
  out.Counter(kRequests, kRequestsHelp, {name, {"outcome", "failure"}}, Number(failed));
}

void AddRequests(const ModelStatistics& model, Families& out) {
  const ClientMetric::Label name{"model", EscapeWhole(model.model)};
  out.Counter(kRequests, kRequestsHelp, {name, {"outcome", "success"}},
              Number(model.requests_succeeded));
  out.Counter("relight_inference_rows_total", "Rows that were computed", {name},
              Number(model.rows));
  out.Counter("relight_inference_batches_total", "Batches that were computed", {name},
              Number(model.batches));
  out.Gauge("relight_queued_requests", "Requests that wait", {name}, Number(model.queued_requests));
  out.Gauge("relight_queued_bytes", "Bytes of inputs that wait", {name},
            Number(model.queued_bytes));
  out.Histogram("relight_request_duration_seconds", "From admission to the answer", {name},
                model.request_seconds);
  out.Histogram("relight_queue_duration_seconds", "Wait for a batch", {name}, model.queue_seconds);
  out.Histogram("relight_compute_duration_seconds", "Computing one batch", {name},
                model.compute_seconds);
  out.Histogram("relight_batch_rows", "Rows in one batch", {name}, model.batch_size);
}

void AddReloads(const ModelStatistics& model, Families& out) {
  const ClientMetric::Label name{"model", EscapeWhole(model.model)};
  for (const auto& [outcome, count] : model.reloads) {
    out.Counter("relight_reloads_total", "Checkpoints that were tried, by outcome",
                {name, {"outcome", EscapeWhole(outcome)}}, Number(count));
  }
  for (const auto& [phase, total] : model.reload_phases) {
    const ClientMetric::Label label{"phase", EscapeWhole(phase)};
    out.Counter("relight_reload_phase_seconds_total", "Time spent loading, by phase", {name, label},
                Seconds(total));
    out.Counter("relight_reload_phases_total", "Phases of loading that were run", {name, label},
                Number(total.count));
  }
  out.Gauge("relight_served_version", "Version that answers requests; 0 for none", {name},
            static_cast<double>(model.served_version));
  out.Gauge("relight_served_generation", "Swaps since the start", {name}, Number(model.generation));
  if (model.generation > 0) {
    out.Gauge("relight_served_info", "1, with the identity of the weights that are served",
              {name,
               {"version", std::to_string(model.served_version)},
               {"generation", std::to_string(model.generation)},
               {"weights_digest", EscapeWhole(model.weights_digest)}},
              1);
  }
  if (model.seconds_since_last_good_load >= 0) {
    out.Gauge("relight_seconds_since_last_good_load", "Age of the newest good load", {name},
              model.seconds_since_last_good_load);
  }
}

// Triton's reasons for ours.
std::string_view TritonReason(std::string_view reason) {
  if (reason == "rejected" || reason == "unavailable" || reason == "deadline") return "REJECTED";
  if (reason == "cancelled") return "CANCELED";
  if (reason == "internal") return "BACKEND";
  return "OTHER";
}

void AddTritonModel(const ModelStatistics& model, Families& out) {
  const ClientMetric::Label name{"model", EscapeWhole(model.model)};
  std::map<std::string_view, std::uint64_t> failures = {
      {"REJECTED", 0}, {"CANCELED", 0}, {"BACKEND", 0}, {"OTHER", 0}};
  for (const auto& [reason, count] : model.requests_failed) failures[TritonReason(reason)] += count;
  for (const auto& [reason, count] : failures) {
    out.Counter("nv_inference_request_failure", "Number of failed inference requests",
                {name, {"reason", std::string(reason)}}, Number(count));
  }
  out.Gauge("nv_inference_pending_request_count", "Number of requests that await execution", {name},
            Number(model.queued_requests));
}

void AddTritonVersion(const std::string& model, const VersionStatistics& version, Families& out) {
  const Labels labels = {{"model", EscapeWhole(model)},
                         {"version", std::to_string(version.version)}};
  out.Counter("nv_inference_request_success", "Number of successful inference requests", labels,
              Number(version.success.count));
  out.Counter("nv_inference_count", "Number of inferences, one per row", labels,
              Number(version.inference_count));
  out.Counter("nv_inference_exec_count", "Number of model executions", labels,
              Number(version.execution_count));
  out.Counter("nv_inference_request_duration_us", "Cumulative request duration", labels,
              Microseconds(version.success));
  out.Counter("nv_inference_queue_duration_us", "Cumulative queuing duration", labels,
              Microseconds(version.queue));
  out.Counter("nv_inference_compute_input_duration_us", "Cumulative input duration", labels,
              Microseconds(version.compute_input));
  out.Counter("nv_inference_compute_infer_duration_us", "Cumulative inference duration", labels,
              Microseconds(version.compute_infer));
  out.Counter("nv_inference_compute_output_duration_us", "Cumulative output duration", labels,
              Microseconds(version.compute_output));
}

}  // namespace

std::vector<MetricFamily> ToMetrics(const MetricsInput& input) {
  Families out;
  out.Gauge("relight_build_info", "1, with the daemon's version",
            {{"version", EscapeWhole(input.server_version)}}, 1);
  out.Gauge("relight_ready", "Whether every model has served", {}, input.ready ? 1 : 0);
  for (const ModelStatistics& model : input.models) {
    AddFailures(model, out);
    if (model.model.empty()) continue;  // Whatever named no model of ours.
    AddRequests(model, out);
    AddReloads(model, out);
    AddTritonModel(model, out);
  }
  for (const auto& [model, version] : input.versions) AddTritonVersion(model, version, out);
  return std::move(out).Take();
}

}  // namespace relight::rpc
