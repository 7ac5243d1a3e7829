#include "server/serving/warm_up.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/server/serving/request_harness.h"

namespace relight::serving {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class WarmUpTest : public ::testing::Test {
 protected:
  WarmUpTest() {
    world_->on_forward = [this](absl::Span<const model::HostTensor> inputs) {
      seen_.assign(inputs.begin(), inputs.end());
      return absl::OkStatus();
    };
  }
  absl::Status Run(std::int64_t batch_size, std::int64_t free_dim = 1) {
    const FakeBoundModel model(world_, 3, signature_.outputs.size());
    return RunWarmUp(signature_, model, batch_size, free_dim);
  }

  std::shared_ptr<FakeGraphWorld> world_ = std::make_shared<FakeGraphWorld>();
  Signature signature_ = FakeSignature(8);
  std::vector<model::HostTensor> seen_;
};

TEST_F(WarmUpTest, RunsZerosOfTheBatchSize) {
  EXPECT_EQ(Run(4), absl::OkStatus());
  ASSERT_EQ(seen_.size(), 1U);
  EXPECT_THAT(seen_[0].shape, ElementsAre(4, 2));
  EXPECT_THAT(FloatsOf(seen_[0].data.get(), seen_[0].size_bytes), ::testing::Each(0.0F));
  EXPECT_EQ(seen_[0].size_bytes, 32U);
}

TEST_F(WarmUpTest, TellsTheModelThatItIsOne) {
  int warm_ups = 0;
  world_->on_warm_up = [&] { ++warm_ups; };
  EXPECT_EQ(Run(4), absl::OkStatus());
  EXPECT_EQ(warm_ups, 1);
}

TEST_F(WarmUpTest, FreeDimensionsAreAsAsked) {
  signature_.inputs[0].shape = signature_.outputs[0].shape = {-1, -1, 3};
  EXPECT_EQ(Run(2, 5), absl::OkStatus());
  EXPECT_THAT(seen_[0].shape, ElementsAre(2, 5, 3));
}

TEST_F(WarmUpTest, WithoutABatchDimensionTheFirstIsLikeTheOthers) {
  signature_.batching.max_batch_size = 0;
  EXPECT_EQ(Run(7, 5), absl::OkStatus());
  EXPECT_THAT(seen_[0].shape, ElementsAre(5, 2));
}

TEST_F(WarmUpTest, OutputOfAnotherShapeIsRefusedNamingBoth) {
  signature_.outputs[0].shape = {-1, 9};
  const absl::Status status = Run(2);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("output y"), HasSubstr("[2, 2]"), HasSubstr("[-1, 9]")));
}

TEST_F(WarmUpTest, OutputOfAnotherRankIsRefused) {
  signature_.outputs[0].shape = {-1, 2, 1};
  EXPECT_EQ(Run(2).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(WarmUpTest, OutputOfAnotherTypeIsRefusedNamingBoth) {
  signature_.outputs[0].dtype = DType::kInt64;
  const absl::Status status = Run(2);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("FP32"), HasSubstr("INT64")));
}

TEST_F(WarmUpTest, OutputWithoutTheBatchsRowsIsRefused) {
  world_->on_outputs = [](std::vector<model::HostTensor>& outputs) {
    outputs[0] = MakeFloatTensor({1, 2}, {0, 0});
  };
  EXPECT_EQ(Run(2).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(WarmUpTest, WrongNumberOfOutputsIsRefused) {
  world_->on_outputs = [](std::vector<model::HostTensor>& outputs) { outputs.clear(); };
  EXPECT_EQ(Run(2).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(WarmUpTest, FailureOfTheGraphIsPassedOn) {
  world_->on_forward = [](absl::Span<const model::HostTensor>) {
    return absl::InternalError("no kernel");
  };
  EXPECT_EQ(Run(2), absl::InternalError("the warm-up with x [2, 2] failed: no kernel"));
}

TEST_F(WarmUpTest, BatchThatNoRequestCouldHaveIsInvalid) {
  EXPECT_EQ(Run(9).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Run(0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(world_->forwards(), 0U);
}

TEST_F(WarmUpTest, FreeDimensionWithoutASizeIsInvalid) {
  signature_.inputs[0].shape = signature_.outputs[0].shape = {-1, -1};
  EXPECT_EQ(Run(2, -1).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace relight::serving
