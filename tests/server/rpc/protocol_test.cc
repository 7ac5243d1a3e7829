// The calls of the inference service other than inference, and reflection.
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/grpcpp.h>

#include "tests/server/rpc/server_fixture.h"

namespace relight::rpc {
namespace {

using grpc::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ProtocolTest : public ServerTest {
 protected:
  // Calls `method` of the stub; the outcome is in status_.
  template <typename Request, typename Response>
  Response Call(grpc::Status (inference::GRPCInferenceService::Stub::*method)(grpc::ClientContext*,
                                                                              const Request&,
                                                                              Response*),
                const Request& request) {
    grpc::ClientContext context;
    Response response;
    status_ = (stub_.get()->*method)(&context, request, &response);
    return response;
  }

  grpc::Status status_;
};

using Stub = inference::GRPCInferenceService::Stub;

template <typename Request>
Request Named(const std::string& name, const std::string& version = "") {
  Request request;
  request.set_name(name);
  request.set_version(version);
  return request;
}

TEST_F(ProtocolTest, ServerIsLiveAndReadyWhenTheCoreIs) {
  EXPECT_TRUE(Call(&Stub::ServerLive, inference::ServerLiveRequest()).live());
  EXPECT_TRUE(Call(&Stub::ServerReady, inference::ServerReadyRequest()).ready());
  core_.SetReady(false);
  EXPECT_TRUE(Call(&Stub::ServerLive, inference::ServerLiveRequest()).live());
  EXPECT_FALSE(Call(&Stub::ServerReady, inference::ServerReadyRequest()).ready());
}

TEST_F(ProtocolTest, ServerMetadataListsOnlyWhatWorks) {
  const auto metadata = Call(&Stub::ServerMetadata, inference::ServerMetadataRequest());
  EXPECT_EQ(metadata.name(), "relight");
  EXPECT_EQ(metadata.version(), "1.2.3");
  EXPECT_THAT(
      metadata.extensions(),
      testing::UnorderedElementsAre("classification", "model_repository", "model_configuration",
                                    "binary_tensor_data", "parameters", "statistics"));
}

TEST_F(ProtocolTest, ModelReadyAnswersForAVersion) {
  using Request = inference::ModelReadyRequest;
  EXPECT_TRUE(Call(&Stub::ModelReady, Named<Request>("echo")).ready());
  EXPECT_TRUE(Call(&Stub::ModelReady, Named<Request>("echo", "7")).ready());
  EXPECT_FALSE(Call(&Stub::ModelReady, Named<Request>("echo", "8")).ready());
  Call(&Stub::ModelReady, Named<Request>("echo", "new"));
  EXPECT_EQ(status_.error_code(), StatusCode::INVALID_ARGUMENT);
  Call(&Stub::ModelReady, Named<Request>("nobody"));
  EXPECT_EQ(status_.error_code(), StatusCode::NOT_FOUND);
}

TEST_F(ProtocolTest, MetadataHasTheBatchDimensionAndConfigDoesNot) {
  const auto metadata =
      Call(&Stub::ModelMetadata, Named<inference::ModelMetadataRequest>("echo", "12"));
  ASSERT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_EQ(metadata.name(), "echo");
  EXPECT_EQ(metadata.platform(), "relight_network");
  EXPECT_THAT(metadata.versions(), ElementsAre("12", "7"));
  ASSERT_EQ(metadata.inputs_size(), 1);
  EXPECT_EQ(metadata.inputs(0).name(), "x");
  EXPECT_EQ(metadata.inputs(0).datatype(), "FP32");
  EXPECT_THAT(metadata.inputs(0).shape(), ElementsAre(-1, 4));
  EXPECT_THAT(metadata.properties(), IsEmpty());

  const auto config =
      Call(&Stub::ModelConfig, Named<inference::ModelConfigRequest>("echo")).config();
  ASSERT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_EQ(config.max_batch_size(), 8);
  EXPECT_EQ(config.input(0).data_type(), inference::TYPE_FP32);
  EXPECT_THAT(config.input(0).dims(), ElementsAre(4));
  EXPECT_THAT(config.output(0).dims(), ElementsAre(4));
  EXPECT_THAT(config.dynamic_batching().preferred_batch_size(), ElementsAre(4, 8));
  EXPECT_EQ(config.dynamic_batching().max_queue_delay_microseconds(), 250U);
  EXPECT_EQ(config.dynamic_batching().default_queue_policy().max_queue_size(), 100U);
  EXPECT_EQ(config.instance_group(0).kind(), inference::ModelInstanceGroup::KIND_CPU);
  EXPECT_FALSE(config.model_transaction_policy().decoupled());
}

TEST_F(ProtocolTest, ConfigShowsLevelsOfPriorityAndTheirPolicies) {
  auto info = std::make_shared<serving::ModelInfo>();
  info->name = "echo";
  info->batching.levels.resize(2);
  info->batching.default_level = 1;
  info->batching.max_queue_size = 100;
  info->batching.levels[0].default_timeout = absl::Milliseconds(5);
  info->batching.levels[1] = {
      .allow_timeout_override = false, .delay_late = true, .max_queue_size = 7};
  core_.SetInfo(info);
  const auto batching = Call(&Stub::ModelConfig, Named<inference::ModelConfigRequest>("echo"))
                            .config()
                            .dynamic_batching();
  EXPECT_EQ(batching.priority_levels(), 2U);
  EXPECT_EQ(batching.default_priority_level(), 2U);
  EXPECT_EQ(batching.default_queue_policy().max_queue_size(), 100U);
  const inference::ModelQueuePolicy& first = batching.priority_queue_policy().at(1);
  EXPECT_EQ(first.timeout_action(), inference::ModelQueuePolicy::REJECT);
  EXPECT_EQ(first.default_timeout_microseconds(), 5000U);
  EXPECT_TRUE(first.allow_timeout_override());
  EXPECT_EQ(first.max_queue_size(), 0U) << "no limit of its own";
  const inference::ModelQueuePolicy& second = batching.priority_queue_policy().at(2);
  EXPECT_EQ(second.timeout_action(), inference::ModelQueuePolicy::DELAY);
  EXPECT_EQ(second.default_timeout_microseconds(), 0U);
  EXPECT_FALSE(second.allow_timeout_override());
  EXPECT_EQ(second.max_queue_size(), 7U);
}

TEST_F(ProtocolTest, ConfigOfAModelWithoutBatchesKeepsItsShape) {
  auto info = std::make_shared<serving::ModelInfo>();
  info->name = "echo";
  info->inputs = {{"x", DType::kInt64, {2, 3}, 0}};
  core_.SetInfo(info);
  const auto config =
      Call(&Stub::ModelConfig, Named<inference::ModelConfigRequest>("echo")).config();
  EXPECT_EQ(config.max_batch_size(), 0);
  EXPECT_THAT(config.input(0).dims(), ElementsAre(2, 3));
  EXPECT_FALSE(config.has_dynamic_batching());
}

TEST_F(ProtocolTest, UnknownModelsAndVersionsAreNotFound) {
  Call(&Stub::ModelMetadata, Named<inference::ModelMetadataRequest>("nobody"));
  EXPECT_EQ(status_.error_code(), StatusCode::NOT_FOUND);
  Call(&Stub::ModelMetadata, Named<inference::ModelMetadataRequest>("echo", "8"));
  EXPECT_EQ(status_.error_code(), StatusCode::NOT_FOUND);
  Call(&Stub::ModelConfig, Named<inference::ModelConfigRequest>("echo", "8"));
  EXPECT_EQ(status_.error_code(), StatusCode::NOT_FOUND);
  Call(&Stub::ModelStatistics, Named<inference::ModelStatisticsRequest>("nobody"));
  EXPECT_EQ(status_.error_code(), StatusCode::NOT_FOUND);
  Call(&Stub::ModelStatistics, Named<inference::ModelStatisticsRequest>("echo", "8"));
  EXPECT_EQ(status_.error_code(), StatusCode::NOT_FOUND);
  Call(&Stub::ModelMetadata, Named<inference::ModelMetadataRequest>("echo", "x"));
  EXPECT_EQ(status_.error_code(), StatusCode::INVALID_ARGUMENT);
}

TEST_F(ProtocolTest, StatisticsCarryEveryNumberOfTheVersion) {
  serving::VersionStatistics statistics;
  statistics.version = 12;
  statistics.last_inference = absl::FromUnixMillis(1'700'000'000'123);
  statistics.inference_count = 30;
  statistics.execution_count = 10;
  statistics.success = {20, 2000};
  statistics.fail = {1, 5};
  statistics.queue = {20, 300};
  statistics.compute_input = {20, 1};
  statistics.compute_infer = {20, 2};
  statistics.compute_output = {20, 3};
  statistics.batches = {{4, {5, 6}, {7, 8}, {9, 10}}};
  core_.SetStatistics({}, statistics);
  const auto response = Call(&Stub::ModelStatistics, inference::ModelStatisticsRequest());
  ASSERT_TRUE(status_.ok()) << status_.error_message();
  ASSERT_EQ(response.model_stats_size(), 1);
  const auto& row = response.model_stats(0);
  EXPECT_EQ(row.name(), "echo");
  EXPECT_EQ(row.version(), "12");
  EXPECT_EQ(row.last_inference(), 1'700'000'000'123U);
  EXPECT_EQ(row.inference_count(), 30U);
  EXPECT_EQ(row.execution_count(), 10U);
  EXPECT_EQ(row.inference_stats().success().count(), 20U);
  EXPECT_EQ(row.inference_stats().success().ns(), 2000U);
  EXPECT_EQ(row.inference_stats().fail().count(), 1U);
  EXPECT_EQ(row.inference_stats().queue().ns(), 300U);
  EXPECT_EQ(row.inference_stats().compute_input().ns(), 1U);
  EXPECT_EQ(row.inference_stats().compute_infer().ns(), 2U);
  EXPECT_EQ(row.inference_stats().compute_output().ns(), 3U);
  ASSERT_EQ(row.batch_stats_size(), 1);
  EXPECT_EQ(row.batch_stats(0).batch_size(), 4U);
  EXPECT_EQ(row.batch_stats(0).compute_infer().count(), 7U);
}

serving::ModelStatus StatusWithVersions() {
  serving::ModelStatus status;
  status.name = "echo";
  status.state = serving::ModelState::kServing;
  for (const std::int64_t version : {12, 7}) status.loaded.emplace_back().version = version;
  serving::CandidateStatus& refused = status.candidates.emplace_back();
  refused.file = "step-13.pt";
  refused.version = 13;
  refused.state = serving::VersionState::kRefused;
  refused.reason = "parameter fc1.weight: wrong shape";
  serving::CandidateStatus& served = status.candidates.emplace_back();
  served.file = "step-12.pt";
  served.version = 12;
  served.state = serving::VersionState::kServing;
  return status;
}

TEST_F(ProtocolTest, IndexHasARowPerVersion) {
  core_.SetStatus(StatusWithVersions());
  const auto index = Call(&Stub::RepositoryIndex, inference::RepositoryIndexRequest());
  ASSERT_EQ(index.models_size(), 3);
  EXPECT_EQ(index.models(0).version(), "12");
  EXPECT_EQ(index.models(0).state(), "READY");
  EXPECT_EQ(index.models(2).version(), "13");
  EXPECT_EQ(index.models(2).state(), "UNAVAILABLE");
  EXPECT_EQ(index.models(2).reason(), "parameter fc1.weight: wrong shape");
  inference::RepositoryIndexRequest ready;
  ready.set_ready(true);
  EXPECT_EQ(Call(&Stub::RepositoryIndex, ready).models_size(), 2);
}

TEST_F(ProtocolTest, IndexNamesAModelThatHasNotServed) {
  serving::ModelStatus status;
  status.name = "echo";
  status.reason = "no checkpoint yet";
  core_.SetStatus(status);
  const auto index = Call(&Stub::RepositoryIndex, inference::RepositoryIndexRequest());
  ASSERT_EQ(index.models_size(), 1);
  EXPECT_EQ(index.models(0).version(), "");
  EXPECT_EQ(index.models(0).reason(), "no checkpoint yet");
}

TEST_F(ProtocolTest, LongNamesAreNotCut) {
  const std::string name(300, 'n');
  serving::ModelStatus status;
  status.name = name;
  status.loaded.emplace_back().version = 1;
  core_.SetStatus(status);
  const auto index = Call(&Stub::RepositoryIndex, inference::RepositoryIndexRequest());
  ASSERT_EQ(index.models_size(), 1);
  EXPECT_EQ(index.models(0).name(), name);

  auto info = std::make_shared<serving::ModelInfo>();
  info->name = name;
  info->inputs = {{name, DType::kFloat32, {-1, 4}, 0}};
  core_.SetInfo(info);
  const auto metadata = Call(&Stub::ModelMetadata, Named<inference::ModelMetadataRequest>("echo"));
  EXPECT_EQ(metadata.name(), name);
  EXPECT_EQ(metadata.inputs(0).name(), name);
  const auto config = Call(&Stub::ModelConfig, Named<inference::ModelConfigRequest>("echo"));
  EXPECT_EQ(config.config().name(), name);
  EXPECT_EQ(config.config().input(0).name(), name);
}

TEST_F(ProtocolTest, ARepositoryNameIsUnimplemented) {
  inference::RepositoryIndexRequest request;
  request.set_repository_name("other");
  Call(&Stub::RepositoryIndex, request);
  EXPECT_EQ(status_.error_code(), StatusCode::UNIMPLEMENTED);
}

TEST_F(ProtocolTest, LoadAndUnloadOnThePublicPortAreUnavailableNamingTheFlag) {
  inference::RepositoryModelLoadRequest load;
  load.set_model_name("echo");
  Call(&Stub::RepositoryModelLoad, load);
  EXPECT_EQ(status_.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(status_.error_message(), HasSubstr("--allow-model-control"));
  inference::RepositoryModelUnloadRequest unload;
  unload.set_model_name("echo");
  Call(&Stub::RepositoryModelUnload, unload);
  EXPECT_EQ(status_.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(core_.calls(), IsEmpty());
}

TEST_F(ProtocolTest, BytesThatAreNoMessageAreInvalidNamingTheMethod) {
  for (const std::string method :
       {"/inference.GRPCInferenceService/ModelReady",
        "/inference.GRPCInferenceService/SystemSharedMemoryStatus", "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch"}) {
    const grpc::Status status = CallWithBytes(channel_, method, "\xff\xff\xff");
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << method;
    EXPECT_THAT(status.error_message(), HasSubstr(method));
  }
}

TEST_F(ProtocolTest, MethodsThatAreNotThereAreUnimplementedWhateverTheirBytes) {
  for (const std::string method : {"/inference.GRPCInferenceService/NoSuch",
                                   "/relight.v1.Admin/GetStatus", "/no.Service/ModelReady"}) {
    EXPECT_EQ(CallWithBytes(channel_, method, "\xff\xff\xff").error_code(),
              StatusCode::UNIMPLEMENTED)
        << method;
  }
}

TEST_F(ProtocolTest, WhatIsNotOfferedIsUnimplemented) {
  const auto expect = [this](auto method, const auto& request) {
    Call(method, request);
    EXPECT_EQ(status_.error_code(), StatusCode::UNIMPLEMENTED);
    EXPECT_THAT(status_.error_message(), HasSubstr("not supported"));
  };
  expect(&Stub::SystemSharedMemoryStatus, inference::SystemSharedMemoryStatusRequest());
  expect(&Stub::SystemSharedMemoryRegister, inference::SystemSharedMemoryRegisterRequest());
  expect(&Stub::SystemSharedMemoryUnregister, inference::SystemSharedMemoryUnregisterRequest());
  expect(&Stub::CudaSharedMemoryStatus, inference::CudaSharedMemoryStatusRequest());
  expect(&Stub::CudaSharedMemoryRegister, inference::CudaSharedMemoryRegisterRequest());
  expect(&Stub::CudaSharedMemoryUnregister, inference::CudaSharedMemoryUnregisterRequest());
  expect(&Stub::TraceSetting, inference::TraceSettingRequest());
  expect(&Stub::LogSettings, inference::LogSettingsRequest());
}

class ModelControlTest : public ProtocolTest {
 protected:
  RpcOptions Options() override {
    RpcOptions options = ProtocolTest::Options();
    options.allow_model_control = true;
    return options;
  }
  void Load(const std::string& model) {
    inference::RepositoryModelLoadRequest request;
    request.set_model_name(model);
    Call(&Stub::RepositoryModelLoad, request);
  }
};

TEST_F(ModelControlTest, LoadReloadsAndUnloadUnloads) {
  Load("echo");
  EXPECT_TRUE(status_.ok()) << status_.error_message();
  inference::RepositoryModelUnloadRequest unload;
  unload.set_model_name("echo");
  (*unload.mutable_parameters())["unload_dependents"].set_bool_param(false);
  Call(&Stub::RepositoryModelUnload, unload);
  EXPECT_TRUE(status_.ok()) << status_.error_message();
  EXPECT_THAT(core_.calls(), ElementsAre("reload", "unload"));
}

TEST_F(ModelControlTest, RefusedCheckpointIsInvalidWithTheReason) {
  core_.SetAdminOutcome(absl::FailedPreconditionError("step-13.pt: parameter fc1.weight is NaN"));
  Load("echo");
  EXPECT_EQ(status_.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status_.error_message(), HasSubstr("fc1.weight is NaN"));
}

TEST_F(ModelControlTest, NamesThatArePathsAreInvalidAndOddNamesAreJustUnknown) {
  for (const char* name : {"", " ", "\t", "..", "../etc", "model/", "/etc/passwd", " .."}) {
    Load(name);
    EXPECT_EQ(status_.error_code(), StatusCode::INVALID_ARGUMENT) << name;
  }
  for (const char* name : {"...", "..my_model", "model..1"}) {
    Load(name);
    EXPECT_EQ(status_.error_code(), StatusCode::NOT_FOUND) << name;
  }
}

TEST_F(ModelControlTest, ConfigsAndFilesOverTheWireAreInvalid) {
  for (const char* key : {"config", "file:1/model.pt"}) {
    inference::RepositoryModelLoadRequest request;
    request.set_model_name("echo");
    (*request.mutable_parameters())[key].set_string_param("{}");
    Call(&Stub::RepositoryModelLoad, request);
    EXPECT_EQ(status_.error_code(), StatusCode::INVALID_ARGUMENT) << key;
  }
  inference::RepositoryModelLoadRequest request;
  request.set_model_name("echo");
  request.set_repository_name("other");
  Call(&Stub::RepositoryModelLoad, request);
  EXPECT_EQ(status_.error_code(), StatusCode::UNIMPLEMENTED);
}

// --- reflection ---

// The reflection protocol's messages are in gRPC's library, but no header of theirs is installed.
std::unique_ptr<google::protobuf::Message> NewMessage(const std::string& name) {
  const auto* descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(name);
  return std::unique_ptr<google::protobuf::Message>(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
}

class ReflectionTest : public ServerTest {
 protected:
  // One question and its answer, both as text.
  std::string Ask(const std::string& question) {
    const auto request = NewMessage("grpc.reflection.v1alpha.ServerReflectionRequest");
    const auto response = NewMessage("grpc.reflection.v1alpha.ServerReflectionResponse");
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(question, request.get()));
    const grpc::Slice slice(request->SerializeAsString());
    grpc::ByteBuffer answer;
    Exchange(grpc::ByteBuffer(&slice, 1), answer);
    grpc::Slice flat;
    EXPECT_TRUE(answer.DumpToSingleSlice(&flat).ok());
    EXPECT_TRUE(response->ParseFromArray(flat.begin(), static_cast<int>(flat.size())));
    return response->ShortDebugString();
  }

 private:
  void Exchange(const grpc::ByteBuffer& question, grpc::ByteBuffer& answer) {
    grpc::GenericStub generic(channel_);
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    const auto next = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      EXPECT_TRUE(queue.Next(&tag, &ok) && ok);
    };
    const auto stream = generic.PrepareCall(
        &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
    stream->StartCall(nullptr);
    next();
    stream->Write(question, nullptr);
    next();
    stream->Read(&answer, nullptr);
    next();
    stream->WritesDone(nullptr);
    next();
    grpc::Status status;
    stream->Finish(&status, nullptr);
    next();
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
};

TEST_F(ReflectionTest, ListsTheServicesOfThePublicPort) {
  const std::string services = Ask("list_services: ''");
  EXPECT_THAT(services, HasSubstr("\"inference.GRPCInferenceService\""));
  EXPECT_THAT(services, HasSubstr("\"grpc.health.v1.Health\""));
  EXPECT_THAT(services, testing::Not(HasSubstr("relight.v1.Admin")));
}

TEST_F(ReflectionTest, DescribesEachService) {
  for (const char* service : {"inference.GRPCInferenceService", "grpc.health.v1.Health"}) {
    const std::string file = Ask("file_containing_symbol: '" + std::string(service) + "'");
    EXPECT_THAT(file, HasSubstr("file_descriptor_proto")) << service;
    EXPECT_THAT(file, testing::Not(HasSubstr("error_response"))) << service;
  }
}

TEST(StartTest, PortInUseIsUnavailableNamingTheFlag) {
  FakeCore core;
  RpcOptions options;
  options.grpc_address = "127.0.0.1";
  options.grpc_port = 0;
  options.metrics_port = -1;
  auto first = StartRpcServer(options, core);
  ASSERT_TRUE(first.ok()) << first.status();
  options.grpc_port = (*first)->grpc_port();
  const auto second = StartRpcServer(options, core);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("--grpc-port"));
  EXPECT_FALSE(core.drained());
}

}  // namespace
}  // namespace relight::rpc
