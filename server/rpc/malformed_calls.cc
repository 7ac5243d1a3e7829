#include "server/rpc/malformed_calls.h"

#include <google/protobuf/descriptor.h>

#include <utility>

#include "absl/status/status.h"
#include "server/rpc/concat.h"
#include "server/rpc/grpc_status.h"

namespace relight::rpc {
namespace {

using grpc::experimental::InterceptionHookPoints;

class Interceptor final : public grpc::experimental::Interceptor {
 public:
  explicit Interceptor(std::string method) : method_(std::move(method)) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = methods->GetSendStatus();
      // Our own refusals all have a message.
      if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED &&
          status.error_message().empty()) {
        methods->ModifySendStatus(ToGrpcStatus(absl::InvalidArgumentError(
            Concat("the request is malformed: its bytes are not the message that ", method_,
                   " takes; see the .proto file"))));
      }
    }
    methods->Proceed();
  }

 private:
  const std::string method_;
};

}  // namespace

MalformedCalls::MalformedCalls(const std::vector<std::string>& services) {
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  for (const std::string& name : services) {
    const google::protobuf::ServiceDescriptor* service = pool->FindServiceByName(name);
    for (int i = 0; service != nullptr && i < service->method_count(); ++i) {
      methods_.insert(Concat("/", name, "/", service->method(i)->name()));
    }
  }
  for (const char* raw : {"ModelInfer", "ModelStreamInfer"}) {
    methods_.erase(Concat("/inference.GRPCInferenceService/", raw));
  }
}

grpc::experimental::Interceptor* MalformedCalls::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  const auto it = methods_.find(info->method());
  return it == methods_.end() ? nullptr : new Interceptor(*it);  // gRPC owns it.
}

}  // namespace relight::rpc
