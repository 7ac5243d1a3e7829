#include "server/model/small_network.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <variant>
#include <vector>

#include "base/status_macros.h"
#include "server/model/torch_error.h"

namespace relight::model {
namespace {

using network::ActivationOp;
using network::Step;

// Up to here a row takes about a microsecond.
constexpr std::int64_t kMostWeights = 4096;

// In multiply-adds, of which a processor does one in a nanosecond or less, where at least four
// outputs can be summed side by side.
constexpr std::uint64_t kQuickWork = 8192;
constexpr std::uint64_t kLeastOutputs = 4;
constexpr std::uint64_t kWorkOfExp = 16;
constexpr std::uint64_t kWorkOfLayer = 16;  // Beside its values; the row itself counts as one.

// As ATen's kernels compute them; NaN stays NaN.
float Relu(float value) { return value < 0 ? 0 : value; }
float Sigmoid(float value) { return 1 / (1 + std::exp(-value)); }

bool IsKnown(ActivationOp op) {
  return op == ActivationOp::kRelu || op == ActivationOp::kSigmoid || op == ActivationOp::kTanh;
}

// Of one row; -1 where that is not known.
std::int64_t RowSize(const std::vector<std::int64_t>& shape) {
  if (shape.empty() || shape.front() != -1) return -1;
  std::int64_t size = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) {
    if (shape[i] <= 0 || shape[i] > kMostWeights) return -1;
    size *= shape[i];
    if (size > kMostWeights) return -1;
  }
  return size;
}

// Whether a layer is computed here; `shape` is its output's.
class IsComputed {
 public:
  explicit IsComputed(const std::vector<std::int64_t>& shape) : shape_(shape) {}
  bool operator()(const network::Linear&) const { return shape_.size() == 2; }
  bool operator()(const network::Identity&) const { return true; }
  bool operator()(const network::Flatten& flatten) const { return flatten.start_dim > 0; }
  bool operator()(const network::Activation& activation) const { return IsKnown(activation.op); }
  bool operator()(const network::Softmax& softmax) const {
    return softmax.op == network::SoftmaxOp::kSoftmax && shape_.size() == 2 &&
           (softmax.dim == 1 || softmax.dim == -1);
  }
  template <typename Other>
  bool operator()(const Other&) const {
    return false;
  }

 private:
  const std::vector<std::int64_t>& shape_;
};

// output = weight @ input + bias, with the weight's columns in memory one after another, so that
// the inner loop is over outputs, which do not depend on each other.
struct LinearLayer {
  std::size_t inputs = 0;
  std::size_t outputs = 0;
  std::vector<float> columns;  // [inputs][outputs].
  std::vector<float> bias;     // Zeros where there is none.
};
struct Softmax {};
using SmallLayer = std::variant<LinearLayer, ActivationOp, Softmax>;

// The layers work on the values of one row.
struct Row {
  std::vector<float> values;
  std::vector<float> next;
  std::vector<float> part;
};

// Sums of few inputs at a time, which are added up then: a long sum of float32 is not exact enough.
void Apply(const LinearLayer& layer, Row& row) {
  constexpr std::size_t kPart = 64;
  row.next.assign(layer.bias.begin(), layer.bias.end());
  const float* column = layer.columns.data();
  for (std::size_t first = 0; first < layer.inputs; first += kPart) {
    row.part.assign(layer.outputs, 0.0F);
    float* const __restrict part = row.part.data();
    const std::size_t end = std::min(first + kPart, layer.inputs);
    for (std::size_t i = first; i < end; ++i, column += layer.outputs) {
      const float value = row.values[i];
      for (std::size_t o = 0; o < layer.outputs; ++o) part[o] += value * column[o];
    }
    for (std::size_t o = 0; o < layer.outputs; ++o) row.next[o] += part[o];
  }
  row.values.swap(row.next);
}

void Apply(ActivationOp op, Row& row) {
  for (float& value : row.values) {
    if (op == ActivationOp::kRelu) {
      value = Relu(value);
    } else {
      value = op == ActivationOp::kTanh ? std::tanh(value) : Sigmoid(value);
    }
  }
}

void Apply(Softmax, Row& row) {
  // NaN anywhere must show, whatever std::max makes of it: the sum has it.
  const float largest = *std::max_element(row.values.begin(), row.values.end());
  float sum = 0;
  for (float& value : row.values) sum += value = std::exp(value - largest);
  for (float& value : row.values) value /= sum;
}

std::vector<float> Copy(const at::Tensor& tensor) {
  const at::Tensor dense = tensor.contiguous();
  const float* const data = dense.data_ptr<float>();
  return {data, data + dense.numel()};
}

LinearLayer MakeLinear(const network::Layer& layer,
                       const std::map<std::string, at::Tensor>& weights) {
  const auto& linear = std::get<network::Linear>(layer.kind);
  LinearLayer made;
  made.inputs = static_cast<std::size_t>(*linear.in_features);
  made.outputs = static_cast<std::size_t>(linear.out_features);
  made.columns = Copy(weights.at(layer.name + ".weight").t());
  made.bias =
      linear.bias ? Copy(weights.at(layer.name + ".bias")) : std::vector<float>(made.outputs, 0.0F);
  return made;
}

// Of one row, in multiply-adds; `size` is that of the layer's output.
std::uint64_t WorkOf(const SmallLayer& layer, std::uint64_t size) {
  if (const auto* linear = std::get_if<LinearLayer>(&layer)) {
    return kWorkOfLayer + linear->inputs * std::max<std::uint64_t>(size, kLeastOutputs) + size;
  }
  const auto* op = std::get_if<ActivationOp>(&layer);
  const bool exp = op == nullptr || *op != ActivationOp::kRelu;
  return kWorkOfLayer + size * (exp ? kWorkOfExp : 1);
}

class SmallNetwork final : public BoundModel {
 public:
  SmallNetwork(const network::Network& network, std::shared_ptr<const Signature> signature,
               const std::map<std::string, at::Tensor>& weights)
      : signature_(std::move(signature)),
        input_size_(static_cast<std::size_t>(RowSize(network.inputs().front().shape))),
        output_shape_(network.steps().back().shape()),
        output_size_(static_cast<std::size_t>(RowSize(output_shape_))) {
    for (const Step& step : network.steps()) {
      if (std::holds_alternative<network::Linear>(step.layer.kind)) {
        layers_.push_back(MakeLinear(step.layer, weights));
      } else if (const auto* activation = std::get_if<network::Activation>(&step.layer.kind)) {
        layers_.push_back(activation->op);
      } else if (std::holds_alternative<network::Softmax>(step.layer.kind)) {
        layers_.push_back(Softmax());
      } else {
        continue;  // What only names or reshapes its input.
      }
      row_work_ += WorkOf(layers_.back(), static_cast<std::uint64_t>(RowSize(step.shape())));
    }
  }

  absl::StatusOr<std::vector<HostTensor>> Forward(
      absl::Span<const HostTensor> inputs) const override {
    RELIGHT_RETURN_IF_ERROR(CheckInputs(*signature_, inputs));
    return WithoutExceptions(
        "the forward failed", absl::StatusCode::kInternal,
        [&]() -> absl::StatusOr<std::vector<HostTensor>> { return Compute(inputs.front()); });
  }

  bool IsQuick(std::uint64_t input_bytes) const override {
    return input_bytes / (input_size_ * sizeof(float)) <= kQuickWork / row_work_;
  }

 private:
  std::vector<HostTensor> Compute(const HostTensor& input) const {
    const auto rows = static_cast<std::size_t>(input.shape.front());
    const std::shared_ptr<float[]> answers(new float[rows * output_size_]);
    static thread_local Row row;
    const auto* in = reinterpret_cast<const float*>(input.data.get());
    for (std::size_t i = 0; i < rows; ++i, in += input_size_) {
      row.values.assign(in, in + input_size_);
      for (const SmallLayer& layer : layers_) {
        std::visit([](const auto& kind) { Apply(kind, row); }, layer);
      }
      std::copy(row.values.begin(), row.values.end(), answers.get() + i * output_size_);
    }
    std::vector<HostTensor> outputs(1);
    outputs[0].dtype = DType::kFloat32;
    outputs[0].shape = output_shape_;
    outputs[0].shape.front() = input.shape.front();
    outputs[0].size_bytes = rows * output_size_ * sizeof(float);
    outputs[0].data = std::shared_ptr<const std::byte>(
        answers, reinterpret_cast<const std::byte*>(answers.get()));
    return outputs;
  }

  const std::shared_ptr<const Signature> signature_;
  const std::size_t input_size_;
  const std::vector<std::int64_t> output_shape_;
  const std::size_t output_size_;
  std::vector<SmallLayer> layers_;
  std::uint64_t row_work_ = kWorkOfLayer;
};

}  // namespace

bool IsSmallNetwork(const network::Network& network) {
  if (network.inputs().size() != 1 || network.outputs().size() != 1) return false;
  if (network.inputs().front().dtype != DType::kFloat32 ||
      network.outputs().front().dtype != DType::kFloat32 ||
      RowSize(network.inputs().front().shape) < 0 || network.steps().empty() ||
      network.output_values().front() != network.steps().size() ||
      network.outputs().front().shape != network.steps().back().shape()) {
    return false;
  }
  std::int64_t weights = 0;
  for (std::size_t i = 0; i < network.steps().size(); ++i) {
    const Step& step = network.steps()[i];
    const bool in_line = step.inputs.size() == 1 && step.inputs.front() == i;
    if (!in_line || RowSize(step.shape()) < 0) return false;
    if (!std::visit(IsComputed(step.shape()), step.layer.kind)) return false;
    if (const auto* linear = std::get_if<network::Linear>(&step.layer.kind)) {
      if (*linear->in_features > kMostWeights || linear->out_features > kMostWeights) return false;
      weights += *linear->in_features * linear->out_features;
    }
  }
  return weights > 0 && weights <= kMostWeights;
}

std::unique_ptr<BoundModel> MakeSmallNetwork(const network::Network& network,
                                             std::shared_ptr<const Signature> signature,
                                             const std::map<std::string, at::Tensor>& weights) {
  return std::make_unique<SmallNetwork>(network, std::move(signature), weights);
}

}  // namespace relight::model
