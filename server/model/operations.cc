#include "server/model/operations.h"

#include <ATen/Functions.h>

#include <cstdint>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

namespace relight::model {
namespace {

at::IntArrayRef Sizes(const network::Pair& pair) { return {pair.data(), pair.size()}; }

// Layers with parameters compute in the parameters' type.
at::Tensor InTypeOf(const at::Tensor& tensor, const at::Tensor& parameter) {
  return tensor.scalar_type() == parameter.scalar_type() ? tensor
                                                         : tensor.to(parameter.scalar_type());
}

// Asked for the product of two matrices, OpenBLAS rearranges all of the weights first, which takes
// four times as long as the product with a vector. Small layers gain nothing.
bool IsLargeTimesVector(const at::Tensor& in, const at::Tensor& weight) {
  constexpr std::int64_t kLargeElements = 128 * 128;
  const bool in_blas = weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kDouble;
  return in.numel() == weight.size(1) && weight.numel() >= kLargeElements && in_blas &&
         weight.is_cpu();
}

at::Tensor Linear(const at::Tensor& in, const at::Tensor& weight, const at::Tensor& transposed,
                  const at::Tensor& bias) {
  if (!IsLargeTimesVector(in, weight)) {
    if (in.dim() != 2) return at::linear(in, weight, bias);
    // What at::linear comes to, without making the same view at each call.
    return bias.defined() ? at::addmm(bias, in, transposed) : at::mm(in, transposed);
  }
  std::vector<std::int64_t> shape = in.sizes().vec();
  shape.back() = weight.size(0);
  const at::Tensor vector = in.reshape({-1});
  return (bias.defined() ? at::addmv(bias, weight, vector) : at::mv(weight, vector)).view(shape);
}

// Whether this is the only reference to the tensor and to its memory.
bool IsOurs(const at::Tensor& tensor) {
  return tensor.use_count() == 1 && tensor.storage().use_count() == 1;
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

class Maker {
 public:
  Maker(const std::string& layer, const std::map<std::string, at::Tensor>& weights)
      : layer_(layer), weights_(weights) {}

  Operation operator()(const network::Linear&) const {
    const at::Tensor weight = Required("weight");
    return [weight, transposed = weight.t(), bias = Optional("bias")](auto& in) {
      return Linear(InTypeOf(in[0], weight), weight, transposed, bias);
    };
  }
  Operation operator()(const network::Conv2d& conv) const {
    return [conv, weight = Required("weight"), bias = Optional("bias")](auto& in) {
      return at::conv2d(InTypeOf(in[0], weight), weight, bias, Sizes(conv.stride),
                        Sizes(conv.padding), Sizes(conv.dilation), conv.groups);
    };
  }
  Operation operator()(const network::BatchNorm& norm) const {
    return [eps = norm.eps, weight = Optional("weight"), bias = Optional("bias"),
            mean = Required("running_mean"), variance = Required("running_var")](auto& in) {
      return at::batch_norm(InTypeOf(in[0], mean), weight, bias, mean, variance,
                            /*training=*/false, /*momentum=*/0.0, eps, /*cudnn_enabled=*/true);
    };
  }
  Operation operator()(const network::MaxPool2d& pool) const {
    return [pool](auto& in) {
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
    return [add](auto& in) {
      at::Tensor result = in[0];
      for (std::size_t i = 1; i < in.size(); ++i) {
        result = add ? at::add(result, in[i]) : at::mul(result, in[i]);
      }
      return result;
    };
  }
  Operation operator()(const network::Identity&) const {
    return [](auto& in) { return std::move(in[0]); };
  }
  Operation operator()(const network::Activation& activation) const {
    return ActivationOf(activation.op);
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
  at::Tensor Required(const char* suffix) const { return weights_.at(layer_ + "." + suffix); }
  // An undefined tensor stands for "none" in LibTorch's functions.
  at::Tensor Optional(const char* suffix) const {
    const auto found = weights_.find(layer_ + "." + suffix);
    return found == weights_.end() ? at::Tensor() : found->second;
  }

  const std::string& layer_;
  const std::map<std::string, at::Tensor>& weights_;
};

}  // namespace

Operation MakeOperation(const network::Layer& layer,
                        const std::map<std::string, at::Tensor>& weights) {
  return std::visit(Maker(layer.name, weights), layer.kind);
}

}  // namespace relight::model
