// The order of device work and the lifetimes of its memory, without a device.
#include "tests/server/model/recording_device.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/network_graph.h"
#include "tests/server/model/model_testing.h"

namespace relight::model {
namespace {

using testing::ElementsAre;

class RecordingDeviceTest : public testing::Test {
 protected:
  RecordingDeviceTest() {
    const auto config = config::ParseModelConfig(kDiagonalNet, "model");
    graph_ = MakeNetworkGraph(std::get<network::Network>(config.value().graph), device_,
                              config::Precision::kAsSaved);
  }

  std::unique_ptr<BoundModel> BindDiagonal(float value, int arena) {
    return model::BindDiagonal(*graph_, value, arena);
  }

  std::vector<double> Answer(const BoundModel& model) {
    const auto outputs = model.Forward({FloatTensor({1, 2}, {3, 4})});
    EXPECT_TRUE(outputs.ok()) << outputs.status();
    return ValuesOf(outputs->at(0));
  }

  const std::shared_ptr<RecordingDevice> device_ = std::make_shared<RecordingDevice>();
  std::unique_ptr<Graph> graph_;
};

TEST_F(RecordingDeviceTest, BindingCopiesOnTheLoadStreamAndWaits) {
  const auto bound = BindDiagonal(2, 0);
  EXPECT_THAT(device_->events(), ElementsAre("allocate 256", "copy in 16 load", "synchronize load",
                                             "use load", "synchronize load", "leave load"));
}

TEST_F(RecordingDeviceTest, WhatIsDerivedFromWeightsIsMadeOnTheLoadStream) {
  const auto config = config::ParseModelConfig(R"(
      input { name: "x" datatype: "FP32" shape: [-1, 1, 2, 2] }
      network { layer { name: "c" conv2d { out_channels: 1 kernel_size: 1 bias: false } }
                layer { name: "n" batch_norm2d { eps: 0 } } })",
                                               "model");
  const auto graph = MakeNetworkGraph(std::get<network::Network>(config.value().graph), device_,
                                      config::Precision::kAsSaved);
  Weights weights;
  weights.Add("c.weight", FloatTensor({1, 1, 1, 1}, {2}));
  weights.Add("n.weight", FloatTensor({1}, {3}));
  weights.Add("n.bias", FloatTensor({1}, {1}));
  weights.Add("n.running_mean", FloatTensor({1}, {2}));
  weights.Add("n.running_var", FloatTensor({1}, {4}));
  const auto bound = graph->Bind(weights.Request());
  ASSERT_TRUE(bound.ok()) << bound.status();
  const std::vector<std::string> events = device_->events();
  ASSERT_GE(events.size(), 3);
  EXPECT_THAT(std::vector<std::string>(events.end() - 3, events.end()),
              ElementsAre("use load", "synchronize load", "leave load"));
  const auto outputs = (*bound)->Forward({FloatTensor({1, 1, 2, 2}, {0, 1, 2, 3})});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(ValuesOf(outputs->at(0)), ElementsAre(-2, 1, 4, 7));
}

TEST_F(RecordingDeviceTest, AForwardCopiesComputesAndWaitsOnTheComputeStream) {
  const auto bound = BindDiagonal(2, 0);
  device_->ClearEvents();
  EXPECT_THAT(Answer(*bound), ElementsAre(6, 8));
  EXPECT_THAT(device_->events(),
              ElementsAre("use compute", "copy in 8 compute", "copy out 8 compute", "mark compute",
                          "wait", "leave compute"));
}

TEST_F(RecordingDeviceTest, AFailedForwardStillWaitsBeforeItLetsGo) {
  const auto bound = BindDiagonal(2, 0);
  device_->ClearEvents();
  device_->FailNextCopy();
  EXPECT_EQ(bound->Forward({FloatTensor({1, 2}, {3, 4})}).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_THAT(device_->events(),
              ElementsAre("use compute", "synchronize compute", "leave compute"));
}

TEST_F(RecordingDeviceTest, AFailedBindStillWaitsBeforeItLetsGo) {
  device_->FailNextCopy();
  Weights weights;
  weights.Add("fc.weight", FloatTensor({2, 2}, {1, 0, 0, 1}));
  EXPECT_EQ(graph_->Bind(weights.Request()).status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(device_->events(), ElementsAre("allocate 256", "synchronize load"));
}

TEST_F(RecordingDeviceTest, TheTwoArenasAreAllocatedOnceAndUsedInTurn) {
  auto first = BindDiagonal(2, 0);
  auto second = BindDiagonal(3, 1);
  EXPECT_THAT(Answer(*first), ElementsAre(6, 8));
  first.reset();
  device_->ClearEvents();
  const auto third = BindDiagonal(5, 0);
  EXPECT_THAT(device_->events(), testing::Each(testing::Not(testing::HasSubstr("allocate"))));
  EXPECT_THAT(Answer(*second), ElementsAre(9, 12));
  EXPECT_THAT(Answer(*third), ElementsAre(15, 20));
}

TEST_F(RecordingDeviceTest, AnArenaInUseIsNeverWrittenTo) {
  auto first = BindDiagonal(2, 0);
  const auto second = BindDiagonal(3, 0);
  EXPECT_THAT(Answer(*first), ElementsAre(6, 8));
  EXPECT_THAT(Answer(*second), ElementsAre(9, 12));
  device_->ClearEvents();
  first.reset();
  EXPECT_THAT(device_->events(), ElementsAre("free 256"));
}

TEST_F(RecordingDeviceTest, DeviceMemoryGoesWithTheLastModel) {
  auto bound = BindDiagonal(2, 0);
  graph_.reset();
  EXPECT_THAT(Answer(*bound), ElementsAre(6, 8));
  device_->ClearEvents();
  bound.reset();
  EXPECT_THAT(device_->events(), ElementsAre("free 256"));
}

TEST_F(RecordingDeviceTest, TiedWeightsAreCopiedOnce) {
  const auto config = config::ParseModelConfig(R"(
      input { name: "x" datatype: "FP32" shape: -1 shape: 2 }
      network {
        layer { name: "a" linear { out_features: 2 bias: false } }
        layer { name: "b" linear { out_features: 2 bias: false } }
      })",
                                               "model");
  graph_ = MakeNetworkGraph(std::get<network::Network>(config.value().graph), device_,
                            config::Precision::kAsSaved);
  Weights weights;
  weights.Add("a.weight", FloatTensor({2, 2}, {2, 0, 0, 2}));
  BindRequest request = weights.Request();
  request.weights.push_back(request.weights[0]);
  request.weights[1].name = "b.weight";
  const auto bound = graph_->Bind(std::move(request));
  ASSERT_TRUE(bound.ok()) << bound.status();
  EXPECT_THAT(device_->events(), testing::Contains("copy in 16 load").Times(1));
  EXPECT_THAT(Answer(**bound), ElementsAre(12, 16));
}

}  // namespace
}  // namespace relight::model
