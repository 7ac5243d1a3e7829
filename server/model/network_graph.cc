#include "server/model/network_graph.h"

#include <cstddef>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "server/model/bound_weights.h"
#include "server/model/execution.h"
#include "server/model/operations.h"
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
  std::vector<bool> needed(network.inputs().size() + network.steps().size(), false);
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
  Schedule schedule;
  std::shared_ptr<Device> device;
};

// Half-width inputs are computed at least in the parameters' width, float32 where there are none:
// on the CPU, LibTorch 1.13 computes next to nothing in float16. The way back is exact.
at::Tensor Widened(const at::Tensor& input, at::ScalarType compute_type) {
  const bool half = input.scalar_type() == at::kHalf || input.scalar_type() == at::kBFloat16;
  return half && input.scalar_type() != compute_type ? input.to(compute_type) : input;
}

class BoundNetwork final : public BoundModel {
 public:
  BoundNetwork(std::shared_ptr<const Plan> plan, BoundWeights weights)
      : plan_(std::move(plan)), weights_(std::move(weights)) {
    operations_.reserve(plan_->network.steps().size());
    for (const network::Step& step : plan_->network.steps()) {
      operations_.push_back(MakeOperation(step.layer, weights_.tensors));
    }
  }

  absl::StatusOr<std::vector<HostTensor>> Forward(
      absl::Span<const HostTensor> inputs) const override {
    return Execute(*plan_->device, plan_->signature, inputs,
                   [this](const std::vector<at::Tensor>& tensors) { return Run(tensors); });
  }

 private:
  std::vector<at::Tensor> Run(const std::vector<at::Tensor>& inputs) const {
    std::vector<at::Tensor> values;
    values.reserve(inputs.size() + operations_.size());
    const at::ScalarType compute_type = weights_.compute_type.value_or(at::kFloat);
    for (const at::Tensor& input : inputs) values.push_back(Widened(input, compute_type));
    std::vector<at::Tensor> arguments;
    for (std::size_t step = 0; step < operations_.size(); ++step) {
      arguments.clear();
      for (const Argument& argument : plan_->schedule[step]) {
        at::Tensor& value = values[argument.value];
        arguments.push_back(argument.last_use ? std::move(value) : value);
      }
      values.push_back(operations_[step](arguments));
    }
    std::vector<at::Tensor> outputs;
    outputs.reserve(plan_->network.output_values().size());
    for (const std::size_t value : plan_->network.output_values()) outputs.push_back(values[value]);
    return outputs;
  }

  const std::shared_ptr<const Plan> plan_;
  const BoundWeights weights_;
  std::vector<Operation> operations_;
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

  absl::StatusOr<std::unique_ptr<BoundModel>> Bind(BindRequest request) override {
    RELIGHT_ASSIGN_OR_RETURN(BoundWeights weights,
                             BindWeights(*plan_->device, arenas_, plan_->network.parameters(),
                                         precision_, std::move(request)));
    return WithoutExceptions("binding the network failed", absl::StatusCode::kInternal,
                             [&]() -> absl::StatusOr<std::unique_ptr<BoundModel>> {
                               return std::make_unique<BoundNetwork>(plan_, std::move(weights));
                             });
  }

 private:
  const std::shared_ptr<const Plan> plan_;
  const config::Precision precision_;
  DeviceArenas arenas_;
};

}  // namespace

std::unique_ptr<Graph> MakeNetworkGraph(network::Network network, std::shared_ptr<Device> device,
                                        config::Precision precision) {
  auto plan = std::make_shared<Plan>();
  plan->signature = {network.inputs(), network.outputs()};
  plan->schedule = MakeSchedule(network);
  plan->network = std::move(network);
  plan->device = std::move(device);
  return std::make_unique<NetworkGraph>(std::move(plan), precision);
}

}  // namespace relight::model
