// The core's statistics as Prometheus metrics: relight's own names, and Triton's where the numbers
// are the same, so that existing dashboards work.
//
// Pure and thread-safe.
#ifndef RELIGHT_SERVER_RPC_METRICS_H_
#define RELIGHT_SERVER_RPC_METRICS_H_

#include <prometheus/metric_family.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "server/serving/statistics.h"

namespace relight::rpc {

struct MetricsInput {
  std::vector<serving::ModelStatistics> models;
  std::vector<std::pair<std::string, serving::VersionStatistics>> versions;  // With their model.
  bool ready = false;
  std::string server_version;
};

std::vector<prometheus::MetricFamily> ToMetrics(const MetricsInput& input);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_METRICS_H_
