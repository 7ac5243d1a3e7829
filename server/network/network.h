// A described net: layers by name, what each is fed, which parameters it needs. No arithmetic.
//
// Layers carry PyTorch's names, arguments and defaults, so that a state dict's keys match by
// themselves: layer "fc1" of kind Linear needs "fc1.weight" and "fc1.bias".
//
// Thread-safety: a built Network is immutable.
#ifndef RELIGHT_SERVER_NETWORK_NETWORK_H_
#define RELIGHT_SERVER_NETWORK_NETWORK_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/network/kinds.h"
#include "server/network/parameters.h"
#include "server/network/tensor_spec.h"

namespace relight::network {

struct Layer {
  std::string name;  // Unnamed layers are called "#<position>" once built.
  // Names of layers or of network inputs; "name:1" for a layer's second output, "argument=name"
  // for what PyTorch calls `argument`.
  std::vector<std::string> inputs = {};
  LayerKind kind;
  std::string parameters_of = {};  // The layer with which it shares its parameters; else empty.
  int line = 0;                    // Where it stands in its file; 0 where unknown.
};

// What a config says; names may be missing, sizes too.
struct NetworkDescription {
  std::vector<TensorSpec> inputs;   // Empty: one input "input", shaped by the first layer.
  std::vector<TensorSpec> outputs;  // Empty: one output "output", the last layer. Else each name is
                                    // a layer's, or the only output may rename the last layer.
  std::vector<Layer> layers;
};

// A layer in its place. Values are numbered: the network's inputs first, then what the steps give,
// in order.
struct Step {
  Layer layer;                      // Everything inferred is filled in.
  std::vector<std::size_t> inputs;  // Values.
  // For each input, which of those that the kind may take it is.
  std::vector<std::size_t> slots;
  std::size_t first_value = 0;  // Of its outputs.
  std::vector<Sizes> shapes;    // Of its outputs, one or more; -1 for a free dimension.

  const Sizes& shape() const { return shapes.front(); }
};

class Network {
 public:
  // Checks names and wiring, infers shapes and missing sizes. All errors at once, one per line of
  // the message, each led by "line N: " where the description has lines.
  static absl::StatusOr<Network> Build(NetworkDescription description);

  const std::vector<TensorSpec>& inputs() const { return inputs_; }
  const std::vector<TensorSpec>& outputs() const { return outputs_; }
  // In the order in which they run.
  const std::vector<Step>& steps() const { return steps_; }
  // For each output, the value that it is.
  const std::vector<std::size_t>& output_values() const { return output_values_; }
  std::size_t value_count() const { return producers_.size(); }
  // The step that gives a value; nullopt for the network's inputs.
  std::optional<std::size_t> producer(std::size_t value) const { return producers_[value]; }
  const Sizes& shape_of(std::size_t value) const;
  // In the order of the layers; what PyTorch's state_dict() of the same net lists.
  const std::vector<ParameterSpec>& parameters() const { return parameters_; }
  // Empty where every input and output has a free first dimension and no layer lets one row see
  // another, so that rows of several requests may share a batch. Else what stands in the way.
  const std::string& batching_obstacle() const { return batching_obstacle_; }

 private:
  std::vector<TensorSpec> inputs_;
  std::vector<TensorSpec> outputs_;
  std::vector<Step> steps_;
  std::vector<std::size_t> output_values_;
  std::vector<std::optional<std::size_t>> producers_;  // By value.
  std::vector<ParameterSpec> parameters_;
  std::string batching_obstacle_;
};

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_NETWORK_H_
