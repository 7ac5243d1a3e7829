#include "relight/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <future>
#include <string>
#include <thread>

#include "base/unique_fd.h"
#include "tests/client/fake_server.h"

namespace relight::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class ClientTest : public testing::Test {
 protected:
  InferRequest Request(const std::string& model) {
    InferRequest request;
    request.model = model;
    request.inputs.push_back(MakeTensor<float>("x", {1, 4}, std::vector<float>{1, 2, 3, 4}));
    return request;
  }

  // Until the server works on so many requests of the model "slow".
  void WaitForSlowRequests(int count) {
    while (server_.slow_requests() != count) std::this_thread::yield();
  }

  FakeServer server_;
  Client client_ = *Client::Connect(server_.target());
};

TEST_F(ClientTest, AnswersNameTheWeightsThatGaveThem) {
  InferRequest request = Request("double");
  request.id = "seven";
  const absl::StatusOr<InferResponse> response = client_.Infer(std::move(request));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->model, "double");
  EXPECT_EQ(response->id, "seven");
  EXPECT_EQ(response->version, "100");
  EXPECT_EQ(response->generation, 7U);
  EXPECT_EQ(response->weights_digest, "00112233445566778899aabbccddeeff");
  ASSERT_NE(response->Find("y"), nullptr);
  EXPECT_THAT(response->Find("y")->shape, ElementsAre(1, 4));
  EXPECT_THAT(*response->Find("y")->Values<float>(), ElementsAre(2, 4, 6, 8));
  EXPECT_EQ(response->Find("z"), nullptr);
}

TEST_F(ClientTest, AsksForTheVersionThatIsNamed) {
  InferRequest request = Request("double");
  request.version = 42;
  EXPECT_EQ(client_.Infer(std::move(request))->version, "42");
}

TEST_F(ClientTest, ReadsTypedContents) {
  const absl::StatusOr<InferResponse> response = client_.Infer(Request("typed"));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_THAT(*response->outputs.at(0).Values<float>(), ElementsAre(2, 4, 6, 8));
}

TEST_F(ClientTest, EveryDataTypeTravelsUnchanged) {
  InferRequest request;
  request.model = "echo";
  for (int i = 0; i < static_cast<int>(DataType::kBytes); ++i) {
    const auto datatype = static_cast<DataType>(i);
    request.inputs.push_back({std::string(Name(datatype)),
                              datatype,
                              {2},
                              std::string(2 * ElementBytes(datatype), '\1')});
  }
  const std::vector<std::string> strings = {"a", ""};
  request.inputs.push_back(MakeStringTensor("BYTES", {2}, strings));
  const std::vector<Tensor> sent = request.inputs;
  const absl::StatusOr<InferResponse> response = client_.Infer(std::move(request));
  ASSERT_TRUE(response.ok()) << response.status();
  ASSERT_THAT(response->outputs, SizeIs(sent.size()));
  for (std::size_t i = 0; i < sent.size(); ++i) {
    EXPECT_EQ(response->outputs[i].datatype, sent[i].datatype);
    EXPECT_EQ(response->outputs[i].bytes, sent[i].bytes);
  }
}

TEST_F(ClientTest, CarriesMoreThanTheUsualMessageLimit) {
  constexpr std::size_t kElements = 2 << 20;
  InferRequest request;
  request.model = "echo";
  request.inputs.push_back(
      MakeTensor<float>("x", {kElements}, std::vector<float>(kElements, 1.0F)));
  const absl::StatusOr<InferResponse> response = client_.Infer(std::move(request));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->outputs.at(0).bytes.size(), kElements * sizeof(float));
}

TEST_F(ClientTest, RefusesTensorsThatDoNotHoldTogetherAllAtOnce) {
  InferRequest request;
  request.model = "echo";
  request.inputs.push_back({"a", DataType::kFp32, {2}, "four"});
  request.inputs.push_back({"b", DataType::kInt8, {-1}, ""});
  const absl::Status status = client_.Infer(std::move(request)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor a"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor b"));
}

TEST_F(ClientTest, ErrorsKeepTheServersCodeAndWords) {
  EXPECT_EQ(client_.Infer(Request("unknown")).status(),
            absl::NotFoundError("unknown model unknown"));
  EXPECT_EQ(client_.Infer(Request("busy")).status(), absl::UnavailableError("the queue is full"));
}

TEST_F(ClientTest, AnAnswerThatContradictsItselfIsInternal) {
  EXPECT_EQ(client_.Infer(Request("lying")).status().code(), absl::StatusCode::kInternal);
}

TEST_F(ClientTest, ACallEndsAtItsDeadline) {
  CallOptions options;
  options.timeout = absl::Milliseconds(50);
  EXPECT_EQ(client_.Infer(Request("slow"), options).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, TheConnectionsTimeoutCountsWhereACallHasNone) {
  ConnectOptions options;
  options.call_timeout = absl::Milliseconds(50);
  Client client = *Client::Connect(server_.target(), options);
  EXPECT_EQ(client.Infer(Request("slow")).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, AStopEndsACall) {
  std::stop_source stop;
  CallOptions options;
  options.stop = stop.get_token();
  std::jthread stopper([&] {
    WaitForSlowRequests(1);
    stop.request_stop();
  });
  EXPECT_EQ(client_.Infer(Request("slow"), options).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(ClientTest, AnAsynchronousCallAnswersOnce) {
  std::promise<absl::StatusOr<InferResponse>> answered;
  client_.InferAsync(Request("double"), [&](absl::StatusOr<InferResponse> response) {
    answered.set_value(std::move(response));
  });
  const absl::StatusOr<InferResponse> response = answered.get_future().get();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_THAT(*response->outputs.at(0).Values<float>(), ElementsAre(2, 4, 6, 8));
}

TEST_F(ClientTest, AClientMayGoAsSoonAsItsAsynchronousCallIsAnswered) {
  for (int i = 0; i < 100; ++i) {
    Client client = *Client::Connect(server_.target());
    std::promise<bool> answered;
    client.InferAsync(Request("double"), [&](const absl::StatusOr<InferResponse>& response) {
      answered.set_value(response.ok());
    });
    EXPECT_TRUE(answered.get_future().get());
  }
}

TEST_F(ClientTest, AnAsynchronousCallThatCannotBeSentAnswersAtOnce) {
  InferRequest request;
  request.inputs.push_back({"a", DataType::kFp32, {2}, "four"});
  absl::Status status;
  client_.InferAsync(std::move(request),
                     [&](absl::StatusOr<InferResponse> response) { status = response.status(); });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ClientTest, GoingAwayCancelsWhatIsUnderWayAndWaitsForIt) {
  constexpr int kCalls = 4;
  std::atomic<int> cancelled = 0;
  {
    Client client = *Client::Connect(server_.target());
    for (int i = 0; i < kCalls; ++i) {
      client.InferAsync(Request("slow"), [&](absl::StatusOr<InferResponse> response) {
        cancelled += absl::IsCancelled(response.status()) ? 1 : 0;
      });
    }
    WaitForSlowRequests(kCalls);
  }
  EXPECT_EQ(cancelled, kCalls);
}

TEST_F(ClientTest, AsksAboutServerAndModels) {
  EXPECT_TRUE(*client_.ServerLive());
  EXPECT_FALSE(*client_.ServerReady());
  EXPECT_TRUE(*client_.ModelReady("double"));
  EXPECT_FALSE(*client_.ModelReady("double", 3));
  EXPECT_EQ(client_.ModelReady("unknown").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client_.ServerMetadata()->version, "1.2.3");
  EXPECT_THAT(client_.ServerMetadata()->extensions, ElementsAre("statistics"));
  const absl::StatusOr<ModelMetadata> metadata = client_.ModelMetadata("double");
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  EXPECT_EQ(metadata->platform, "fake_platform");
  EXPECT_THAT(metadata->versions, ElementsAre("100"));
  EXPECT_EQ(metadata->inputs.at(0).datatype, "FP32");
  EXPECT_THAT(metadata->inputs.at(0).shape, ElementsAre(-1, 4));
  EXPECT_EQ(metadata->outputs.at(0).name, "y");
}

TEST_F(ClientTest, ReadsStatisticsAndIndex) {
  const absl::StatusOr<std::vector<VersionStatistics>> statistics = client_.Statistics("double");
  ASSERT_TRUE(statistics.ok()) << statistics.status();
  ASSERT_THAT(*statistics, SizeIs(1));
  EXPECT_EQ(statistics->front().inference_count, 12U);
  EXPECT_EQ(statistics->front().success.count, 5U);
  EXPECT_EQ(statistics->front().success.total, absl::Milliseconds(2));
  EXPECT_EQ(statistics->front().last_inference, absl::FromUnixSeconds(1'700'000'000));
  EXPECT_EQ(statistics->front().batches.at(0).batch_size, 4U);
  EXPECT_THAT(*client_.RepositoryIndex(), SizeIs(2));
  EXPECT_EQ(client_.RepositoryIndex()->at(1).reason, "no checkpoint yet");
  EXPECT_THAT(*client_.RepositoryIndex(/*only_ready=*/true), SizeIs(1));
}

TEST_F(ClientTest, FollowsHealth) {
  EXPECT_EQ(*client_.CheckHealth(), Health::kServing);
  EXPECT_EQ(client_.CheckHealth("unknown").status().code(), absl::StatusCode::kNotFound);
  std::vector<Health> seen;
  const absl::Status status = client_.WatchHealth("", [&](Health health) {
    seen.push_back(health);
    server_.SetServing(false);
    return seen.size() < 2;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(seen, ElementsAre(Health::kServing, Health::kNotServing));
}

TEST(ClientConnectTest, RefusesTargetsThatNoServerCanHave) {
  for (const char* target : {"", "localhost", "localhost:", "localhost:0", "localhost:65536",
                             "localhost:http", ":8001", "unix:", "::1:8001"}) {
    EXPECT_EQ(Client::Connect(target).status().code(), absl::StatusCode::kInvalidArgument)
        << target;
  }
  EXPECT_EQ(Client::Connect("unix:/" + std::string(200, 'a')).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(Client::Connect("[::1]:8001").ok());
  EXPECT_TRUE(Client::Connect("dns:///example.test:8001").ok());
}

TEST(ClientConnectTest, AnAbsentServerIsUnavailable) {
  const std::string nowhere = "unix:" + testing::TempDir() + "no-such.sock";
  EXPECT_EQ(Client::Connect(nowhere)->ServerLive().status().code(), absl::StatusCode::kUnavailable);
  ConnectOptions options;
  options.connect_timeout = absl::Milliseconds(50);
  EXPECT_EQ(Client::Connect(nowhere, options).status().code(), absl::StatusCode::kUnavailable);
}

// A listener that nobody accepts from: the kernel takes the connection, and no server greets.
TEST(ClientConnectTest, GivesASlowServerTheTimeOfTheCall) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  CallOptions options;
  options.timeout = absl::Seconds(1);
  EXPECT_EQ(Client::Connect("127.0.0.1:" + std::to_string(ntohs(address.sin_port)))
                ->ServerLive(options)
                .status()
                .code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(ClientConnectTest, WaitsForAServerWhereAskedTo) {
  const std::string nowhere = "unix:" + testing::TempDir() + "no-such.sock";
  CallOptions options;
  options.wait_for_server = true;
  options.timeout = absl::Milliseconds(50);
  EXPECT_EQ(Client::Connect(nowhere)->ServerLive(options).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace relight::client
