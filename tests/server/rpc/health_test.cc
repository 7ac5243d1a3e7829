#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include "tests/server/rpc/raw_client.h"
#include "tests/server/rpc/server_fixture.h"

namespace relight::rpc {
namespace {

using grpc::StatusCode;
using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

class HealthTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    health_ = Health::NewStub(channel_);
  }

  grpc::Status Check(const std::string& service, HealthCheckResponse& response) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    return health_->Check(&context, request, &response);
  }
  std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> Watch(const std::string& service) {
    HealthCheckRequest request;
    request.set_service(service);
    return health_->Watch(&context_, request);
  }

  void DrainBesideAWatcherThatTakesNothing(const std::string& service);

  std::unique_ptr<Health::Stub> health_;
  grpc::ClientContext context_;
  HealthCheckResponse update_;
};

TEST_F(HealthTest, CheckFollowsReadiness) {
  HealthCheckResponse response;
  for (const char* service : {"", "inference.GRPCInferenceService"}) {
    core_.SetReady(false);
    ASSERT_TRUE(Check(service, response).ok());
    EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
    core_.SetReady(true);
    ASSERT_TRUE(Check(service, response).ok());
    EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  }
}

TEST_F(HealthTest, CheckOfAnUnknownServiceIsNotFound) {
  HealthCheckResponse response;
  EXPECT_EQ(Check("other.Service", response).error_code(), StatusCode::NOT_FOUND);
}

TEST_F(HealthTest, WatchSendsTheStatusNowAndEachChange) {
  core_.SetReady(false);
  auto stream = Watch("");
  ASSERT_TRUE(stream->Read(&update_));
  EXPECT_EQ(update_.status(), HealthCheckResponse::NOT_SERVING);
  core_.SetReady(true);
  ASSERT_TRUE(stream->Read(&update_));
  EXPECT_EQ(update_.status(), HealthCheckResponse::SERVING);
  context_.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
}

TEST_F(HealthTest, WatchOfAnUnknownServiceSaysSoAndStaysOpen) {
  auto stream = Watch("other.Service");
  ASSERT_TRUE(stream->Read(&update_));
  EXPECT_EQ(update_.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context_.TryCancel();
  EXPECT_FALSE(stream->Read(&update_));
}

TEST_F(HealthTest, DrainIsSeenByWatchersBeforeTheStreamEnds) {
  auto stream = Watch("inference.GRPCInferenceService");
  ASSERT_TRUE(stream->Read(&update_));
  EXPECT_EQ(update_.status(), HealthCheckResponse::SERVING);
  std::thread drain([this] { server_->DrainAndStop(absl::Now() + absl::Seconds(30)); });
  ASSERT_TRUE(stream->Read(&update_));
  EXPECT_EQ(update_.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_FALSE(stream->Read(&update_));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::UNAVAILABLE);
  drain.join();
}

// Watches `service` and leaves no room for the answer: that may not keep the server from ending.
// Where it does, this hangs.
void HealthTest::DrainBesideAWatcherThatTakesNothing(const std::string& service) {
  RawClient client(server_->grpc_port(), RawClient::NoWindow());
  HealthCheckRequest request;
  request.set_service(service);
  client.Call("/grpc.health.v1.Health/Watch", request.SerializeAsString());
  ASSERT_TRUE(client.WaitForFrame(RawClient::kHeaders));  // The first status waits for room.
  server_->DrainAndStop(absl::Now());
}

TEST_F(HealthTest, DrainEndsThoughAWatcherTakesNothing) { DrainBesideAWatcherThatTakesNothing(""); }

TEST_F(HealthTest, DrainEndsThoughAWatcherOfAnUnknownServiceTakesNothing) {
  DrainBesideAWatcherThatTakesNothing("other.Service");
}

}  // namespace
}  // namespace relight::rpc
