#include "server/rpc/wire_decoder.h"

#include <gmock/gmock.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "server/rpc/typed_contents.h"
#include "tests/server/rpc/decode_fuzz.h"
#include "tests/server/rpc/wire_comparison.h"

namespace relight::rpc {
namespace {

using inference::InferParameter;
using inference::ModelInferRequest;
using testing::HasSubstr;

constexpr int kMessages = 3000;
constexpr int kMutations = 12;

// Random requests: every field, of every size that takes another path.
class Generator {
 public:
  explicit Generator(unsigned seed) : random_(seed) {}

  std::size_t Below(std::size_t limit) {
    return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random_);
  }
  bool Often() { return Below(3) > 0; }

  std::uint64_t Number() {
    const std::uint64_t bits = random_();
    return bits >> Below(64);
  }

  std::string Text() {
    static const std::string kPieces[] = {
        "a", "input", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x94\xa5", std::string(1, '\0'), "\n"};
    std::string out;
    for (std::size_t i = Below(4); i > 0; --i) out += kPieces[Below(std::size(kPieces))];
    return out;
  }

  std::string Bytes() {
    std::string out(Below(4) == 0 ? Below(300) : Below(20), '\0');
    for (char& c : out) c = static_cast<char>(random_());
    return out;
  }

  InferParameter Parameter() {
    InferParameter out;
    switch (Below(6)) {
      case 0:
        out.set_bool_param(Often());
        break;
      case 1:
        out.set_int64_param(static_cast<std::int64_t>(Number()));
        break;
      case 2:
        out.set_string_param(Text());
        break;
      case 3:
        out.set_double_param(std::bit_cast<double>(random_()));
        break;
      case 4:
        out.set_uint64_param(Number());
        break;
      default:
        break;
    }
    return out;
  }

  template <typename Message>
  void Parameters(Message& message) {
    for (std::size_t i = Below(3); i > 0; --i) {
      (*message.mutable_parameters())[Text()] = Parameter();
    }
  }

  void Contents(inference::InferTensorContents& out) {
    for (std::size_t i = Below(8); i > 0; --i) {
      switch (Below(8)) {
        case 0:
          out.add_bool_contents(Often());
          break;
        case 1:
          out.add_int_contents(static_cast<std::int32_t>(Number()));
          break;
        case 2:
          out.add_int64_contents(static_cast<std::int64_t>(Number()));
          break;
        case 3:
          out.add_uint_contents(static_cast<std::uint32_t>(Number()));
          break;
        case 4:
          out.add_uint64_contents(Number());
          break;
        case 5:
          out.add_fp32_contents(std::bit_cast<float>(static_cast<std::uint32_t>(random_())));
          break;
        case 6:
          out.add_fp64_contents(std::bit_cast<double>(random_()));
          break;
        default:
          out.add_bytes_contents(Bytes());
          break;
      }
    }
  }

  ModelInferRequest Request() {
    ModelInferRequest out;
    if (Often()) out.set_model_name(Text());
    if (Often()) out.set_model_version(Text());
    if (Often()) out.set_id(Text());
    Parameters(out);
    for (std::size_t i = Below(4); i > 0; --i) {
      auto* input = out.add_inputs();
      input->set_name(Text());
      input->set_datatype(Text());
      for (std::size_t d = Below(5); d > 0; --d) {
        input->add_shape(static_cast<std::int64_t>(Number()));
      }
      Parameters(*input);
      if (Often()) Contents(*input->mutable_contents());
    }
    for (std::size_t i = Below(3); i > 0; --i) {
      auto* output = out.add_outputs();
      output->set_name(Text());
      Parameters(*output);
    }
    for (std::size_t i = Below(4); i > 0; --i) out.add_raw_input_contents(Bytes());
    return out;
  }

  std::vector<std::size_t> Cuts(std::size_t size) {
    std::vector<std::size_t> cuts;
    if (Below(8) == 0) {  // A slice for each byte.
      for (std::size_t i = 0; i <= size; ++i) cuts.push_back(i);
      return cuts;
    }
    for (std::size_t i = Below(6); i > 0; --i) cuts.push_back(Below(size + 1));
    return cuts;
  }

  void Mutate(std::string& bytes) {
    if (bytes.empty()) return;
    const std::size_t at = Below(bytes.size());
    switch (Below(5)) {
      case 0:
        bytes[at] = static_cast<char>(random_());
        break;
      case 1:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(8)));
        break;
      case 2:
        bytes.erase(at, 1 + Below(3));
        break;
      case 3:
        bytes.insert(at, 1 + Below(3), static_cast<char>(random_()));
        break;
      default:
        bytes.resize(at);
        break;
    }
  }

 private:
  std::mt19937_64 random_;
};

TEST(WireDecoderTest, ReadsWhatProtobufWritesHoweverItIsCut) {
  Generator generator(1);
  for (int i = 0; i < kMessages; ++i) {
    const std::string bytes = generator.Request().SerializeAsString();
    const Comparison comparison = CompareWithProtobuf(bytes, generator.Cuts(bytes.size()));
    ASSERT_EQ(comparison.disagreement, "") << "message " << i;
    ASSERT_TRUE(comparison.accepted) << "message " << i;
  }
}

TEST(WireDecoderTest, AgreesWithProtobufOnDamagedMessages) {
  Generator generator(2);
  int accepted = 0;
  int refused = 0;
  for (int i = 0; i < kMessages; ++i) {
    std::string bytes = generator.Request().SerializeAsString();
    for (int m = 0; m < kMutations; ++m) {
      generator.Mutate(bytes);
      const Comparison comparison = CompareWithProtobuf(bytes, generator.Cuts(bytes.size()));
      ASSERT_EQ(comparison.disagreement, "") << "message " << i << ", mutation " << m;
      ++(comparison.accepted ? accepted : refused);
    }
  }
  // Both kinds must have been seen, or the test shows nothing.
  EXPECT_GT(accepted, kMessages / 10);
  EXPECT_GT(refused, kMessages);
}

TEST(WireDecoderTest, MessagesPutEndToEndMergeAsInProtobuf) {
  Generator generator(3);
  for (int i = 0; i < kMessages / 3; ++i) {
    std::string bytes;
    for (int part = 0; part < 3; ++part) bytes += generator.Request().SerializeAsString();
    const Comparison comparison = CompareWithProtobuf(bytes, generator.Cuts(bytes.size()));
    ASSERT_EQ(comparison.disagreement, "") << "message " << i;
    ASSERT_TRUE(comparison.accepted);
  }
}

TEST(WireDecoderTest, FuzzEntryTakesAnything) {
  Generator generator(4);
  for (int i = 0; i < kMessages; ++i) {
    std::string bytes = generator.Request().SerializeAsString();
    if (i % 2 == 0) generator.Mutate(bytes);
    DecodeFuzz(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
}

// Hand-written bytes.
absl::StatusOr<WireRequest> Decode(const std::string& bytes) {
  const ByteSpan span(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size());
  return DecodeInferRequest({&span, 1});
}

void ExpectRefused(const std::string& bytes, const std::string& text) {
  const auto decoded = Decode(bytes);
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(decoded.status().message()), HasSubstr(text));
  EXPECT_EQ(CompareWithProtobuf(bytes, {}).disagreement, "");
}

TEST(WireDecoderTest, EmptyMessageIsARequestForNothing) {
  const auto decoded = DecodeInferRequest({});
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->model_name, "");
}

TEST(WireDecoderTest, RawTensorStaysWhereItIs) {
  ModelInferRequest request;
  request.add_raw_input_contents(std::string(100, 'x'));
  const std::string bytes = request.SerializeAsString();
  const SlicedBytes sliced(bytes, {50});
  const auto decoded = DecodeInferRequest(sliced.spans);
  ASSERT_TRUE(decoded.ok());
  ASSERT_EQ(decoded->raw_inputs.size(), 1U);
  ASSERT_EQ(decoded->raw_inputs[0].size(), 2U);
  EXPECT_EQ(decoded->raw_inputs[0][0].data(), sliced.spans[0].data() + 2);
  EXPECT_EQ(decoded->raw_inputs[0][1].data(), sliced.spans[1].data());
}

TEST(WireDecoderTest, TruncatedFieldIsRefused) { ExpectRefused("\x0a", "ends within a field"); }

TEST(WireDecoderTest, LengthBeyondTheMessageIsRefused) {
  ExpectRefused("\x0a\x05hi", "beyond the message");
}

TEST(WireDecoderTest, LengthOfTwoGibibytesIsRefused) {
  ExpectRefused("\x0a\xff\xff\xff\xff\x0f", "2 GiB");
}

TEST(WireDecoderTest, EndlessNumberIsRefused) {
  ExpectRefused("\x78" + std::string(11, '\xff'), "more than 10 bytes");
}

TEST(WireDecoderTest, EndlessTagIsRefused) {
  ExpectRefused(std::string(6, '\xff'), "more than 5 bytes");
}

TEST(WireDecoderTest, FieldNumberZeroIsRefused) {
  ExpectRefused(std::string(1, '\0'), "field number 0");
}

TEST(WireDecoderTest, TextThatIsNotUtf8IsRefused) {
  ExpectRefused("\x0a\x01\xff", "not UTF-8");
  ExpectRefused("\x1a\x03\xed\xa0\x80", "not UTF-8");
}

TEST(WireDecoderTest, GroupsAreRefused) { ExpectRefused("\x7b\x7c", "a group"); }

TEST(WireDecoderTest, UnknownWireTypeIsRefused) { ExpectRefused("\x7e", "unknown wire type"); }

TEST(WireDecoderTest, PackedFixedNumbersMustBeWhole) {
  // inputs { contents { fp32_contents: 3 bytes } }
  ExpectRefused("\x2a\x07\x2a\x05\x32\x03\x01\x02\x03", "ends within a field");
}

TEST(WireDecoderTest, SmallMessageCannotAskForManyTensors) {
  std::string bytes;
  for (std::uint64_t i = 0; i <= kMaxWireItems; ++i) bytes += std::string("\x2a\x00", 2);
  ExpectRefused(bytes, "more than 65536");
}

TEST(WireDecoderTest, UnknownFieldsArePassedOver) {
  // Field 15 as varint, fixed64, bytes and fixed32; then the model's name.
  std::string bytes = "\x78\x05\x79";
  bytes += "12345678\x7a\x02hi\x7d";
  bytes += "1234\x0a\x01m";
  const auto decoded = Decode(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(decoded->model_name, "m");
}

TEST(WireDecoderTest, UnpackedNumbersAreReadToo) {
  // inputs { shape: 2 shape: 3 (unpacked) contents { int_contents: 7 (unpacked) int_contents: [8] }
  // }
  const std::string bytes = "\x2a\x0b\x18\x02\x18\x03\x2a\x05\x10\x07\x12\x01\x08";
  const auto decoded = Decode(bytes);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_THAT(decoded->inputs[0].shape, testing::ElementsAre(2, 3));
  EXPECT_EQ(decoded->inputs[0].contents.count(ContentKind::kInt), 2U);
  const auto unpacked = UnpackContents(decoded->inputs[0].contents, DType::kInt8, 2);
  ASSERT_TRUE(unpacked.ok()) << unpacked.status();
  EXPECT_THAT(*unpacked, testing::ElementsAre(std::byte{7}, std::byte{8}));
}

}  // namespace
}  // namespace relight::rpc
