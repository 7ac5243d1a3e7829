#include "server/rpc/metrics_endpoint.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <exception>
#include <utility>
#include <vector>

#include "server/rpc/concat.h"

namespace relight::rpc {
namespace {

class Collector final : public prometheus::Collectable {
 public:
  explicit Collector(std::function<MetricsInput()> collect) : collect_(std::move(collect)) {}

  std::vector<prometheus::MetricFamily> Collect() const override { return ToMetrics(collect_()); }

 private:
  const std::function<MetricsInput()> collect_;
};

class ExposerEndpoint final : public MetricsEndpoint {
 public:
  ExposerEndpoint(const std::string& address, std::function<MetricsInput()> collect)
      : collector_(std::make_shared<Collector>(std::move(collect))),
        exposer_(std::vector<std::string>{"listening_ports", address, "num_threads", "2"}) {
    exposer_.RegisterCollectable(collector_);
  }

  int port() const override { return exposer_.GetListeningPorts().front(); }

 private:
  const std::shared_ptr<Collector> collector_;
  prometheus::Exposer exposer_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> StartMetricsEndpoint(
    const std::string& address, std::function<MetricsInput()> collect) {
  // The library reports errors by exceptions: they end here.
  try {
    return std::make_unique<ExposerEndpoint>(address, std::move(collect));
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        Concat("cannot serve metrics on ", address,
               ": the port is in use or the address is not this machine's (--metrics-address, "
               "--metrics-port): ",
               error.what()));
  }
}

}  // namespace relight::rpc
