// ModelStreamInfer over the wire.
#include <gmock/gmock.h>

#include "tests/server/rpc/server_fixture.h"

namespace relight::rpc {
namespace {

using grpc::StatusCode;
using testing::HasSubstr;

class StreamTest : public ServerTest {
 protected:
  void Open() { stream_ = stub_->ModelStreamInfer(&context_); }
  bool Send(const std::string& id, const std::string& model = "echo") {
    inference::ModelInferRequest request = RawRequest();
    request.set_id(id);
    request.set_model_name(model);
    return stream_->Write(request);
  }
  std::string ReadId() {
    EXPECT_TRUE(stream_->Read(&answer_));
    return answer_.infer_response().id();
  }

  grpc::ClientContext context_;
  std::unique_ptr<
      grpc::ClientReaderWriter<inference::ModelInferRequest, inference::ModelStreamInferResponse>>
      stream_;
  inference::ModelStreamInferResponse answer_;
};

TEST_F(StreamTest, AnswersInTheOrderOfTheRequests) {
  Open();
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(Send(std::to_string(i)));
  ASSERT_TRUE(stream_->WritesDone());
  for (int i = 0; i < 200; ++i) ASSERT_EQ(ReadId(), std::to_string(i));
  EXPECT_FALSE(stream_->Read(&answer_));
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(StreamTest, RequestsRunSideBySideButNotMoreThanTheLimit) {
  constexpr std::size_t kMaxInFlight = 64;
  core_.Hold();
  Open();
  for (std::size_t i = 0; i < 2 * kMaxInFlight; ++i) ASSERT_TRUE(Send(std::to_string(i)));
  ASSERT_TRUE(stream_->WritesDone());
  core_.WaitForHeld(kMaxInFlight);
  // A unary call gets through, and by then the stream has not read on.
  std::thread other([this] { EXPECT_TRUE(Infer(RawRequest()).ok()); });
  core_.WaitForHeld(kMaxInFlight + 1);
  EXPECT_EQ(core_.held(), kMaxInFlight + 1);
  core_.Release();
  other.join();
  for (std::size_t i = 0; i < 2 * kMaxInFlight; ++i) ASSERT_EQ(ReadId(), std::to_string(i));
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(StreamTest, AnErrorIsAnAnswerAndTheStreamStaysOpen) {
  Open();
  ASSERT_TRUE(Send("bad", "nobody"));
  ASSERT_TRUE(Send("good"));
  EXPECT_EQ(ReadId(), "bad");
  EXPECT_THAT(answer_.error_message(), HasSubstr("unknown model"));
  EXPECT_EQ(ReadId(), "good");
  EXPECT_EQ(answer_.error_message(), "");
  stream_->WritesDone();
  EXPECT_FALSE(stream_->Read(&answer_));
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(StreamTest, WithTheHeaderAnErrorEndsTheStream) {
  context_.AddMetadata("triton_grpc_error", "true");
  Open();
  ASSERT_TRUE(Send("good"));
  ASSERT_TRUE(Send("bad", "nobody"));
  EXPECT_EQ(ReadId(), "good");
  EXPECT_FALSE(stream_->Read(&answer_));
  const grpc::Status status = stream_->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("unknown model"));
}

TEST_F(StreamTest, FinalResponseIsMarkedOnlyWhereAskedFor) {
  Open();
  ASSERT_TRUE(Send("plain"));
  inference::ModelInferRequest request = RawRequest();
  (*request.mutable_parameters())["triton_enable_empty_final_response"].set_bool_param(true);
  ASSERT_TRUE(stream_->Write(request));
  request.set_model_name("nobody");
  ASSERT_TRUE(stream_->Write(request));
  ReadId();
  EXPECT_EQ(answer_.infer_response().parameters().count("triton_final_response"), 0U);
  ReadId();
  EXPECT_TRUE(answer_.infer_response().parameters().at("triton_final_response").bool_param());
  ReadId();
  EXPECT_NE(answer_.error_message(), "");
  EXPECT_TRUE(answer_.infer_response().parameters().at("triton_final_response").bool_param());
  stream_->WritesDone();
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(StreamTest, CancellationReachesRequestsInFlight) {
  core_.Hold();
  Open();
  ASSERT_TRUE(Send("1"));
  core_.WaitForHeld(1);
  context_.TryCancel();
  EXPECT_EQ(stream_->Finish().error_code(), StatusCode::CANCELLED);
  const auto cancelled = core_.last_request().cancelled;
  while (!cancelled->load()) std::this_thread::yield();
}

TEST_F(StreamTest, StreamWithoutRequestsEndsWell) {
  Open();
  stream_->WritesDone();
  EXPECT_FALSE(stream_->Read(&answer_));
  EXPECT_TRUE(stream_->Finish().ok());
}

TEST_F(StreamTest, DrainEndsAnIdleStream) {
  Open();
  ASSERT_TRUE(Send("1"));
  EXPECT_EQ(ReadId(), "1");
  server_->DrainAndStop(absl::Now() + absl::Seconds(30));
  EXPECT_FALSE(stream_->Read(&answer_));
  EXPECT_EQ(stream_->Finish().error_code(), StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace relight::rpc
