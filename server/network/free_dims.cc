#include "server/network/free_dims.h"

#include <utility>
#include <vector>

#include "server/network/layer_rules.h"

namespace relight::network {
namespace {

constexpr std::int64_t kLargestTried = 1024;

bool Computes(const Network& network, std::optional<std::int64_t> rows, std::int64_t free_dim) {
  std::vector<Value> values;
  for (const TensorSpec& input : network.inputs()) {
    Value value{.dtype = input.dtype, .shape = input.shape};
    for (std::size_t i = 0; i < value.shape.size(); ++i) {
      if (value.shape[i] >= 0) continue;
      value.shape[i] = i == 0 ? rows.value_or(free_dim) : free_dim;
    }
    values.push_back(std::move(value));
  }
  for (const Step& step : network.steps()) {
    std::vector<Value> inputs;
    for (const std::size_t input : step.inputs) inputs.push_back(values[input]);
    LayerKind kind = step.layer.kind;
    Messages errors;
    std::vector<Value> outputs = InferOutputs(kind, {inputs, step.slots}, errors);
    if (outputs.size() != step.shapes.size() || !errors.empty()) return false;
    for (Value& output : outputs) values.push_back(std::move(output));
  }
  return true;
}

}  // namespace

std::int64_t SmallestFreeDim(const Network& network, std::optional<std::int64_t> rows) {
  for (std::int64_t free_dim = 1; free_dim <= kLargestTried; free_dim *= 2) {
    if (Computes(network, rows, free_dim)) return free_dim;
  }
  return 1;
}

}  // namespace relight::network
