// eager_loop: calls a net in this process through LibTorch's C++ API, as PyTorch itself would, and
// prints as JSON how fast that goes: what the computation alone costs, with the kernels and the
// threads that relightd takes for it. The nets are the ones that nets.py describes to the servers.
// Inputs and outputs are float32 in the host's memory, wherever the net is.
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/torch.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "server/model/blas.h"
#include "server/model/torch_backend.h"

ABSL_FLAG(std::string, net, "simplenet", "simplenet, mlp, wide or resnet18");
ABSL_FLAG(std::string, device, "cpu", "where it computes: cpu or cuda:N");
ABSL_FLAG(std::string, precision, "FP32", "FP32, BF16 or FP16");
ABSL_FLAG(std::int64_t, batch, 1, "rows of one call");
ABSL_FLAG(int, threads, 1, "threads that call it at the same time");
ABSL_FLAG(int, intra_op_threads, 1, "threads that each of them computes with");
ABSL_FLAG(double, warm_up, 0.5, "seconds that are not measured, before those that are");
ABSL_FLAG(double, seconds, 3, "seconds that are measured");

namespace relight::bench {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;
using Module = torch::nn::AnyModule;
namespace nn = torch::nn;

struct Net {
  std::function<torch::Tensor(const torch::Tensor&)> forward;
  std::vector<std::int64_t> row;  // The shape of one row.
};

at::Device Device() { return at::Device(absl::GetFlag(FLAGS_device)); }

at::ScalarType Type() {
  const std::string precision = absl::GetFlag(FLAGS_precision);
  if (precision == "BF16") return at::kBFloat16;
  return precision == "FP16" ? at::kHalf : at::kFloat;
}

Net Served(nn::Sequential net, std::vector<std::int64_t> row) {
  net->eval();
  net->to(Device(), Type());
  return {[net](const torch::Tensor& x) mutable {
            return net->forward(x.to(Device(), Type())).to(at::kCPU, at::kFloat);
          },
          std::move(row)};
}

Net MakeSimpleNet() {
  return Served(nn::Sequential(nn::Linear(10, 5), nn::ReLU(), nn::Linear(5, 2)), {10});
}

Net MakeMlp() {
  return Served(nn::Sequential(nn::Linear(1024, 1024), nn::ReLU(), nn::Linear(1024, 1024),
                               nn::ReLU(), nn::Linear(1024, 1024)),
                {1024});
}

Net MakeWide() {
  constexpr std::int64_t kWidth = 8192;
  return Served(nn::Sequential(nn::Linear(kWidth, kWidth), nn::Linear(kWidth, kWidth),
                               nn::Linear(kWidth, kWidth), nn::Linear(kWidth, kWidth)),
                {kWidth});
}

nn::Conv2d Convolution(std::int64_t in, std::int64_t out, std::int64_t kernel,
                       std::int64_t stride) {
  return nn::Conv2d(
      nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).bias(false));
}

// The residual block of ResNet-18 (He et al. 2015), as torchvision has it.
struct BlockImpl : nn::Module {
  BlockImpl(std::int64_t in, std::int64_t out, std::int64_t stride)
      : conv1(Convolution(in, out, 3, stride)),
        bn1(out),
        conv2(Convolution(out, out, 3, 1)),
        bn2(out) {
    register_module("conv1", conv1);
    register_module("bn1", bn1);
    register_module("conv2", conv2);
    register_module("bn2", bn2);
    if (stride == 1) return;
    downsample = nn::Sequential(Convolution(in, out, 1, stride), nn::BatchNorm2d(out));
    register_module("downsample", downsample);
  }

  torch::Tensor forward(const torch::Tensor& x) {
    const torch::Tensor y = bn2(conv2(torch::relu(bn1(conv1(x)))));
    return torch::relu(y + (downsample.is_empty() ? x : downsample->forward(x)));
  }

  nn::Conv2d conv1;
  nn::BatchNorm2d bn1;
  nn::Conv2d conv2;
  nn::BatchNorm2d bn2;
  nn::Sequential downsample{nullptr};
};
TORCH_MODULE(Block);

Net MakeResNet18() {
  nn::Sequential net(Convolution(3, 64, 7, 2), nn::BatchNorm2d(64), nn::ReLU(),
                     nn::MaxPool2d(nn::MaxPool2dOptions(3).stride(2).padding(1)));
  std::int64_t in = 64;
  for (const std::int64_t out : {64, 128, 256, 512}) {
    net->push_back(Block(in, out, in == out ? 1 : 2));
    net->push_back(Block(out, out, 1));
    in = out;
  }
  net->push_back(nn::AdaptiveAvgPool2d(nn::AdaptiveAvgPool2dOptions({1, 1})));
  net->push_back(nn::Flatten());
  net->push_back(nn::Linear(512, 1000));
  return Served(net, {3, 224, 224});
}

Net Make(const std::string& name) {
  if (name == "simplenet") return MakeSimpleNet();
  if (name == "mlp") return MakeMlp();
  if (name == "wide") return MakeWide();
  if (name == "resnet18") return MakeResNet18();
  std::cerr << "eager_loop: no net is called " << name << "\n";
  std::exit(1);
}

struct Result {
  double calls_per_second = 0;
  std::vector<double> seconds;  // Of the first calls.
};

// What a caller from Python or C++ does for each: the input is there, the output is dropped. One
// call at least is measured, however long it takes.
Result Run(const Net& net, Clock::time_point begin, Clock::time_point end) {
  constexpr std::size_t kMostKept = 100'000;
  at::init_num_threads();
  const c10::InferenceMode inference;
  // On a card each thread's calls are on a stream of their own, so that they run beside each other.
  c10::OptionalStreamGuard stream;
  if (!Device().is_cpu()) {
    const c10::impl::VirtualGuardImpl streams(Device().type());
    stream.reset_stream(streams.getStreamFromGlobalPool(Device()));
  }
  std::vector<std::int64_t> shape = net.row;
  shape.insert(shape.begin(), absl::GetFlag(FLAGS_batch));
  const torch::Tensor input = torch::randn(shape);
  while (Clock::now() < begin) net.forward(input);
  Result result;
  double calls = 0;
  const Clock::time_point first = Clock::now();
  Clock::time_point now = first;
  do {
    net.forward(input);
    const Clock::time_point after = Clock::now();
    ++calls;
    if (result.seconds.size() < kMostKept) result.seconds.push_back(Seconds(after - now).count());
    now = after;
  } while (now < end);
  result.calls_per_second = calls / Seconds(now - first).count();
  return result;
}

nlohmann::ordered_json Measure(const Net& net) {
  const auto after = [start = Clock::now()](double seconds) {
    return start + std::chrono::duration_cast<Clock::duration>(Seconds(seconds));
  };
  const Clock::time_point begin = after(absl::GetFlag(FLAGS_warm_up));
  const Clock::time_point end = after(absl::GetFlag(FLAGS_warm_up) + absl::GetFlag(FLAGS_seconds));
  std::vector<Result> results(static_cast<std::size_t>(absl::GetFlag(FLAGS_threads)));
  std::vector<std::thread> threads;
  for (Result& result : results) {
    threads.emplace_back([&] { result = Run(net, begin, end); });
  }
  for (std::thread& thread : threads) thread.join();
  double calls_per_second = 0;
  std::vector<double> seconds;
  for (const Result& result : results) {
    calls_per_second += result.calls_per_second;
    seconds.insert(seconds.end(), result.seconds.begin(), result.seconds.end());
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds.empty() ? 0 : seconds[seconds.size() / 2];
  const auto batch = static_cast<double>(absl::GetFlag(FLAGS_batch));
  return {{"rows_per_second", calls_per_second * batch}, {"p50_us", median * 1e6}};
}

}  // namespace
}  // namespace relight::bench

int main(int argc, char** argv) {
  relight::model::ReexecuteWithBestBlasKernels(argv);
  absl::ParseCommandLine(argc, argv);
  at::set_num_threads(absl::GetFlag(FLAGS_intra_op_threads));
  relight::model::SetBlasThreads(absl::GetFlag(FLAGS_intra_op_threads));
  const c10::InferenceMode inference;
  const relight::bench::Net net = relight::bench::Make(absl::GetFlag(FLAGS_net));
  std::cout << relight::bench::Measure(net).dump() << "\n";
  return 0;
}
