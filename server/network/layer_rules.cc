#include "server/network/layer_rules.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"

namespace relight::network {
namespace {

// A layer with more weights than this is a typo, and would only be found out when memory is.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 40;

std::string TypeName(DType dtype) { return std::string(ProtocolName(dtype)); }

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

void CheckRange(const char* argument, std::int64_t value, std::int64_t least, Messages& errors) {
  if (value < least) {
    errors.push_back(absl::StrCat(argument, " is ", value, ", the least is ", least));
  } else if (value > kMaxSize) {
    errors.push_back(absl::StrCat(argument, " is ", value, ", the most is ", kMaxSize));
  }
}

void CheckRange(const char* argument, const Pair& pair, std::int64_t least, Messages& errors) {
  CheckRange(argument, pair[0], least, errors);
  if (pair[1] != pair[0]) CheckRange(argument, pair[1], least, errors);
}

// A size without a default: text that leaves it out reads as 0.
void CheckRequired(const char* argument, std::int64_t value, Messages& errors) {
  if (value == 0) {
    errors.push_back(absl::StrCat(argument, " is missing or 0: give at least 1"));
  } else {
    CheckRange(argument, value, 1, errors);
  }
}

void CheckRequired(const char* argument, const Pair& pair, Messages& errors) {
  CheckRequired(argument, pair[0], errors);
  if (pair[1] != pair[0]) CheckRequired(argument, pair[1], errors);
}

void CheckFinite(const char* argument, double value, Messages& errors) {
  if (!std::isfinite(value)) {
    errors.push_back(absl::StrCat(argument, " is ", value, ", which is not a finite number"));
  }
}

void CheckPoolPadding(const Pair& padding, const Pair& kernel, Messages& errors) {
  for (std::size_t i = 0; i < 2; ++i) {
    if (padding[i] <= kernel[i] / 2) continue;
    errors.push_back(absl::StrCat("padding is ", padding[i],
                                  ", the most is half of kernel_size, that is ", kernel[i] / 2));
    return;
  }
}

struct ArgumentCheck {
  Messages& errors;

  void operator()(const Linear& layer) const {
    if (layer.in_features) CheckRange("in_features", *layer.in_features, 1, errors);
    CheckRequired("out_features", layer.out_features, errors);
  }
  void operator()(const Conv2d& layer) const {
    if (layer.in_channels) CheckRange("in_channels", *layer.in_channels, 1, errors);
    CheckRequired("out_channels", layer.out_channels, errors);
    CheckRequired("kernel_size", layer.kernel_size, errors);
    CheckRange("stride", layer.stride, 1, errors);
    CheckRange("padding", layer.padding, 0, errors);
    CheckRange("dilation", layer.dilation, 1, errors);
    CheckRange("groups", layer.groups, 1, errors);
    if (layer.groups < 1) return;
    if (layer.out_channels % layer.groups != 0) {
      errors.push_back(absl::StrCat("out_channels is ", layer.out_channels, ", which groups ",
                                    layer.groups, " does not divide"));
    }
    if (layer.in_channels.value_or(0) % layer.groups != 0) {
      errors.push_back(absl::StrCat("in_channels is ", *layer.in_channels, ", which groups ",
                                    layer.groups, " does not divide"));
    }
  }
  void operator()(const BatchNorm& layer) const {
    if (layer.num_features) CheckRange("num_features", *layer.num_features, 1, errors);
    CheckFinite("eps", layer.eps, errors);
    if (layer.eps < 0) errors.push_back(absl::StrCat("eps is ", layer.eps, ", the least is 0"));
  }
  void operator()(const MaxPool2d& layer) const {
    CheckRequired("kernel_size", layer.kernel_size, errors);
    CheckRange("stride", layer.stride, 1, errors);
    CheckRange("padding", layer.padding, 0, errors);
    CheckRange("dilation", layer.dilation, 1, errors);
    CheckPoolPadding(layer.padding, layer.kernel_size, errors);
  }
  void operator()(const AvgPool2d& layer) const {
    CheckRequired("kernel_size", layer.kernel_size, errors);
    CheckRange("stride", layer.stride, 1, errors);
    CheckRange("padding", layer.padding, 0, errors);
    CheckPoolPadding(layer.padding, layer.kernel_size, errors);
  }
  void operator()(const AdaptiveAvgPool2d& layer) const {
    CheckRequired("output_size", layer.output_size, errors);
  }
  void operator()(const LeakyRelu& layer) const {
    CheckFinite("negative_slope", layer.negative_slope, errors);
  }
  void operator()(const Elu& layer) const { CheckFinite("alpha", layer.alpha, errors); }
  void operator()(const Softplus& layer) const {
    CheckFinite("beta", layer.beta, errors);
    CheckFinite("threshold", layer.threshold, errors);
    if (layer.beta == 0) errors.push_back("beta is 0, by which softplus divides");
  }
  void operator()(const Hardtanh& layer) const {
    CheckFinite("min_val", layer.min_val, errors);
    CheckFinite("max_val", layer.max_val, errors);
    if (layer.min_val >= layer.max_val) {
      errors.push_back(absl::StrCat("min_val is ", layer.min_val, ", it must be less than max_val ",
                                    layer.max_val));
    }
  }
  // Their ranges depend on the input.
  void operator()(const Flatten&) const {}
  void operator()(const Softmax&) const {}
  void operator()(const Concat&) const {}
  // They have no arguments, or cannot have wrong ones.
  void operator()(const Elementwise&) const {}
  void operator()(const Identity&) const {}
  void operator()(const Activation&) const {}
  void operator()(const Gelu&) const {}
};

// Windows of a convolution or pool along one dimension; the formula of PyTorch's documentation.
// Less than 1 where not one fits.
struct Window {
  std::int64_t kernel = 1;
  std::int64_t stride = 1;
  std::int64_t padding = 0;
  std::int64_t dilation = 1;
  bool ceil_mode = false;

  std::int64_t Span() const { return dilation * (kernel - 1) + 1; }

  std::int64_t Count(std::int64_t size) const {
    // With ceil_mode the last window may hang over the right padding.
    const std::int64_t room = size + 2 * padding - Span() + (ceil_mode ? stride - 1 : 0);
    if (room < 0) return 0;
    std::int64_t count = room / stride + 1;
    // The last window must start inside the input or the left padding.
    if (ceil_mode && (count - 1) * stride >= size + padding) --count;
    return count;
  }
};

class OutputInference {
 public:
  OutputInference(absl::Span<const Value> inputs, Messages& errors)
      : inputs_(inputs), errors_(errors) {}

  std::optional<Value> operator()(Linear& layer) {
    if (!RequireFloat()) return std::nullopt;
    Value out = inputs_[0];
    if (out.shape.empty()) return Refuse("needs an input of at least one dimension");
    out.batched = out.batched && out.shape.size() > 1;
    Settle("in_features", out.shape.back(), layer.in_features);
    out.shape.back() = layer.out_features;
    if (layer.in_features) CheckElements(*layer.in_features, layer.out_features);
    return out;
  }

  std::optional<Value> operator()(Conv2d& layer) {
    if (!RequireFloat() || !RequireImage()) return std::nullopt;
    Value out = inputs_[0];
    if (Settle("in_channels", out.shape[1], layer.in_channels) &&
        *layer.in_channels % layer.groups != 0) {
      errors_.push_back(absl::StrCat("its input has ", *layer.in_channels,
                                     " channels, which groups ", layer.groups, " does not divide"));
    }
    out.shape[1] = layer.out_channels;
    if (layer.in_channels) {
      CheckElements(*layer.in_channels / layer.groups, layer.out_channels, layer.kernel_size[0],
                    layer.kernel_size[1]);
    }
    for (std::size_t i = 0; i < 2; ++i) {
      const Window window{.kernel = layer.kernel_size[i],
                          .stride = layer.stride[i],
                          .padding = layer.padding[i],
                          .dilation = layer.dilation[i]};
      if (!Slide(window, i, out)) return std::nullopt;
    }
    return out;
  }

  std::optional<Value> operator()(BatchNorm& layer) {
    if (!RequireFloat()) return std::nullopt;
    const Value& in = inputs_[0];
    if (layer.spatial_dims == 2) {
      if (!RequireImage()) return std::nullopt;
    } else if (in.shape.size() != 2 && in.shape.size() != 3) {
      return Refuse(
          absl::StrCat("needs an input of shape [N, C] or [N, C, L], got ", ShapeText(in.shape)));
    }
    Value out = in;
    if (Settle("num_features", in.shape[1], layer.num_features)) out.shape[1] = *layer.num_features;
    return out;
  }

  std::optional<Value> operator()(const MaxPool2d& layer) {
    if (!RequireFloat() || !RequireImage()) return std::nullopt;
    Value out = inputs_[0];
    for (std::size_t i = 0; i < 2; ++i) {
      const Window window{.kernel = layer.kernel_size[i],
                          .stride = layer.stride[i],
                          .padding = layer.padding[i],
                          .dilation = layer.dilation[i],
                          .ceil_mode = layer.ceil_mode};
      if (!Slide(window, i, out)) return std::nullopt;
    }
    return out;
  }

  std::optional<Value> operator()(const AvgPool2d& layer) {
    return (*this)(MaxPool2d{.kernel_size = layer.kernel_size,
                             .stride = layer.stride,
                             .padding = layer.padding,
                             .ceil_mode = layer.ceil_mode});
  }

  std::optional<Value> operator()(const AdaptiveAvgPool2d& layer) {
    if (!RequireFloat() || !RequireImage()) return std::nullopt;
    Value out = inputs_[0];
    out.shape[2] = layer.output_size[0];
    out.shape[3] = layer.output_size[1];
    return out;
  }

  std::optional<Value> operator()(const Flatten& layer) {
    const Value& in = inputs_[0];
    const auto start = Dimension("start_dim", layer.start_dim);
    const auto end = Dimension("end_dim", layer.end_dim);
    if (!start || !end) return std::nullopt;
    if (*start > *end) {
      return Refuse(absl::StrCat("start_dim ", layer.start_dim, " comes after end_dim ",
                                 layer.end_dim, " in an input of shape ", ShapeText(in.shape)));
    }
    Value out{.dtype = in.dtype, .shape = {}, .batched = in.batched && (*start > 0 || *end == 0)};
    std::optional<std::int64_t> product = 1;
    for (std::size_t i = 0; i < in.shape.size(); ++i) {
      if (i < *start || i > *end) {
        out.shape.push_back(in.shape[i]);
        continue;
      }
      const bool free = in.shape[i] < 0 || *product < 0;
      product = free ? std::optional<std::int64_t>(-1) : CheckedMul(*product, in.shape[i]);
      if (!product || *product > kMaxSize) {
        return Refuse(absl::StrCat("flattens ", ShapeText(in.shape), " to more than ", kMaxSize,
                                   " elements"));
      }
      if (i == *end) out.shape.push_back(*product);
    }
    return out;
  }

  std::optional<Value> operator()(const Softmax& layer) {
    if (!RequireFloat()) return std::nullopt;
    const auto dim = Dimension("dim", layer.dim);
    if (!dim) return std::nullopt;
    Value out = inputs_[0];
    out.batched = out.batched && *dim > 0;
    return out;
  }

  std::optional<Value> operator()(const Concat& layer) {
    Value out = inputs_[0];
    const auto dim = Dimension("dim", layer.dim);
    if (!RequireSameRank() || !MergeTypes(out) || !dim) return std::nullopt;
    for (const Value& in : inputs_.subspan(1)) {
      out.batched = out.batched && in.batched;
      for (std::size_t i = 0; i < out.shape.size(); ++i) {
        if (i == *dim) {
          const bool free = out.shape[i] < 0 || in.shape[i] < 0;
          out.shape[i] = free ? -1 : out.shape[i] + in.shape[i];
          if (out.shape[i] > kMaxSize) return Refuse("its output would be too large");
        } else if (out.shape[i] < 0) {
          out.shape[i] = in.shape[i];
        } else if (in.shape[i] >= 0 && in.shape[i] != out.shape[i]) {
          return RefuseShapes(absl::StrCat("differ in dimension ", i));
        }
      }
    }
    out.batched = out.batched && *dim > 0;
    return out;
  }

  std::optional<Value> operator()(const Elementwise&) {
    Value out = inputs_[0];
    if (!RequireSameRank() || !MergeTypes(out)) return std::nullopt;
    for (const Value& in : inputs_.subspan(1)) {
      out.batched = out.batched && in.batched;
      for (std::size_t i = 0; i < out.shape.size(); ++i) {
        std::int64_t& size = out.shape[i];
        const std::int64_t other = in.shape[i];
        if (size == other || other == 1) continue;
        if (size == 1 || size < 0) {
          // A free dimension must turn out to be 1 or the other's size.
          size = other;
        } else if (other >= 0) {
          return RefuseShapes(absl::StrCat("do not broadcast in dimension ", i));
        }
      }
    }
    return out;
  }

  std::optional<Value> operator()(const Identity&) { return inputs_[0]; }
  std::optional<Value> operator()(const Activation&) { return SameIfFloat(); }
  std::optional<Value> operator()(const Gelu&) { return SameIfFloat(); }
  std::optional<Value> operator()(const LeakyRelu&) { return SameIfFloat(); }
  std::optional<Value> operator()(const Elu&) { return SameIfFloat(); }
  std::optional<Value> operator()(const Softplus&) { return SameIfFloat(); }
  std::optional<Value> operator()(const Hardtanh&) { return SameIfFloat(); }

 private:
  std::nullopt_t Refuse(std::string message) {
    errors_.push_back(std::move(message));
    return std::nullopt;
  }

  std::nullopt_t RefuseShapes(const std::string& what) {
    std::string shapes;
    for (const Value& in : inputs_) {
      absl::StrAppend(&shapes, shapes.empty() ? "" : " and ", ShapeText(in.shape));
    }
    return Refuse(absl::StrCat("its inputs ", what, ": ", shapes));
  }

  std::optional<Value> SameIfFloat() {
    if (!RequireFloat()) return std::nullopt;
    return inputs_[0];
  }

  bool RequireFloat() {
    if (IsFloatingPoint(inputs_[0].dtype)) return true;
    errors_.push_back(
        absl::StrCat("needs a floating point input, got ", TypeName(inputs_[0].dtype)));
    return false;
  }

  bool RequireImage() {
    if (inputs_[0].shape.size() == 4) return true;
    errors_.push_back(
        absl::StrCat("needs an input of shape [N, C, H, W], got ", ShapeText(inputs_[0].shape)));
    return false;
  }

  bool RequireSameRank() {
    for (const Value& in : inputs_) {
      if (in.shape.size() == inputs_[0].shape.size()) continue;
      RefuseShapes("differ in their number of dimensions");
      return false;
    }
    return true;
  }

  // As PyTorch promotes among floats; integers do not mix with anything.
  bool MergeTypes(Value& out) {
    for (const Value& in : inputs_.subspan(1)) {
      if (in.dtype == out.dtype) continue;
      if (!IsFloatingPoint(in.dtype) || !IsFloatingPoint(out.dtype)) {
        errors_.push_back(absl::StrCat("its inputs are of types ", TypeName(out.dtype), " and ",
                                       TypeName(in.dtype), ", which do not mix"));
        return false;
      }
      const bool wide = in.dtype == DType::kFloat64 || out.dtype == DType::kFloat64;
      out.dtype = wide ? DType::kFloat64 : DType::kFloat32;
    }
    return true;
  }

  // Brings together a declared size and the one that the input has. False where it stays unknown.
  bool Settle(const char* argument, std::int64_t actual, std::optional<std::int64_t>& declared) {
    if (actual < 0) {
      // A free dimension is trusted to be what the layer declares.
      if (declared) return true;
      errors_.push_back(absl::StrCat(argument, " is not given and does not follow from its input ",
                                     ShapeText(inputs_[0].shape), ": give it"));
      return false;
    }
    if (declared && *declared != actual) {
      errors_.push_back(absl::StrCat(argument, " is ", *declared, ", but its input has ", actual,
                                     " (shape ", ShapeText(inputs_[0].shape), ")"));
      return false;
    }
    declared = actual;
    return true;
  }

  bool Slide(const Window& window, std::size_t i, Value& out) {
    std::int64_t& size = out.shape[2 + i];
    if (size < 0) return true;
    const std::int64_t count = window.Count(size);
    if (count < 1) {
      errors_.push_back(absl::StrCat("its windows of ", window.Span(), " do not fit an input of ",
                                     size, " padded by ", window.padding, " (",
                                     i == 0 ? "height" : "width", ")"));
      return false;
    }
    size = count;
    return true;
  }

  std::optional<std::size_t> Dimension(const char* argument, std::int64_t dim) {
    const auto rank = static_cast<std::int64_t>(inputs_[0].shape.size());
    if (dim < -rank || dim >= rank) {
      errors_.push_back(absl::StrCat(argument, " is ", dim, ", but its input has ", rank,
                                     " dimensions (shape ", ShapeText(inputs_[0].shape), ")"));
      return std::nullopt;
    }
    return static_cast<std::size_t>(dim < 0 ? dim + rank : dim);
  }

  template <typename... Sizes>
  void CheckElements(Sizes... sizes) {
    std::optional<std::int64_t> product = 1;
    for (const std::int64_t size : {static_cast<std::int64_t>(sizes)...}) {
      if (product) product = CheckedMul(*product, size);
    }
    if (product && *product <= kMaxElements) return;
    errors_.push_back(absl::StrCat("its weight would have more than ", kMaxElements, " elements"));
  }

  absl::Span<const Value> inputs_;
  Messages& errors_;
};

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

void CheckArguments(const LayerKind& kind, Messages& errors) {
  std::visit(ArgumentCheck{errors}, kind);
}

std::optional<Value> InferOutput(LayerKind& kind, absl::Span<const Value> inputs,
                                 Messages& errors) {
  return std::visit(OutputInference(inputs, errors), kind);
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
