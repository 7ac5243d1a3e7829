// A described net: layers by name, what each is fed, which parameters it needs. No arithmetic.
//
// Layers carry PyTorch's names, arguments and defaults, so that a state dict's keys match by
// themselves: layer "fc1" of kind Linear needs "fc1.weight" and "fc1.bias".
//
// Thread-safety: a built Network is immutable.
#ifndef RELIGHT_SERVER_NETWORK_NETWORK_H_
#define RELIGHT_SERVER_NETWORK_NETWORK_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/network/parameters.h"
#include "server/network/tensor_spec.h"

namespace relight::network {

using Pair = std::array<std::int64_t, 2>;  // Height, width.

struct Linear {
  std::optional<std::int64_t> in_features =
      std::nullopt;  // Inferred where absent; always set once built.
  std::int64_t out_features = 0;
  bool bias = true;
};
struct Conv2d {
  std::optional<std::int64_t> in_channels =
      std::nullopt;  // Inferred where absent; always set once built.
  std::int64_t out_channels = 0;
  Pair kernel_size{1, 1};
  Pair stride{1, 1};
  Pair padding{0, 0};
  Pair dilation{1, 1};
  std::int64_t groups = 1;
  bool bias = true;
};
struct BatchNorm {
  int spatial_dims = 2;  // 1: [N, C] or [N, C, L]; 2: [N, C, H, W].
  std::optional<std::int64_t> num_features =
      std::nullopt;  // Inferred where absent; always set once built.
  double eps = 1e-5;
  bool affine = true;
};
struct MaxPool2d {
  Pair kernel_size{1, 1};
  Pair stride{1, 1};
  Pair padding{0, 0};
  Pair dilation{1, 1};
  bool ceil_mode = false;
};
struct AvgPool2d {
  Pair kernel_size{1, 1};
  Pair stride{1, 1};
  Pair padding{0, 0};
  bool ceil_mode = false;
  bool count_include_pad = true;
};
struct AdaptiveAvgPool2d {
  Pair output_size{1, 1};
};
struct Flatten {
  std::int64_t start_dim = 1;
  std::int64_t end_dim = -1;
};
struct Softmax {
  std::int64_t dim = -1;
  bool log = false;
};
struct Concat {  // Of two inputs or more.
  std::int64_t dim = 1;
};
enum class ElementwiseOp { kAdd, kMul };
// Of two inputs or more, of the same rank; a dimension of 1 is stretched.
struct Elementwise {
  ElementwiseOp op = ElementwiseOp::kAdd;
};
// Identity, and dropout, which does nothing in eval mode.
struct Identity {};
enum class ActivationOp { kRelu, kRelu6, kSigmoid, kTanh, kSilu, kHardswish, kHardsigmoid };
struct Activation {
  ActivationOp op = ActivationOp::kRelu;
};
struct Gelu {
  bool tanh = false;  // The tanh approximation.
};
struct LeakyRelu {
  double negative_slope = 0.01;
};
struct Elu {
  double alpha = 1.0;
};
struct Softplus {
  double beta = 1.0;
  double threshold = 20.0;
};
struct Hardtanh {
  double min_val = -1.0;
  double max_val = 1.0;
};

using LayerKind = std::variant<Linear, Conv2d, BatchNorm, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d,
                               Flatten, Softmax, Concat, Elementwise, Identity, Activation, Gelu,
                               LeakyRelu, Elu, Softplus, Hardtanh>;

struct Layer {
  std::string name;                      // Unnamed layers are called "#<position>" once built.
  std::vector<std::string> inputs = {};  // Names of layers or of network inputs.
  LayerKind kind;
  int line = 0;  // Where it stands in its file; 0 where unknown.
};

// What a config says; names may be missing, sizes too.
struct NetworkDescription {
  std::vector<TensorSpec> inputs;   // Empty: one input "input", shaped by the first layer.
  std::vector<TensorSpec> outputs;  // Empty: one output "output", the last layer. Else each name is
                                    // a layer's, or the only output may rename the last layer.
  std::vector<Layer> layers;
};

// A value in the net: a network input (index < inputs().size()) or a layer's output.
struct Step {
  Layer layer;                      // Everything inferred is filled in.
  std::vector<std::size_t> inputs;  // Values: inputs first, then steps in order.
  std::vector<std::int64_t> shape;  // Of the output; -1 for a free dimension.
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
  std::vector<ParameterSpec> parameters_;
  std::string batching_obstacle_;
};

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_NETWORK_H_
