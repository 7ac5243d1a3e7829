// GET /metrics.
#ifndef RELIGHT_SERVER_RPC_METRICS_ENDPOINT_H_
#define RELIGHT_SERVER_RPC_METRICS_ENDPOINT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/rpc/metrics.h"

namespace relight::rpc {

// Thread-compatible. Serves until it is destroyed, with threads of its own.
class MetricsEndpoint {
 public:
  virtual ~MetricsEndpoint() = default;
  virtual int port() const = 0;
};

// Port 0: any free one. `collect` is called for each scrape, on any thread. UNAVAILABLE naming the
// flag where the port is in use.
absl::StatusOr<std::unique_ptr<MetricsEndpoint>> StartMetricsEndpoint(
    const std::string& address, std::function<MetricsInput()> collect);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_METRICS_ENDPOINT_H_
