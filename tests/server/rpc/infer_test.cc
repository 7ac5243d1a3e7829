// ModelInfer over the wire: what is answered, what is refused and with which code.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>

#include <functional>
#include <future>

#include "tests/server/rpc/server_fixture.h"

namespace relight::rpc {
namespace {

using grpc::StatusCode;
using inference::ModelInferRequest;
using testing::ElementsAre;
using testing::HasSubstr;

class InferTest : public ServerTest {
 protected:
  void ExpectRefused(const ModelInferRequest& request, StatusCode code, const std::string& text) {
    const grpc::Status status = Infer(request);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(text));
  }
};

// Input "x" without data.
ModelInferRequest Typed(const std::string& datatype, const std::vector<std::int64_t>& shape) {
  ModelInferRequest request;
  request.set_model_name("echo");
  auto* input = request.add_inputs();
  input->set_name("x");
  input->set_datatype(datatype);
  for (const std::int64_t dim : shape) input->add_shape(dim);
  return request;
}

TEST_F(InferTest, RawRequestGetsRawAnswerWithItsIdentity) {
  ModelInferRequest request = RawRequest(2);
  request.set_id("call-1");
  ASSERT_TRUE(Infer(request).ok());
  EXPECT_EQ(response_.model_name(), "echo");
  EXPECT_EQ(response_.model_version(), "12");
  EXPECT_EQ(response_.id(), "call-1");
  EXPECT_EQ(response_.parameters().at("generation").int64_param(), 3);
  EXPECT_EQ(response_.parameters().at("weights_digest").string_param(), "00ff");
  EXPECT_EQ(response_.parameters().count("triton_final_response"), 0U);
  ASSERT_EQ(response_.outputs_size(), 1);
  EXPECT_EQ(response_.outputs(0).name(), "y");
  EXPECT_EQ(response_.outputs(0).datatype(), "FP32");
  EXPECT_THAT(response_.outputs(0).shape(), ElementsAre(2, 4));
  EXPECT_FALSE(response_.outputs(0).has_contents());
  EXPECT_THAT(response_.raw_output_contents(), ElementsAre(request.raw_input_contents(0)));
}

TEST_F(InferTest, LargeTensorSurvivesTheTripInSlices) {
  ModelInferRequest request = RawRequest(1);
  std::string bytes(40 << 20, '\0');
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 >> 3);
  request.set_raw_input_contents(0, bytes);
  ASSERT_TRUE(Infer(request).ok());
  ASSERT_EQ(response_.raw_output_contents_size(), 1);
  EXPECT_TRUE(response_.raw_output_contents(0) == bytes);
}

TEST_F(InferTest, ZeroSizeOutputHasAnEmptyRawEntry) {
  ModelInferRequest request = RawRequest(0);
  ASSERT_TRUE(Infer(request).ok());
  EXPECT_THAT(response_.raw_output_contents(), ElementsAre(""));
}

TEST_F(InferTest, SeveralInputsKeepTheirOrder) {
  ModelInferRequest request = RawRequest();
  auto* second = request.add_inputs();
  second->set_name("mask");
  second->set_datatype("BOOL");
  second->add_shape(2);
  request.add_raw_input_contents(std::string("\1\0", 2));
  ASSERT_TRUE(Infer(request).ok());
  ASSERT_EQ(response_.outputs_size(), 2);
  EXPECT_EQ(response_.outputs(1).datatype(), "BOOL");
  EXPECT_EQ(response_.raw_output_contents(1), std::string("\1\0", 2));
}

TEST_F(InferTest, TypedRequestGetsTypedAnswerInEveryDatatype) {
  struct Case {
    const char* datatype;
    std::function<void(inference::InferTensorContents&)> fill;
  };
  const Case cases[] = {
      {"BOOL", [](auto& c) { c.add_bool_contents(true), c.add_bool_contents(false); }},
      {"INT8", [](auto& c) { c.add_int_contents(-128), c.add_int_contents(127); }},
      {"INT16", [](auto& c) { c.add_int_contents(-32768), c.add_int_contents(32767); }},
      {"INT32", [](auto& c) { c.add_int_contents(INT32_MIN), c.add_int_contents(INT32_MAX); }},
      {"INT64", [](auto& c) { c.add_int64_contents(INT64_MIN), c.add_int64_contents(INT64_MAX); }},
      {"UINT8", [](auto& c) { c.add_uint_contents(0), c.add_uint_contents(255); }},
      {"UINT16", [](auto& c) { c.add_uint_contents(1), c.add_uint_contents(65535); }},
      {"UINT32", [](auto& c) { c.add_uint_contents(1), c.add_uint_contents(UINT32_MAX); }},
      {"UINT64", [](auto& c) { c.add_uint64_contents(1), c.add_uint64_contents(UINT64_MAX); }},
      {"FP32", [](auto& c) { c.add_fp32_contents(-0.5F), c.add_fp32_contents(1e30F); }},
      {"FP64", [](auto& c) { c.add_fp64_contents(-0.5), c.add_fp64_contents(1e300); }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.datatype);
    ModelInferRequest request = Typed(c.datatype, {2});
    c.fill(*request.mutable_inputs(0)->mutable_contents());
    const grpc::Status status = Infer(request);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response_.raw_output_contents_size(), 0);
    ASSERT_EQ(response_.outputs_size(), 1);
    EXPECT_EQ(response_.outputs(0).contents().SerializeAsString(),
              request.inputs(0).contents().SerializeAsString());
  }
}

TEST_F(InferTest, TypedRequestForAHalfPrecisionOutputGetsRawAnswers) {
  core_.SetHandler([](const serving::InferRequest&) {
    serving::InferResult result;
    result.outputs.push_back(MakeOutput("a", DType::kFloat32, {1}, std::string(4, '\1')));
    result.outputs.push_back(MakeOutput("b", DType::kBFloat16, {1}, "hi"));
    return result;
  });
  ModelInferRequest request = Typed("FP32", {1});
  request.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
  ASSERT_TRUE(Infer(request).ok());
  EXPECT_THAT(response_.raw_output_contents(), ElementsAre(std::string(4, '\1'), "hi"));
}

TEST_F(InferTest, AParameterChoosesTheFormOfTheAnswer) {
  ModelInferRequest typed = Typed("FP32", {1});
  typed.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
  (*typed.mutable_parameters())["binary_data_output"].set_bool_param(true);
  ASSERT_TRUE(Infer(typed).ok());
  EXPECT_THAT(response_.raw_output_contents(), ElementsAre(FloatBytes({1})));

  ModelInferRequest raw = RawRequest();
  (*raw.mutable_parameters())["binary_data_output"].set_bool_param(false);
  ASSERT_TRUE(Infer(raw).ok());
  EXPECT_THAT(response_.outputs(0).contents().fp32_contents(), ElementsAre(0, 1, 2, 3));
}

TEST_F(InferTest, HalfPrecisionTravelsAsRawBytes) {
  for (const char* datatype : {"FP16", "BF16"}) {
    ModelInferRequest request = Typed(datatype, {2});
    request.add_raw_input_contents("abcd");
    ASSERT_TRUE(Infer(request).ok());
    EXPECT_EQ(response_.outputs(0).datatype(), datatype);
    EXPECT_THAT(response_.raw_output_contents(), ElementsAre("abcd"));
  }
}

TEST_F(InferTest, ClassificationAnswersWithTheLargestValuesOfEachRow) {
  ModelInferRequest request = RawRequest();
  request.mutable_inputs(0)->set_shape(0, 2);
  request.set_raw_input_contents(0, FloatBytes({1, 4, 2, 4, NAN, -1, 5, 0}));
  auto* output = request.add_outputs();
  output->set_name("y");
  (*output->mutable_parameters())["classification"].set_int64_param(2);
  ASSERT_TRUE(Infer(request).ok());
  EXPECT_EQ(response_.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response_.outputs(0).shape(), ElementsAre(2, 2));
  const auto element = [](const std::string& text) {
    return std::string(1, static_cast<char>(text.size())) + std::string(3, '\0') + text;
  };
  EXPECT_THAT(response_.raw_output_contents(),
              ElementsAre(element("4.000000:1") + element("4.000000:3") + element("5.000000:2") +
                          element("0.000000:3")));
}

TEST_F(InferTest, VersionOutputsDeadlineAndParametersReachTheCore) {
  ModelInferRequest request = RawRequest();
  request.set_model_version("7");
  request.add_outputs()->set_name("logits");
  auto& parameters = *request.mutable_parameters();
  parameters["priority"].set_uint64_param(5);
  parameters["timeout"].set_int64_param(1500);
  parameters["sequence_id"].set_int64_param(0);
  parameters["sequence_start"].set_bool_param(false);
  parameters["triton_enable_empty_final_response"].set_bool_param(true);
  parameters["my_key"].set_double_param(0.5);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::hours(1));
  const grpc::Status status = stub_->ModelInfer(&context, request, &response_);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response_.model_version(), "7");
  EXPECT_EQ(response_.outputs(0).name(), "logits");
  const serving::InferRequest seen = core_.last_request();
  EXPECT_EQ(seen.version, 7);
  EXPECT_EQ(seen.priority, 5U);
  EXPECT_EQ(seen.queue_timeout, absl::Microseconds(1500));
  EXPECT_GT(seen.deadline, absl::Now() + absl::Minutes(50));
  EXPECT_LT(seen.deadline, absl::Now() + absl::Minutes(70));
}

TEST_F(InferTest, NoDeadlineIsTheInfiniteFuture) {
  ASSERT_TRUE(Infer(RawRequest()).ok());
  EXPECT_EQ(core_.last_request().deadline, absl::InfiniteFuture());
  EXPECT_EQ(core_.last_request().queue_timeout, absl::InfiniteDuration());
  EXPECT_FALSE(core_.last_request().version.has_value());
}

TEST_F(InferTest, WhatTheCoreRefusesKeepsItsCode) {
  const std::pair<absl::Status, StatusCode> cases[] = {
      {absl::InvalidArgumentError("input x: expected 32 bytes, got 40"),
       StatusCode::INVALID_ARGUMENT},
      {absl::NotFoundError("version 9 is not loaded"), StatusCode::NOT_FOUND},
      {absl::UnavailableError("the queue is full; try again"), StatusCode::UNAVAILABLE},
      {absl::DeadlineExceededError("too late"), StatusCode::DEADLINE_EXCEEDED},
      {absl::InternalError("broken"), StatusCode::INTERNAL},
  };
  for (const auto& [status, code] : cases) {
    core_.SetHandler([&status = status](const serving::InferRequest&) { return status; });
    ExpectRefused(RawRequest(), code, std::string(status.message()));
  }
}

TEST_F(InferTest, UnknownModelIsNotFound) {
  ModelInferRequest request = RawRequest();
  request.set_model_name("nobody");
  ExpectRefused(request, StatusCode::NOT_FOUND, "unknown model: nobody");
}

TEST_F(InferTest, VersionThatIsNoIntegerIsInvalid) {
  for (const char* version : {"latest", "1.5", " 1", "1x", "99999999999999999999"}) {
    ModelInferRequest request = RawRequest();
    request.set_model_version(version);
    ExpectRefused(request, StatusCode::INVALID_ARGUMENT, version);
  }
}

TEST_F(InferTest, MissingRawTensorIsInvalid) {
  ModelInferRequest request = RawRequest();
  auto* second = request.add_inputs();
  second->set_name("z");
  second->set_datatype("FP32");
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "unable to find data for input z");
}

TEST_F(InferTest, MoreRawTensorsThanInputsIsInvalid) {
  ModelInferRequest request = RawRequest();
  request.add_raw_input_contents("more");
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "2 entries for 1 inputs");
}

TEST_F(InferTest, RawAndTypedTogetherIsInvalid) {
  ModelInferRequest request = RawRequest();
  request.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "only one of them");
}

TEST_F(InferTest, TypedElementCountMustMatchTheShape) {
  ModelInferRequest request = Typed("FP32", {2, 4});
  for (int i = 0; i < 10; ++i) request.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "has 10 elements, the shape needs 8");
}

TEST_F(InferTest, TypedWithoutDataIsInvalid) {
  ExpectRefused(Typed("FP32", {2}), StatusCode::INVALID_ARGUMENT, "has 0 elements");
}

TEST_F(InferTest, TypedElementsInTheWrongFieldAreInvalid) {
  ModelInferRequest request = Typed("FP32", {1});
  request.mutable_inputs(0)->mutable_contents()->add_fp64_contents(1);
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "belong in fp32_contents, not in fp64");
}

TEST_F(InferTest, TypedElementsThatDoNotFitAreInvalid) {
  ModelInferRequest request = Typed("INT8", {1});
  request.mutable_inputs(0)->mutable_contents()->add_int_contents(-129);
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "-129 does not fit INT8");
  request = Typed("UINT16", {1});
  request.mutable_inputs(0)->mutable_contents()->add_uint_contents(65536);
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "65536 does not fit UINT16");
}

TEST_F(InferTest, TypedHalfPrecisionIsInvalid) {
  ModelInferRequest request = Typed("FP16", {1});
  request.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "FP16 travels only as bytes");
}

TEST_F(InferTest, NegativeDimensionIsInvalid) {
  ModelInferRequest request = Typed("FP32", {-1, 4});
  request.mutable_inputs(0)->mutable_contents()->add_fp32_contents(1);
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "dimension -1 is negative");
}

TEST_F(InferTest, ShapesThatOverflowAreInvalid) {
  ModelInferRequest request = Typed("FP32", {INT64_MAX, INT64_MAX});
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "more than 2^64");
  request = Typed("FP64", {INT64_MAX});
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "--max-message-bytes");
}

TEST_F(InferTest, UnknownDatatypeIsInvalid) {
  ModelInferRequest request = RawRequest();
  request.mutable_inputs(0)->set_datatype("float32");
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "unknown datatype \"float32\"");
}

TEST_F(InferTest, BytesInputIsInvalid) {
  ModelInferRequest request = RawRequest();
  request.mutable_inputs(0)->set_datatype("BYTES");
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "no model takes BYTES");
}

TEST_F(InferTest, SharedMemoryIsUnimplemented) {
  ModelInferRequest request = RawRequest();
  (*request.mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("a");
  ExpectRefused(request, StatusCode::UNIMPLEMENTED, "shared memory is not supported");
  request = RawRequest();
  auto* output = request.add_outputs();
  output->set_name("y");
  (*output->mutable_parameters())["shared_memory_byte_size"].set_int64_param(4);
  ExpectRefused(request, StatusCode::UNIMPLEMENTED, "output y: parameter shared_memory_byte_size");
}

TEST_F(InferTest, ParametersThatAreNotSupportedAreInvalid) {
  const auto refuse = [this](const std::string& key, const std::string& text,
                             const std::function<void(inference::InferParameter&)>& set) {
    SCOPED_TRACE(key);
    ModelInferRequest request = RawRequest();
    set((*request.mutable_parameters())[key]);
    ExpectRefused(request, StatusCode::INVALID_ARGUMENT, text);
  };
  refuse("sequence_id", "not supported", [](auto& p) { p.set_int64_param(1); });
  refuse("sequence_id", "not supported", [](auto& p) { p.set_uint64_param(1); });
  refuse("sequence_id", "not supported", [](auto& p) { p.set_string_param("s"); });
  refuse("triton_new_thing", "reserved", [](auto& p) { p.set_bool_param(true); });
  refuse("priority", "must be an integer", [](auto& p) { p.set_string_param("high"); });
  refuse("timeout", "negative", [](auto& p) { p.set_int64_param(-1); });
  refuse("triton_enable_empty_final_response", "must be a bool",
         [](auto& p) { p.set_int64_param(1); });
}

TEST_F(InferTest, MoreClassesThanAreSentAreInvalidNamingBoth) {
  ModelInferRequest request = RawRequest();
  auto* output = request.add_outputs();
  output->set_name("y");
  (*output->mutable_parameters())["classification"].set_int64_param(1001);
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT,
                "output y: parameter classification: 1001 classes are asked for, at most 1000");
  (*output->mutable_parameters())["classification"].set_int64_param(1000);
  EXPECT_TRUE(Infer(request).ok());
}

TEST_F(InferTest, NamesThatAreNotPrintableAreEscapedInErrors) {
  ModelInferRequest request = RawRequest();
  request.mutable_inputs(0)->set_name("a\nb");
  request.mutable_inputs(0)->set_datatype("?");
  ExpectRefused(request, StatusCode::INVALID_ARGUMENT, "input a\\x0ab");
}

TEST_F(InferTest, BytesThatAreNoMessageAreInvalidNotUnimplemented) {
  grpc::GenericStub generic(channel_);
  grpc::ClientContext context;
  const grpc::Slice slice("\xff\xff\xff");
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  std::promise<grpc::Status> done;
  generic.UnaryCall(&context, "/inference.GRPCInferenceService/ModelInfer", {}, &request, &response,
                    [&done](grpc::Status status) { done.set_value(std::move(status)); });
  const grpc::Status status = done.get_future().get();
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("malformed ModelInferRequest"));
}

TEST_F(InferTest, WhatNeverReachesTheModelIsCounted) {
  ModelInferRequest request = RawRequest();
  ASSERT_TRUE(Infer(request).ok());
  EXPECT_THAT(core_.invalid_requests(), testing::IsEmpty()) << "the core counts what it gets";

  const std::function<void(ModelInferRequest&)> mistakes[] = {
      [](auto& r) { r.set_model_version("newest"); },
      [](auto& r) { r.mutable_inputs(0)->set_datatype("FP33"); },
      [](auto& r) { (*r.mutable_parameters())["priority"].set_string_param("high"); },
      [](auto& r) {
        (*r.mutable_inputs(0)->mutable_parameters())["shared_memory_region"].set_string_param("a");
      },
      [](auto& r) { r.add_raw_input_contents("more"); },
  };
  std::size_t expected = 0;
  for (const auto& mistake : mistakes) {
    ModelInferRequest wrong = request;
    mistake(wrong);
    EXPECT_FALSE(Infer(wrong).ok()) << wrong.ShortDebugString();
    EXPECT_EQ(core_.invalid_requests().size(), ++expected) << wrong.ShortDebugString();
  }
  EXPECT_THAT(core_.invalid_requests(), testing::Each("echo"));
}

TEST_F(InferTest, CompressedMessagesAreUnimplementedNamingTheAlgorithm) {
  for (const auto& [algorithm, name] :
       {std::pair{GRPC_COMPRESS_GZIP, "gzip"}, std::pair{GRPC_COMPRESS_DEFLATE, "deflate"}}) {
    ModelInferRequest request = RawRequest(1000);
    request.set_raw_input_contents(0, std::string(16000, '\0'));
    grpc::ClientContext context;
    context.set_compression_algorithm(algorithm);
    const grpc::Status status = stub_->ModelInfer(&context, request, &response_);
    EXPECT_EQ(status.error_code(), StatusCode::UNIMPLEMENTED) << status.error_message();
    EXPECT_THAT(status.error_message(), HasSubstr(name));
    EXPECT_TRUE(Infer(request).ok()) << "as it is";
  }
}

TEST_F(InferTest, ALongReasonArrivesCut) {
  core_.SetHandler([](const serving::InferRequest&) {
    return absl::InvalidArgumentError(std::string(50'000, 'x'));
  });
  ExpectRefused(RawRequest(), StatusCode::INVALID_ARGUMENT, "... (cut)");
}

TEST_F(InferTest, CancellationReachesTheCore) {
  core_.Hold();
  grpc::ClientContext context;
  grpc::Status status;
  std::thread caller([&] { status = stub_->ModelInfer(&context, RawRequest(), &response_); });
  core_.WaitForHeld(1);
  context.TryCancel();
  caller.join();
  EXPECT_EQ(status.error_code(), StatusCode::CANCELLED);
  const auto cancelled = core_.last_request().cancelled;
  while (!cancelled->load()) std::this_thread::yield();
}

TEST_F(InferTest, DeadlineEndsTheCallOnTheClientsSide) {
  core_.Hold();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(20));
  const grpc::Status status = stub_->ModelInfer(&context, RawRequest(), &response_);
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
}

class SmallMessageTest : public InferTest {
  RpcOptions Options() override {
    RpcOptions options = InferTest::Options();
    options.max_message_bytes = 1000;
    return options;
  }
};

TEST_F(SmallMessageTest, LargerMessageIsRefusedNamingTheFlag) {
  ModelInferRequest request = RawRequest();
  request.set_raw_input_contents(0, std::string(1200, 'x'));
  ExpectRefused(request, StatusCode::RESOURCE_EXHAUSTED, "--max-message-bytes");
  EXPECT_TRUE(Infer(RawRequest()).ok());
}

TEST_F(SmallMessageTest, MuchLargerMessageIsRefusedAndTheNextIsServed) {
  ModelInferRequest request = RawRequest();
  request.set_raw_input_contents(0, std::string(100'000, 'x'));
  ExpectRefused(request, StatusCode::RESOURCE_EXHAUSTED, "");
  EXPECT_TRUE(Infer(RawRequest()).ok());
}

}  // namespace
}  // namespace relight::rpc
