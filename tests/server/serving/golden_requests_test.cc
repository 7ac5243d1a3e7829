#include "server/serving/golden_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/server/serving/request_harness.h"
#include "tests/storage/temp_folder.h"

namespace relight::serving {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Saved {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

// A safetensors file: the header's length, the header, the bytes.
void Save(const std::string& path, const std::vector<Saved>& tensors) {
  std::vector<std::string> entries;
  std::string bytes;
  for (const Saved& tensor : tensors) {
    const std::size_t begin = bytes.size();
    bytes.append(reinterpret_cast<const char*>(tensor.values.data()),
                 tensor.values.size() * sizeof(float));
    entries.push_back(absl::StrCat("\"", tensor.name, "\":{\"dtype\":\"F32\",\"shape\":[",
                                   absl::StrJoin(tensor.shape, ","), "],\"data_offsets\":[", begin,
                                   ",", bytes.size(), "]}"));
  }
  const std::string header = absl::StrCat("{", absl::StrJoin(entries, ","), "}");
  const std::uint64_t length = header.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof(length));
  file << header << bytes;
}

class GoldenRequestsTest : public ::testing::Test {
 protected:
  // The model answers its input times `weight`.
  FakeBoundModel Model(float weight) const { return {world_, weight, signature_.outputs.size()}; }

  absl::StatusOr<GoldenRequests> Read(const std::vector<Saved>& tensors) {
    rules_.file = folder_.Path("golden.safetensors");
    Save(rules_.file, tensors);
    return GoldenRequests::Read({rules_}, signature_);
  }
  absl::Status Check(const std::vector<Saved>& tensors, float weight,
                     std::optional<float> serving_weight = std::nullopt) {
    const absl::StatusOr<GoldenRequests> golden = Read(tensors);
    if (!golden.ok()) return golden.status();
    const FakeBoundModel model = Model(weight);
    const FakeBoundModel serving = Model(serving_weight.value_or(0));
    return golden->Check(model, serving_weight ? &serving : nullptr, [this] {
      ++pauses_;
      return pauses_before_-- > 0 ? absl::OkStatus() : between_;
    });
  }
  std::string Message(const absl::Status& status) const {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    return std::string(status.message());
  }

  const std::shared_ptr<FakeGraphWorld> world_ = std::make_shared<FakeGraphWorld>();
  const storage::TempFolder folder_;
  Signature signature_ = FakeSignature(4);
  config::GoldenRequest rules_;
  int pauses_ = 0;
  int pauses_before_ = 0;  // That many are well before `between_`.
  absl::Status between_;
  const std::string input_ = signature_.inputs[0].name;
  const std::string output_ = signature_.outputs[0].name;
  const Saved x_{input_, {2, 2}, {1, 2, 3, -4}};
};

TEST_F(GoldenRequestsTest, TheAnswerInTheFileIsExpectedWithinTheTolerance) {
  const Saved y{output_, {2, 2}, {3, 6, 9, -12}};
  EXPECT_EQ(Check({x_, y}, 3), absl::OkStatus());
  EXPECT_EQ(pauses_, 1);
  EXPECT_THAT(Message(Check({x_, y}, 3.5F)),
              AllOf(HasSubstr("golden.safetensors"), HasSubstr(output_),
                    HasSubstr("element [1, 1] is -14, expected is -12"),
                    HasSubstr("difference of 2 is the largest"),
                    HasSubstr("tolerance allows 0.012, 0.001 of the largest value")));
  rules_.tolerance = 0.2;
  EXPECT_EQ(Check({x_, y}, 3.5F), absl::OkStatus());
}

TEST_F(GoldenRequestsTest, WithToleranceZeroAnswersAreEqual) {
  rules_.tolerance = 0;
  const Saved zeros{input_, {1, 2}, {0, 0}};
  EXPECT_EQ(Check({zeros, {output_, {1, 2}, {0, 0}}}, 3), absl::OkStatus());
  EXPECT_FALSE(Check({zeros, {output_, {1, 2}, {0, 1e-30F}}}, 3).ok());
}

TEST_F(GoldenRequestsTest, WithoutExpectedOutputsTheyMustBeFinite) {
  EXPECT_EQ(Check({x_}, 3), absl::OkStatus());
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_THAT(Message(Check({x_}, infinity)),
              HasSubstr("element [0, 0] is inf, which is not finite (4 of 4 elements)"));
  rules_.ranges = {{.name = output_, .allow_non_finite = true}};
  EXPECT_EQ(Check({x_}, infinity), absl::OkStatus());
}

TEST_F(GoldenRequestsTest, OutputsStayWithinTheirRange) {
  rules_.ranges = {{.name = output_, .min = -12, .max = 9}};
  EXPECT_EQ(Check({x_}, 3), absl::OkStatus());
  EXPECT_THAT(Message(Check({x_}, 4)),
              AllOf(HasSubstr("element [1, 1] is -16, min is -12 (1 of 4 elements)"),
                    HasSubstr("element [1, 0] is 12, max is 9 (1 of 4 elements)")));
}

TEST_F(GoldenRequestsTest, AnswersMayChangeOnlySoFarFromTheServingVersions) {
  EXPECT_EQ(Check({x_}, 3, 9), absl::OkStatus()) << "nobody asked for it";
  rules_.max_change = 0.5;
  EXPECT_EQ(Check({x_}, 3, 2), absl::OkStatus());
  EXPECT_EQ(Check({x_}, 3), absl::OkStatus()) << "none serves";
  EXPECT_THAT(Message(Check({x_}, 4, 2)),
              AllOf(HasSubstr("element [1, 1] is -16, the version that serves answers -8"),
                    HasSubstr("max_change allows 4, 0.5 of the largest")));
}

TEST_F(GoldenRequestsTest, WhatTheServingVersionFailsAtIsComparedWithNothing) {
  rules_.max_change = 0;
  const auto golden = Read({x_});
  ASSERT_TRUE(golden.ok()) << golden.status();
  const auto failing = std::make_shared<FakeGraphWorld>();
  failing->on_forward = [](auto) { return absl::InternalError("broken"); };
  const FakeBoundModel model = Model(3);
  const FakeBoundModel serving(failing, 2, signature_.outputs.size());
  EXPECT_EQ(golden->Check(model, &serving, [] { return absl::OkStatus(); }), absl::OkStatus());
}

TEST_F(GoldenRequestsTest, WhatTheModelFailsWithIsToldWithTheRequestsName) {
  world_->on_forward = [](auto) { return absl::InternalError("no kernel"); };
  const absl::Status status = Check({x_}, 3);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("golden.safetensors"), HasSubstr("no kernel")));
}

TEST_F(GoldenRequestsTest, FilesThatAreNoRequestAreRefusedWhenTheyAreRead) {
  const auto refused = [&](const std::vector<Saved>& tensors) {
    const absl::Status status = Read(tensors).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("golden.safetensors"));
    return std::string(status.message());
  };
  EXPECT_THAT(refused({{output_, {2, 2}, {1, 2, 3, 4}}}),
              HasSubstr(absl::StrCat("input \"", input_, "\" is missing")));
  EXPECT_THAT(refused({{input_, {2, 3}, {1, 2, 3, 4, 5, 6}}}),
              AllOf(HasSubstr("[2, 3]"), HasSubstr("[-1, 2]")));
  EXPECT_THAT(refused({x_, {"label", {2}, {1, 2}}}),
              HasSubstr("\"label\" is no input or output of the model"));
  EXPECT_THAT(refused({x_, {output_, {1, 2}, {1, 2}}}),
              HasSubstr("has 1 rows, the first input has 2"));
  EXPECT_THAT(refused({{input_, {5, 2}, std::vector<float>(10, 1)}}),
              HasSubstr("has 5 rows, the model takes 1 to 4"));
}

TEST_F(GoldenRequestsTest, ItEndsBeforeTheNextForwardOnceNobodyWantsIt) {
  between_ = absl::CancelledError("no longer wanted");
  EXPECT_EQ(Check({x_}, 3).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(world_->forwards(), 0);
  pauses_before_ = 1;
  rules_.max_change = 1;
  EXPECT_EQ(Check({x_}, 3, 3).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(world_->forwards(), 1);
}

TEST_F(GoldenRequestsTest, AllOfAModelsTensorsHaveOneLimit) {
  signature_.batching.max_batch_size = 0;
  signature_.inputs[0].shape = signature_.outputs[0].shape = {-1};
  const std::size_t count = kMaxGoldenBytes / sizeof(float) / 2 + 1;
  rules_.file = folder_.Path("golden.safetensors");
  Save(rules_.file, {{input_, {static_cast<std::int64_t>(count)}, std::vector<float>(count, 1)}});
  EXPECT_TRUE(GoldenRequests::Read({rules_}, signature_).ok());
  const absl::Status two = GoldenRequests::Read({rules_, rules_}, signature_).status();
  EXPECT_EQ(two.code(), absl::StatusCode::kInvalidArgument) << two;
  EXPECT_THAT(std::string(two.message()), HasSubstr("have more than 268435456 bytes"));
}

TEST_F(GoldenRequestsTest, AMissingFileIsNamed) {
  rules_.file = folder_.Path("none.pt");
  const absl::Status status = GoldenRequests::Read({rules_}, signature_).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("none.pt"));
}

TEST_F(GoldenRequestsTest, NoRequestsAskNothing) {
  const auto golden = GoldenRequests::Read({}, signature_);
  ASSERT_TRUE(golden.ok());
  EXPECT_TRUE(golden->empty());
  EXPECT_EQ(golden->Check(Model(3), nullptr, [] { return absl::OkStatus(); }), absl::OkStatus());
}

}  // namespace
}  // namespace relight::serving
