#include "server/rpc/wire_encoder.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <random>

#include "inference/grpc_service.pb.h"
#include "server/rpc/typed_contents.h"

namespace relight::rpc {
namespace {

using google::protobuf::util::MessageDifferencer;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

std::string Flatten(const WireMessage& message) {
  std::string out;
  for (const WireChunk& chunk : message) {
    out += chunk.header;
    out.append(reinterpret_cast<const char*>(chunk.data.get()), chunk.size_bytes);
  }
  return out;
}

std::shared_ptr<const std::byte> Own(std::string bytes) {
  auto owner = std::make_shared<const std::string>(std::move(bytes));
  return {owner, reinterpret_cast<const std::byte*>(owner->data())};
}

// A response and the message that it must become.
struct Pair {
  std::string name;
  std::string id;
  WireResponse response;
  ModelInferResponse expected;
};

void AddOutput(Pair& pair, std::size_t size, std::mt19937_64& random) {
  WireOutput output;
  output.name = "out" + std::to_string(pair.response.outputs.size());
  output.datatype = "INT8";
  output.shape = {static_cast<std::int64_t>(size), static_cast<std::int64_t>(random() % 3) - 1};
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  auto* expected = pair.expected.add_outputs();
  expected->set_name(output.name);
  expected->set_datatype(output.datatype);
  for (const std::int64_t dim : output.shape) expected->add_shape(dim);
  output.data = Own(bytes);
  output.size_bytes = size;
  if (pair.response.raw) {
    pair.expected.add_raw_output_contents(bytes);
  } else {
    output.contents = PackContents(DType::kInt8, output.data.get(), size);
    expected->mutable_contents();
    for (const char c : bytes) {
      expected->mutable_contents()->add_int_contents(static_cast<signed char>(c));
    }
  }
  pair.response.outputs.push_back(std::move(output));
}

void Fill(Pair& pair, std::mt19937_64& random) {
  pair.name = std::string(random() % 200, 'm');
  pair.id = std::string(random() % 3, 'i');
  pair.response.raw = random() % 2 == 0;
  pair.response.model_name = pair.name;
  pair.response.model_version = std::to_string(random());
  pair.response.id = pair.id;
  pair.expected.set_model_name(pair.name);
  pair.expected.set_model_version(pair.response.model_version);
  pair.expected.set_id(pair.id);
  const auto generation = static_cast<std::int64_t>(random());
  pair.response.parameters.emplace_back("generation", generation);
  pair.response.parameters.emplace_back("weights_digest", std::string_view("abc"));
  pair.response.parameters.emplace_back("triton_final_response", random() % 2 == 0);
  auto& parameters = *pair.expected.mutable_parameters();
  parameters["generation"].set_int64_param(generation);
  parameters["weights_digest"].set_string_param("abc");
  parameters["triton_final_response"].set_bool_param(
      std::get<bool>(pair.response.parameters[2].second));
  const std::size_t sizes[] = {0, 1, 100, kCopyBelowBytes - 1, kCopyBelowBytes, 50'000};
  for (std::uint64_t i = random() % 4; i > 0; --i) {
    AddOutput(pair, sizes[random() % std::size(sizes)], random);
  }
}

TEST(WireEncoderTest, ProtobufReadsWhatWasMeant) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) {
    Pair pair;
    Fill(pair, random);
    ModelInferResponse got;
    ASSERT_TRUE(got.ParseFromString(Flatten(EncodeInferResponse(pair.response))));
    ASSERT_TRUE(MessageDifferencer::Equals(pair.expected, got))
        << pair.expected.ShortDebugString() << "\n"
        << got.ShortDebugString();
  }
}

TEST(WireEncoderTest, StreamResponseWrapsTheSameMessage) {
  std::mt19937_64 random(2);
  for (int i = 0; i < 200; ++i) {
    Pair pair;
    Fill(pair, random);
    ModelStreamInferResponse got;
    ASSERT_TRUE(got.ParseFromString(Flatten(EncodeStreamResponse("why", pair.response))));
    EXPECT_EQ(got.error_message(), "why");
    ASSERT_TRUE(MessageDifferencer::Equals(pair.expected, got.infer_response()));
  }
}

TEST(WireEncoderTest, LargeTensorsAreNotCopied) {
  WireResponse response;
  WireOutput& output = response.outputs.emplace_back();
  output.data = Own(std::string(kCopyBelowBytes, 'x'));
  output.size_bytes = kCopyBelowBytes;
  const WireMessage message = EncodeInferResponse(response);
  ASSERT_EQ(message.size(), 1U);
  EXPECT_EQ(message[0].data, output.data);
  EXPECT_EQ(message[0].size_bytes, kCopyBelowBytes);
}

TEST(TypedContentsTest, PackedElementsAreReadBackByProtobuf) {
  const std::int16_t values[] = {-32768, -1, 0, 32767};
  inference::InferTensorContents contents;
  ASSERT_TRUE(contents.ParseFromString(
      PackContents(DType::kInt16, reinterpret_cast<const std::byte*>(values), sizeof(values))));
  EXPECT_THAT(contents.int_contents(), testing::ElementsAre(-32768, -1, 0, 32767));
}

}  // namespace
}  // namespace relight::rpc
