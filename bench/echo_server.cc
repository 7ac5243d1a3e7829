// echo_server: a gRPC server without a model, which answers every ModelInfer with the same bytes:
// what the transport alone costs. It parses requests as a server must that uses the generated
// messages, or with --raw hands neither them nor its answers to protobuf.
//
// Prints "port=N" when it listens, and serves until it is killed.
#include <grpcpp/grpcpp.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/synchronization/mutex.h"
#include "inference/grpc_service.grpc.pb.h"

ABSL_FLAG(std::string, answer, "", "file with the answer, a serialised ModelInferResponse");
ABSL_FLAG(bool, raw, false, "parse nothing");

namespace relight::bench {
namespace {

grpc::ServerUnaryReactor* FinishWell(grpc::CallbackServerContext* context) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

class ParsingEcho final : public inference::GRPCInferenceService::CallbackService {
 public:
  explicit ParsingEcho(const std::string& answer) {
    if (!answer_.ParseFromString(answer)) std::cerr << "echo_server: the answer is no message\n";
  }

  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* /*request*/,
                                       inference::ModelInferResponse* response) override {
    *response = answer_;
    return FinishWell(context);
  }

 private:
  inference::ModelInferResponse answer_;
};

using RawService = inference::GRPCInferenceService::WithRawCallbackMethod_ModelInfer<
    inference::GRPCInferenceService::Service>;

class RawEcho final : public RawService {
 public:
  explicit RawEcho(const std::string& answer) {
    const grpc::Slice slice(answer);
    answer_ = grpc::ByteBuffer(&slice, 1);
  }

  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const grpc::ByteBuffer* /*request*/,
                                       grpc::ByteBuffer* response) override {
    *response = answer_;
    return FinishWell(context);
  }

 private:
  grpc::ByteBuffer answer_;
};

int Serve(const std::string& answer, bool raw) {
  ParsingEcho parsing(answer);
  RawEcho raw_echo(answer);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.SetMaxReceiveMessageSize(-1);
  if (raw) {
    builder.RegisterService(&raw_echo);
  } else {
    builder.RegisterService(&parsing);
  }
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::cout << "port=" << port << std::endl;
  server->Wait();
  return 0;
}

}  // namespace
}  // namespace relight::bench

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  // Debian builds Abseil with its search for deadlocks on, which costs gRPC a third.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  std::ifstream file(absl::GetFlag(FLAGS_answer), std::ios::binary);
  if (!file) {
    std::cerr << "echo_server: cannot read the answer\n";
    return 1;
  }
  const std::string answer{std::istreambuf_iterator<char>(file), {}};
  return relight::bench::Serve(answer, absl::GetFlag(FLAGS_raw));
}
