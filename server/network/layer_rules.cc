#include "server/network/layer_rules.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"

namespace relight::network {
namespace {

// A layer with more weights than this is a typo, and would only be found out when memory is.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 40;

std::string TypeName(DType dtype) { return std::string(ProtocolName(dtype)); }

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

}  // namespace

std::optional<Value> InferOutput(LayerKind& kind, absl::Span<const Value> inputs,
                                 Messages& errors) {
  return std::visit(OutputInference(inputs, errors), kind);
}

}  // namespace relight::network
