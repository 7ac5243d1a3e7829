// A server over a FakeCore on free loopback ports, and a client.
#ifndef RELIGHT_TESTS_SERVER_RPC_SERVER_FIXTURE_H_
#define RELIGHT_TESTS_SERVER_RPC_SERVER_FIXTURE_H_

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/rpc/rpc_server.h"
#include "tests/server/rpc/fake_core.h"

namespace relight::rpc {

inline std::string FloatBytes(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// A well-formed request: input "x" FP32 [rows, 4], raw.
inline inference::ModelInferRequest RawRequest(int rows = 1) {
  inference::ModelInferRequest request;
  request.set_model_name("echo");
  auto* input = request.add_inputs();
  input->set_name("x");
  input->set_datatype("FP32");
  input->add_shape(rows);
  input->add_shape(4);
  std::vector<float> values;
  for (int i = 0; i < rows * 4; ++i) values.push_back(static_cast<float>(i));
  request.add_raw_input_contents(FloatBytes(values));
  return request;
}

// Calls a unary method with bytes that need not be its message. What the callback touches is behind
// a mutex: ThreadSanitizer sees no other order between the threads of gRPC and this one.
inline grpc::Status CallWithBytes(const std::shared_ptr<grpc::Channel>& channel,
                                  const std::string& method, const std::string& bytes) {
  grpc::GenericStub generic(channel);
  grpc::ClientContext context;
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  Mutex mutex;
  CondVar answered;
  std::optional<grpc::Status> outcome;
  { const MutexLock order(mutex); }
  generic.UnaryCall(&context, method, {}, &request, &response, [&](grpc::Status status) {
    const MutexLock lock(mutex);
    outcome = std::move(status);
    answered.SignalAll();
  });
  const MutexLock lock(mutex);
  while (!outcome.has_value()) answered.Wait(mutex);
  return *outcome;
}

class ServerTest : public testing::Test {
 protected:
  void SetUp() override {
    RpcOptions options = Options();
    auto server = StartRpcServer(options, core_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    channel_ = Connect("127.0.0.1:" + std::to_string(server_->grpc_port()));
    stub_ = inference::GRPCInferenceService::NewStub(channel_);
  }
  void TearDown() override {
    core_.Release();
    server_.reset();
  }

  virtual RpcOptions Options() {
    RpcOptions options;
    options.grpc_address = "127.0.0.1";
    options.grpc_port = 0;
    options.metrics_port = -1;
    options.server_version = "1.2.3";
    return options;
  }

  static std::shared_ptr<grpc::Channel> Connect(const std::string& target) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetMaxSendMessageSize(-1);
    // Each test has connections of its own.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  }

  grpc::Status Infer(const inference::ModelInferRequest& request) {
    grpc::ClientContext context;
    response_.Clear();
    return stub_->ModelInfer(&context, request, &response_);
  }

  FakeCore core_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> stub_;
  inference::ModelInferResponse response_;
};

}  // namespace relight::rpc

#endif  // RELIGHT_TESTS_SERVER_RPC_SERVER_FIXTURE_H_
