// inference.GRPCInferenceService. One instance per listener: they differ in what they allow.
#ifndef RELIGHT_SERVER_RPC_INFERENCE_SERVICE_H_
#define RELIGHT_SERVER_RPC_INFERENCE_SERVICE_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/rpc/admin_io.h"
#include "server/rpc/call_set.h"
#include "server/rpc/health_service.h"
#include "server/rpc/infer_call.h"

namespace relight::rpc {

struct InferenceServiceOptions {
  bool allow_model_control = false;
  std::string server_name;
  std::string server_version;
};

// The messages of the two inference calls stay bytes; the rest is parsed by protobuf.
// Innermost last; the order has no meaning.
using InferenceProtocol = inference::GRPCInferenceService;
using SharedMemoryMethods = InferenceProtocol::WithCallbackMethod_SystemSharedMemoryStatus<
    InferenceProtocol::WithCallbackMethod_SystemSharedMemoryRegister<
        InferenceProtocol::WithCallbackMethod_SystemSharedMemoryUnregister<
            InferenceProtocol::WithCallbackMethod_CudaSharedMemoryStatus<
                InferenceProtocol::WithCallbackMethod_CudaSharedMemoryRegister<
                    InferenceProtocol::WithCallbackMethod_CudaSharedMemoryUnregister<
                        InferenceProtocol::Service>>>>>>;
using ControlMethods = InferenceProtocol::WithCallbackMethod_RepositoryIndex<
    InferenceProtocol::WithCallbackMethod_RepositoryModelLoad<
        InferenceProtocol::WithCallbackMethod_RepositoryModelUnload<
            InferenceProtocol::WithCallbackMethod_TraceSetting<
                InferenceProtocol::WithCallbackMethod_LogSettings<SharedMemoryMethods>>>>>;
using QueryMethods = InferenceProtocol::WithCallbackMethod_ServerLive<
    InferenceProtocol::WithCallbackMethod_ServerReady<
        InferenceProtocol::WithCallbackMethod_ServerMetadata<
            InferenceProtocol::WithCallbackMethod_ModelReady<
                InferenceProtocol::WithCallbackMethod_ModelMetadata<
                    InferenceProtocol::WithCallbackMethod_ModelConfig<
                        InferenceProtocol::WithCallbackMethod_ModelStatistics<ControlMethods>>>>>>>;
using InferenceServiceBase = InferenceProtocol::WithRawCallbackMethod_ModelInfer<
    InferenceProtocol::WithRawCallbackMethod_ModelStreamInfer<QueryMethods>>;

// Thread-safe. Everything given must outlive the service, and the service its server.
class InferenceService final : public InferenceServiceBase {
 public:
  InferenceService(InferenceServiceOptions options, InferEnvironment& environment,
                   const HealthService& health, AdminPools& pools);

  // Ends the streams that are open, and those to come at once.
  void EndStreams();
  bool WaitStreamsInTime(absl::Time deadline) { return streams_.WaitInTime(deadline); }
  void WaitStreamsDone() { streams_.WaitNone(); }

 private:
  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;

  using InferenceServiceBase::ModelInfer;
  using InferenceServiceBase::ModelStreamInfer;
  Unary* ModelInfer(Context* context, const grpc::ByteBuffer* request,
                    grpc::ByteBuffer* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ModelStreamInfer(
      Context* context) override;

#define RELIGHT_UNARY(name)                                              \
  using InferenceServiceBase::name;                                      \
  Unary* name(Context* context, const inference::name##Request* request, \
              inference::name##Response* response) override;
  RELIGHT_UNARY(ServerLive)
  RELIGHT_UNARY(ServerReady)
  RELIGHT_UNARY(ModelReady)
  RELIGHT_UNARY(ServerMetadata)
  RELIGHT_UNARY(ModelMetadata)
  RELIGHT_UNARY(ModelConfig)
  RELIGHT_UNARY(ModelStatistics)
  RELIGHT_UNARY(RepositoryIndex)
  RELIGHT_UNARY(RepositoryModelLoad)
  RELIGHT_UNARY(RepositoryModelUnload)
  RELIGHT_UNARY(SystemSharedMemoryStatus)
  RELIGHT_UNARY(SystemSharedMemoryRegister)
  RELIGHT_UNARY(SystemSharedMemoryUnregister)
  RELIGHT_UNARY(CudaSharedMemoryStatus)
  RELIGHT_UNARY(CudaSharedMemoryRegister)
  RELIGHT_UNARY(CudaSharedMemoryUnregister)
  RELIGHT_UNARY(TraceSetting)
  RELIGHT_UNARY(LogSettings)
#undef RELIGHT_UNARY

  absl::Status CheckModelControl() const;
  absl::StatusOr<std::shared_ptr<const serving::ModelInfo>> FindModel(
      const std::string& name, const std::string& version) const;

  const InferenceServiceOptions options_;
  InferEnvironment& environment_;
  serving::ServerCore& core_;
  const HealthService& health_;
  AdminPools& pools_;
  CallSet<InferStream> streams_;
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_INFERENCE_SERVICE_H_
