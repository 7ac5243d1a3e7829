#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/torch_backend.h"
#include "tests/server/model/model_testing.h"

namespace relight::model {
namespace {

using testing::HasSubstr;

std::string NetOn(const std::string& device) {
  return "device: \"" + device + R"("
    input { name: "x" datatype: "FP32" shape: -1 }
    network { layer { identity { } } })";
}

TEST(BackendTest, CudaWithoutADeviceIsAClearError) {
  const int beyond = DescribeBackend().cuda_devices;
  const auto graph = GraphFromText(NetOn("cuda:" + std::to_string(beyond)));
  EXPECT_EQ(graph.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("cuda:" + std::to_string(beyond)));
}

TEST(BackendTest, AutoIsTheCpuWhereThereIsNoCuda) {
  if (DescribeBackend().cuda_devices > 0) GTEST_SKIP() << "there is a CUDA device";
  const auto graph = GraphFromText(NetOn("auto"));
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ((*graph)->device(), "cpu");
}

TEST(BackendTest, CudaAnswersFromTheArenaOfEachVersion) {
  if (DescribeBackend().cuda_devices == 0) GTEST_SKIP() << "there is no CUDA device";
  const auto graph = GraphFromText(R"(device: "cuda:0"
    input { name: "x" datatype: "FP32" shape: -1 shape: 2 }
    network { layer { name: "fc" linear { out_features: 2 bias: false } } })");
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ((*graph)->device(), "cuda:0");
  std::vector<std::unique_ptr<BoundModel>> versions(2);
  for (int version = 0; version < 6; ++version) {
    const float value = static_cast<float>(version + 1);
    Weights weights;
    weights.Add("fc.weight", FloatTensor({2, 2}, {value, 0, 0, value}));
    BindRequest request = weights.Request();
    request.arena = version % 2;
    auto& place = versions[static_cast<std::size_t>(request.arena)];
    place.reset();
    auto bound = (*graph)->Bind(std::move(request));
    ASSERT_TRUE(bound.ok()) << bound.status();
    place = *std::move(bound);
    const auto outputs = place->Forward({FloatTensor({1, 2}, {3, 4})});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_EQ(ValuesOf(outputs->at(0)), (std::vector<double>{3.0 * value, 4.0 * value}));
  }
  const auto memory = Backend().AllocateHost("cuda:0", 1 << 20);
  ASSERT_TRUE(memory.ok()) << memory.status();
  EXPECT_EQ(memory->get()[4095], std::byte{0});
}

TEST(BackendTest, NamesItsLibraries) {
  const BackendInfo info = DescribeBackend();
  EXPECT_FALSE(info.libtorch_version.empty());
  EXPECT_FALSE(info.blas.empty());
}

TEST(BackendTest, HostMemoryIsZeroedAndAligned) {
  for (const std::size_t size_bytes : {std::size_t{0}, std::size_t{1}, std::size_t{5} << 20}) {
    const auto memory = Backend().AllocateHost("cpu", size_bytes);
    ASSERT_TRUE(memory.ok()) << memory.status();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory->get()) % 64, 0);
    for (std::size_t i = 0; i < size_bytes; i += 511) ASSERT_EQ(memory->get()[i], std::byte{0});
  }
}

TEST(BackendTest, RefusesHostMemoryThatDoesNotFit) {
  const auto memory = Backend().AllocateHost("cpu", std::size_t{1} << 60);
  EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(memory.status().message()), HasSubstr("1152921504606846976"));
}

TEST(BackendTest, RefusesHostMemoryForAnUnknownDevice) {
  EXPECT_EQ(Backend().AllocateHost("tpu:0", 1).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace relight::model
