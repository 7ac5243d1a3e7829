#include "server/model/operations.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "server/model/attention.h"
#include "server/model/convolution.h"
#include "server/model/functions.h"
#include "server/model/layer_tensors.h"
#include "server/model/linear.h"
#include "server/model/recurrent.h"
#include "server/network/layer_rules.h"

namespace relight::model {
namespace {

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

// Row-major where the values do not lie alike: rows may turn out to be one and several.
void MakeAlike(std::vector<at::Tensor>& in, Layout layout) {
  const bool alike = std::all_of(in.begin(), in.end(), [&in](const at::Tensor& tensor) {
    return tensor.is_mkldnn() == in[0].is_mkldnn() && tensor.sizes() == in[0].sizes();
  });
  if (alike) return;
  for (at::Tensor& tensor : in) tensor = RowMajor(std::move(tensor), layout);
}

// A card can only abort on an index that is out of range, and takes all that is on it along, so
// that it is clamped there. On the CPU LibTorch refuses it.
at::Tensor Embed(const at::Tensor& weight, const at::Tensor& indices) {
  if (!indices.is_cpu()) {
    return at::embedding(weight, at::clamp(indices, 0, weight.size(0) - 1));
  }
  return at::embedding(weight, indices);
}

at::Tensor RmsNorm(const network::RmsNorm& norm, const at::Tensor& in, const at::Tensor& weight) {
  const at::ScalarType type = in.scalar_type();
  const bool half = type == at::kHalf || type == at::kBFloat16;
  double step = std::numeric_limits<float>::epsilon();
  if (type == at::kDouble) step = std::numeric_limits<double>::epsilon();
  if (type == at::kBFloat16) step = 0x1p-7;
  if (type == at::kHalf) step = 0x1p-10;
  const at::Tensor wide = half ? in.to(at::kFloat) : in;
  std::vector<std::int64_t> dims;
  for (std::size_t i = 0; i < norm.normalized_shape.size(); ++i) {
    dims.push_back(-1 - static_cast<std::int64_t>(i));
  }
  const at::Tensor mean = at::mean(at::square(wide), dims, /*keepdim=*/true);
  at::Tensor out = at::mul(wide, at::rsqrt(at::add(mean, norm.eps.value_or(step))));
  if (weight.defined()) out = at::mul(out, weight);
  return out.to(type);
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

  StepOperation operator()(const network::Linear&) const {
    return MakeLinear(Required("weight"), Optional("bias"), plan_.layout == Layout::kRows);
  }
  StepOperation operator()(const network::Bilinear&) const {
    return Operation([weight = Required("weight"), bias = Optional("bias")](auto& in) {
      return at::bilinear(InTypeOf(in[0], weight), InTypeOf(in[1], weight), weight, bias);
    });
  }
  StepOperation operator()(const network::Conv&) const {
    ConvolutionWeights weights{Required("weight"), Optional("bias")};
    if (plan_.norm_taken_in.has_value()) {
      const network::Layer& norm = network_.steps()[*plan_.norm_taken_in].layer;
      weights = TakeIn(
          {Optional(norm, "weight"), Optional(norm, "bias"), Required(norm.name, "running_mean"),
           Required(norm.name, "running_var"), std::get<network::BatchNorm>(norm.kind).eps},
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
  StepOperation operator()(const network::BatchNorm& norm) const {
    if (plan_.taken_in) return MakeFunction(network::Identity());
    return Operation([eps = norm.eps, weight = Optional("weight"), bias = Optional("bias"),
                      mean = Required("running_mean"),
                      variance = Required("running_var")](auto& in) {
      return at::batch_norm(InTypeOf(in[0], mean), weight, bias, mean, variance,
                            /*training=*/false, /*momentum=*/0.0, eps, /*cudnn_enabled=*/true);
    });
  }
  StepOperation operator()(const network::InstanceNorm& norm) const {
    const at::Tensor mean = Optional("running_mean");
    return Operation([norm, weight = Optional("weight"), bias = Optional("bias"), mean,
                      variance = Optional("running_var")](auto& in) {
      const at::Tensor& type = weight.defined() ? weight : mean;
      return at::instance_norm(type.defined() ? InTypeOf(in[0], type) : in[0], weight, bias, mean,
                               variance, /*use_input_stats=*/!norm.track_running_stats,
                               /*momentum=*/0.0, norm.eps, /*cudnn_enabled=*/true);
    });
  }
  StepOperation operator()(const network::LayerNorm& norm) const {
    return Operation([norm, weight = Optional("weight"), bias = Optional("bias")](auto& in) {
      return at::layer_norm(weight.defined() ? InTypeOf(in[0], weight) : in[0],
                            norm.normalized_shape, weight, bias, norm.eps);
    });
  }
  StepOperation operator()(const network::RmsNorm& norm) const {
    return Operation([norm, weight = Optional("weight")](auto& in) {
      return RmsNorm(norm, weight.defined() ? InTypeOf(in[0], weight) : in[0], weight);
    });
  }
  StepOperation operator()(const network::GroupNorm& norm) const {
    return Operation([norm, weight = Optional("weight"), bias = Optional("bias")](auto& in) {
      return at::group_norm(weight.defined() ? InTypeOf(in[0], weight) : in[0], norm.num_groups,
                            weight, bias, norm.eps);
    });
  }
  StepOperation operator()(const network::Embedding&) const {
    return Operation([weight = Required("weight")](auto& in) { return Embed(weight, in[0]); });
  }
  StepOperation operator()(const network::Prelu&) const {
    return Operation([weight = Required("weight")](auto& in) {
      return at::prelu(InTypeOf(in[0], weight), weight);
    });
  }
  StepOperation operator()(const network::Recurrent& layer) const {
    std::vector<at::Tensor> weights;
    for (const ParameterSpec& spec : network::ParametersOf(layer_, layer)) {
      weights.push_back(weights_.at(spec.name));
    }
    return MakeRecurrent(layer, std::move(weights));
  }
  StepOperation operator()(const network::MultiheadAttention& layer) const {
    AttentionWeights weights{.query = Optional("q_proj_weight"),
                             .key = Optional("k_proj_weight"),
                             .value = Optional("v_proj_weight"),
                             .bias = Optional("in_proj_bias"),
                             .key_bias = Optional("bias_k"),
                             .value_bias = Optional("bias_v"),
                             .out = Required("out_proj.weight"),
                             .out_bias = Optional("out_proj.bias")};
    if (!weights.query.defined()) {
      const std::vector<at::Tensor> parts = at::chunk(Required("in_proj_weight"), 3);
      weights.query = parts[0];
      weights.key = parts[1];
      weights.value = parts[2];
    }
    return MakeMultiheadAttention(layer, std::move(weights), step_.slots);
  }
  StepOperation operator()(const network::Parameter&) const {
    return Operation([tensor = weights_.at(layer_)](auto&) { return tensor; });
  }
  StepOperation operator()(const network::Split& split) const { return Parts(split.dim); }
  StepOperation operator()(const network::Chunk& chunk) const { return Parts(chunk.dim); }
  StepOperation operator()(const network::MaxPool& pool) const {
    return Operation([plain = MakeFunction(pool), layout = plan_.layout](auto& in) {
      KeepNonFinite(in[0], layout);
      return plain(in);
    });
  }
  StepOperation operator()(const network::Elementwise& elementwise) const {
    return Operation([plain = MakeFunction(elementwise), layout = plan_.layout](auto& in) {
      MakeAlike(in, layout);
      return plain(in);
    });
  }
  StepOperation operator()(const network::Activation& activation) const {
    if (plan_.layout == Layout::kRowMajor) return MakeFunction(activation);
    return Operation([relu = MakeFunction(activation), layout = plan_.layout](auto& in) {
      KeepNonFinite(in[0], layout);
      return relu(in);
    });
  }
  template <typename Kind>
  StepOperation operator()(const Kind& kind) const {
    return MakeFunction(kind);
  }

 private:
  at::Tensor Required(const std::string& layer, const char* suffix) const {
    return weights_.at(layer + "." + suffix);
  }
  at::Tensor Required(const char* suffix) const { return Required(layer_, suffix); }
  // An undefined tensor stands for "none" in LibTorch's functions. A key that the layer would have,
  // but has not, may be that of a `parameter`.
  at::Tensor Optional(const network::Layer& layer, const char* suffix) const {
    const std::string key = layer.name + "." + suffix;
    const std::vector<ParameterSpec> specs = network::ParametersOf(layer.name, layer.kind);
    const bool has_it = std::any_of(specs.begin(), specs.end(),
                                    [&key](const ParameterSpec& spec) { return spec.name == key; });
    return has_it ? weights_.at(key) : at::Tensor();
  }
  at::Tensor Optional(const char* suffix) const { return Optional(step_.layer, suffix); }

  SeveralOperation Parts(std::int64_t dim) const {
    const std::size_t rank = step_.shape().size();
    const std::size_t at =
        static_cast<std::size_t>(dim < 0 ? dim + static_cast<std::int64_t>(rank) : dim);
    std::vector<std::int64_t> sizes;
    for (const network::Sizes& shape : step_.shapes) sizes.push_back(shape[at]);
    return MakeSplit(dim, std::move(sizes));
  }

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

StepOperation MakeOperation(const network::Network& network, const std::vector<StepPlan>& plan,
                            std::size_t step, const std::map<std::string, at::Tensor>& weights,
                            DerivedTensors* derived) {
  StepOperation made = std::visit(Maker(network, plan[step], step, weights, derived),
                                  network.steps()[step].layer.kind);
  std::vector<Layout> layouts;
  for (const std::size_t value : network.steps()[step].inputs) {
    layouts.push_back(LayoutOf(network, plan, value));
  }
  const bool gets_other = std::any_of(layouts.begin(), layouts.end(), [&](Layout layout) {
    return layout != Layout::kRowMajor && layout != plan[step].layout;
  });
  if (!gets_other) return made;
  return std::visit(
      [&layouts](auto& operation) -> StepOperation {
        return std::decay_t<decltype(operation)>(
            [operation = std::move(operation), layouts](std::vector<at::Tensor>& in) {
              for (std::size_t i = 0; i < in.size(); ++i) {
                in[i] = RowMajor(std::move(in[i]), layouts[i]);
              }
              return operation(in);
            });
      },
      made);
}

}  // namespace relight::model
