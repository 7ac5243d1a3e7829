#include "server/model/network_graph.h"

#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/model/bound_weights.h"
#include "server/model/execution.h"
#include "server/model/host_memory.h"
#include "server/model/layer_tensors.h"
#include "server/model/operations.h"
#include "server/model/small_network.h"
#include "server/model/step_plan.h"
#include "server/model/torch_error.h"

namespace relight::model {
namespace {

struct Argument {
  std::size_t value = 0;
  bool last_use = false;  // The value may be released, and its memory used again.
};

// Which values each step takes, and when each is needed for the last time.
using Schedule = std::vector<std::vector<Argument>>;

Schedule MakeSchedule(const network::Network& network) {
  std::vector<bool> needed(network.value_count(), false);
  for (const std::size_t value : network.output_values()) needed[value] = true;
  Schedule schedule(network.steps().size());
  for (std::size_t step = schedule.size(); step-- > 0;) {
    const std::vector<std::size_t>& inputs = network.steps()[step].inputs;
    schedule[step].resize(inputs.size());
    for (std::size_t i = inputs.size(); i-- > 0;) {
      schedule[step][i] = {inputs[i], !needed[inputs[i]]};
      needed[inputs[i]] = true;
    }
  }
  return schedule;
}

// What all versions of one net share.
struct Plan {
  network::Network network;
  Signature signature;
  CaptureSettings capture;
  bool small = false;  // Computed without LibTorch, on the CPU and in float32.
  Schedule schedule;
  std::shared_ptr<Device> device;
};

// Half-width inputs are computed at least in the parameters' width, float32 where there are none:
// on the CPU, LibTorch 1.13 computes next to nothing in float16. The way back is exact.
at::Tensor Widened(const at::Tensor& input, at::ScalarType compute_type) {
  const bool half = input.scalar_type() == at::kHalf || input.scalar_type() == at::kBFloat16;
  return half && input.scalar_type() != compute_type ? input.to(compute_type) : input;
}

// Whether these weights can be packed for oneDNN.
bool CanPack(const Device& device, const BoundWeights& weights) {
  return device.shares_host_memory() && weights.compute_type == at::kFloat && at::hasMKLDNN() &&
         at::globalContext().userEnabledMkldnn();
}

// The arithmetic of a net with certain weights; thread-safe. Of weights in a device's arena it
// holds addresses.
class Arithmetic {
 public:
  // Throws what LibTorch throws.
  Arithmetic(std::shared_ptr<const Plan> plan, const std::vector<StepPlan>& steps,
             const BoundWeights& weights)
      : plan_(std::move(plan)), compute_type_(weights.compute_type.value_or(at::kFloat)) {
    DerivedTensors* const derived = weights.arena == nullptr ? nullptr : &weights.arena->derived;
    operations_.reserve(steps.size());
    for (std::size_t step = 0; step < steps.size(); ++step) {
      operations_.push_back(MakeOperation(plan_->network, steps, step, weights.tensors, derived));
    }
    for (const std::size_t value : plan_->network.output_values()) {
      output_layouts_.push_back(LayoutOf(plan_->network, steps, value));
    }
  }

  std::vector<at::Tensor> operator()(const std::vector<at::Tensor>& inputs) const {
    std::vector<at::Tensor> values;
    values.reserve(plan_->network.value_count());
    for (const at::Tensor& input : inputs) values.push_back(Widened(input, compute_type_));
    std::vector<at::Tensor> arguments;
    for (std::size_t step = 0; step < operations_.size(); ++step) {
      arguments.clear();
      for (const Argument& argument : plan_->schedule[step]) {
        at::Tensor& value = values[argument.value];
        arguments.push_back(argument.last_use ? std::move(value) : value);
      }
      if (const auto* single = std::get_if<Operation>(&operations_[step])) {
        values.push_back((*single)(arguments));
        continue;
      }
      for (at::Tensor& output : std::get<SeveralOperation>(operations_[step])(arguments)) {
        values.push_back(std::move(output));
      }
    }
    std::vector<at::Tensor> outputs;
    outputs.reserve(plan_->network.output_values().size());
    for (std::size_t i = 0; i < output_layouts_.size(); ++i) {
      outputs.push_back(RowMajor(values[plan_->network.output_values()[i]], output_layouts_[i]));
    }
    return outputs;
  }

 private:
  const std::shared_ptr<const Plan> plan_;
  const at::ScalarType compute_type_;
  std::vector<StepOperation> operations_;
  std::vector<Layout> output_layouts_;
};

class BoundNetwork final : public BoundModel {
 public:
  // Throws what LibTorch throws.
  BoundNetwork(std::shared_ptr<const Plan> plan, const std::vector<StepPlan>& steps,
               BoundWeights weights)
      : plan_(std::move(plan)),
        weights_(std::move(weights)),
        arithmetic_(std::make_shared<const Arithmetic>(plan_, steps, weights_)) {
    if (weights_.arena == nullptr) return;
    std::vector<at::Tensor> read;
    for (const auto& [name, tensor] : weights_.tensors) read.push_back(tensor);
    for (const at::Tensor& tensor : weights_.arena->derived.kept()) read.push_back(tensor);
    weights_.arena->captured.Rebind(read);
  }

  absl::StatusOr<std::vector<HostTensor>> Forward(
      absl::Span<const HostTensor> inputs) const override {
    CapturedForwards* const captured =
        weights_.arena == nullptr ? nullptr : &weights_.arena->captured;
    return Execute(*plan_->device, plan_->signature, inputs, *arithmetic_, captured);
  }

  absl::StatusOr<std::vector<HostTensor>> WarmUp(
      absl::Span<const HostTensor> inputs) const override {
    absl::StatusOr<std::vector<HostTensor>> outputs = Forward(inputs);
    const bool captures = weights_.arena != nullptr && plan_->capture.enabled &&
                          plan_->device->can_capture() && !LooksAtValues(plan_->signature);
    if (!outputs.ok() || !captures) return outputs;
    RELIGHT_ASSIGN_OR_RETURN(const bool captured, Capture(inputs));
    return captured ? Forward(inputs) : std::move(outputs);
  }

  std::shared_ptr<std::byte> AllocateInput(std::uint64_t size_bytes) const override {
    if (plan_->device->shares_host_memory()) return nullptr;
    const auto make = [&]() -> absl::StatusOr<std::shared_ptr<std::byte>> {
      const auto owner = std::make_shared<at::Tensor>(
          plan_->device->EmptyHost({static_cast<std::int64_t>(size_bytes)}, at::kByte));
      return std::shared_ptr<std::byte>(owner, static_cast<std::byte*>(owner->data_ptr()));
    };
    return WithoutExceptions("page-locked memory", absl::StatusCode::kInternal, make)
        .value_or(nullptr);
  }

 private:
  absl::StatusOr<bool> Capture(absl::Span<const HostTensor> inputs) const {
    const absl::StatusOr<bool> captured =
        WithoutExceptions("capturing the network's forward failed", absl::StatusCode::kInternal,
                          [&]() -> absl::StatusOr<bool> {
                            LimitThreads();
                            const c10::InferenceMode inference;
                            RELIGHT_ASSIGN_OR_RETURN(const std::vector<HostInput> arguments,
                                                     ReadInputs(plan_->signature, inputs));
                            return weights_.arena->captured.Capture(
                                *plan_->device, plan_->capture, arguments, ComputationToCapture());
                          });
    if (captured.ok()) return captured;
    return absl::Status(
        captured.status().code(),
        absl::StrCat(captured.status().message(), "; cuda_graphs: false serves without it"));
  }

  // Holds on to the arithmetic alone: the captured work is the arena's, and outlives this.
  CapturedForwards::Computation ComputationToCapture() const {
    return [plan = plan_, arithmetic = arithmetic_](const std::vector<at::Tensor>& inputs) {
      absl::StatusOr<std::vector<at::Tensor>> outputs =
          Compute(plan->signature, inputs, *arithmetic);
      TORCH_CHECK(outputs.ok(), outputs.status().message());
      return *std::move(outputs);
    };
  }

  const std::shared_ptr<const Plan> plan_;
  const BoundWeights weights_;
  const std::shared_ptr<const Arithmetic> arithmetic_;
};

class NetworkGraph final : public Graph {
 public:
  NetworkGraph(std::shared_ptr<const Plan> plan, config::Precision precision)
      : plan_(std::move(plan)), precision_(precision) {}

  const std::vector<TensorSpec>& inputs() const override { return plan_->network.inputs(); }
  const std::vector<TensorSpec>& outputs() const override { return plan_->network.outputs(); }
  const std::vector<ParameterSpec>& parameters() const override {
    return plan_->network.parameters();
  }
  const std::string& device() const override { return plan_->device->name(); }
  int forwards_at_once() const override { return plan_->device->forwards_at_once(); }

  absl::StatusOr<std::unique_ptr<BoundModel>> Bind(BindRequest request) override {
    RELIGHT_ASSIGN_OR_RETURN(BoundWeights weights,
                             BindWeights(*plan_->device, arenas_, plan_->network.parameters(),
                                         precision_, std::move(request)));
    return WithoutExceptions("binding the network failed", absl::StatusCode::kInternal,
                             [&] { return BindTo(std::move(weights)); });
  }

 private:
  absl::StatusOr<std::unique_ptr<BoundModel>> BindTo(BoundWeights weights) const {
    LimitThreads();
    Device& device = *plan_->device;
    const bool single = weights.compute_type == at::kFloat;
    if (plan_->small && device.shares_host_memory() && single) {
      return MakeSmallNetwork(plan_->network, {plan_, &plan_->signature}, weights.tensors);
    }
    const bool on_host = device.shares_host_memory();
    const std::vector<StepPlan> steps =
        PlanSteps(plan_->network, {.take_in_norms = single || !on_host,
                                   .pack = CanPack(device, weights),
                                   .channels_last = !on_host});
    const std::uint64_t derived = DerivedElements(plan_->network, steps);
    if (derived == 0) return Make(steps, std::move(weights));
    if (device.shares_host_memory()) {
      const absl::Status fits = CheckFits(derived * sizeof(float));
      if (!fits.ok()) {
        return absl::Status(fits.code(),
                            absl::StrCat("packed copies of the weights: ", fits.message()));
      }
    }
    const std::unique_ptr<StreamScope> scope = device.Use(Stream::kLoad);
    std::unique_ptr<BoundModel> bound = Make(steps, std::move(weights));
    RELIGHT_RETURN_IF_ERROR(device.Synchronize(Stream::kLoad));
    return bound;
  }

  std::unique_ptr<BoundModel> Make(const std::vector<StepPlan>& steps, BoundWeights weights) const {
    const c10::InferenceMode inference;
    const std::shared_ptr<DeviceArena> arena = weights.arena;
    auto bound = std::make_unique<BoundNetwork>(plan_, steps, std::move(weights));
    if (arena != nullptr) arena->derived.Trim();
    return bound;
  }

  const std::shared_ptr<const Plan> plan_;
  const config::Precision precision_;
  DeviceArenas arenas_;
};

}  // namespace

std::unique_ptr<Graph> MakeNetworkGraph(network::Network network, std::shared_ptr<Device> device,
                                        config::Precision precision, CaptureSettings capture) {
  auto plan = std::make_shared<Plan>();
  plan->signature = {network.inputs(), network.outputs()};
  plan->capture = capture;
  plan->small = IsSmallNetwork(network);
  plan->schedule = MakeSchedule(network);
  plan->network = std::move(network);
  plan->device = std::move(device);
  return std::make_unique<NetworkGraph>(std::move(plan), precision);
}

}  // namespace relight::model
