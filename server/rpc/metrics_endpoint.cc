#include "server/rpc/metrics_endpoint.h"

#include <netdb.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/unique_fd.h"
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

// Connects to `host`:`port` and hangs up. Errors do not matter.
void Knock(const std::string& host, int port) {
  const bool any = host == "0.0.0.0" || host == "[::]";
  const std::string bare = host.starts_with('[') ? host.substr(1, host.size() - 2) : host;
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  // No host stands for loopback.
  if (::getaddrinfo(any ? nullptr : bare.c_str(), service.c_str(), &hints, &found) != 0) return;
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  for (const addrinfo* it = found; it != nullptr; it = it->ai_next) {
    const UniqueFd fd(::socket(it->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd.valid()) static_cast<void>(::connect(fd.get(), it->ai_addr, it->ai_addrlen));
  }
}

class ExposerEndpoint final : public MetricsEndpoint {
 public:
  ExposerEndpoint(const std::string& address, std::function<MetricsInput()> collect)
      : host_(address.substr(0, address.rfind(':'))),
        collector_(std::make_shared<Collector>(std::move(collect))) {
    exposer_.emplace(std::vector<std::string>{"listening_ports", address, "num_threads", "2"});
    exposer_->RegisterCollectable(collector_);
    port_ = exposer_->GetListeningPorts().front();
  }

  // The library's listening thread looks whether it should end when someone connects, else every
  // two seconds: too long for a daemon that is asked to stop.
  ~ExposerEndpoint() override {
    std::thread stopper([this] {
      exposer_.reset();
      MutexLock lock(mutex_);
      stopped_ = true;
      done_.SignalAll();
    });
    while (!WaitStopped(absl::Milliseconds(5))) Knock(host_, port_);
    stopper.join();
  }

  int port() const override { return port_; }

 private:
  bool WaitStopped(absl::Duration timeout) {
    MutexLock lock(mutex_);
    if (!stopped_) done_.WaitFor(mutex_, timeout);
    return stopped_;
  }

  const std::string host_;
  const std::shared_ptr<Collector> collector_;
  std::optional<prometheus::Exposer> exposer_;
  int port_ = 0;
  Mutex mutex_;
  CondVar done_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
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
