#include "server/rpc/inference_service.h"

#include <algorithm>
#include <utility>

#include "base/escape.h"
#include "base/status_macros.h"
#include "server/rpc/concat.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/infer_translation.h"
#include "server/rpc/inference_messages.h"
#include "server/rpc/run_on.h"

namespace relight::rpc {
namespace {

// Only what works.
constexpr std::string_view kExtensions[] = {"classification",      "model_repository",
                                            "model_configuration", "binary_tensor_data",
                                            "parameters",          "statistics"};

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerUnaryReactor* NotOffered(grpc::CallbackServerContext* context, std::string_view what) {
  return Answer(context, absl::UnimplementedError(Concat(what, " is not supported")));
}

absl::Status VersionNotLoaded(std::string_view model, std::int64_t version) {
  return absl::NotFoundError(
      Concat("model ", Escape(model), ": version ", version, " is not loaded"));
}

}  // namespace

InferenceService::InferenceService(InferenceServiceOptions options, InferEnvironment& environment,
                                   const HealthService& health, AdminPools& pools)
    : options_(std::move(options)),
      environment_(environment),
      core_(environment.core),
      health_(health),
      pools_(pools) {}

void InferenceService::EndStreams() {
  for (const std::shared_ptr<InferStream>& stream : streams_.Close()) stream->End();
}

grpc::ServerUnaryReactor* InferenceService::ModelInfer(Context* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  return InferCall::Start(environment_, *context, *request, *response);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* InferenceService::ModelStreamInfer(
    Context* context) {
  const auto stream = std::make_shared<InferStream>(environment_, streams_, *context);
  stream->Begin();
  return stream.get();
}

grpc::ServerUnaryReactor* InferenceService::ServerLive(Context* context,
                                                       const inference::ServerLiveRequest*,
                                                       inference::ServerLiveResponse* response) {
  response->set_live(true);
  return Answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::ServerReady(Context* context,
                                                        const inference::ServerReadyRequest*,
                                                        inference::ServerReadyResponse* response) {
  response->set_ready(core_.IsReady() && !health_.draining());
  return Answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::ModelReady(Context* context,
                                                       const inference::ModelReadyRequest* request,
                                                       inference::ModelReadyResponse* response) {
  const auto version = ParseModelVersion(request->version());
  if (!version.ok()) return Answer(context, version.status());
  const absl::StatusOr<bool> ready = core_.IsModelReady(request->name(), *version);
  if (!ready.ok()) return Answer(context, ready.status());
  response->set_ready(*ready && !health_.draining());
  return Answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::ServerMetadata(
    Context* context, const inference::ServerMetadataRequest*,
    inference::ServerMetadataResponse* response) {
  response->set_name(options_.server_name);
  response->set_version(options_.server_version);
  for (const std::string_view extension : kExtensions) {
    response->add_extensions(std::string(extension));
  }
  return Answer(context, absl::OkStatus());
}

absl::StatusOr<std::shared_ptr<const serving::ModelInfo>> InferenceService::FindModel(
    const std::string& name, const std::string& version) const {
  RELIGHT_ASSIGN_OR_RETURN(const std::optional<std::int64_t> wanted, ParseModelVersion(version));
  RELIGHT_ASSIGN_OR_RETURN(std::shared_ptr<const serving::ModelInfo> info,
                           core_.GetModelInfo(name));
  const auto& loaded = info->loaded_versions;
  if (wanted && std::find(loaded.begin(), loaded.end(), *wanted) == loaded.end()) {
    return VersionNotLoaded(name, *wanted);
  }
  return info;
}

grpc::ServerUnaryReactor* InferenceService::ModelMetadata(
    Context* context, const inference::ModelMetadataRequest* request,
    inference::ModelMetadataResponse* response) {
  const auto info = FindModel(request->name(), request->version());
  if (info.ok()) *response = ToMetadata(**info);
  return Answer(context, info.status());
}

grpc::ServerUnaryReactor* InferenceService::ModelConfig(
    Context* context, const inference::ModelConfigRequest* request,
    inference::ModelConfigResponse* response) {
  const auto info = FindModel(request->name(), request->version());
  if (info.ok()) *response->mutable_config() = ToConfig(**info);
  return Answer(context, info.status());
}

grpc::ServerUnaryReactor* InferenceService::ModelStatistics(
    Context* context, const inference::ModelStatisticsRequest* request,
    inference::ModelStatisticsResponse* response) {
  const auto version = ParseModelVersion(request->version());
  if (!version.ok()) return Answer(context, version.status());
  const auto rows = core_.GetStatistics(request->name(), *version);
  if (!rows.ok()) return Answer(context, rows.status());
  if (rows->empty() && version->has_value()) {
    return Answer(context, VersionNotLoaded(request->name(), **version));
  }
  for (const auto& [model, statistics] : *rows) {
    *response->add_model_stats() = ToStatistics(model, statistics);
  }
  return Answer(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* InferenceService::RepositoryIndex(
    Context* context, const inference::RepositoryIndexRequest* request,
    inference::RepositoryIndexResponse* response) {
  if (!request->repository_name().empty()) {
    return Answer(context, absl::UnimplementedError(
                               Concat("repository_name \"", Escape(request->repository_name()),
                                      "\": there is one repository; leave the name empty")));
  }
  return RunOn(pools_.queries, context, [this, request, response] {
    *response = ToIndex(core_.GetStatus(), request->ready());
    return absl::OkStatus();
  });
}

absl::Status InferenceService::CheckModelControl() const {
  if (options_.allow_model_control) return absl::OkStatus();
  return absl::UnavailableError(
      "loading and unloading are not allowed on this port: start relightd with "
      "--allow-model-control, or use the admin socket (--admin-socket)");
}

grpc::ServerUnaryReactor* InferenceService::RepositoryModelLoad(
    Context* context, const inference::RepositoryModelLoadRequest* request,
    inference::RepositoryModelLoadResponse*) {
  absl::Status status = CheckModelControl();
  if (status.ok()) status = CheckRepositoryRequest(*request);
  if (!status.ok()) return Answer(context, status);
  return RunOn(pools_.long_work, context, [this, request] {
    const absl::Status outcome = core_.Reload(request->model_name()).status();
    // What the protocol's clients expect where a checkpoint was refused.
    if (absl::IsFailedPrecondition(outcome)) return absl::InvalidArgumentError(outcome.message());
    return outcome;
  });
}

grpc::ServerUnaryReactor* InferenceService::RepositoryModelUnload(
    Context* context, const inference::RepositoryModelUnloadRequest* request,
    inference::RepositoryModelUnloadResponse*) {
  absl::Status status = CheckModelControl();
  if (status.ok()) status = CheckRepositoryRequest(*request);
  if (!status.ok()) return Answer(context, status);
  return RunOn(pools_.orders, context,
               [this, request] { return core_.Unload(request->model_name()).status(); });
}

#define RELIGHT_NOT_OFFERED(name, what)                                                \
  grpc::ServerUnaryReactor* InferenceService::name(                                    \
      Context* context, const inference::name##Request*, inference::name##Response*) { \
    return NotOffered(context, what);                                                  \
  }
RELIGHT_NOT_OFFERED(SystemSharedMemoryStatus, "system shared memory")
RELIGHT_NOT_OFFERED(SystemSharedMemoryRegister, "system shared memory")
RELIGHT_NOT_OFFERED(SystemSharedMemoryUnregister, "system shared memory")
RELIGHT_NOT_OFFERED(CudaSharedMemoryStatus, "CUDA shared memory")
RELIGHT_NOT_OFFERED(CudaSharedMemoryRegister, "CUDA shared memory")
RELIGHT_NOT_OFFERED(CudaSharedMemoryUnregister, "CUDA shared memory")
RELIGHT_NOT_OFFERED(TraceSetting, "tracing")
RELIGHT_NOT_OFFERED(LogSettings, "changing log settings over the wire")
#undef RELIGHT_NOT_OFFERED

}  // namespace relight::rpc
