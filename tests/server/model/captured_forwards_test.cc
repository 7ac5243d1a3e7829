// What is captured, when it is computed instead of the steps one by one, and that it is neither
// mixed up nor outlived: on a device that only records.
#include "server/model/captured_forwards.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/derived_tensors.h"
#include "server/model/network_graph.h"
#include "tests/server/model/model_testing.h"
#include "tests/server/model/recording_device.h"

namespace relight::model {
namespace {

using testing::Contains;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

TEST(BatchSizesToCaptureTest, UpToEightEachAndThenFourForEachDoubling) {
  EXPECT_THAT(BatchSizesToCapture(0), ElementsAre());
  EXPECT_THAT(BatchSizesToCapture(1), ElementsAre(1));
  EXPECT_THAT(BatchSizesToCapture(5), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(BatchSizesToCapture(33),
              ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 33));
}

TEST(BatchSizesToCaptureTest, LessThanAFifthOfABatchIsFilling) {
  const std::vector<std::int64_t> sizes = BatchSizesToCapture(1000);
  EXPECT_EQ(sizes.back(), 1000);
  for (std::int64_t rows = 1; rows <= 1000; ++rows) {
    const auto filled = *std::lower_bound(sizes.begin(), sizes.end(), rows);
    EXPECT_LT(static_cast<double>(filled - rows), 0.2 * static_cast<double>(filled)) << rows;
  }
}

class CapturedForwardsTest : public testing::Test {
 protected:
  void MakeGraph(const std::string& text, CaptureSettings settings) {
    const auto config = config::ParseModelConfig(text, "model");
    ASSERT_TRUE(config.ok()) << config.status();
    graph_ = MakeNetworkGraph(std::get<network::Network>(config->graph), device_,
                              config::Precision::kAsSaved, settings);
  }
  void MakeLinear(CaptureSettings settings) { MakeGraph(kDiagonalNet, settings); }

  std::unique_ptr<BoundModel> BindDiagonal(float value, int arena) {
    return model::BindDiagonal(*graph_, value, arena);
  }
  std::unique_ptr<BoundModel> BindWarm(float value, int arena) {
    auto bound = BindDiagonal(value, arena);
    const auto outputs = bound->WarmUp({FloatTensor({1, 2}, {0, 0})});
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return bound;
  }

  static std::vector<double> Answer(const BoundModel& model, const HostTensor& input) {
    const auto outputs = model.Forward({input});
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return outputs.ok() ? ValuesOf(outputs->at(0)) : std::vector<double>();
  }

  const std::shared_ptr<RecordingDevice> device_ = std::make_shared<RecordingDevice>();
  std::unique_ptr<Graph> graph_;
};

constexpr CaptureSettings kUpToFour{.enabled = true, .max_batch_size = 4};

TEST_F(CapturedForwardsTest, TheWarmUpCapturesEachBatchSizeAfterARunOfItsOwn) {
  MakeLinear(kUpToFour);
  const auto bound = BindDiagonal(2, 0);
  device_->ClearEvents();
  ASSERT_TRUE(bound->WarmUp({FloatTensor({1, 2}, {3, 4})}).ok());
  EXPECT_THAT(
      device_->events(),
      ElementsAre("use compute", "copy in 8 compute", "copy out 8 compute", "mark compute", "wait",
                  "leave compute",  // A forward, step by step.
                  "use compute", "synchronize compute", "capture compute", "synchronize compute",
                  "capture compute", "synchronize compute", "capture compute",
                  "synchronize compute", "capture compute",
                  "leave compute",  // And
                  "copy in 8 compute", "launch compute", "copy out 8 compute", "mark compute",
                  "wait"));  // runs.
}

TEST_F(CapturedForwardsTest, AForwardIsOneLaunchBetweenTwoCopies) {
  MakeLinear(kUpToFour);
  const auto bound = BindWarm(2, 0);
  device_->ClearEvents();
  EXPECT_THAT(Answer(*bound, FloatTensor({3, 2}, {1, 2, 3, 4, 5, 6})),
              ElementsAre(2, 4, 6, 8, 10, 12));
  EXPECT_THAT(device_->events(), ElementsAre("copy in 24 compute", "launch compute",
                                             "copy out 24 compute", "mark compute", "wait"));
}

TEST_F(CapturedForwardsTest, ABatchBetweenTwoSizesIsFilledUpAndOnlyItsOwnRowsTravel) {
  MakeLinear({.enabled = true, .max_batch_size = 10});
  const auto bound = BindWarm(2, 0);
  const std::vector<float> ones(20, 1);
  Answer(*bound, FloatTensor({10, 2}, ones));  // What the rows behind are filled with.
  device_->ClearEvents();
  std::vector<float> values(18);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  const std::vector<double> answer = Answer(*bound, FloatTensor({9, 2}, values));
  ASSERT_EQ(answer.size(), 18);
  for (std::size_t i = 0; i < answer.size(); ++i) EXPECT_EQ(answer[i], 2.0 * values[i]);
  EXPECT_THAT(device_->events(), ElementsAre("copy in 72 compute", "launch compute",
                                             "copy out 72 compute", "mark compute", "wait"));
}

TEST_F(CapturedForwardsTest, OtherShapesAreComputedStepByStep) {
  MakeGraph(R"(
      input { name: "x" datatype: "FP32" shape: [-1, -1, 2] }
      network { layer { name: "fc" linear { in_features: 2 out_features: 2 bias: false } } })",
            kUpToFour);
  const auto bound = BindDiagonal(2, 0);
  ASSERT_TRUE(bound->WarmUp({FloatTensor({1, 1, 2}, {0, 0})}).ok());
  device_->ClearEvents();
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2, 2}, {1, 2, 3, 4})), ElementsAre(2, 4, 6, 8));
  EXPECT_THAT(device_->events(), Not(Contains("launch compute")));
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 1, 2}, {1, 2})), ElementsAre(2, 4));
  EXPECT_THAT(device_->events(), Contains("launch compute"));
}

TEST_F(CapturedForwardsTest, NoRowsAndTooManyAreComputedStepByStep) {
  MakeLinear(kUpToFour);
  const auto bound = BindWarm(2, 0);
  device_->ClearEvents();
  EXPECT_THAT(Answer(*bound, FloatTensor({0, 2}, {})), ElementsAre());
  EXPECT_EQ(Answer(*bound, FloatTensor({5, 2}, std::vector<float>(10, 1))).size(), 10);
  EXPECT_THAT(device_->events(), Not(Contains("launch compute")));
}

// Their rows are no batch's; with one row of the second input each of the first is meant.
TEST_F(CapturedForwardsTest, InputsOfDifferentNumbersOfRowsAreComputedStepByStep) {
  MakeGraph(R"(
      input { name: "a" datatype: "FP32" shape: [-1, 2] }
      input { name: "b" datatype: "FP32" shape: [-1, 2] }
      network { layer { input: ["a", "b"] sub { } } })",
            kUpToFour);
  const auto bound = graph_->Bind({});
  ASSERT_TRUE(bound.ok()) << bound.status();
  const HostTensor a = FloatTensor({2, 2}, {1, 2, 3, 4});
  ASSERT_TRUE((*bound)->WarmUp({a, a}).ok());
  device_->ClearEvents();
  const auto outputs = (*bound)->Forward({a, FloatTensor({1, 2}, {1, 1})});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(ValuesOf(outputs->at(0)), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(device_->events(), Not(Contains("launch compute")));
  ASSERT_TRUE((*bound)->Forward({a, a}).ok());
  EXPECT_THAT(device_->events(), Contains("launch compute"));
}

TEST_F(CapturedForwardsTest, WithoutBatchesOnlyTheVeryShapeIsCaptured) {
  MakeLinear({.enabled = true, .max_batch_size = 0});
  const auto bound = BindDiagonal(2, 0);
  ASSERT_TRUE(bound->WarmUp({FloatTensor({2, 2}, {0, 0, 0, 0})}).ok());
  EXPECT_THAT(device_->events(), Contains("capture compute").Times(1));
  device_->ClearEvents();
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {1, 2})), ElementsAre(2, 4));
  EXPECT_THAT(device_->events(), Not(Contains("launch compute")));
  EXPECT_THAT(Answer(*bound, FloatTensor({2, 2}, {1, 2, 3, 4})), ElementsAre(2, 4, 6, 8));
  EXPECT_THAT(device_->events(), Contains("launch compute"));
}

TEST_F(CapturedForwardsTest, SwitchedOffNothingIsCaptured) {
  MakeLinear({.enabled = false, .max_batch_size = 4});
  const auto bound = BindWarm(2, 0);
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {1, 2})), ElementsAre(2, 4));
  EXPECT_THAT(device_->events(), Not(Contains("capture compute")));
}

TEST_F(CapturedForwardsTest, ASwapCapturesAllocatesAndFreesNothing) {
  MakeLinear(kUpToFour);
  auto first = BindWarm(2, 0);
  auto second = BindWarm(3, 1);
  EXPECT_THAT(device_->events(), Contains("capture compute").Times(8));
  first.reset();
  device_->ClearEvents();
  const auto third = BindWarm(5, 0);
  EXPECT_THAT(
      device_->events(),
      Each(Not(testing::AnyOf("capture compute", HasSubstr("allocate"), HasSubstr("free")))));
  EXPECT_THAT(Answer(*second, FloatTensor({1, 2}, {1, 2})), ElementsAre(3, 6));
  EXPECT_THAT(Answer(*third, FloatTensor({1, 2}, {1, 2})), ElementsAre(5, 10));
}

// Folded convolutions, whose weights are not the checkpoint's: the captured work must see the new
// ones all the same.
TEST_F(CapturedForwardsTest, WhatIsDerivedFromWeightsIsRebuiltWhereItWas) {
  MakeGraph(R"(
      input { name: "x" datatype: "FP32" shape: [-1, 1, 2, 2] }
      network { layer { name: "c" conv2d { out_channels: 1 kernel_size: 1 bias: false } }
                layer { name: "n" batch_norm2d { eps: 0 } } })",
            kUpToFour);
  const auto bind = [this](float scale) {
    Weights weights;
    weights.Add("c.weight", FloatTensor({1, 1, 1, 1}, {scale}));
    weights.Add("n.weight", FloatTensor({1}, {3}));
    weights.Add("n.bias", FloatTensor({1}, {scale}));
    weights.Add("n.running_mean", FloatTensor({1}, {2}));
    weights.Add("n.running_var", FloatTensor({1}, {4}));
    auto bound = graph_->Bind(weights.Request());
    EXPECT_TRUE(bound.ok()) << bound.status();
    EXPECT_TRUE((*bound)->WarmUp({FloatTensor({1, 1, 2, 2}, {0, 0, 0, 0})}).ok());
    return *std::move(bound);
  };
  for (const float scale : {2.0F, 4.0F, 8.0F}) {
    const auto bound = bind(scale);
    std::vector<double> expected;
    for (const double x : {0.0, 1.0, 2.0, 3.0}) {
      expected.push_back((scale * x - 2) / 2 * 3 + scale);
    }
    EXPECT_EQ(Answer(*bound, FloatTensor({1, 1, 2, 2}, {0, 1, 2, 3})), expected);
  }
  EXPECT_THAT(device_->events(), Contains("capture compute").Times(4));
}

// Also where nothing is captured any more: the last version's forwards read what it read.
TEST_F(CapturedForwardsTest, WeightsOfAnotherTypeEndWhatWasCaptured) {
  MakeLinear(kUpToFour);
  BindWarm(2, 0).reset();
  Weights weights;
  weights.Add("fc.weight", TensorOf<double>(DType::kFloat64, {2, 2}, {3, 0, 0, 3}));
  const auto bound = graph_->Bind(weights.Request());
  ASSERT_TRUE(bound.ok()) << bound.status();
  device_->ClearEvents();
  EXPECT_THAT(Answer(**bound, FloatTensor({1, 2}, {1, 2})), ElementsAre(3, 6));
  EXPECT_THAT(device_->events(), Not(Contains("launch compute")));
  ASSERT_TRUE((*bound)->WarmUp({FloatTensor({1, 2}, {0, 0})}).ok());
  EXPECT_THAT(Answer(**bound, FloatTensor({1, 2}, {1, 2})), ElementsAre(3, 6));
  EXPECT_THAT(device_->events(), Contains("launch compute"));
}

TEST_F(CapturedForwardsTest, AnArenaInUseKeepsItsForwards) {
  MakeLinear(kUpToFour);
  const auto first = BindWarm(2, 0);
  const auto second = BindWarm(3, 0);
  EXPECT_THAT(device_->events(), Contains("capture compute").Times(8));
  EXPECT_THAT(Answer(*first, FloatTensor({1, 2}, {1, 2})), ElementsAre(2, 4));
  EXPECT_THAT(Answer(*second, FloatTensor({1, 2}, {1, 2})), ElementsAre(3, 6));
}

TEST_F(CapturedForwardsTest, AFailedCaptureRefusesTheVersionAndSaysWhatHelps) {
  MakeLinear(kUpToFour);
  auto bound = BindDiagonal(2, 0);
  device_->FailCapture(1);
  const auto failed = bound->WarmUp({FloatTensor({1, 2}, {0, 0})});
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(failed.status().message()), HasSubstr("cuda_graphs: false"));
  bound.reset();
  EXPECT_THAT(Answer(*BindWarm(3, 0), FloatTensor({1, 2}, {1, 2})), ElementsAre(3, 6));
}

TEST_F(CapturedForwardsTest, AFailedCopyStillWaitsAndSpoilsNothing) {
  MakeLinear(kUpToFour);
  const auto bound = BindWarm(2, 0);
  device_->ClearEvents();
  device_->FailNextCopy();
  EXPECT_EQ(bound->Forward({FloatTensor({1, 2}, {3, 4})}).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_THAT(device_->events(), ElementsAre("synchronize compute"));
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {1, 2})), ElementsAre(2, 4));
}

TEST_F(CapturedForwardsTest, AFailedLaunchWaitsForTheCopyBeforeIt) {
  MakeLinear(kUpToFour);
  const auto bound = BindWarm(2, 0);
  device_->ClearEvents();
  device_->FailNextLaunch();
  EXPECT_EQ(bound->Forward({FloatTensor({1, 2}, {3, 4})}).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_THAT(device_->events(), ElementsAre("copy in 8 compute", "synchronize compute"));
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {1, 2})), ElementsAre(2, 4));
}

TEST_F(CapturedForwardsTest, WhatFailsStepByStepSaysSoAndIsNotCaptured) {
  MakeGraph(R"(
      input { name: "x" datatype: "FP32" shape: [-1, 1, -1, -1] }
      network { layer { name: "c" conv2d { out_channels: 1 kernel_size: 3 bias: false } } })",
            kUpToFour);
  Weights weights;
  weights.Add("c.weight", FloatTensor({1, 1, 3, 3}, std::vector<float>(9, 1)));
  const auto bound = graph_->Bind(weights.Request());
  ASSERT_TRUE(bound.ok()) << bound.status();
  const absl::Status status = (*bound)->WarmUp({FloatTensor({1, 1, 1, 1}, {0})}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("cuda_graphs")));
  EXPECT_THAT(device_->events(), Not(Contains("capture compute")));
}

// Rows behind the batch's own could not be told from them.
TEST_F(CapturedForwardsTest, OutputsWithoutTheBatchsRowsAreNotCaptured) {
  MakeGraph(R"(
      input { name: "x" datatype: "FP32" shape: [-1, 2] }
      network { layer { flatten { start_dim: 0 } } })",
            kUpToFour);
  const auto bound = graph_->Bind({});
  ASSERT_TRUE(bound.ok()) << bound.status();
  ASSERT_TRUE((*bound)->WarmUp({FloatTensor({1, 2}, {0, 0})}).ok());
  EXPECT_THAT(Answer(**bound, FloatTensor({2, 2}, {1, 2, 3, 4})), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(device_->events(), Not(Contains("launch compute")));
}

// They share the inputs' memory and the outputs'.
TEST_F(CapturedForwardsTest, ManyThreadsGetTheirOwnAnswers) {
  device_->ComputeAtOnce(4);
  MakeLinear(kUpToFour);
  const auto bound = BindWarm(2, 0);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 500; ++i) {
        const auto value = static_cast<float>(1000 * thread + i);
        const std::vector<double> answer = Answer(*bound, FloatTensor({1, 2}, {value, value + 1}));
        if (answer != std::vector<double>{2.0 * value, 2.0 * (value + 1)}) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(CapturedForwardsTest, ADeviceThatComputesSeveralAtOnceHasForwardsForTwoStreams) {
  device_->ComputeAtOnce(4);
  MakeLinear(kUpToFour);
  const auto bound = BindWarm(2, 0);
  EXPECT_THAT(device_->events(), Contains("capture compute").Times(4));
  EXPECT_THAT(device_->events(), Contains("capture second").Times(4));
  // One that is alone keeps to the first.
  device_->ClearEvents();
  for (int i = 0; i < 3; ++i) Answer(*bound, FloatTensor({1, 2}, {1, 2}));
  EXPECT_THAT(device_->events(), Each(Not(HasSubstr("second"))));
}

// While one has not been waited for, the next goes beside it.
TEST_F(CapturedForwardsTest, ForwardsAtOnceGoToTheStreamWithTheFewestUnderWay) {
  device_->ComputeAtOnce(4);
  MakeLinear(kUpToFour);
  const auto bound = BindWarm(2, 0);
  device_->ClearEvents();
  device_->BeforeNextWait([&] {
    EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {5, 6})), ElementsAre(10, 12));
  });
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {1, 2})), ElementsAre(2, 4));
  EXPECT_THAT(device_->events(),
              ElementsAre("copy in 8 compute", "launch compute", "copy out 8 compute",
                          "mark compute", "copy in 8 second", "launch second", "copy out 8 second",
                          "mark second", "wait", "wait"));
  device_->ClearEvents();
  Answer(*bound, FloatTensor({1, 2}, {1, 2}));
  EXPECT_THAT(device_->events(), Each(Not(HasSubstr("second"))));
}

TEST_F(CapturedForwardsTest, AFailedCaptureForTheSecondStreamLeavesNoneForTheFirst) {
  device_->ComputeAtOnce(2);
  MakeLinear(kUpToFour);
  const auto bound = BindDiagonal(2, 0);
  device_->FailCapture(6);
  EXPECT_FALSE(bound->WarmUp({FloatTensor({1, 2}, {0, 0})}).ok());
  device_->ClearEvents();
  EXPECT_THAT(Answer(*bound, FloatTensor({1, 2}, {1, 2})), ElementsAre(2, 4));
  EXPECT_THAT(device_->events(), Each(Not(HasSubstr("launch"))));
}

TEST(DerivedTensorsTest, TheSameOnesStayWhereTheyAreWithTheNewValues) {
  DerivedTensors derived;
  const at::Tensor first = derived.Keep(at::full({2}, 1.0F));
  derived.Rewind();
  const at::Tensor second = derived.Keep(at::full({2}, 5.0F));
  EXPECT_EQ(second.data_ptr(), first.data_ptr());
  EXPECT_EQ(first[1].item<float>(), 5);
  EXPECT_EQ(derived.kept().size(), 1);
}

TEST(DerivedTensorsTest, OthersTakeTheirPlaceAndWhatIsNotKeptAgainGoes) {
  DerivedTensors derived;
  const at::Tensor first = derived.Keep(at::full({2}, 1.0F));
  const at::Tensor last = derived.Keep(at::full({3}, 1.0F));
  derived.Rewind();
  EXPECT_EQ(derived.Keep(at::full({4}, 5.0F)).size(0), 4);
  derived.Trim();
  EXPECT_EQ(first.use_count(), 1);
  EXPECT_EQ(last.use_count(), 1);
  EXPECT_EQ(first[0].item<float>(), 1);
}

TEST_F(CapturedForwardsTest, InputsInTheDevicesOwnMemoryAreNotCopiedOnTheHost) {
  MakeLinear(kUpToFour);
  const auto bound = BindWarm(2, 0);
  const std::shared_ptr<std::byte> memory = bound->AllocateInput(8);
  ASSERT_NE(memory, nullptr);
  const float values[] = {3, 4};
  std::memcpy(memory.get(), values, sizeof(values));
  HostTensor input = FloatTensor({1, 2}, {0, 0});
  input.data = memory;
  input.page_locked = true;
  EXPECT_THAT(Answer(*bound, input), ElementsAre(6, 8));
  // Two warm-ups' inputs and outputs, the input, the output.
  EXPECT_EQ(device_->host_tensors_made(), 4 + 1 + 1);
}

}  // namespace
}  // namespace relight::model
