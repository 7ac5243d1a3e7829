#include "server/model/torchscript_graph.h"

#include <ATen/Functions.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/model/bound_weights.h"
#include "server/model/torch_error.h"
#include "server/model/torchscript_checks.h"
#include "server/model/torchscript_trial.h"

namespace relight::model {
namespace {

// What all versions of one archive share.
struct Archive {
  torch::jit::Module skeleton;  // Its parameters and buffers are empty tensors.
  std::vector<ParameterSlot> slots;
  std::vector<ParameterSpec> parameters;
  Signature signature;
  std::shared_ptr<Device> device;
  bool writes_to_inputs = false;
};

// The declared ones of a dict, whatever else is in it.
std::vector<at::Tensor> Pick(const c10::Dict<c10::IValue, c10::IValue>& dict,
                             const std::vector<TensorSpec>& outputs) {
  std::vector<at::Tensor> picked;
  for (const TensorSpec& spec : outputs) {
    const auto found = dict.find(spec.name);
    if (found == dict.end()) {
      std::vector<std::string> keys;
      for (const auto& entry : dict) keys.push_back(Escape(entry.key().toStringRef()));
      TORCH_CHECK(false, "forward() returned a dict without ", Escape(spec.name),
                  ", which the config declares as an output; its keys are ",
                  absl::StrJoin(keys, ", "));
    }
    picked.push_back(found->value().toTensor());
  }
  return picked;
}

// Those of tuples within tuples one after the other.
void Flatten(const c10::IValue& result, std::vector<at::Tensor>& outputs) {
  if (result.isTensor()) {
    outputs.push_back(result.toTensor());
  } else if (result.isTensorList()) {
    for (const at::Tensor& tensor : result.toTensorVector()) outputs.push_back(tensor);
  } else {
    for (const c10::IValue& element : result.toTupleRef().elements()) Flatten(element, outputs);
  }
}

std::vector<at::Tensor> Call(const torch::jit::Method& forward,
                             const std::vector<at::Tensor>& inputs,
                             const std::vector<TensorSpec>& declared,
                             std::optional<at::ScalarType> compute_type, bool copy_inputs) {
  std::vector<c10::IValue> arguments;
  arguments.reserve(inputs.size());
  for (const at::Tensor& input : inputs) {
    if (compute_type && input.is_floating_point() && input.scalar_type() != *compute_type) {
      arguments.emplace_back(input.to(*compute_type));
    } else {
      arguments.emplace_back(copy_inputs ? input.clone() : input);
    }
  }
  const c10::IValue result = forward(std::move(arguments));
  if (result.isGenericDict()) return Pick(result.toGenericDict(), declared);
  std::vector<at::Tensor> outputs;
  Flatten(result, outputs);
  return outputs;
}

class BoundTorchScript final : public BoundModel {
 public:
  BoundTorchScript(std::shared_ptr<const Archive> archive, BoundWeights weights)
      : archive_(std::move(archive)),
        weights_(std::move(weights)),
        // Not copy(): that would share the submodules, and so the weights, of all versions.
        module_(archive_->skeleton.deepcopy()),
        forward_(module_.get_method("forward")) {
    for (const ParameterSlot& slot : archive_->slots) {
      const auto found = weights_.tensors.find(slot.spec.name);
      if (found != weights_.tensors.end()) SetSlot(module_, slot, found->second);
    }
  }

  absl::StatusOr<std::vector<HostTensor>> Forward(
      absl::Span<const HostTensor> inputs) const override {
    return Execute(*archive_->device, archive_->signature, inputs,
                   [this](const std::vector<at::Tensor>& tensors) {
                     return Call(forward_, tensors, archive_->signature.outputs,
                                 weights_.compute_type, archive_->writes_to_inputs);
                   });
  }

 private:
  const std::shared_ptr<const Archive> archive_;
  const BoundWeights weights_;
  const torch::jit::Module module_;
  const torch::jit::Method forward_;
};

class TorchScriptGraph final : public Graph {
 public:
  TorchScriptGraph(std::shared_ptr<const Archive> archive, config::Precision precision)
      : archive_(std::move(archive)), precision_(precision) {}

  const std::vector<TensorSpec>& inputs() const override { return archive_->signature.inputs; }
  const std::vector<TensorSpec>& outputs() const override { return archive_->signature.outputs; }
  const std::vector<ParameterSpec>& parameters() const override { return archive_->parameters; }
  const std::string& device() const override { return archive_->device->name(); }
  int forwards_at_once() const override { return archive_->device->forwards_at_once(); }

  absl::StatusOr<std::unique_ptr<BoundModel>> Bind(BindRequest request) override {
    RELIGHT_ASSIGN_OR_RETURN(BoundWeights weights,
                             BindWeights(*archive_->device, arenas_, archive_->parameters,
                                         precision_, std::move(request)));
    if (weights.arena != nullptr) weights.arena->derived.Trim();
    return WithoutExceptions("binding the archive failed", absl::StatusCode::kInternal,
                             [&]() -> absl::StatusOr<std::unique_ptr<BoundModel>> {
                               return std::make_unique<BoundTorchScript>(archive_,
                                                                         std::move(weights));
                             });
  }

 private:
  const std::shared_ptr<const Archive> archive_;
  const config::Precision precision_;
  DeviceArenas arenas_;
};

// The archive's own weights, in the precision in which it will serve, for the trial.
std::optional<at::ScalarType> ConvertWeights(const torch::jit::Module& module,
                                             config::Precision precision,
                                             std::vector<ParameterSlot>& slots) {
  std::optional<at::ScalarType> compute_type;
  for (ParameterSlot& slot : slots) {
    slot.tensor = slot.tensor.detach();  // Gradients would be another plan.
    if (slot.tensor.is_floating_point()) {
      if (!compute_type) compute_type = ComputeType(precision, slot.tensor.scalar_type());
      slot.tensor = slot.tensor.to(*compute_type);
    }
    SetSlot(module, slot, slot.tensor);
  }
  return compute_type;
}

// Leaves nothing of the archive's weights but their places.
void Empty(const torch::jit::Module& module, std::vector<ParameterSlot>& slots) {
  for (ParameterSlot& slot : slots) {
    // What a checkpoint may leave out keeps the archive's value.
    if (slot.spec.required) SetSlot(module, slot, at::empty({0}, slot.tensor.options()));
    slot.tensor = at::Tensor();
  }
}

absl::StatusOr<std::unique_ptr<Graph>> Load(const std::string& path, Signature signature,
                                            std::shared_ptr<Device> device,
                                            config::Precision precision, const TrialSizes& sizes,
                                            bool strict) {
  auto archive = std::make_shared<Archive>();
  archive->skeleton = torch::jit::load(path, device->torch_device());
  archive->skeleton.eval();
  archive->signature = std::move(signature);
  archive->device = std::move(device);
  const torch::jit::Module& module = archive->skeleton;
  RELIGHT_RETURN_IF_ERROR(CheckForwardSchema(module, archive->signature));
  archive->slots = FindParameterSlots(module);
  if (!strict) {
    for (ParameterSlot& slot : archive->slots) slot.spec.required = false;
  }
  RELIGHT_RETURN_IF_ERROR(CheckNotFrozen(module, archive->slots));
  RELIGHT_RETURN_IF_ERROR(CheckTracedForEvaluation(module));
  const auto compute_type = ConvertWeights(module, precision, archive->slots);
  const torch::jit::Method forward = module.get_method("forward");
  RELIGHT_ASSIGN_OR_RETURN(const TrialReport report,
                           TryArchive(*archive->device, archive->signature, sizes, archive->slots,
                                      [&](const std::vector<at::Tensor>& inputs) {
                                        return Call(forward, inputs, archive->signature.outputs,
                                                    compute_type, /*copy_inputs=*/false);
                                      }));
  archive->writes_to_inputs = report.writes_to_inputs;
  Empty(module, archive->slots);
  for (const ParameterSlot& slot : archive->slots) archive->parameters.push_back(slot.spec);
  return std::make_unique<TorchScriptGraph>(std::move(archive), precision);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Graph>> LoadTorchScriptGraph(const std::string& path,
                                                            Signature signature,
                                                            std::shared_ptr<Device> device,
                                                            config::Precision precision,
                                                            const TrialSizes& sizes, bool strict) {
  const std::string subject = absl::StrCat("torchscript ", Escape(path));
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat(subject, ": there is no such file"));
  }
  auto graph = WithoutExceptions(
      "not an archive that LibTorch can load", absl::StatusCode::kInvalidArgument, [&] {
        return Load(path, std::move(signature), std::move(device), precision, sizes, strict);
      });
  if (graph.ok()) return graph;
  return absl::Status(graph.status().code(),
                      absl::StrCat(subject, ": ", std::string(graph.status().message())));
}

}  // namespace relight::model
