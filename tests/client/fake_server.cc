#include "tests/client/fake_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <thread>

#include "base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "inference/grpc_service.grpc.pb.h"
#include "relight/v1/admin.grpc.pb.h"

namespace relight::client {
namespace {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

constexpr char kDigest[] = "00112233445566778899aabbccddeeff";
// How often a handler looks whether its caller has gone.
constexpr auto kLookInterval = std::chrono::milliseconds(2);

Status UnknownModel(const std::string& name) {
  return {StatusCode::NOT_FOUND, "unknown model " + name};
}

// Where calls for the model "held" wait.
class Gate {
 public:
  void Set(bool open) { open_ = open; }
  void Pass(const ServerContext& context, const std::string& model) const {
    while (model == "held" && !open_ && !context.IsCancelled()) {
      std::this_thread::sleep_for(kLookInterval);
    }
  }

 private:
  std::atomic<bool> open_ = true;
};

class InferenceService final : public inference::GRPCInferenceService::Service {
 public:
  explicit InferenceService(const Gate& gate) : gate_(gate) {}

  std::atomic<int> slow_requests = 0;

  Status ServerLive(ServerContext*, const inference::ServerLiveRequest*,
                    inference::ServerLiveResponse* response) override {
    response->set_live(true);
    return Status::OK;
  }

  Status ServerReady(ServerContext*, const inference::ServerReadyRequest*,
                     inference::ServerReadyResponse* response) override {
    response->set_ready(false);
    return Status::OK;
  }

  Status ModelReady(ServerContext*, const inference::ModelReadyRequest* request,
                    inference::ModelReadyResponse* response) override {
    if (request->name() == "unknown") return UnknownModel(request->name());
    response->set_ready(request->version().empty() || request->version() == "100");
    return Status::OK;
  }

  Status ServerMetadata(ServerContext*, const inference::ServerMetadataRequest*,
                        inference::ServerMetadataResponse* response) override {
    response->set_name("fake");
    response->set_version("1.2.3");
    response->add_extensions("statistics");
    return Status::OK;
  }

  Status ModelMetadata(ServerContext*, const inference::ModelMetadataRequest* request,
                       inference::ModelMetadataResponse* response) override {
    if (request->name() == "unknown") return UnknownModel(request->name());
    response->set_name(request->name());
    response->add_versions("100");
    response->set_platform("fake_platform");
    AddTensor("x", "FP32", response->add_inputs());
    if (request->name() == "echo") {
      AddTensor("n", "INT64", response->add_inputs());
      AddTensor("s", "BYTES", response->add_inputs());
      AddTensor("h", "FP16", response->add_inputs());
    }
    AddTensor("y", "FP32", response->add_outputs());
    return Status::OK;
  }

  Status ModelInfer(ServerContext* context, const inference::ModelInferRequest* request,
                    inference::ModelInferResponse* response) override {
    const std::string& model = request->model_name();
    if (model == "unknown") return UnknownModel(model);
    if (model == "busy") return {StatusCode::UNAVAILABLE, "the queue is full"};
    if (model == "slow") return BeSlow(context);
    gate_.Pass(*context, model);
    response->set_model_name(model);
    response->set_model_version(request->model_version().empty() ? "100"
                                                                 : request->model_version());
    response->set_id(request->id());
    (*response->mutable_parameters())["generation"].set_int64_param(7);
    (*response->mutable_parameters())["weights_digest"].set_string_param(kDigest);
    if (model == "echo") return Echo(*request, response);
    return Double(*request, model == "typed", model == "lying", response);
  }

  Status ModelStatistics(ServerContext*, const inference::ModelStatisticsRequest* request,
                         inference::ModelStatisticsResponse* response) override {
    auto* statistics = response->add_model_stats();
    statistics->set_name(request->name());
    statistics->set_version("100");
    statistics->set_last_inference(1'700'000'000'000);
    statistics->set_inference_count(12);
    statistics->set_execution_count(3);
    statistics->mutable_inference_stats()->mutable_success()->set_count(5);
    statistics->mutable_inference_stats()->mutable_success()->set_ns(2'000'000);
    auto* batch = statistics->add_batch_stats();
    batch->set_batch_size(4);
    batch->mutable_compute_infer()->set_count(3);
    return Status::OK;
  }

  Status RepositoryIndex(ServerContext*, const inference::RepositoryIndexRequest* request,
                         inference::RepositoryIndexResponse* response) override {
    auto* ready = response->add_models();
    ready->set_name("double");
    ready->set_version("100");
    ready->set_state("READY");
    if (request->ready()) return Status::OK;
    auto* waiting = response->add_models();
    waiting->set_name("fresh");
    waiting->set_state("UNAVAILABLE");
    waiting->set_reason("no checkpoint yet");
    return Status::OK;
  }

 private:
  const Gate& gate_;

  static void AddTensor(const std::string& name, const std::string& datatype,
                        inference::ModelMetadataResponse::TensorMetadata* tensor) {
    tensor->set_name(name);
    tensor->set_datatype(datatype);
    tensor->add_shape(-1);
    tensor->add_shape(4);
  }

  Status BeSlow(ServerContext* context) {
    ++slow_requests;
    while (!context->IsCancelled()) std::this_thread::sleep_for(kLookInterval);
    --slow_requests;
    return Status::CANCELLED;
  }

  static Status Echo(const inference::ModelInferRequest& request,
                     inference::ModelInferResponse* response) {
    for (int i = 0; i < request.inputs_size(); ++i) {
      auto* output = response->add_outputs();
      output->set_name(request.inputs(i).name());
      output->set_datatype(request.inputs(i).datatype());
      output->mutable_shape()->CopyFrom(request.inputs(i).shape());
      response->add_raw_output_contents(request.raw_input_contents(i));
    }
    return Status::OK;
  }

  static Status Double(const inference::ModelInferRequest& request, bool typed, bool lying,
                       inference::ModelInferResponse* response) {
    if (request.inputs_size() != 1 || request.inputs(0).name() != "x") {
      return {StatusCode::INVALID_ARGUMENT, "model double has the one input x"};
    }
    auto* output = response->add_outputs();
    output->set_name("y");
    output->set_datatype("FP32");
    output->mutable_shape()->CopyFrom(request.inputs(0).shape());
    std::string bytes = request.raw_input_contents(0);
    for (std::size_t i = 0; i + sizeof(float) <= bytes.size(); i += sizeof(float)) {
      float value = 0;
      std::memcpy(&value, bytes.data() + i, sizeof(value));
      value *= 2;
      std::memcpy(bytes.data() + i, &value, sizeof(value));
      if (typed) output->mutable_contents()->add_fp32_contents(value);
    }
    if (lying) bytes.pop_back();
    if (!typed) response->add_raw_output_contents(std::move(bytes));
    return Status::OK;
  }
};

class HealthService final : public grpc::health::v1::Health::Service {
 public:
  void Set(bool serving) {
    MutexLock lock(mutex_);
    serving_ = serving;
  }

  Status Check(ServerContext*, const grpc::health::v1::HealthCheckRequest* request,
               grpc::health::v1::HealthCheckResponse* response) override {
    if (request->service() == "unknown") return {StatusCode::NOT_FOUND, "unknown service"};
    response->set_status(Current());
    return Status::OK;
  }

  Status Watch(ServerContext* context, const grpc::health::v1::HealthCheckRequest* request,
               grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>* writer) override {
    const bool known = request->service() != "unknown";
    auto sent = grpc::health::v1::HealthCheckResponse::UNKNOWN;
    while (!context->IsCancelled()) {
      const auto current =
          known ? Current() : grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN;
      if (current != sent) {
        sent = current;
        grpc::health::v1::HealthCheckResponse response;
        response.set_status(sent);
        if (!writer->Write(response)) break;
      }
      std::this_thread::sleep_for(kLookInterval);
    }
    return Status::CANCELLED;
  }

 private:
  grpc::health::v1::HealthCheckResponse::ServingStatus Current() {
    MutexLock lock(mutex_);
    return serving_ ? grpc::health::v1::HealthCheckResponse::SERVING
                    : grpc::health::v1::HealthCheckResponse::NOT_SERVING;
  }

  Mutex mutex_;
  bool serving_ ABSL_GUARDED_BY(mutex_) = true;
};

void FillStatus(const std::string& name, std::int64_t version, v1::ModelStatus* status) {
  status->set_name(name);
  status->set_state(v1::MODEL_SERVING);
  status->set_version_rule("name: every stem ends in digits");
  status->set_last_error("step-200.pt: parameter fc1.weight has NaN");
  status->mutable_last_good_load()->set_seconds(1'700'000'000);
  status->set_generation(7);
  status->set_device("cpu");
  auto* loaded = status->add_loaded();
  loaded->set_version(version);
  loaded->set_generation(7);
  loaded->set_weights_digest(kDigest);
  loaded->set_file("step-" + std::to_string(version) + ".pt");
  loaded->set_state(v1::VERSION_SERVING);
  loaded->set_training_state(true);
  auto* candidate = status->add_candidates();
  candidate->set_file("step-200.pt");
  candidate->set_version(200);
  candidate->set_state(v1::VERSION_REFUSED);
  candidate->set_reason("parameter fc1.weight has NaN");
  candidate->set_size_bytes(2048);
  auto* stray = status->add_candidates();
  stray->set_file("notes.txt");
  stray->set_state(v1::VERSION_PASSED_OVER);
  stray->set_reason("its suffix is none of a checkpoint");
}

class AdminService final : public v1::Admin::Service {
 public:
  explicit AdminService(const Gate& gate) : gate_(gate) {}

  std::string last_snapshot_request() {
    MutexLock lock(mutex_);
    return last_snapshot_request_;
  }

  Status GetStatus(ServerContext* context, const v1::GetStatusRequest* request,
                   v1::GetStatusResponse* response) override {
    gate_.Pass(*context, request->model());
    if (request->model() == "unknown") return UnknownModel(request->model());
    response->set_server_version("1.2.3");
    response->set_ready(true);
    FillStatus("double", 100, response->add_models());
    if (!request->model().empty()) return Status::OK;
    auto* waiting = response->add_models();
    waiting->set_name("fresh");
    waiting->set_state(v1::MODEL_WAITING);
    waiting->set_reason("no checkpoint yet");
    return Status::OK;
  }

  Status GetHistory(ServerContext* context, const v1::GetHistoryRequest* request,
                    v1::GetHistoryResponse* response) override {
    gate_.Pass(*context, request->model());
    auto* refused = response->add_entries();
    refused->set_event(v1::HistoryEntry::REFUSED);
    refused->set_version(200);
    refused->set_file("step-200.pt");
    refused->set_reason("parameter fc1.weight has NaN");
    refused->mutable_time()->set_seconds(1'700'000'100);
    if (request->limit() == 1) return Status::OK;
    auto* served = response->add_entries();
    served->set_event(v1::HistoryEntry::SERVED);
    served->set_version(100);
    served->set_generation(7);
    (*served->mutable_phases())["read"].set_nanos(20'000'000);
    (*served->mutable_phases())["bind"].set_nanos(5'000'000);
    return Status::OK;
  }

  Status Watch(ServerContext* context, const v1::WatchRequest* request,
               grpc::ServerWriter<v1::ModelStatus>* writer) override {
    if (request->model() == "unknown") return UnknownModel(request->model());
    for (std::int64_t version : {100, 200}) {
      v1::ModelStatus status;
      FillStatus("double", version, &status);
      writer->Write(status);
    }
    // The model "ending" stands for a server that stops.
    if (request->model() == "ending") return {StatusCode::UNAVAILABLE, "the server is stopping"};
    while (!context->IsCancelled()) std::this_thread::sleep_for(kLookInterval);
    return Status::CANCELLED;
  }

  Status Reload(ServerContext* context, const v1::ReloadRequest* request,
                v1::ReloadResponse* response) override {
    gate_.Pass(*context, request->model());
    if (request->model() == "broken") {
      return {StatusCode::FAILED_PRECONDITION, "step-200.pt: parameter fc1.weight has NaN"};
    }
    FillStatus(request->model(), 300, response->mutable_status());
    response->set_swapped(true);
    return Status::OK;
  }

  Status Pin(ServerContext* context, const v1::PinRequest* request,
             v1::PinResponse* response) override {
    gate_.Pass(*context, request->model());
    if (request->version() == 404) return {StatusCode::NOT_FOUND, "no version 404"};
    FillStatus(request->model(), request->version(), response->mutable_status());
    response->mutable_status()->set_pinned_version(request->version());
    return Status::OK;
  }

  Status Unpin(ServerContext* context, const v1::UnpinRequest* request,
               v1::UnpinResponse* response) override {
    gate_.Pass(*context, request->model());
    FillStatus(request->model(), 100, response->mutable_status());
    return Status::OK;
  }

  Status RollBack(ServerContext* context, const v1::RollBackRequest* request,
                  v1::RollBackResponse* response) override {
    gate_.Pass(*context, request->model());
    FillStatus(request->model(), 99, response->mutable_status());
    response->mutable_status()->set_pinned_version(99);
    return Status::OK;
  }

  Status Unload(ServerContext* context, const v1::UnloadRequest* request,
                v1::UnloadResponse* response) override {
    gate_.Pass(*context, request->model());
    response->mutable_status()->set_name(request->model());
    response->mutable_status()->set_state(v1::MODEL_UNLOADED);
    return Status::OK;
  }

  Status Snapshot(ServerContext* context, const v1::SnapshotRequest* request,
                  grpc::ServerWriter<v1::SnapshotProgress>* writer) override {
    {
      MutexLock lock(mutex_);
      last_snapshot_request_ = request->ShortDebugString();
    }
    if (request->path() == "taken.pt" && !request->overwrite()) {
      return {StatusCode::ALREADY_EXISTS, "taken.pt exists"};
    }
    v1::SnapshotProgress progress;
    progress.set_total_bytes(4096);
    progress.set_written_bytes(1024);
    writer->Write(progress);
    gate_.Pass(*context, request->model());
    progress.set_written_bytes(4096);
    // The model "mute" stands for a server that breaks its promise of a result.
    if (request->model() == "mute") return Status::OK;
    auto* result = progress.mutable_result();
    result->set_path("/snapshots/double/100-7.pt");
    result->set_size_bytes(4096);
    result->set_file_sha256("abcdef");
    result->set_version(100);
    result->set_generation(7);
    result->set_weights_digest(kDigest);
    result->set_training_state(true);
    result->add_left_out("/scheduler: torch.optim.lr_scheduler.LambdaLR");
    result->add_converted("/loss: numpy scalar, written as a Python float");
    result->set_format(v1::SNAPSHOT_BUNDLE);
    writer->Write(progress);
    return Status::OK;
  }

  Status PushCheckpoint(ServerContext* context, grpc::ServerReader<v1::PushRequest>* reader,
                        v1::PushResponse* response) override {
    v1::PushRequest part;
    if (!reader->Read(&part) || !part.has_header()) return {StatusCode::INTERNAL, "no header"};
    const v1::PushHeader header = part.header();
    std::string bytes;
    std::string sha256;
    while (reader->Read(&part)) {
      bytes += part.chunk();
      sha256 = part.commit().file_sha256();
      if (header.model() == "broken") {
        return {StatusCode::INVALID_ARGUMENT, "parameter fc1.weight has NaN"};
      }
    }
    gate_.Pass(*context, header.model());
    MutexLock lock(mutex_);
    last_push_header_ = header.ShortDebugString();
    last_push_sha256_ = sha256;
    last_push_bytes_ = bytes;
    response->set_file(header.file());
    response->set_size_bytes(bytes.size());
    response->set_file_sha256(sha256);
    response->set_weights_digest(kDigest);
    response->set_version(200);
    response->set_serves(header.model() == "double");
    response->set_state(v1::VERSION_SERVING);
    if (header.model() == "double") response->set_generation(8);
    if (header.model() == "pinned") {
      response->set_state(v1::VERSION_FOUND);
      response->set_reason("the model is pinned to version 100");
    } else if (header.model() == "refusing") {
      response->set_state(v1::VERSION_REFUSED);
      response->set_reason("the warm-up fails");
    }
    return Status::OK;
  }

  Status DownloadSnapshot(ServerContext* context, const v1::DownloadRequest* request,
                          grpc::ServerWriter<v1::DownloadResponse>* writer) override {
    {
      MutexLock lock(mutex_);
      last_download_request_ = request->ShortDebugString();
    }
    const std::string& model = request->model();
    v1::DownloadResponse part;
    part.mutable_progress()->set_total_bytes(5);
    writer->Write(part);
    gate_.Pass(*context, model);
    if (model == "mute") return Status::OK;
    v1::SnapshotResult* result = part.mutable_result();
    result->set_size_bytes(5);
    // Of "hello".
    result->set_file_sha256("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    result->set_version(100);
    result->set_generation(7);
    result->set_weights_digest(kDigest);
    result->set_format(v1::SNAPSHOT_STATE_DICT);
    writer->Write(part);
    part.set_chunk(model == "lying" ? "hex" : "hel");
    writer->Write(part);
    if (model == "broken") return {StatusCode::UNAVAILABLE, "the server is stopping"};
    if (model == "short") return Status::OK;
    part.set_chunk("lo");
    writer->Write(part);
    return Status::OK;
  }

  std::string last_push_header() {
    MutexLock lock(mutex_);
    return last_push_header_;
  }
  std::string last_push_sha256() {
    MutexLock lock(mutex_);
    return last_push_sha256_;
  }
  std::string last_push_bytes() {
    MutexLock lock(mutex_);
    return last_push_bytes_;
  }
  std::string last_download_request() {
    MutexLock lock(mutex_);
    return last_download_request_;
  }

 private:
  const Gate& gate_;
  Mutex mutex_;
  std::string last_snapshot_request_ ABSL_GUARDED_BY(mutex_);
  std::string last_push_header_ ABSL_GUARDED_BY(mutex_);
  std::string last_push_sha256_ ABSL_GUARDED_BY(mutex_);
  std::string last_push_bytes_ ABSL_GUARDED_BY(mutex_);
  std::string last_download_request_ ABSL_GUARDED_BY(mutex_);
};

std::filesystem::path MakeFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "relight-client-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
  return pattern;
}

}  // namespace

struct FakeServer::Impl {
  Gate gate;
  InferenceService inference{gate};
  HealthService health;
  AdminService admin{gate};
  int port = 0;
  std::unique_ptr<grpc::Server> server;
};

FakeServer::FakeServer() : folder_(MakeFolder()), impl_(std::make_unique<Impl>()) {
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &impl_->port);
  builder.AddListeningPort(admin_target(), grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
  builder.RegisterService(&impl_->inference);
  builder.RegisterService(&impl_->health);
  builder.RegisterService(&impl_->admin);
  impl_->server = builder.BuildAndStart();
  if (impl_->server == nullptr) throw std::runtime_error("the fake server does not start");
}

FakeServer::~FakeServer() {
  impl_->server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  impl_->server->Wait();
  std::filesystem::remove_all(folder_);
}

std::string FakeServer::target() const { return "127.0.0.1:" + std::to_string(impl_->port); }
std::string FakeServer::socket_path() const { return (folder_ / "admin.sock").string(); }
std::string FakeServer::admin_target() const { return "unix:" + socket_path(); }
void FakeServer::SetServing(bool serving) { impl_->health.Set(serving); }
void FakeServer::Hold() {
  impl_->gate.Set(false);
  SetServing(false);
}
void FakeServer::Release() {
  impl_->gate.Set(true);
  SetServing(true);
}
std::string FakeServer::last_snapshot_request() const {
  return impl_->admin.last_snapshot_request();
}
std::string FakeServer::last_push_header() const { return impl_->admin.last_push_header(); }
std::string FakeServer::last_push_sha256() const { return impl_->admin.last_push_sha256(); }
std::string FakeServer::last_push_bytes() const { return impl_->admin.last_push_bytes(); }
std::string FakeServer::last_download_request() const {
  return impl_->admin.last_download_request();
}
int FakeServer::slow_requests() const { return impl_->inference.slow_requests; }

}  // namespace relight::client
