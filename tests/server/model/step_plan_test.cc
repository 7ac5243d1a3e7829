#include "server/model/step_plan.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace relight::model {
namespace {

using network::Activation;
using network::ActivationOp;
using network::AdaptivePool;
using network::BatchNorm;
using network::Elementwise;
using network::ElementwiseOp;
using network::Flatten;
using network::Identity;
using network::Layer;
using network::LayerKind;
using network::Linear;
using network::MaxPool;
using network::Network;

constexpr std::int64_t kLarge = 100;  // 3 * 100 * 100 elements are more than LibTorch's bound.

Network Build(std::vector<std::int64_t> shape, std::vector<Layer> layers,
              std::vector<std::string> outputs = {}) {
  network::NetworkDescription description;
  description.inputs = {{"x", DType::kFloat32, std::move(shape)}};
  for (std::string& output : outputs) {
    description.outputs.push_back({std::move(output), DType::kFloat32, {}});
  }
  description.layers = std::move(layers);
  absl::StatusOr<Network> network = Network::Build(std::move(description));
  EXPECT_TRUE(network.ok()) << network.status();
  return *std::move(network);
}

Layer Conv(std::string name, std::vector<std::string> inputs = {}, std::int64_t kernel = 3) {
  network::Conv conv;
  conv.out_channels = 3;
  conv.kernel_size = {kernel, kernel};
  conv.padding = {kernel / 2, kernel / 2};
  return {.name = std::move(name), .inputs = std::move(inputs), .kind = conv};
}

Layer Named(std::string name, LayerKind kind, std::vector<std::string> inputs = {}) {
  return {.name = std::move(name), .inputs = std::move(inputs), .kind = std::move(kind)};
}

// Names of the layers whose values a plan leaves in `layout`.
std::vector<std::string> In(Layout layout, const Network& network,
                            const PlanOptions& options = {.take_in_norms = true, .pack = true}) {
  std::vector<std::string> names;
  const std::vector<StepPlan> plan = PlanSteps(network, options);
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (plan[i].layout == layout) names.push_back(network.steps()[i].layer.name);
  }
  return names;
}

// "norm into conv"
std::vector<std::string> TakenIn(const Network& network) {
  std::vector<std::string> pairs;
  const std::vector<StepPlan> plan = PlanSteps(network, {.take_in_norms = true});
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (!plan[i].norm_taken_in.has_value()) continue;
    EXPECT_TRUE(plan[*plan[i].norm_taken_in].taken_in);
    pairs.push_back(network.steps()[*plan[i].norm_taken_in].layer.name + " into " +
                    network.steps()[i].layer.name);
  }
  return pairs;
}

using testing::ElementsAre;
using testing::IsEmpty;

TEST(StepPlanTest, AConvolutionTakesInTheNormThatFollowsIt) {
  EXPECT_THAT(TakenIn(Build({-1, 3, 8, 8}, {Conv("c1"), Named("n1", BatchNorm()), Conv("c2"),
                                            Named("r", Activation()), Named("n2", BatchNorm())})),
              ElementsAre("n1 into c1"));
}

TEST(StepPlanTest, ANormStaysWhereSomethingElseSeesTheConvolution) {
  EXPECT_THAT(
      TakenIn(Build({-1, 3, 8, 8}, {Conv("c"), Named("n", BatchNorm()),
                                    Named("sum", Elementwise{ElementwiseOp::kAdd}, {"c", "n"})})),
      IsEmpty());
  EXPECT_THAT(TakenIn(Build({-1, 3, 8, 8}, {Conv("c"), Named("n", BatchNorm())}, {"c", "n"})),
              IsEmpty());
}

TEST(StepPlanTest, ANormOfAnInputOrOfALinearLayerStays) {
  EXPECT_THAT(TakenIn(Build({-1, 3, 8, 8}, {Named("n", BatchNorm()), Conv("c")})), IsEmpty());
  EXPECT_THAT(TakenIn(Build({-1, 4}, {Named("fc", Linear{.out_features = 2}),
                                      Named("n", BatchNorm{.spatial_dims = 1})})),
              IsEmpty());
}

TEST(StepPlanTest, ARunBeginsAtALargeConvolutionAndEndsWhereALayerCannotKeepIt) {
  const Network network = Build(
      {-1, 3, kLarge, kLarge},
      {Named("before", Activation()), Conv("c1"), Named("n1", BatchNorm()),
       Named("r1", Activation()), Named("pool", MaxPool{.kernel_size = {8, 8}, .stride = {8, 8}}),
       Conv("c2"), Named("sum", Elementwise{ElementwiseOp::kAdd}, {"c2", "pool"}),
       Named("drop", Identity()), Named("mean", AdaptivePool{.output_size = {1}}),
       Named("flat", Flatten()), Named("fc", Linear{.out_features = 2})});
  EXPECT_THAT(In(Layout::kImages, network),
              ElementsAre("c1", "n1", "r1", "pool", "c2", "sum", "drop", "mean"));
  for (const StepPlan& step : PlanSteps(network, {})) {
    EXPECT_EQ(step.layout, Layout::kRowMajor);
  }
}

TEST(StepPlanTest, SmallConvolutionsDoNotBeginARun) {
  EXPECT_THAT(In(Layout::kImages, Build({-1, 3, 8, 8}, {Conv("c"), Named("r", Activation())})),
              IsEmpty());
  EXPECT_THAT(In(Layout::kImages, Build({-1, 3, 8, 8}, {Conv("c", {}, 5)})), ElementsAre("c"));
}

TEST(StepPlanTest, SizesMustBeKnown) {
  EXPECT_THAT(In(Layout::kImages, Build({-1, 3, -1, kLarge}, {Conv("c", {}, 5)})), IsEmpty());
}

TEST(StepPlanTest, LayersThatOneDnnDoesOtherwiseEndTheRun) {
  const auto after_conv = [](Layer layer) {
    return In(Layout::kImages, Build({-1, 3, kLarge, kLarge}, {Conv("c"), std::move(layer)}));
  };
  EXPECT_THAT(after_conv(Named("l", Activation{ActivationOp::kSilu})), ElementsAre("c"));
  EXPECT_THAT(after_conv(Named("l", MaxPool{.kernel_size = {2, 2}, .dilation = {2, 2}})),
              ElementsAre("c"));
  EXPECT_THAT(after_conv(Named("l", AdaptivePool{.output_size = {3, 3}})), ElementsAre("c"));
  EXPECT_THAT(after_conv(Named("l", AdaptivePool{.output_size = {1}})), ElementsAre("c"))
      << "a long sum";
  EXPECT_THAT(after_conv(Named("l", Elementwise{ElementwiseOp::kMul}, {"c", "c"})),
              ElementsAre("c"));
  EXPECT_THAT(after_conv(Named("l", Elementwise{ElementwiseOp::kAdd}, {"c", "x"})),
              ElementsAre("c"));
}

TEST(StepPlanTest, ASumThatStretchesAnInputEndsTheRun) {
  EXPECT_THAT(In(Layout::kImages,
                 Build({-1, 3, kLarge, kLarge},
                       {Conv("c"), Named("mean", AdaptivePool{.output_size = {1, kLarge}}, {"c"}),
                        Named("sum", Elementwise{ElementwiseOp::kAdd}, {"c", "mean"})})),
              ElementsAre("c", "mean"));
}

TEST(StepPlanTest, ARunOfRowsBeginsAtALargeLinearLayer) {
  const Network network =
      Build({-1, 1024}, {Named("fc1", Linear{.out_features = 512}), Named("r1", Activation()),
                         Named("fc2", Linear{.out_features = 128}),
                         Named("sum", Elementwise{ElementwiseOp::kAdd}, {"fc2", "fc2"}),
                         Named("fc3", Linear{.out_features = 10}), Named("r3", Activation())});
  EXPECT_THAT(In(Layout::kRows, network), ElementsAre("fc1", "r1", "fc2", "sum"));
}

TEST(StepPlanTest, SmallLinearLayersAndOtherRanksDoNotBeginARun) {
  EXPECT_THAT(In(Layout::kRows, Build({-1, 1023}, {Named("fc", Linear{.out_features = 512})})),
              IsEmpty());
  EXPECT_THAT(In(Layout::kRows, Build({-1, 7, 1024}, {Named("fc", Linear{.out_features = 512})})),
              IsEmpty());
}

TEST(StepPlanTest, WhatIsDerivedIsBounded) {
  const Network network =
      Build({-1, 3, kLarge, kLarge},
            {Conv("c"), Named("n", BatchNorm()), Named("mean", AdaptivePool{.output_size = {4, 4}}),
             Named("flat", Flatten()), Named("fc1", Linear{.out_features = 20000}),
             Named("fc2", Linear{.out_features = 1})});
  const std::uint64_t convolution = 3 * 3 * 9 + 3;
  const std::uint64_t linear = 48 * 20000 + 20000 + 20000 + 1;
  const auto packed = [&](std::uint64_t most_convolution, std::uint64_t most_linear) {
    std::vector<std::string> names;
    const std::vector<StepPlan> plan =
        PlanSteps(network, {.take_in_norms = true,
                            .pack = true,
                            .most_convolution_elements = most_convolution,
                            .most_linear_elements = most_linear});
    for (std::size_t i = 0; i < plan.size(); ++i) {
      const std::string& name = network.steps()[i].layer.name;
      if (plan[i].layout != Layout::kRowMajor) names.push_back(name);
      if (plan[i].taken_in) names.push_back("without " + name);
    }
    return names;
  };
  EXPECT_THAT(packed(convolution, linear),
              ElementsAre("c", "n", "without n", "mean", "fc1", "fc2"));
  EXPECT_THAT(packed(convolution - 1, linear), ElementsAre("fc1", "fc2"));
  EXPECT_THAT(packed(convolution, linear - 1), ElementsAre("c", "n", "without n", "mean"));
}

TEST(StepPlanTest, CountsWhatIsDerived) {
  const Network network = Build({-1, 3, kLarge, kLarge}, {Conv("c"), Named("n", BatchNorm())});
  EXPECT_EQ(DerivedElements(network, PlanSteps(network, {.pack = true})), 3 * 3 * 9 + 3);
  EXPECT_EQ(DerivedElements(network, PlanSteps(network, {.take_in_norms = true})), 3 * 3 * 9 + 3);
  const Network bare = Build({-1, 3, 8, 8}, {Conv("c")});
  EXPECT_EQ(DerivedElements(bare, PlanSteps(bare, {.take_in_norms = true, .pack = true})), 0);
}

}  // namespace
}  // namespace relight::model
