#include "server/model/operations.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "server/model/convolution.h"
#include "server/model/layer_tensors.h"
#include "server/model/linear.h"

namespace relight::model {
namespace {

// Whether this is the only reference to the tensor and to its memory. In oneDNN's layout memory
// belongs to one tensor.
bool IsOurs(const at::Tensor& tensor) {
  return tensor.use_count() == 1 && (tensor.is_mkldnn() || tensor.storage().use_count() == 1);
}

// oneDNN's maxima take NaN for the smaller value, and -inf for the smallest number. What is not
// finite shows in the sums of its channels.
bool IsFinite(const at::Tensor& image) {
  const at::Tensor means = at::mkldnn_adaptive_avg_pool2d(image, {1, 1}).to_dense();
  const float* const data = means.data_ptr<float>();
  return std::all_of(data, data + means.numel(), [](float mean) { return std::isfinite(mean); });
}

// Row-major where oneDNN would not do what LibTorch does.
void KeepNonFinite(at::Tensor& tensor, Layout layout) {
  if (tensor.is_mkldnn() && !IsFinite(tensor)) tensor = RowMajor(std::move(tensor), layout);
}

at::Tensor Relu(at::Tensor& tensor) {
  return IsOurs(tensor) ? at::relu_(tensor) : at::relu(tensor);
}

Operation ActivationOf(network::ActivationOp op) {
  using network::ActivationOp;
  switch (op) {
    case ActivationOp::kRelu:
      return [](auto& in) { return Relu(in[0]); };
    case ActivationOp::kRelu6:
      return [](auto& in) { return at::clamp(in[0], 0, 6); };
    case ActivationOp::kSigmoid:
      return [](auto& in) { return at::sigmoid(in[0]); };
    case ActivationOp::kTanh:
      return [](auto& in) { return at::tanh(in[0]); };
    case ActivationOp::kSilu:
      return [](auto& in) { return at::silu(in[0]); };
    case ActivationOp::kHardswish:
      return [](auto& in) { return at::hardswish(in[0]); };
    case ActivationOp::kHardsigmoid:
      break;
  }
  return [](auto& in) { return at::hardsigmoid(in[0]); };
}

// Row-major where the values do not lie alike: rows may turn out to be one and several.
void MakeAlike(std::vector<at::Tensor>& in, Layout layout) {
  const bool alike = std::all_of(in.begin(), in.end(), [&in](const at::Tensor& tensor) {
    return tensor.is_mkldnn() == in[0].is_mkldnn() && tensor.sizes() == in[0].sizes();
  });
  if (alike) return;
  for (at::Tensor& tensor : in) tensor = RowMajor(std::move(tensor), layout);
}

at::Tensor Add(at::Tensor& to, const at::Tensor& other) {
  const bool in_place =
      IsOurs(to) && to.sizes() == other.sizes() && to.scalar_type() == other.scalar_type();
  return in_place ? to.add_(other) : at::add(to, other);
}

class Maker {
 public:
  Maker(const network::Network& network, const StepPlan& plan, std::size_t step,
        const std::map<std::string, at::Tensor>& weights, DerivedTensors* derived)
      : network_(network),
        plan_(plan),
        step_(network.steps()[step]),
        layer_(step_.layer.name),
        weights_(weights),
        derived_(derived) {}

  Operation operator()(const network::Linear&) const {
    return MakeLinear(Required("weight"), Optional("bias"), plan_.layout == Layout::kRows);
  }
  Operation operator()(const network::Conv2d&) const {
    ConvolutionWeights weights{Required("weight"), Optional("bias")};
    if (plan_.norm_taken_in.has_value()) {
      const network::Layer& norm = network_.steps()[*plan_.norm_taken_in].layer;
      weights = TakeIn({Optional(norm.name, "weight"), Optional(norm.name, "bias"),
                        Required(norm.name, "running_mean"), Required(norm.name, "running_var"),
                        std::get<network::BatchNorm>(norm.kind).eps},
                       weights);
    }
    if (plan_.channels_last) {
      weights.weight = weights.weight.contiguous(at::MemoryFormat::ChannelsLast);
    }
    if (derived_ != nullptr && IsDerived(weights.weight)) {
      weights.weight = derived_->Keep(weights.weight);
      if (plan_.norm_taken_in.has_value()) weights.bias = derived_->Keep(weights.bias);
    }
    return MakeConvolution(step_, std::move(weights), plan_.layout == Layout::kImages);
  }
  Operation operator()(const network::BatchNorm& norm) const {
    if (plan_.taken_in) return (*this)(network::Identity());
    return [eps = norm.eps, weight = Optional("weight"), bias = Optional("bias"),
            mean = Required("running_mean"), variance = Required("running_var")](auto& in) {
      return at::batch_norm(InTypeOf(in[0], mean), weight, bias, mean, variance,
                            /*training=*/false, /*momentum=*/0.0, eps, /*cudnn_enabled=*/true);
    };
  }
  Operation operator()(const network::MaxPool2d& pool) const {
    return [pool, layout = plan_.layout](auto& in) {
      KeepNonFinite(in[0], layout);
      return at::max_pool2d(in[0], Sizes(pool.kernel_size), Sizes(pool.stride), Sizes(pool.padding),
                            Sizes(pool.dilation), pool.ceil_mode);
    };
  }
  Operation operator()(const network::AvgPool2d& pool) const {
    return [pool](auto& in) {
      return at::avg_pool2d(in[0], Sizes(pool.kernel_size), Sizes(pool.stride), Sizes(pool.padding),
                            pool.ceil_mode, pool.count_include_pad);
    };
  }
  Operation operator()(const network::AdaptiveAvgPool2d& pool) const {
    return [pool](auto& in) { return at::adaptive_avg_pool2d(in[0], Sizes(pool.output_size)); };
  }
  Operation operator()(const network::Flatten& flatten) const {
    return [flatten](auto& in) { return at::flatten(in[0], flatten.start_dim, flatten.end_dim); };
  }
  Operation operator()(const network::Softmax& softmax) const {
    return [softmax](auto& in) {
      return softmax.log ? at::log_softmax(in[0], softmax.dim) : at::softmax(in[0], softmax.dim);
    };
  }
  Operation operator()(const network::Concat& concat) const {
    return [dim = concat.dim](auto& in) { return at::cat(in, dim); };
  }
  Operation operator()(const network::Elementwise& elementwise) const {
    const bool add = elementwise.op == network::ElementwiseOp::kAdd;
    return [add, layout = plan_.layout](auto& in) {
      MakeAlike(in, layout);
      at::Tensor result = std::move(in[0]);
      for (std::size_t i = 1; i < in.size(); ++i) {
        result = add ? Add(result, in[i]) : at::mul(result, in[i]);
      }
      return result;
    };
  }
  Operation operator()(const network::Identity&) const {
    return [](auto& in) { return std::move(in[0]); };
  }
  Operation operator()(const network::Activation& activation) const {
    if (plan_.layout == Layout::kRowMajor) return ActivationOf(activation.op);
    return [relu = ActivationOf(activation.op), layout = plan_.layout](auto& in) {
      KeepNonFinite(in[0], layout);
      return relu(in);
    };
  }
  Operation operator()(const network::Gelu& gelu) const {
    return [tanh = gelu.tanh](auto& in) { return at::gelu(in[0], tanh ? "tanh" : "none"); };
  }
  Operation operator()(const network::LeakyRelu& leaky) const {
    return [slope = leaky.negative_slope](auto& in) { return at::leaky_relu(in[0], slope); };
  }
  Operation operator()(const network::Elu& elu) const {
    return [alpha = elu.alpha](auto& in) { return at::elu(in[0], alpha); };
  }
  Operation operator()(const network::Softplus& softplus) const {
    return [softplus](auto& in) { return at::softplus(in[0], softplus.beta, softplus.threshold); };
  }
  Operation operator()(const network::Hardtanh& hardtanh) const {
    return [hardtanh](auto& in) { return at::hardtanh(in[0], hardtanh.min_val, hardtanh.max_val); };
  }

 private:
  at::Tensor Required(const std::string& layer, const char* suffix) const {
    return weights_.at(layer + "." + suffix);
  }
  at::Tensor Required(const char* suffix) const { return Required(layer_, suffix); }
  // An undefined tensor stands for "none" in LibTorch's functions.
  at::Tensor Optional(const std::string& layer, const char* suffix) const {
    const auto found = weights_.find(layer + "." + suffix);
    return found == weights_.end() ? at::Tensor() : found->second;
  }
  at::Tensor Optional(const char* suffix) const { return Optional(layer_, suffix); }

  // Whether it is not the checkpoint's own.
  bool IsDerived(const at::Tensor& weight) const {
    return plan_.norm_taken_in.has_value() || !weight.is_same(Required("weight"));
  }

  const network::Network& network_;
  const StepPlan& plan_;
  const network::Step& step_;
  const std::string& layer_;
  const std::map<std::string, at::Tensor>& weights_;
  DerivedTensors* const derived_;
};

}  // namespace

Operation MakeOperation(const network::Network& network, const std::vector<StepPlan>& plan,
                        std::size_t step, const std::map<std::string, at::Tensor>& weights,
                        DerivedTensors* derived) {
  Operation operation = std::visit(Maker(network, plan[step], step, weights, derived),
                                   network.steps()[step].layer.kind);
  std::vector<Layout> layouts;
  for (const std::size_t value : network.steps()[step].inputs) {
    layouts.push_back(LayoutOf(network, plan, value));
  }
  const bool gets_other = std::any_of(layouts.begin(), layouts.end(), [&](Layout layout) {
    return layout != Layout::kRowMajor && layout != plan[step].layout;
  });
  if (!gets_other) return operation;
  return [operation = std::move(operation), layouts](std::vector<at::Tensor>& in) {
    for (std::size_t i = 0; i < in.size(); ++i) in[i] = RowMajor(std::move(in[i]), layouts[i]);
    return operation(in);
  };
}

}  // namespace relight::model
