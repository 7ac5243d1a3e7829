// The end: requests in flight are answered, later ones refused, and nothing outlives the server.
#include <gmock/gmock.h>

#include "tests/server/rpc/raw_client.h"
#include "tests/server/rpc/server_fixture.h"

namespace relight::rpc {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

class DrainTest : public ServerTest {};

TEST_F(DrainTest, RequestInFlightIsAnsweredAndALaterOneRefused) {
  core_.Hold();
  grpc::Status in_flight;
  std::thread caller([&] { in_flight = Infer(RawRequest()); });
  core_.WaitForHeld(1);
  std::thread drain([this] { server_->DrainAndStop(absl::Now() + absl::Seconds(30)); });
  core_.WaitForDrain();

  grpc::ClientContext context;
  inference::ModelInferResponse response;
  const grpc::Status late = stub_->ModelInfer(&context, RawRequest(), &response);
  EXPECT_EQ(late.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(late.error_message(), HasSubstr("draining"));
  grpc::ClientContext ready_context;
  inference::ServerReadyResponse ready;
  ASSERT_TRUE(stub_->ServerReady(&ready_context, inference::ServerReadyRequest(), &ready).ok());
  EXPECT_FALSE(ready.ready());

  core_.Release();
  caller.join();
  drain.join();
  EXPECT_TRUE(in_flight.ok()) << in_flight.error_message();
}

TEST_F(DrainTest, AtTheDeadlineWhatIsLeftIsCutOff) {
  core_.Hold();
  grpc::Status in_flight;
  std::thread caller([&] { in_flight = Infer(RawRequest()); });
  core_.WaitForHeld(1);
  bool all_answered = true;
  std::thread drain([&] { all_answered = server_->DrainAndStop(absl::Now()); });
  caller.join();
  EXPECT_FALSE(in_flight.ok());
  // The server waits for the core to let go of the request.
  const auto cancelled = core_.last_request().cancelled;
  while (!cancelled->load()) std::this_thread::yield();
  core_.Release();
  drain.join();
  EXPECT_FALSE(all_answered);
}

TEST_F(DrainTest, WithoutTimeAnIdleServerStillCutsNobodyOff) {
  EXPECT_TRUE(server_->DrainAndStop(absl::Now()));
}

TEST_F(DrainTest, APeerThatNeverAnswersDoesNotHoldIt) {
  // A client's preface with empty settings: a connection that is well and acknowledges nothing.
  const RawClient peer(server_->grpc_port());
  ASSERT_TRUE(Infer(RawRequest()).ok());
  const absl::Time begin = absl::Now();
  server_->DrainAndStop(begin + absl::Minutes(10));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(15)) << "gRPC itself waits 20 s for such a peer";
}

TEST_F(DrainTest, AfterwardsNobodyListens) {
  server_->DrainAndStop(absl::Now() + absl::Seconds(30));
  EXPECT_EQ(Infer(RawRequest()).error_code(), StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace relight::rpc
