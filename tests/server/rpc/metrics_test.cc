// GET /metrics over loopback.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <sstream>

#include "base/unique_fd.h"
#include "tests/server/rpc/server_fixture.h"

namespace relight::rpc {
namespace {

using testing::HasSubstr;

// The answer to "GET /metrics", header included.
std::string Scrape(int port) {
  const UniqueFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string request =
      "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  EXPECT_EQ(::send(fd.get(), request.data(), request.size(), 0),
            static_cast<ssize_t>(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::recv(fd.get(), buffer, sizeof(buffer), 0)) > 0;) {
    answer.append(buffer, static_cast<std::size_t>(n));
  }
  return answer;
}

class MetricsTest : public ServerTest {
  RpcOptions Options() override {
    RpcOptions options = ServerTest::Options();
    options.metrics_address = "127.0.0.1";
    options.metrics_port = 0;
    return options;
  }
};

serving::HistogramSnapshot Histogram() {
  return {.bounds = {0.001, 0.01}, .counts = {1, 3, 4}, .sum = 0.5};
}

TEST_F(MetricsTest, EveryNumberOfTheCoreIsThere) {
  serving::ModelStatistics model;
  model.model = "we\"ird\n";
  model.requests_succeeded = 40;
  model.requests_failed = {
      {"rejected", 2}, {"deadline", 1}, {"invalid", 4}, {"internal", 8}, {"cancelled", 16}};
  model.rows = 100;
  model.batches = 20;
  model.queued_requests = 5;
  model.queued_bytes = 600;
  model.request_seconds = model.queue_seconds = model.compute_seconds = model.batch_size =
      Histogram();
  model.reloads = {{"served", 3}, {"refused", 1}};
  model.reload_phases = {{"read", {3, 1'500'000'000}}};
  model.served_version = 12;
  model.generation = 3;
  model.weights_digest = "00ff";
  model.seconds_since_last_good_load = 7.5;
  serving::VersionStatistics version;
  version.version = 12;
  version.success = {40, 2'000'000};
  version.queue = {40, 3000};
  version.inference_count = 100;
  version.execution_count = 20;
  core_.SetStatistics(model, version);

  const std::string text = Scrape(server_->metrics_port());
  EXPECT_THAT(text, HasSubstr("200 OK"));
  const std::string name = R"(model="we\"ird\\x0a")";
  for (const std::string& line : {
           "relight_inference_requests_total{" + name + ",outcome=\"success\"} 40",
           "relight_inference_requests_total{" + name + ",outcome=\"failure\"} 31",
           "relight_inference_failures_total{" + name + ",reason=\"invalid\"} 4",
           "relight_inference_rows_total{" + name + "} 100",
           "relight_inference_batches_total{" + name + "} 20",
           "relight_queued_requests{" + name + "} 5",
           "relight_queued_bytes{" + name + "} 600",
           "relight_request_duration_seconds_count{" + name + "} 4",
           "relight_request_duration_seconds_sum{" + name + "} 0.5",
           "relight_queue_duration_seconds_bucket{" + name + ",le=\"0.01\"} 3",
           "relight_compute_duration_seconds_bucket{" + name + ",le=\"+Inf\"} 4",
           "relight_batch_rows_bucket{" + name + ",le=\"0.001\"} 1",
           "relight_reloads_total{" + name + ",outcome=\"refused\"} 1",
           "relight_reload_phase_seconds_total{" + name + ",phase=\"read\"} 1.5",
           "relight_served_version{" + name + "} 12",
           "relight_served_generation{" + name + "} 3",
           "relight_served_info{" + name +
               ",version=\"12\",generation=\"3\",weights_digest=\"00ff\"} 1",
           "relight_seconds_since_last_good_load{" + name + "} 7.5",
           std::string("relight_ready 1"),
           std::string("relight_build_info{version=\"1.2.3\"} 1"),
           "nv_inference_request_failure{" + name + ",reason=\"REJECTED\"} 3",
           "nv_inference_request_failure{" + name + ",reason=\"OTHER\"} 4",
           "nv_inference_request_failure{" + name + ",reason=\"BACKEND\"} 8",
           "nv_inference_request_failure{" + name + ",reason=\"CANCELED\"} 16",
           std::string("nv_inference_request_success{model=\"echo\",version=\"12\"} 40"),
           std::string("nv_inference_count{model=\"echo\",version=\"12\"} 100"),
           std::string("nv_inference_exec_count{model=\"echo\",version=\"12\"} 20"),
           std::string("nv_inference_request_duration_us{model=\"echo\",version=\"12\"} 2000"),
           std::string("nv_inference_queue_duration_us{model=\"echo\",version=\"12\"} 3"),
       }) {
    EXPECT_THAT(text, HasSubstr(line + "\n"));
  }
}

TEST_F(MetricsTest, RequestsThatNamedNoModelHaveOnlyFailures) {
  serving::ModelStatistics nameless;
  nameless.requests_failed = {{"invalid", 7}};
  core_.SetStatistics(nameless, {});
  const std::string text = Scrape(server_->metrics_port());
  EXPECT_THAT(text,
              HasSubstr("relight_inference_failures_total{model=\"\",reason=\"invalid\"} 7\n"));
  EXPECT_THAT(text,
              HasSubstr("relight_inference_requests_total{model=\"\",outcome=\"failure\"} 7\n"));
  EXPECT_THAT(text, testing::Not(HasSubstr("relight_served_version")));
}

TEST_F(MetricsTest, LongNamesDoNotBecomeOneSeries) {
  const std::string name(300, 'n');
  serving::ModelStatistics model;
  model.model = name;
  core_.SetStatistics(model, {});
  EXPECT_THAT(Scrape(server_->metrics_port()),
              HasSubstr("relight_queued_requests{model=\"" + name + "\"}"));
}

TEST_F(MetricsTest, EveryLineIsACommentOrASample) {
  core_.SetReady(false);
  std::istringstream lines(Scrape(server_->metrics_port()));
  std::string line;
  while (std::getline(lines, line) && line != "\r") {
  }
  int samples = 0;
  while (std::getline(lines, line)) {
    if (line.starts_with("# HELP ") || line.starts_with("# TYPE ")) continue;
    const std::size_t space = line.rfind(' ');
    ASSERT_NE(space, std::string::npos) << line;
    char* end = nullptr;
    std::strtod(line.c_str() + space, &end);
    EXPECT_EQ(*end, '\0') << line;
    ++samples;
  }
  EXPECT_GT(samples, 10);
}

TEST_F(MetricsTest, PortInUseIsUnavailableNamingTheFlag) {
  RpcOptions options;
  options.grpc_address = "127.0.0.1";
  options.grpc_port = 0;
  options.metrics_address = "127.0.0.1";
  options.metrics_port = server_->metrics_port();
  const auto second = StartRpcServer(options, core_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--metrics-port"));
}

}  // namespace
}  // namespace relight::rpc
