#include "server/rpc/metrics_endpoint.h"

#include <microhttpd.h>
#include <netdb.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "server/rpc/concat.h"

namespace relight::rpc {
namespace {

// A scrape is one short exchange: what is slower or more than this is no scraper.
constexpr unsigned kMaxConnections = 64;
constexpr unsigned kIdleSeconds = 10;

struct ResponseDeleter {
  void operator()(MHD_Response* response) const { MHD_destroy_response(response); }
};
using Response = std::unique_ptr<MHD_Response, ResponseDeleter>;

MHD_Result Reply(MHD_Connection* connection, unsigned code, std::string_view type,
                 std::string_view body) {
  // The library copies the body and does not write to what it is given.
  const Response response(MHD_create_response_from_buffer(
      body.size(), const_cast<char*>(body.data()), MHD_RESPMEM_MUST_COPY));
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response.get(), MHD_HTTP_HEADER_CONTENT_TYPE, type.data());
  return MHD_queue_response(connection, code, response.get());
}

class HttpEndpoint final : public MetricsEndpoint {
 public:
  explicit HttpEndpoint(std::function<MetricsInput()> collect) : collect_(std::move(collect)) {}

  ~HttpEndpoint() override {
    if (daemon_ != nullptr) MHD_stop_daemon(daemon_);
  }

  // False, with errno set, where the address cannot be listened on.
  bool Listen(const addrinfo& address) {
    unsigned flags = MHD_USE_AUTO_INTERNAL_THREAD;
    if (address.ai_family == AF_INET6) flags |= MHD_USE_IPv6;
    daemon_ = MHD_start_daemon(flags, 0, nullptr, nullptr, &HttpEndpoint::Handle, this,
                               MHD_OPTION_SOCK_ADDR, address.ai_addr, MHD_OPTION_CONNECTION_LIMIT,
                               kMaxConnections, MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds,
                               MHD_OPTION_END);
    return daemon_ != nullptr;
  }

  int port() const override {
    return MHD_get_daemon_info(daemon_, MHD_DAEMON_INFO_BIND_PORT)->port;
  }

 private:
  static MHD_Result Handle(void* self, MHD_Connection* connection, const char* url,
                           const char* method, const char*, const char*, std::size_t*, void**) {
    return static_cast<const HttpEndpoint*>(self)->Answer(connection, url, method);
  }

  MHD_Result Answer(MHD_Connection* connection, std::string_view url,
                    std::string_view method) const {
    static constexpr char kText[] = "text/plain; charset=utf-8";
    if (url != "/metrics") {
      return Reply(connection, MHD_HTTP_NOT_FOUND, kText, "the metrics are at /metrics\n");
    }
    if (method != MHD_HTTP_METHOD_GET && method != MHD_HTTP_METHOD_HEAD) {
      return Reply(connection, MHD_HTTP_METHOD_NOT_ALLOWED, kText, "GET only\n");
    }
    try {
      return Reply(connection, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8",
                   prometheus::TextSerializer().Serialize(ToMetrics(collect_())));
    } catch (const std::exception&) {
      // Memory: no exception may unwind through the library's C frames.
      return MHD_NO;
    }
  }

  const std::function<MetricsInput()> collect_;
  MHD_Daemon* daemon_ = nullptr;
};

struct AddressDeleter {
  void operator()(addrinfo* address) const { ::freeaddrinfo(address); }
};
using Address = std::unique_ptr<addrinfo, AddressDeleter>;

// `address` as "host:port" or "[v6]:port"; null where it is no such thing.
Address Resolve(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos) return nullptr;
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found) != 0) return nullptr;
  return Address(found);
}

}  // namespace

// Not prometheus-cpp's own exposer: its web server starts threads on stacks of 100 KiB, which do
// not even hold the thread-local storage of LibTorch's libraries.
absl::StatusOr<std::unique_ptr<MetricsEndpoint>> StartMetricsEndpoint(
    const std::string& address, std::function<MetricsInput()> collect) {
  const auto refuse = [&address](std::string_view why) {
    return absl::UnavailableError(Concat("cannot serve metrics on ", address, ": ", why,
                                         " (--metrics-address, --metrics-port)"));
  };
  const Address resolved = Resolve(address);
  if (resolved == nullptr) return refuse("the address is not known");
  auto endpoint = std::make_unique<HttpEndpoint>(std::move(collect));
  errno = 0;
  if (!endpoint->Listen(*resolved)) {
    return refuse(errno == 0 ? "the port cannot be listened on" : std::strerror(errno));
  }
  return endpoint;
}

}  // namespace relight::rpc
