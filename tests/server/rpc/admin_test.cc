// The admin service over its Unix socket.
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/unique_fd.h"
#include "relight/v1/admin.grpc.pb.h"
#include "tests/server/rpc/server_fixture.h"

namespace relight::rpc {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Folder {
 public:
  Folder() {
    std::string name = "/tmp/rpcXXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string path(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class AdminTest : public ServerTest {
 protected:
  void SetUp() override {
    ServerTest::SetUp();
    admin_channel_ = Connect("unix:" + socket());
    admin_ = v1::Admin::NewStub(admin_channel_);
  }
  RpcOptions Options() override {
    RpcOptions options = ServerTest::Options();
    options.admin_socket = socket();
    return options;
  }
  std::string socket() const { return folder_.path("sub/admin.sock"); }

  template <typename Request, typename Response>
  Response Call(grpc::Status (v1::Admin::Stub::*method)(grpc::ClientContext*, const Request&,
                                                        Response*),
                const Request& request) {
    grpc::ClientContext context;
    Response response;
    status_ = (admin_.get()->*method)(&context, request, &response);
    return response;
  }

  Folder folder_;
  std::shared_ptr<grpc::Channel> admin_channel_;
  std::unique_ptr<v1::Admin::Stub> admin_;
  grpc::Status status_;
};

using Stub = v1::Admin::Stub;

template <typename Request>
Request For(const std::string& model) {
  Request request;
  request.set_model(model);
  return request;
}

serving::ModelStatus FullStatus() {
  serving::ModelStatus status;
  status.name = "echo";
  status.state = serving::ModelState::kServing;
  status.loaded.push_back({.version = 12,
                           .generation = 3,
                           .weights_digest = "00ff",
                           .file = "step-12\xff.pt",
                           .file_sha256 = "abcd",
                           .state = serving::VersionState::kServing,
                           .loaded_at = absl::FromUnixMillis(1500),
                           .training_state = true,
                           .training_state_reason = ""});
  status.candidates.push_back({.file = "bad.pt",
                               .version = std::nullopt,
                               .state = serving::VersionState::kPassedOver,
                               .reason = "a FIFO",
                               .size_bytes = 5,
                               .modified = absl::FromUnixSeconds(9)});
  status.version_rule = "name";
  status.pinned_version = 12;
  status.last_good_load = absl::FromUnixSeconds(77);
  status.generation = 3;
  status.device = "cpu";
  return status;
}

TEST_F(AdminTest, SocketIsTheOwnersAndGoesWithTheServer) {
  struct stat info {};
  ASSERT_EQ(::stat(socket().c_str(), &info), 0);
  EXPECT_TRUE(S_ISSOCK(info.st_mode));
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  ASSERT_EQ(::stat(folder_.path("sub").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0700U);
  server_.reset();
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path("sub")));
}

TEST_F(AdminTest, StatusHasEverythingAndEscapesNames) {
  core_.SetStatus(FullStatus());
  const auto response = Call(&Stub::GetStatus, For<v1::GetStatusRequest>(""));
  ASSERT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_EQ(response.server_version(), "1.2.3");
  EXPECT_TRUE(response.ready());
  EXPECT_GT(response.started_at().seconds(), 0);
  ASSERT_EQ(response.models_size(), 1);
  const v1::ModelStatus& model = response.models(0);
  EXPECT_EQ(model.state(), v1::MODEL_SERVING);
  EXPECT_EQ(model.loaded(0).file(), "step-12\\xff.pt");
  EXPECT_EQ(model.loaded(0).loaded_at().seconds(), 1);
  EXPECT_EQ(model.loaded(0).loaded_at().nanos(), 500'000'000);
  EXPECT_EQ(model.loaded(0).state(), v1::VERSION_SERVING);
  EXPECT_FALSE(model.candidates(0).has_version());
  EXPECT_EQ(model.candidates(0).state(), v1::VERSION_PASSED_OVER);
  EXPECT_EQ(model.pinned_version(), 12);
  EXPECT_EQ(model.last_good_load().seconds(), 77);
  EXPECT_EQ(Call(&Stub::GetStatus, For<v1::GetStatusRequest>("echo")).models_size(), 1);
  Call(&Stub::GetStatus, For<v1::GetStatusRequest>("nobody"));
  EXPECT_EQ(status_.error_code(), StatusCode::NOT_FOUND);
}

TEST_F(AdminTest, NamesOfFilesCannotControlATerminalOrPassForEachOther) {
  serving::ModelStatus model = FullStatus();
  model.candidates.clear();
  const std::string names[] = {"a\nb", "\x1b[31m", "\xc2\x9b", "c\xff", "c\\xff"};
  for (const std::string& name : names) {
    serving::CandidateStatus& candidate = model.candidates.emplace_back();
    candidate.file = name;
    candidate.modified = absl::UnixEpoch();
  }
  core_.SetStatus(model);
  const auto response = Call(&Stub::GetStatus, For<v1::GetStatusRequest>("echo"));
  ASSERT_EQ(response.models_size(), 1);
  std::vector<std::string> files;
  for (const auto& candidate : response.models(0).candidates()) files.push_back(candidate.file());
  EXPECT_THAT(files, ElementsAre("a\\x0ab", "\\x1b[31m", "\\xc2\\x9b", "c\\xff", "c\\\\xff"));

  serving::HistoryEntry entry;
  entry.file = "a\nb" + std::string(300, 'x');
  core_.SetHistory({entry});
  const auto history = Call(&Stub::GetHistory, For<v1::GetHistoryRequest>("echo"));
  ASSERT_EQ(history.entries_size(), 1);
  EXPECT_EQ(history.entries(0).file(), "a\\x0ab" + std::string(300, 'x'));
}

TEST_F(AdminTest, HistoryHasPhasesAndALimit) {
  serving::HistoryEntry entry;
  entry.time = absl::FromUnixSeconds(5);
  entry.event = serving::HistoryEvent::kRefused;
  entry.version = 4;
  entry.reason = "wrong shape";
  entry.phases = {{"read", absl::Milliseconds(1500)}};
  core_.SetHistory({entry, entry});
  v1::GetHistoryRequest request = For<v1::GetHistoryRequest>("echo");
  EXPECT_EQ(Call(&Stub::GetHistory, request).entries_size(), 2);
  request.set_limit(1);
  const auto response = Call(&Stub::GetHistory, request);
  ASSERT_EQ(response.entries_size(), 1);
  EXPECT_EQ(response.entries(0).event(), v1::HistoryEntry::REFUSED);
  EXPECT_EQ(response.entries(0).phases().at("read").seconds(), 1);
  EXPECT_EQ(response.entries(0).phases().at("read").nanos(), 500'000'000);
}

TEST_F(AdminTest, EachActionReachesTheCoreAndAnswersWithTheStatus) {
  core_.SetStatus(FullStatus());
  const auto reload = Call(&Stub::Reload, For<v1::ReloadRequest>("echo"));
  EXPECT_TRUE(reload.swapped());
  EXPECT_EQ(reload.status().generation(), 3U);
  v1::PinRequest pin = For<v1::PinRequest>("echo");
  pin.set_version(7);
  EXPECT_EQ(Call(&Stub::Pin, pin).status().name(), "echo");
  EXPECT_EQ(Call(&Stub::Unpin, For<v1::UnpinRequest>("echo")).status().name(), "echo");
  EXPECT_EQ(Call(&Stub::RollBack, For<v1::RollBackRequest>("echo")).status().name(), "echo");
  EXPECT_EQ(Call(&Stub::Unload, For<v1::UnloadRequest>("echo")).status().name(), "echo");
  EXPECT_THAT(core_.calls(), ElementsAre("reload", "pin 7", "unpin", "rollback", "unload"));
}

TEST_F(AdminTest, WhatTheCoreRefusesKeepsItsCode) {
  core_.SetAdminOutcome(absl::FailedPreconditionError("step-13.pt: not finite"));
  Call(&Stub::Reload, For<v1::ReloadRequest>("echo"));
  EXPECT_EQ(status_.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status_.error_message(), "step-13.pt: not finite");
}

TEST_F(AdminTest, InferenceProtocolAnswersThereTooWithModelControl) {
  auto stub = inference::GRPCInferenceService::NewStub(admin_channel_);
  grpc::ClientContext context;
  inference::RepositoryModelLoadRequest request;
  request.set_model_name("echo");
  inference::RepositoryModelLoadResponse response;
  EXPECT_TRUE(stub->RepositoryModelLoad(&context, request, &response).ok());
  EXPECT_THAT(core_.calls(), ElementsAre("reload"));
  auto health = grpc::health::v1::Health::NewStub(admin_channel_);
  grpc::ClientContext health_context;
  grpc::health::v1::HealthCheckResponse check;
  EXPECT_TRUE(health->Check(&health_context, {}, &check).ok());
}

TEST_F(AdminTest, WatchSendsTheStatusNowAndAfterEachChange) {
  core_.SetStatus(FullStatus());
  grpc::ClientContext context;
  auto stream = admin_->Watch(&context, For<v1::WatchRequest>("echo"));
  v1::ModelStatus update;
  ASSERT_TRUE(stream->Read(&update));
  EXPECT_EQ(update.generation(), 3U);
  serving::ModelStatus next = FullStatus();
  next.generation = 4;
  core_.SetStatus(next);
  core_.Notify("echo");
  ASSERT_TRUE(stream->Read(&update));
  EXPECT_EQ(update.generation(), 4U);
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
}

TEST_F(AdminTest, BytesThatAreNoMessageAreInvalidNamingTheMethod) {
  for (const std::string method : {"/relight.v1.Admin/Pin", "/relight.v1.Admin/Snapshot"}) {
    const grpc::Status status = CallWithBytes(admin_channel_, method, "\xff\xff\xff");
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr(method));
  }
}

TEST_F(AdminTest, WatchOfAnUnknownModelIsNotFound) {
  grpc::ClientContext context;
  auto stream = admin_->Watch(&context, For<v1::WatchRequest>("nobody"));
  v1::ModelStatus update;
  EXPECT_FALSE(stream->Read(&update));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::NOT_FOUND);
}

TEST_F(AdminTest, WatchEndsWithTheServer) {
  grpc::ClientContext context;
  auto stream = admin_->Watch(&context, v1::WatchRequest());
  v1::ModelStatus update;
  ASSERT_TRUE(stream->Read(&update));
  server_->DrainAndStop(absl::Now() + absl::Seconds(30));
  EXPECT_FALSE(stream->Read(&update));
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(AdminTest, SnapshotSendsProgressAndThenTheResult) {
  core_.SetSnapshotScript([](const serving::ServerCore::SnapshotProgress& progress)
                              -> absl::StatusOr<serving::SnapshotResult> {
    for (std::uint64_t i = 0; i <= 100; ++i) {
      if (!progress(i, 100)) return absl::CancelledError("cancelled");
    }
    return serving::SnapshotResult{.path = "/s/echo.pt",
                                   .size_bytes = 100,
                                   .file_sha256 = "ab",
                                   .version = 12,
                                   .generation = 3,
                                   .weights_digest = "00ff",
                                   .training_state = true,
                                   .format = serving::SnapshotFormat::kBundle,
                                   .left_out = {"args (argparse.Namespace)"},
                                   .converted = {"/loss: numpy scalar"}};
  });
  v1::SnapshotRequest request = For<v1::SnapshotRequest>("echo");
  request.set_path("a.pt");
  request.set_overwrite(true);
  request.set_weights_only(true);
  request.set_version(12);
  grpc::ClientContext context;
  auto stream = admin_->Snapshot(&context, request);
  v1::SnapshotProgress progress;
  std::uint64_t last = 0;
  while (stream->Read(&progress)) {
    EXPECT_GE(progress.written_bytes(), last);
    last = progress.written_bytes();
  }
  const grpc::Status status = stream->Finish();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(progress.result().path(), "/s/echo.pt");
  EXPECT_EQ(progress.result().generation(), 3U);
  EXPECT_THAT(progress.result().left_out(), ElementsAre("args (argparse.Namespace)"));
  EXPECT_THAT(progress.result().converted(), ElementsAre("/loss: numpy scalar"));
  EXPECT_EQ(progress.result().format(), v1::SNAPSHOT_BUNDLE);
  EXPECT_EQ(core_.last_snapshot().path, "a.pt");
  EXPECT_EQ(core_.last_snapshot().version, 12);
  EXPECT_TRUE(core_.last_snapshot().overwrite);
  EXPECT_TRUE(core_.last_snapshot().weights_only);
  EXPECT_FALSE(core_.last_snapshot().lossless);
  EXPECT_EQ(core_.last_snapshot().format, serving::SnapshotFormat::kAsSource);
}

TEST_F(AdminTest, SnapshotFormatsReachTheCoreAndUnknownOnesAreRefused) {
  core_.SetSnapshotScript([](const serving::ServerCore::SnapshotProgress&) {
    return absl::StatusOr<serving::SnapshotResult>(serving::SnapshotResult{});
  });
  const auto take = [this](int format) {
    v1::SnapshotRequest request = For<v1::SnapshotRequest>("echo");
    request.set_format(static_cast<v1::SnapshotFormat>(format));
    grpc::ClientContext context;
    auto stream = admin_->Snapshot(&context, request);
    v1::SnapshotProgress progress;
    while (stream->Read(&progress)) {
    }
    return stream->Finish();
  };
  for (const auto& [message, format] :
       {std::pair(v1::SNAPSHOT_BUNDLE, serving::SnapshotFormat::kBundle),
        std::pair(v1::SNAPSHOT_STATE_DICT, serving::SnapshotFormat::kStateDict),
        std::pair(v1::SNAPSHOT_SAFETENSORS, serving::SnapshotFormat::kSafetensors)}) {
    EXPECT_TRUE(take(message).ok());
    EXPECT_EQ(core_.last_snapshot().format, format);
  }
  const grpc::Status status = take(77);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("bundle, state-dict and safetensors"));
}

TEST_F(AdminTest, SnapshotOfVersionZeroIsNotOneOfTheServedVersion) {
  core_.SetSnapshotScript(
      [](const serving::ServerCore::SnapshotProgress&) -> absl::StatusOr<serving::SnapshotResult> {
        return serving::SnapshotResult{};
      });
  const auto asked_for = [&](const v1::SnapshotRequest& request) {
    grpc::ClientContext context;
    auto stream = admin_->Snapshot(&context, request);
    v1::SnapshotProgress progress;
    while (stream->Read(&progress)) continue;
    EXPECT_TRUE(stream->Finish().ok());
    return core_.last_snapshot().version;
  };
  v1::SnapshotRequest request = For<v1::SnapshotRequest>("echo");
  EXPECT_EQ(asked_for(request), std::nullopt);
  request.set_version(0);
  EXPECT_EQ(asked_for(request), 0);
}

TEST_F(AdminTest, CancelledSnapshotStops) {
  std::atomic<bool> stopped = false;
  core_.SetSnapshotScript([&stopped](const serving::ServerCore::SnapshotProgress& progress)
                              -> absl::StatusOr<serving::SnapshotResult> {
    std::uint64_t written = 0;
    while (progress(++written, 100)) std::this_thread::yield();
    stopped.store(true);
    return absl::CancelledError("cancelled");
  });
  grpc::ClientContext context;
  auto stream = admin_->Snapshot(&context, For<v1::SnapshotRequest>("echo"));
  v1::SnapshotProgress progress;
  ASSERT_TRUE(stream->Read(&progress));
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
  while (!stopped.load()) std::this_thread::yield();
}

TEST_F(AdminTest, StatusAndOrdersAreAnsweredWhileSnapshotsHoldTheirThreads) {
  std::atomic<bool> go = false;
  std::atomic<int> running = 0;
  core_.SetSnapshotScript(
      [&](const serving::ServerCore::SnapshotProgress&) -> absl::StatusOr<serving::SnapshotResult> {
        ++running;
        while (!go.load()) std::this_thread::yield();
        return absl::UnavailableError("disk full");
      });
  grpc::ClientContext contexts[3];
  std::vector<std::unique_ptr<grpc::ClientReader<v1::SnapshotProgress>>> streams;
  for (grpc::ClientContext& context : contexts) {
    streams.push_back(admin_->Snapshot(&context, For<v1::SnapshotRequest>("echo")));
  }
  while (running.load() < 2) std::this_thread::yield();
  Call(&Stub::GetStatus, v1::GetStatusRequest());
  EXPECT_TRUE(status_.ok());
  Call(&Stub::RollBack, For<v1::RollBackRequest>("echo"));
  EXPECT_TRUE(status_.ok());
  EXPECT_THAT(core_.calls(), ElementsAre("rollback"));
  go.store(true);
  for (auto& stream : streams) {
    EXPECT_EQ(stream->Finish().error_code(), StatusCode::UNAVAILABLE);
  }
}

// --- starting ---

class AdminStartTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<RpcServer>> Start(const std::string& socket) {
    RpcOptions options;
    options.grpc_address = "127.0.0.1";
    options.grpc_port = 0;
    options.metrics_port = -1;
    options.admin_socket = socket;
    return StartRpcServer(options, core_);
  }
  void ExpectRefused(const std::string& socket, absl::StatusCode code, const std::string& text) {
    const auto server = Start(socket);
    EXPECT_EQ(server.status().code(), code) << server.status();
    EXPECT_THAT(std::string(server.status().message()), HasSubstr(text));
  }

  FakeCore core_;
  Folder folder_;
};

TEST_F(AdminStartTest, SocketOfALivingDaemonIsUnavailable) {
  const auto first = Start(folder_.path("a.sock"));
  ASSERT_TRUE(first.ok()) << first.status();
  ExpectRefused(folder_.path("a.sock"), absl::StatusCode::kUnavailable, "in use");
  // The first still answers.
  auto admin = v1::Admin::NewStub(
      grpc::CreateChannel("unix:" + folder_.path("a.sock"), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetStatusResponse response;
  EXPECT_TRUE(admin->GetStatus(&context, {}, &response).ok());
}

TEST_F(AdminStartTest, PathWithCharactersThatUrisGiveAMeaningIsTakenAsItIs) {
  const std::string path = folder_.path("50%41 #1?x/a%20.sock");
  const auto server = Start(path);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE(std::filesystem::is_socket(path));
  const std::string target = "unix:" + folder_.path("50%2541 %231%3Fx/a%2520.sock");
  auto admin = v1::Admin::NewStub(grpc::CreateChannel(target, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetStatusResponse response;
  const grpc::Status status = admin->GetStatus(&context, {}, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(AdminStartTest, SocketOfADeadDaemonIsReplaced) {
  const std::string path = folder_.path("a.sock");
  {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  EXPECT_TRUE(Start(path).ok());
}

TEST_F(AdminStartTest, SomethingElseThereIsInvalidAndKept) {
  std::ofstream(folder_.path("file")) << "mine";
  ExpectRefused(folder_.path("file"), absl::StatusCode::kInvalidArgument, "something else");
  EXPECT_TRUE(std::filesystem::is_regular_file(folder_.path("file")));
}

TEST_F(AdminStartTest, PathThatIsTooLongIsInvalid) {
  ExpectRefused(folder_.path(std::string(120, 'x')), absl::StatusCode::kInvalidArgument,
                "at most 107");
  EXPECT_THAT(
      std::filesystem::directory_iterator(folder_.path()) == std::filesystem::directory_iterator(),
      testing::IsTrue());
}

TEST_F(AdminStartTest, TcpPortOnLoopbackAnswersToo) {
  RpcOptions options;
  options.grpc_address = "127.0.0.1";
  options.grpc_port = 0;
  options.metrics_port = -1;
  options.admin_port = 0;
  const auto server = StartRpcServer(options, core_);
  ASSERT_TRUE(server.ok()) << server.status();
  ASSERT_GT((*server)->admin_port(), 0);
  const std::string address = "127.0.0.1:" + std::to_string((*server)->admin_port());
  auto admin = v1::Admin::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetStatusResponse response;
  EXPECT_TRUE(admin->GetStatus(&context, {}, &response).ok());
  options.admin_port = (*server)->admin_port();
  const auto second = StartRpcServer(options, core_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--admin-port"));
}

TEST_F(AdminStartTest, AdminServiceIsNotOnThePublicPort) {
  const auto server = Start(folder_.path("a.sock"));
  ASSERT_TRUE(server.ok());
  const std::string address = "127.0.0.1:" + std::to_string((*server)->grpc_port());
  auto admin = v1::Admin::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetStatusResponse response;
  EXPECT_EQ(admin->GetStatus(&context, {}, &response).error_code(), StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace relight::rpc
