#include "server/model/torch_backend.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <torch/version.h>

#include <map>
#include <utility>
#include <variant>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "server/model/blas.h"
#include "server/model/device.h"
#include "server/model/network_graph.h"
#include "server/model/precision_trial.h"
#include "server/model/small_network.h"
#include "server/model/tensor_memory.h"
#include "server/model/torch_error.h"
#include "server/model/torchscript_graph.h"
#ifdef RELIGHT_WITH_CUDA
#include "server/model/cuda_device.h"
#endif

namespace relight::model {
namespace {

#ifndef RELIGHT_WITH_CUDA
int CountCudaDevices() { return 0; }

absl::StatusOr<std::shared_ptr<Device>> MakeCudaDevice(int index) {
  return absl::FailedPreconditionError(
      absl::StrCat("device cuda:", index, " was asked for, but this LibTorch was built without ",
                   "CUDA; set device to \"cpu\" or \"auto\", or build against a CUDA LibTorch"));
}
#endif

// Handing a request to a card takes longer than the host computes such a network.
bool IsFasterOnTheHost(const config::ModelConfig& config) {
  const auto* network = std::get_if<network::Network>(&config.graph);
  return network != nullptr && IsSmallNetwork(*network) &&
         config.precision.value_or(config::Precision::kFloat32) == config::Precision::kFloat32;
}

std::string DeviceName(const config::ModelConfig& config) {
  using Kind = config::DeviceChoice::Kind;
  if (config.device.kind == Kind::kCuda) return absl::StrCat("cuda:", config.device.index);
  const bool card = config.device.kind == Kind::kAuto && CountCudaDevices() > 0;
  return card && !IsFasterOnTheHost(config) ? "cuda:0" : "cpu";
}

absl::StatusOr<config::Precision> PrecisionOn(const Device& device,
                                              std::optional<config::Precision> asked) {
  const bool cpu = device.torch_device().is_cpu();
  if (!asked) return cpu ? config::Precision::kFloat32 : config::Precision::kAsSaved;
  if (cpu && *asked == config::Precision::kFloat16) {
    return absl::InvalidArgumentError(
        "precision FP16 is not computed on the CPU; set precision: FP32 or BF16, or a CUDA device");
  }
  return *asked;
}

TrialSizes TrialSizesOf(const config::ModelConfig& config) {
  TrialSizes sizes;
  sizes.free_dim = config.warm_up.free_dim;
  // Two rows show what one would hide: a trace that fixed its batch size.
  sizes.batch = config.batching.max_batch_size >= 2 ? 2 : sizes.free_dim;
  return sizes;
}

Signature SignatureOf(const config::ModelConfig& config, const config::TorchScriptGraph& graph) {
  if (graph.inputs.empty() && graph.outputs.empty()) return {config.inputs, config.outputs};
  return {graph.inputs, graph.outputs};
}

class TorchBackend final : public GraphFactory {
 public:
  absl::StatusOr<std::unique_ptr<Graph>> Create(const config::ModelConfig& config) override {
    RELIGHT_ASSIGN_OR_RETURN(std::shared_ptr<Device> device, GetDevice(DeviceName(config)));
    RELIGHT_ASSIGN_OR_RETURN(const config::Precision precision,
                             PrecisionOn(*device, config.precision));
    if (const auto* network = std::get_if<network::Network>(&config.graph)) {
      const bool half =
          precision == config::Precision::kBFloat16 || precision == config::Precision::kFloat16;
      if (half) RELIGHT_RETURN_IF_ERROR(TryNetwork(config, *network, device, precision));
      return MakeNetworkGraph(*network, std::move(device), precision,
                              {config.cuda_graphs, config.batching.max_batch_size});
    }
    const auto& archive = std::get<config::TorchScriptGraph>(config.graph);
    return LoadTorchScriptGraph(archive.path, SignatureOf(config, archive), std::move(device),
                                precision, TrialSizesOf(config), config.checkpoints.strict);
  }

  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(const std::string& device,
                                                          std::size_t size_bytes) override {
    RELIGHT_ASSIGN_OR_RETURN(const std::shared_ptr<Device> found, GetDevice(device));
    return found->AllocateHost(size_bytes);
  }

 private:
  // Which operations a half precision has depends on the device and on LibTorch's release.
  static absl::Status TryNetwork(const config::ModelConfig& config, const network::Network& network,
                                 const std::shared_ptr<Device>& device,
                                 config::Precision precision) {
    const std::unique_ptr<Graph> graph = MakeNetworkGraph(network, device, precision, {});
    const TrialSizes sizes = TrialSizesOf(config);
    const absl::Status status = TryPrecision(*graph, sizes.batch, sizes.free_dim);
    if (status.ok()) return status;
    const char* const name = precision == config::Precision::kFloat16 ? "FP16" : "BF16";
    return absl::Status(status.code(), absl::StrCat("precision ", name, ": ", status.message()));
  }

  // Devices are made when they are first asked for: a CUDA context takes memory.
  absl::StatusOr<std::shared_ptr<Device>> GetDevice(const std::string& name) {
    {
      MutexLock lock(mutex_);
      const auto found = devices_.find(name);
      if (found != devices_.end()) return found->second;
    }
    RELIGHT_ASSIGN_OR_RETURN(std::shared_ptr<Device> device, MakeDevice(name));
    MutexLock lock(mutex_);
    return devices_.emplace(name, std::move(device)).first->second;
  }

  static absl::StatusOr<std::shared_ptr<Device>> MakeDevice(const std::string& name) {
    constexpr std::string_view kCuda = "cuda:";
    int index = 0;
    if (name == "cpu") return std::make_shared<CpuDevice>();
    if (name.starts_with(kCuda) && absl::SimpleAtoi(name.substr(kCuda.size()), &index)) {
      return MakeCudaDevice(index);
    }
    return absl::InvalidArgumentError(
        absl::StrCat("there is no device \"", Escape(name), "\"; devices are cpu and cuda:N"));
  }

  Mutex mutex_;
  std::map<std::string, std::shared_ptr<Device>> devices_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<GraphFactory> MakeTorchBackend(const TorchSettings& settings) {
  KeepTensorMemory();
  at::set_num_threads(settings.intra_op_threads);
  try {
    at::set_num_interop_threads(1);
  } catch (const std::exception&) {
    // Allowed once per process, and before the first parallel work; the first call has counted.
  }
  SetBlasThreads(settings.intra_op_threads);
  return std::make_unique<TorchBackend>();
}

BackendInfo DescribeBackend() {
  const BlasName blas = ClassifyBlas(ObserveBlas(at::hasMKL()));
  return {TORCH_VERSION, blas.name, blas.slow, CountCudaDevices()};
}

}  // namespace relight::model
