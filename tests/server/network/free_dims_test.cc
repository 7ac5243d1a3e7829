#include "server/network/free_dims.h"

#include <gtest/gtest.h>

namespace relight::network {
namespace {

Network Build(std::vector<std::int64_t> shape, std::vector<Layer> layers) {
  NetworkDescription description;
  description.inputs.push_back({"x", DType::kFloat32, std::move(shape)});
  description.layers = std::move(layers);
  absl::StatusOr<Network> network = Network::Build(std::move(description));
  EXPECT_TRUE(network.ok()) << network.status();
  return *std::move(network);
}

Layer Convolution(std::int64_t kernel) {
  return {.name = "conv" + std::to_string(kernel),
          .kind = Conv{.out_channels = 2, .kernel_size = {kernel, kernel}}};
}

TEST(FreeDimsTest, OneWillDoForLayersThatDoNotLookAtThem) {
  const Network network = Build({-1, 4}, {{.name = "fc", .kind = Linear{.out_features = 2}}});
  EXPECT_EQ(SmallestFreeDim(network, 1), 1);
}

TEST(FreeDimsTest, AsLargeAsTheWindowsOfTheNetNeed) {
  EXPECT_EQ(SmallestFreeDim(Build({-1, 3, -1, -1}, {Convolution(3)}), 1), 4);
  EXPECT_EQ(SmallestFreeDim(Build({-1, 3, -1, -1}, {Convolution(3), Convolution(4)}), 1), 8);
}

TEST(FreeDimsTest, WithoutRowsTheFirstDimensionIsFreeToo) {
  const Network network = Build({-1, 3, -1, -1}, {Convolution(1)});
  EXPECT_EQ(SmallestFreeDim(network, std::nullopt), 1);
}

TEST(FreeDimsTest, WhereNothingFitsTheNetSaysSoWhenItRuns) {
  EXPECT_EQ(SmallestFreeDim(Build({-1, 3, -1, -1}, {Convolution(2000)}), 1), 1);
}

}  // namespace
}  // namespace relight::network
