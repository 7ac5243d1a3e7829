// On a real card; skipped where there is none. What can be shown without one is shown by
// captured_forwards_test and recording_device_test.
#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>
#include <torch/version.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/model/torch_backend.h"
#include "tests/server/model/model_testing.h"

namespace relight::model {
namespace {

constexpr char kMlp[] = R"(
    input { name: "x" datatype: "FP32" shape: [-1, 64] }
    output { name: "y" datatype: "FP32" shape: [-1, 10] }
    network { layer { name: "0" linear { out_features: 128 } } layer { relu { } }
              layer { name: "2" linear { out_features: 10 } } } )";

constexpr char kImages[] = R"(
    input { name: "x" datatype: "FP32" shape: [-1, 3, 32, 32] }
    output { name: "y" datatype: "FP32" shape: [-1, 10] }
    network {
      layer { name: "c1" conv2d { out_channels: 16 kernel_size: 3 padding: 1 bias: false } }
      layer { name: "n1" batch_norm2d { } }
      layer { name: "r1" relu { } }
      layer { name: "c2" conv2d { out_channels: 16 kernel_size: 3 padding: 1 groups: 16 } }
      layer { name: "n2" batch_norm2d { } }
      layer { name: "sum" input: ["r1", "n2"] add { } }
      layer { max_pool2d { kernel_size: 2 } }
      layer { name: "c3" conv2d { out_channels: 32 kernel_size: 1 stride: 2 } }
      layer { relu { } }
      layer { adaptive_avg_pool2d { output_size: 1 } }
      layer { flatten { } }
      layer { name: "fc" linear { out_features: 10 } } } )";

class CudaTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (DescribeBackend().cuda_devices > 0) return;
    ASSERT_EQ(std::getenv("RELIGHT_NEEDS_CARD"), nullptr) << "there is no CUDA device";
    GTEST_SKIP() << "there is no CUDA device";
  }
};

std::int64_t Count(const std::vector<std::int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::vector<float> RandomValues(std::mt19937& engine, std::int64_t count, float low, float high) {
  std::uniform_real_distribution<float> distribution(low, high);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = distribution(engine);
  return values;
}

// Other ones for each seed.
Weights MakeWeights(const Graph& graph, unsigned seed) {
  std::mt19937 engine(seed);
  Weights weights;
  for (const ParameterSpec& spec : graph.parameters()) {
    if (spec.dtype != DType::kFloat32) {
      weights.Add(spec.name, TensorOf<std::int64_t>(DType::kInt64, spec.shape, {5}));
    } else if (spec.name.ends_with("running_var")) {
      weights.Add(spec.name,
                  FloatTensor(spec.shape, RandomValues(engine, Count(spec.shape), 1, 2)));
    } else {
      weights.Add(spec.name,
                  FloatTensor(spec.shape, RandomValues(engine, Count(spec.shape), -0.3F, 0.3F)));
    }
  }
  return weights;
}

HostTensor MakeInput(const Graph& graph, std::int64_t rows, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<std::int64_t> shape = graph.inputs().front().shape;
  shape.front() = rows;
  return FloatTensor(shape, RandomValues(engine, Count(shape), -1, 1));
}

std::unique_ptr<Graph> MakeGraph(const std::string& text) {
  auto graph = GraphFromText(text);
  EXPECT_TRUE(graph.ok()) << graph.status();
  return *std::move(graph);
}

std::unique_ptr<BoundModel> BindWarm(Graph& graph, unsigned seed, int arena = 0) {
  const Weights weights = MakeWeights(graph, seed);
  BindRequest request = weights.Request();
  request.arena = arena;
  auto bound = graph.Bind(std::move(request));
  EXPECT_TRUE(bound.ok()) << bound.status();
  const auto warm = (*bound)->WarmUp({MakeInput(graph, 1, 0)});
  EXPECT_TRUE(warm.ok()) << warm.status();
  return *std::move(bound);
}

std::vector<double> Answer(const BoundModel& model, const HostTensor& input) {
  const auto outputs = model.Forward({input});
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? ValuesOf(outputs->at(0)) : std::vector<double>();
}

// The largest difference, relative to the largest value of `expected`.
double Distance(const std::vector<double>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, largest = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    difference = std::max(difference, std::abs(actual[i] - expected[i]));
    largest = std::max(largest, std::abs(expected[i]));
    if (std::isnan(actual[i])) return std::numeric_limits<double>::infinity();
  }
  return difference / largest;
}

struct Precision {
  const char* name;
  double tolerance;
};
// Float32 convolutions are computed in TF32, as PyTorch does by default: ten bits of mantissa.
constexpr std::array<Precision, 3> kPrecisions = {{{"FP32", 2e-3}, {"FP16", 5e-3}, {"BF16", 3e-2}}};

TEST_P(CudaTest, AnswersAsTheCpuDoesInEachPrecision) {
  const auto cpu = MakeGraph(absl::StrCat("device: \"cpu\" ", GetParam()));
  const auto reference = BindWarm(*cpu, 1);
  for (const Precision& precision : kPrecisions) {
    for (const char* graphs : {"true", "false"}) {
      const auto cuda = MakeGraph(absl::StrCat("device: \"cuda:0\" precision: ", precision.name,
                                               " cuda_graphs: ", graphs, GetParam()));
      const auto bound = BindWarm(*cuda, 1);
      for (std::int64_t rows = 1; rows <= 40; ++rows) {
        const HostTensor input = MakeInput(*cuda, rows, static_cast<unsigned>(rows));
        EXPECT_LT(Distance(Answer(*bound, input), Answer(*reference, input)), precision.tolerance)
            << precision.name << ", cuda_graphs: " << graphs << ", " << rows << " rows";
      }
    }
  }
}

TEST_P(CudaTest, CapturedForwardsAnswerAsTheStepsDo) {
  const auto captured = MakeGraph(absl::StrCat("device: \"cuda:0\" ", GetParam()));
  const auto stepwise =
      MakeGraph(absl::StrCat("device: \"cuda:0\" cuda_graphs: false ", GetParam()));
  const auto a = BindWarm(*captured, 1), b = BindWarm(*stepwise, 1);
  for (const std::int64_t rows : {1, 2, 8, 16, 32}) {  // Nothing is filled up.
    const HostTensor input = MakeInput(*captured, rows, 7);
    EXPECT_EQ(Answer(*a, input), Answer(*b, input)) << rows << " rows";
  }
}

// Of the card, and by LibTorch's allocator.
struct DeviceMemory {
  std::size_t free_bytes = 0;
  std::int64_t allocations = 0;
  std::int64_t frees = 0;
  bool operator==(const DeviceMemory&) const = default;
};

DeviceMemory LookAtDeviceMemory() {
  DeviceMemory seen;
  std::size_t total = 0;
  EXPECT_EQ(cudaMemGetInfo(&seen.free_bytes, &total), cudaSuccess);
#if TORCH_VERSION_MAJOR >= 2 && TORCH_VERSION_MINOR >= 3
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(0);
  seen.allocations = stats.num_device_alloc;
  seen.frees = stats.num_device_free;
#endif
  return seen;
}

TEST_P(CudaTest, SwapsAllocateAndFreeNothingOnTheDevice) {
  for (const char* precision : {"FP32", "FP16"}) {
    const auto graph =
        MakeGraph(absl::StrCat("device: \"cuda:0\" precision: ", precision, GetParam()));
    const auto cpu = MakeGraph(absl::StrCat("device: \"cpu\" ", GetParam()));
    std::array<std::unique_ptr<BoundModel>, 2> versions;
    DeviceMemory before;
    for (unsigned version = 0; version < 24; ++version) {
      auto& place = versions[version % 2];
      place.reset();
      place = BindWarm(*graph, version, static_cast<int>(version % 2));
      const auto reference = BindWarm(*cpu, version);
      for (const std::int64_t rows : {1, 7, 30}) {
        const HostTensor input = MakeInput(*graph, rows, version);
        EXPECT_LT(Distance(Answer(*place, input), Answer(*reference, input)), 1e-2) << version;
      }
      if (version == 3) before = LookAtDeviceMemory();  // Each arena has been used again.
    }
    const DeviceMemory after = LookAtDeviceMemory();
    EXPECT_EQ(before.free_bytes, after.free_bytes) << precision;
    EXPECT_EQ(before.allocations, after.allocations) << precision;
    EXPECT_EQ(before.frees, after.frees) << precision;
  }
}

// Each request gets its own answer, by the version that it took, whatever else runs.
TEST_P(CudaTest, ManyThreadsAreAnsweredRightWhileVersionsAreSwapped) {
  const auto graph = MakeGraph(absl::StrCat("device: \"cuda:0\" ", GetParam()));
  constexpr std::int64_t kMostRows = 12;
  std::array<std::shared_ptr<BoundModel>, 2> models;
  std::array<std::vector<std::vector<double>>, 2> expected;
  for (unsigned version : {0U, 1U}) {
    models[version] = BindWarm(*graph, version, static_cast<int>(version));
    for (std::int64_t rows = 1; rows <= kMostRows; ++rows) {
      expected[version].push_back(
          Answer(*models[version], MakeInput(*graph, rows, static_cast<unsigned>(rows))));
    }
  }
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0, right = 0;
  // Of version 1, which stays, while the other arena is bound anew, and warmed up, again and again.
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (std::int64_t rows = 1 + i; !stop; rows = rows % kMostRows + 1) {
        const auto answer =
            Answer(*models[1], MakeInput(*graph, rows, static_cast<unsigned>(rows)));
        const auto& want = expected[1][static_cast<std::size_t>(rows - 1)];
        ++(Distance(answer, want) < 1e-5 ? right : wrong);
      }
    });
  }
  for (int swap = 0; swap < 50; ++swap) {
    models[0].reset();
    models[0] = BindWarm(*graph, 0, 0);
    const auto answer = Answer(*models[0], MakeInput(*graph, 5, 5));
    EXPECT_LT(Distance(answer, expected[0][4]), 1e-5) << swap;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(right, 100);
}

// What hides a position in a float mask is finite, and more than float16 can say.
TEST_P(CudaTest, ARowOfWhichAllIsHiddenIsANumberInHalfPrecisionToo) {
  const auto graph = MakeGraph(R"(
      device: "cuda:0" precision: FP16
      input { name: "x" datatype: "FP32" shape: [-1, 4, 8] }
      input { name: "mask" datatype: "FP32" shape: [-1, 4, 4] }
      network { layer { input: ["x", "x", "x", "mask"] scaled_dot_product_attention {} } })");
  const auto bound = graph->Bind({});
  ASSERT_TRUE(bound.ok()) << bound.status();
  const HostTensor x = MakeInput(*graph, 2, 1);
  std::vector<float> hidden(32, 0);
  std::fill_n(hidden.begin(), 16, std::numeric_limits<float>::lowest());
  const auto outputs = (*bound)->Forward({x, FloatTensor({2, 4, 4}, hidden)});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  for (const double value : ValuesOf(outputs->at(0))) EXPECT_TRUE(std::isfinite(value));
}

TEST_P(CudaTest, InputsInPageLockedMemoryAreReadWhereTheyLie) {
  const auto graph = MakeGraph(absl::StrCat("device: \"cuda:0\" ", GetParam()));
  const auto bound = BindWarm(*graph, 1);
  const HostTensor input = MakeInput(*graph, 3, 1);
  HostTensor locked = input;
  const std::shared_ptr<std::byte> memory = bound->AllocateInput(input.size_bytes);
  ASSERT_NE(memory, nullptr);
  cudaPointerAttributes attributes = {};
  ASSERT_EQ(cudaPointerGetAttributes(&attributes, memory.get()), cudaSuccess);
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  std::memcpy(memory.get(), input.data.get(), input.size_bytes);
  locked.data = memory;
  locked.page_locked = true;
  EXPECT_EQ(Answer(*bound, locked), Answer(*bound, input));
}

TEST_P(CudaTest, LeftToItselfASmallNetworkStaysOnTheHostAndOthersDoNot) {
  constexpr char kSmall[] = R"(
      input { name: "x" datatype: "FP32" shape: [-1, 10] }
      network { layer { name: "0" linear { out_features: 5 } } layer { relu { } } } )";
  EXPECT_EQ(MakeGraph(absl::StrCat("device: \"auto\" ", kSmall))->device(), "cpu");
  EXPECT_EQ(MakeGraph(absl::StrCat("device: \"auto\" precision: FP16 ", kSmall))->device(),
            "cuda:0");
  EXPECT_EQ(MakeGraph(absl::StrCat("device: \"auto\" ", GetParam()))->device(), "cuda:0");
}

TEST_P(CudaTest, WhatDoesNotFitTheCardIsRefusedWithBothNumbers) {
  const auto graph = MakeGraph(R"(device: "cuda:0"
      input { name: "x" datatype: "FP32" shape: [-1, 262144] }
      network { layer { name: "fc" linear { out_features: 262144 bias: false } } })");
  std::size_t free_bytes = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free_bytes, &total), cudaSuccess);
  constexpr std::int64_t kWide = 262144;
  if (free_bytes > static_cast<std::size_t>(kWide) * kWide * 4) GTEST_SKIP() << "it fits";
  // It is refused before its memory, which is not there, is looked at.
  Weights weights;
  weights.Add("fc.weight", FloatTensor({1, 1}, {1}));
  BindRequest request = weights.Request();
  request.weights[0].shape = {kWide, kWide};
  request.weights[0].stride = {kWide, 1};
  const auto bound = graph->Bind(std::move(request));
  EXPECT_EQ(bound.status().code(), absl::StatusCode::kResourceExhausted) << bound.status();
  EXPECT_THAT(std::string(bound.status().message()), testing::HasSubstr("are free"));
}

INSTANTIATE_TEST_SUITE_P(Nets, CudaTest, testing::Values(kMlp, kImages));

}  // namespace
}  // namespace relight::model
