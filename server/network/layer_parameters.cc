// What each kind of layer is called, and the state dict entries that it needs.
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/network/layer_rules.h"

namespace relight::network {
namespace {

template <typename... Ts>
struct Overloaded : Ts... {
  using Ts::operator()...;
};
template <typename... Ts>
Overloaded(Ts...) -> Overloaded<Ts...>;

std::string ActivationName(ActivationOp op) {
  switch (op) {
    case ActivationOp::kRelu:
      return "relu";
    case ActivationOp::kRelu6:
      return "relu6";
    case ActivationOp::kSigmoid:
      return "sigmoid";
    case ActivationOp::kTanh:
      return "tanh";
    case ActivationOp::kSilu:
      return "silu";
    case ActivationOp::kHardswish:
      return "hardswish";
    case ActivationOp::kHardsigmoid:
      return "hardsigmoid";
  }
  return "activation";
}

ParameterSpec Spec(const std::string& layer, const char* name, std::vector<std::int64_t> shape,
                   bool buffer = false) {
  return {.name = absl::StrCat(layer, ".", name), .shape = std::move(shape), .buffer = buffer};
}

}  // namespace

std::string KindName(const LayerKind& kind) {
  return std::visit(
      Overloaded{
          [](const Linear&) -> std::string { return "linear"; },
          [](const Conv2d&) -> std::string { return "conv2d"; },
          [](const BatchNorm& layer) -> std::string {
            return layer.spatial_dims == 1 ? "batch_norm1d" : "batch_norm2d";
          },
          [](const MaxPool2d&) -> std::string { return "max_pool2d"; },
          [](const AvgPool2d&) -> std::string { return "avg_pool2d"; },
          [](const AdaptiveAvgPool2d&) -> std::string { return "adaptive_avg_pool2d"; },
          [](const Flatten&) -> std::string { return "flatten"; },
          [](const Softmax& layer) -> std::string { return layer.log ? "log_softmax" : "softmax"; },
          [](const Concat&) -> std::string { return "concat"; },
          [](const Elementwise& layer) -> std::string {
            return layer.op == ElementwiseOp::kAdd ? "add" : "mul";
          },
          [](const Identity&) -> std::string { return "identity"; },
          [](const Activation& layer) { return ActivationName(layer.op); },
          [](const Gelu&) -> std::string { return "gelu"; },
          [](const LeakyRelu&) -> std::string { return "leaky_relu"; },
          [](const Elu&) -> std::string { return "elu"; },
          [](const Softplus&) -> std::string { return "softplus"; },
          [](const Hardtanh&) -> std::string { return "hardtanh"; }},
      kind);
}

bool HasParameters(const LayerKind& kind) {
  return std::holds_alternative<Linear>(kind) || std::holds_alternative<Conv2d>(kind) ||
         std::holds_alternative<BatchNorm>(kind);
}

bool TakesSeveralInputs(const LayerKind& kind) {
  return std::holds_alternative<Concat>(kind) || std::holds_alternative<Elementwise>(kind);
}

std::vector<ParameterSpec> ParametersOf(const std::string& name, const LayerKind& kind) {
  std::vector<ParameterSpec> specs;
  if (const auto* linear = std::get_if<Linear>(&kind)) {
    specs.push_back(Spec(name, "weight", {linear->out_features, *linear->in_features}));
    if (linear->bias) specs.push_back(Spec(name, "bias", {linear->out_features}));
  } else if (const auto* conv = std::get_if<Conv2d>(&kind)) {
    specs.push_back(Spec(name, "weight",
                         {conv->out_channels, *conv->in_channels / conv->groups,
                          conv->kernel_size[0], conv->kernel_size[1]}));
    if (conv->bias) specs.push_back(Spec(name, "bias", {conv->out_channels}));
  } else if (const auto* norm = std::get_if<BatchNorm>(&kind)) {
    const std::vector<std::int64_t> shape = {*norm->num_features};
    if (norm->affine) {
      specs.push_back(Spec(name, "weight", shape));
      specs.push_back(Spec(name, "bias", shape));
    }
    specs.push_back(Spec(name, "running_mean", shape, /*buffer=*/true));
    specs.push_back(Spec(name, "running_var", shape, /*buffer=*/true));
    ParameterSpec counter = Spec(name, "num_batches_tracked", {}, /*buffer=*/true);
    counter.dtype = DType::kInt64;
    counter.required = false;  // PyTorch before 0.4.1 had none.
    specs.push_back(std::move(counter));
  }
  return specs;
}

}  // namespace relight::network
