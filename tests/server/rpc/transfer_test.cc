// Pushes and downloads over the admin service's TCP port.
#include "server/rpc/transfer.h"

#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "relight/v1/admin.grpc.pb.h"
#include "tests/server/rpc/fake_transfers.h"
#include "tests/server/rpc/server_fixture.h"

namespace relight::rpc {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

class TransferTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    admin_channel_ = Connect("127.0.0.1:" + std::to_string(server_->admin_port()));
    admin_ = v1::Admin::NewStub(admin_channel_);
    core_.SetPushScript([this]() -> absl::StatusOr<std::unique_ptr<serving::IncomingCheckpoint>> {
      return std::make_unique<FakeIncoming>(record_);
    });
  }
  RpcOptions Options() override {
    RpcOptions options = ServerTest::Options();
    options.admin_port = 0;
    return options;
  }

  PushRecord record_;
  std::shared_ptr<grpc::Channel> admin_channel_;
  std::unique_ptr<v1::Admin::Stub> admin_;
};

// --- pushes ---

v1::PushRequest Header(const std::string& model = "echo") {
  v1::PushRequest part;
  part.mutable_header()->set_model(model);
  part.mutable_header()->set_file("step-7.pt");
  part.mutable_header()->set_size_bytes(6);
  return part;
}
v1::PushRequest Chunk(std::string bytes) {
  v1::PushRequest part;
  part.set_chunk(std::move(bytes));
  return part;
}
v1::PushRequest CommitOf(const std::string& sha256 = "ab12") {
  v1::PushRequest part;
  part.mutable_commit()->set_file_sha256(sha256);
  return part;
}

class PushTest : public TransferTest {
 protected:
  // One call, whatever the server says in between.
  grpc::Status Push(const std::vector<v1::PushRequest>& parts) {
    grpc::ClientContext context;
    const auto writer = admin_->PushCheckpoint(&context, &response_);
    for (const v1::PushRequest& part : parts) {
      if (!writer->Write(part)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }
  void ExpectRefused(const std::vector<v1::PushRequest>& parts, StatusCode code,
                     const std::string& words) {
    const grpc::Status status = Push(parts);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(words));
    EXPECT_EQ(record_.open(), 0) << "it was told before what was written is gone";
  }

  v1::PushResponse response_;
};

TEST_F(PushTest, ReachesTheCoreAndAnswersWhatCameOfIt) {
  record_.on_commit = [](const std::function<bool()>& wanted) {
    EXPECT_TRUE(wanted());
    return serving::PushResult{.file = "step-7\xff.pt",
                               .size_bytes = 6,
                               .file_sha256 = "ab12",
                               .weights_digest = "00ff",
                               .serves = false,
                               .generation = 0,
                               .version = 7,
                               .state = serving::VersionState::kFound,
                               .reason = "older"};
  };
  v1::PushRequest header = Header();
  header.mutable_header()->set_overwrite(true);
  const grpc::Status status = Push({header, Chunk("abc"), Chunk("def"), CommitOf()});
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(core_.last_push().file, "step-7.pt");
  EXPECT_EQ(core_.last_push().size_bytes, 6U);
  EXPECT_TRUE(core_.last_push().overwrite);
  EXPECT_TRUE(core_.last_push().wait);
  EXPECT_EQ(record_.bytes(), "abcdef");
  EXPECT_EQ(record_.sha256(), "ab12");
  EXPECT_EQ(record_.open(), 0);
  EXPECT_EQ(response_.file(), "step-7\\xff.pt");
  EXPECT_EQ(response_.size_bytes(), 6U);
  EXPECT_EQ(response_.file_sha256(), "ab12");
  EXPECT_EQ(response_.weights_digest(), "00ff");
  EXPECT_FALSE(response_.serves());
  EXPECT_EQ(response_.version(), 7);
  EXPECT_EQ(response_.state(), v1::VERSION_FOUND);
  EXPECT_EQ(response_.reason(), "older");
}

TEST_F(PushTest, NeedNotBeWaitedFor) {
  v1::PushRequest header = Header();
  header.mutable_header()->set_no_wait(true);
  ASSERT_TRUE(Push({header, CommitOf()}).ok());
  EXPECT_FALSE(core_.last_push().wait);
  EXPECT_FALSE(response_.has_version());
}

TEST_F(PushTest, WhatTheCoreRefusesKeepsItsCode) {
  ExpectRefused({Header("nobody"), Chunk("abc")}, StatusCode::NOT_FOUND, "nobody");
  core_.SetPushScript([]() -> absl::StatusOr<std::unique_ptr<serving::IncomingCheckpoint>> {
    return absl::AlreadyExistsError("file step-7.pt: exists");
  });
  ExpectRefused({Header(), Chunk("abc"), CommitOf()}, StatusCode::ALREADY_EXISTS, "exists");
}

TEST_F(PushTest, AFullDiskEndsItInTheMiddle) {
  record_.on_write = [](std::size_t written) {
    return written < 6 ? absl::OkStatus() : absl::ResourceExhaustedError("no space left");
  };
  ExpectRefused({Header(), Chunk("abc"), Chunk("def"), Chunk("ghi")},
                StatusCode::RESOURCE_EXHAUSTED, "no space left");
  EXPECT_EQ(record_.sha256(), "");
}

TEST_F(PushTest, WhatTheLoaderRefusesIsTheAnswer) {
  record_.on_commit = [](const std::function<bool()>&) {
    return absl::StatusOr<serving::PushResult>(absl::InvalidArgumentError("fc1.weight has NaN"));
  };
  ExpectRefused({Header(), Chunk("abcdef"), CommitOf()}, StatusCode::INVALID_ARGUMENT,
                "fc1.weight has NaN");
}

TEST_F(PushTest, MessagesOutOfTurnAreInvalid) {
  ExpectRefused({Chunk("abc")}, StatusCode::INVALID_ARGUMENT, "no header came first");
  ExpectRefused({CommitOf()}, StatusCode::INVALID_ARGUMENT, "no header came first");
  ExpectRefused({Header(), Header()}, StatusCode::INVALID_ARGUMENT, "a second header came");
  ExpectRefused({Header(), v1::PushRequest()}, StatusCode::INVALID_ARGUMENT, "an empty message");
  ExpectRefused({Header(), Chunk("")}, StatusCode::INVALID_ARGUMENT, "an empty chunk");
  ExpectRefused({}, StatusCode::INVALID_ARGUMENT, "without a commit");
  ExpectRefused({Header(), Chunk("abcdef")}, StatusCode::INVALID_ARGUMENT, "without a commit");
}

TEST_F(PushTest, AChunkOfAMebibyteFitsAndALargerOneDoesNot) {
  EXPECT_TRUE(Push({Header(), Chunk(std::string(kMaxChunkBytes, 'x')), CommitOf()}).ok());
  ExpectRefused({Header(), Chunk(std::string(kMaxChunkBytes + 1, 'x')), CommitOf()},
                StatusCode::INVALID_ARGUMENT, "1048577 bytes came, and one may have 1048576");
}

TEST_F(PushTest, NothingIsLeftOfAClientThatGoes) {
  grpc::ClientContext context;
  const auto writer = admin_->PushCheckpoint(&context, &response_);
  ASSERT_TRUE(writer->Write(Header()));
  ASSERT_TRUE(writer->Write(Chunk("abc")));
  record_.WaitBegun();
  context.TryCancel();
  EXPECT_EQ(writer->Finish().error_code(), StatusCode::CANCELLED);
  record_.WaitGone();
  EXPECT_EQ(record_.sha256(), "");
}

TEST_F(PushTest, ACommitHearsThatTheClientHasGone) {
  std::atomic<bool> committing = false;
  record_.on_commit =
      [&](const std::function<bool()>& wanted) -> absl::StatusOr<serving::PushResult> {
    committing = true;
    while (wanted()) std::this_thread::yield();
    return absl::CancelledError("no longer wanted");
  };
  grpc::ClientContext context;
  const auto writer = admin_->PushCheckpoint(&context, &response_);
  ASSERT_TRUE(writer->Write(Header()));
  ASSERT_TRUE(writer->Write(CommitOf()));
  while (!committing) std::this_thread::yield();
  context.TryCancel();
  EXPECT_EQ(writer->Finish().error_code(), StatusCode::CANCELLED);
  record_.WaitGone();
}

TEST_F(PushTest, ACommitThatWaitsForAThreadIsTakenBack) {
  constexpr int kCommits = 3;  // One more than there are threads for them.
  std::atomic<int> committing = 0;
  std::atomic<bool> done = false;
  record_.on_commit = [&](const std::function<bool()>&) -> absl::StatusOr<serving::PushResult> {
    ++committing;
    while (!done) std::this_thread::yield();
    return serving::PushResult{};
  };
  grpc::ClientContext contexts[kCommits];
  v1::PushResponse responses[kCommits];
  std::vector<std::unique_ptr<grpc::ClientWriter<v1::PushRequest>>> writers;
  for (int i = 0; i < kCommits; ++i) {
    writers.push_back(admin_->PushCheckpoint(&contexts[i], &responses[i]));
    ASSERT_TRUE(writers.back()->Write(Header()));
    ASSERT_TRUE(writers.back()->Write(CommitOf()));
    while (committing < std::min(i + 1, kCommits - 1)) std::this_thread::yield();
  }
  record_.WaitBegun(kCommits);
  contexts[kCommits - 1].TryCancel();
  EXPECT_EQ(writers.back()->Finish().error_code(), StatusCode::CANCELLED);
  record_.WaitOpen(kCommits - 1);
  done = true;
  writers.pop_back();
  for (const auto& writer : writers) EXPECT_TRUE(writer->Finish().ok());
  EXPECT_EQ(committing, kCommits - 1);
}

TEST_F(PushTest, IdleOnesHoldNobodyUp) {
  constexpr int kIdle = 6;  // More than there are threads of any kind.
  grpc::ClientContext contexts[kIdle];
  v1::PushResponse responses[kIdle];
  std::vector<std::unique_ptr<grpc::ClientWriter<v1::PushRequest>>> writers;
  for (int i = 0; i < kIdle; ++i) {
    writers.push_back(admin_->PushCheckpoint(&contexts[i], &responses[i]));
    ASSERT_TRUE(writers.back()->Write(Header()));
    ASSERT_TRUE(writers.back()->Write(Chunk("abc")));
  }
  record_.WaitBegun(kIdle);
  {
    grpc::ClientContext context;
    v1::RollBackRequest request;
    request.set_model("echo");
    v1::RollBackResponse response;
    EXPECT_TRUE(admin_->RollBack(&context, request, &response).ok());
  }
  {
    grpc::ClientContext context;
    v1::ReloadRequest request;
    request.set_model("echo");
    v1::ReloadResponse response;
    EXPECT_TRUE(admin_->Reload(&context, request, &response).ok());
  }
  EXPECT_THAT(core_.calls(), ElementsAre("rollback", "reload"));
  EXPECT_TRUE(Push({Header(), Chunk("abcdef"), CommitOf()}).ok());
  for (auto& writer : writers) writer->WritesDone();
  for (auto& writer : writers) {
    EXPECT_EQ(writer->Finish().error_code(), StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(PushTest, ADrainEndsItAndLeavesNothing) {
  grpc::ClientContext context;
  const auto writer = admin_->PushCheckpoint(&context, &response_);
  ASSERT_TRUE(writer->Write(Header()));
  record_.WaitBegun();
  EXPECT_TRUE(server_->DrainAndStop(absl::Now() + absl::Minutes(10)));
  const grpc::Status status = writer->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("shutting down"));
  EXPECT_EQ(record_.open(), 0);
}

TEST_F(PushTest, ADrainWaitsForACommit) {
  std::atomic<bool> committing = false;
  record_.on_commit = [&](const std::function<bool()>&) -> absl::StatusOr<serving::PushResult> {
    committing = true;
    core_.WaitForDrain();
    return serving::PushResult{.serves = true};
  };
  grpc::ClientContext context;
  const auto writer = admin_->PushCheckpoint(&context, &response_);
  ASSERT_TRUE(writer->Write(Header()));
  ASSERT_TRUE(writer->Write(CommitOf()));
  while (!committing) std::this_thread::yield();
  EXPECT_TRUE(server_->DrainAndStop(absl::Now() + absl::Minutes(10)));
  EXPECT_TRUE(writer->Finish().ok());
  EXPECT_TRUE(response_.serves());
}

// --- downloads ---

class DownloadTest : public TransferTest {
 protected:
  void Offer(std::uint64_t size_bytes) {
    core_.SetOpenScript([this, size_bytes](const serving::ServerCore::SnapshotProgress& progress)
                            -> absl::StatusOr<std::unique_ptr<serving::OutgoingSnapshot>> {
      if (!progress(1, size_bytes)) return absl::CancelledError("cancelled");
      return std::make_unique<FakeOutgoing>(
          serving::SnapshotResult{.path = "",
                                  .size_bytes = size_bytes,
                                  .file_sha256 = "ab12",
                                  .version = 12,
                                  .generation = 3,
                                  .weights_digest = "00ff",
                                  .training_state = true,
                                  .format = serving::SnapshotFormat::kBundle,
                                  .left_out = {"args"},
                                  .converted = {}},
          record_);
    });
  }
  static v1::DownloadRequest RequestOf(const std::string& model = "echo") {
    v1::DownloadRequest request;
    request.set_model(model);
    return request;
  }
  // All that comes: whether the result came before the first chunk, and the bytes.
  grpc::Status Download(const v1::DownloadRequest& request) {
    grpc::ClientContext context;
    const auto reader = admin_->DownloadSnapshot(&context, request);
    v1::DownloadResponse part;
    while (reader->Read(&part)) {
      if (part.has_result()) result_ = part.result();
      if (part.part_case() != v1::DownloadResponse::kChunk) continue;
      EXPECT_NE(result_.size_bytes(), 0U) << "a chunk came before the result";
      EXPECT_LE(part.chunk().size(), kMaxChunkBytes);
      bytes_ += part.chunk();
    }
    return reader->Finish();
  }

  v1::SnapshotResult result_;
  std::string bytes_;
};

TEST_F(DownloadTest, SendsTheResultAndThenTheBytes) {
  const std::uint64_t size = 2 * kMaxChunkBytes + 5;
  Offer(size);
  v1::DownloadRequest request = RequestOf();
  request.set_file("best.pt");
  request.set_version(0);
  request.set_weights_only(true);
  request.set_lossless(true);
  request.set_format(v1::SNAPSHOT_STATE_DICT);
  const grpc::Status status = Download(request);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(result_.size_bytes(), size);
  EXPECT_EQ(result_.file_sha256(), "ab12");
  EXPECT_EQ(result_.version(), 12);
  EXPECT_EQ(result_.path(), "");
  EXPECT_THAT(result_.left_out(), ElementsAre("args"));
  ASSERT_EQ(bytes_.size(), size);
  for (std::size_t i = 0; i < size; ++i) {
    ASSERT_EQ(static_cast<unsigned char>(bytes_[i]), i & 0xffU) << i;
  }
  EXPECT_EQ(core_.last_snapshot().path, "best.pt");
  EXPECT_EQ(core_.last_snapshot().version, 0);
  EXPECT_TRUE(core_.last_snapshot().weights_only);
  EXPECT_TRUE(core_.last_snapshot().lossless);
  EXPECT_EQ(core_.last_snapshot().format, serving::SnapshotFormat::kStateDict);
  EXPECT_EQ(record_.open(), 0);
}

TEST_F(DownloadTest, WhatTheCoreRefusesKeepsItsCode) {
  core_.SetOpenScript([](const serving::ServerCore::SnapshotProgress&)
                          -> absl::StatusOr<std::unique_ptr<serving::OutgoingSnapshot>> {
    return absl::FailedPreconditionError("serves no version");
  });
  const grpc::Status status = Download(RequestOf());
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(), "serves no version");
  v1::DownloadRequest unknown = RequestOf();
  unknown.set_format(static_cast<v1::SnapshotFormat>(77));
  EXPECT_EQ(Download(unknown).error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(DownloadTest, AnErrorInTheMiddleEndsIt) {
  Offer(4 * kMaxChunkBytes);
  record_.on_write = [](std::size_t read) {
    return read > 2 * kMaxChunkBytes ? absl::UnavailableError("I/O error") : absl::OkStatus();
  };
  EXPECT_EQ(Download(RequestOf()).error_code(), StatusCode::UNAVAILABLE);
  EXPECT_LT(bytes_.size(), 4 * kMaxChunkBytes);
  EXPECT_EQ(record_.open(), 0);
}

TEST_F(DownloadTest, AClientThatGoesWhileItIsMadeStopsThat) {
  std::atomic<bool> stopped = false;
  core_.SetOpenScript([&stopped](const serving::ServerCore::SnapshotProgress& progress)
                          -> absl::StatusOr<std::unique_ptr<serving::OutgoingSnapshot>> {
    while (progress(1, 2)) std::this_thread::yield();
    stopped = true;
    return absl::CancelledError("cancelled");
  });
  grpc::ClientContext context;
  const auto reader = admin_->DownloadSnapshot(&context, RequestOf());
  v1::DownloadResponse part;
  ASSERT_TRUE(reader->Read(&part));
  EXPECT_EQ(part.progress().total_bytes(), 2U);
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  while (!stopped) std::this_thread::yield();
}

TEST_F(DownloadTest, NothingIsLeftOfAClientThatGoesInTheMiddle) {
  Offer(std::uint64_t{1} << 40);
  grpc::ClientContext context;
  const auto reader = admin_->DownloadSnapshot(&context, RequestOf());
  v1::DownloadResponse part;
  while (part.part_case() != v1::DownloadResponse::kChunk) ASSERT_TRUE(reader->Read(&part));
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  record_.WaitGone();
}

// --- who lets the server wait ---

class StalledTransferTest : public DownloadTest {
 protected:
  RpcOptions Options() override {
    RpcOptions options = DownloadTest::Options();
    options.transfer_stall_limit = absl::Milliseconds(50);
    return options;
  }
};

TEST_F(StalledTransferTest, APushWithoutAChunkIsEnded) {
  grpc::ClientContext context;
  v1::PushResponse response;
  const auto writer = admin_->PushCheckpoint(&context, &response);
  writer->Write(Header());
  const grpc::Status status = writer->Finish();  // It never says that it is done.
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("sent too little for 50ms"));
  EXPECT_EQ(record_.open(), 0);
}

TEST_F(StalledTransferTest, ADownloadThatNobodyTakesIsCutOff) {
  Offer(std::uint64_t{1} << 40);
  grpc::ClientContext context;
  const auto reader = admin_->DownloadSnapshot(&context, RequestOf());
  record_.WaitBegun();
  record_.WaitGone();
  v1::DownloadResponse part;
  while (reader->Read(&part)) {  // What was under way.
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
}

}  // namespace
}  // namespace relight::rpc
