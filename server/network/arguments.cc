#include "server/network/arguments.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace relight::network {
namespace {

using Arguments = std::vector<Argument>;

Argument Flag(const char* name, bool& field) { return {.name = name, .field = &field}; }

// A size that must be given.
Argument Size(const char* name, std::int64_t& field) {
  return {.name = name, .field = &field, .least = 1, .required = true};
}
// One that has a default, or follows from the input.
Argument AtLeast(std::int64_t least, const char* name, std::int64_t& field) {
  return {.name = name, .field = &field, .least = least};
}
Argument SizeOr(const char* name, std::optional<std::int64_t>& field) {
  return {.name = name, .field = &field, .least = 1};
}

// A dimension: what it may be depends on the input.
Argument Dim(const char* name, std::int64_t& field) { return {.name = name, .field = &field}; }
Argument Dims(const char* name, Sizes& field) { return {.name = name, .field = &field}; }

Argument Window(const char* name, Sizes& field, int spatial_dims, std::int64_t least) {
  return {.name = name, .field = &field, .least = least, .entries = spatial_dims};
}
Argument RequiredWindow(const char* name, Sizes& field, int spatial_dims) {
  return {.name = name, .field = &field, .least = 1, .required = true, .entries = spatial_dims};
}
// Any number of sizes.
Argument List(const char* name, Sizes& field, std::int64_t least) {
  return {.name = name, .field = &field, .least = least, .required = true};
}

Argument Real(const char* name, double& field) { return {.name = name, .field = &field}; }
Argument Real(const char* name, std::optional<double>& field) {
  return {.name = name, .field = &field};
}

template <typename Field>
Argument From0(const char* name, Field& field) {
  return {.name = name, .field = &field, .least_real = 0};
}
template <typename Field>
Argument Eps(Field& field) {
  return From0("eps", field);
}

// A number among those of a tensor: it may be infinite.
template <typename Field>
Argument Number(const char* name, Field& field) {
  return {.name = name, .field = &field, .may_be_infinite = true};
}

Argument Choice(const char* name, std::string& field, std::vector<std::string> choices) {
  return {.name = name, .field = &field, .choices = std::move(choices)};
}

Argument Type(const char* name, DType& field) { return {.name = name, .field = &field}; }

struct ArgumentLister {
  Arguments operator()(Linear& k) const {
    return {SizeOr("in_features", k.in_features), Size("out_features", k.out_features),
            Flag("bias", k.bias)};
  }
  Arguments operator()(Bilinear& k) const {
    return {SizeOr("in1_features", k.in1_features), SizeOr("in2_features", k.in2_features),
            Size("out_features", k.out_features), Flag("bias", k.bias)};
  }
  Arguments operator()(Conv& k) const {
    const int dims = k.spatial_dims;
    Arguments all = {SizeOr("in_channels", k.in_channels),
                     Size("out_channels", k.out_channels),
                     RequiredWindow("kernel_size", k.kernel_size, dims),
                     Window("stride", k.stride, dims, 1),
                     Window("padding", k.padding, dims, 0),
                     Window("dilation", k.dilation, dims, 1),
                     AtLeast(1, "groups", k.groups),
                     Flag("bias", k.bias)};
    all.push_back(k.transposed ? Window("output_padding", k.output_padding, dims, 0)
                               : Choice("padding_mode", k.padding_mode,
                                        {"zeros", "reflect", "replicate", "circular"}));
    return all;
  }
  Arguments operator()(BatchNorm& k) const {
    return {SizeOr("num_features", k.num_features), Eps(k.eps), Flag("affine", k.affine)};
  }
  Arguments operator()(InstanceNorm& k) const {
    return {SizeOr("num_features", k.num_features), Eps(k.eps), Flag("affine", k.affine),
            Flag("track_running_stats", k.track_running_stats)};
  }
  Arguments operator()(LayerNorm& k) const {
    return {List("normalized_shape", k.normalized_shape, 1), Eps(k.eps),
            Flag("elementwise_affine", k.elementwise_affine), Flag("bias", k.bias)};
  }
  Arguments operator()(RmsNorm& k) const {
    return {List("normalized_shape", k.normalized_shape, 1), Eps(k.eps),
            Flag("elementwise_affine", k.elementwise_affine)};
  }
  Arguments operator()(GroupNorm& k) const {
    return {Size("num_groups", k.num_groups), SizeOr("num_channels", k.num_channels), Eps(k.eps),
            Flag("affine", k.affine)};
  }
  Arguments operator()(Embedding& k) const {
    return {Size("num_embeddings", k.num_embeddings), Size("embedding_dim", k.embedding_dim)};
  }
  Arguments operator()(Recurrent& k) const {
    Arguments all = {
        SizeOr("input_size", k.input_size),     Size("hidden_size", k.hidden_size),
        AtLeast(1, "num_layers", k.num_layers), Flag("bias", k.bias),
        Flag("batch_first", k.batch_first),     Flag("bidirectional", k.bidirectional)};
    if (k.op == RecurrentOp::kLstm) all.push_back(AtLeast(0, "proj_size", k.proj_size));
    if (k.op == RecurrentOp::kRnn) {
      all.push_back(Choice("nonlinearity", k.nonlinearity, {"tanh", "relu"}));
    }
    return all;
  }
  Arguments operator()(MultiheadAttention& k) const {
    return {SizeOr("embed_dim", k.embed_dim),
            Size("num_heads", k.num_heads),
            Flag("bias", k.bias),
            Flag("add_bias_kv", k.add_bias_kv),
            Flag("add_zero_attn", k.add_zero_attn),
            SizeOr("kdim", k.kdim),
            SizeOr("vdim", k.vdim),
            Flag("batch_first", k.batch_first),
            Flag("is_causal", k.is_causal),
            Flag("need_weights", k.need_weights)};
  }
  Arguments operator()(Prelu& k) const { return {AtLeast(1, "num_parameters", k.num_parameters)}; }
  Arguments operator()(Parameter& k) const {
    // A shape may be empty: a number.
    return {{.name = "shape", .field = &k.shape, .least = 1},
            Type("datatype", k.datatype),
            Flag("buffer", k.buffer)};
  }
  Arguments operator()(MaxPool& k) const {
    const int dims = k.spatial_dims;
    return {RequiredWindow("kernel_size", k.kernel_size, dims), Window("stride", k.stride, dims, 1),
            Window("padding", k.padding, dims, 0), Window("dilation", k.dilation, dims, 1),
            Flag("ceil_mode", k.ceil_mode)};
  }
  Arguments operator()(AvgPool& k) const {
    const int dims = k.spatial_dims;
    Arguments all = {RequiredWindow("kernel_size", k.kernel_size, dims),
                     Window("stride", k.stride, dims, 1), Window("padding", k.padding, dims, 0),
                     Flag("ceil_mode", k.ceil_mode),
                     Flag("count_include_pad", k.count_include_pad)};
    if (dims > 1) all.push_back(SizeOr("divisor_override", k.divisor_override));
    return all;
  }
  Arguments operator()(AdaptivePool& k) const {
    return {RequiredWindow("output_size", k.output_size, k.spatial_dims)};
  }
  Arguments operator()(LocalResponseNorm& k) const {
    return {Size("size", k.size), Real("alpha", k.alpha), Real("beta", k.beta), Real("k", k.k)};
  }
  Arguments operator()(Pad& k) const {
    return {List("padding", k.padding, -kMaxSize),
            Choice("mode", k.mode, {"constant", "reflect", "replicate", "circular"}),
            Number("value", k.value)};
  }
  Arguments operator()(Upsample& k) const {
    return {{.name = "size", .field = &k.size, .least = 1},
            {.name = "scale_factor", .field = &k.scale_factor},
            Choice("mode", k.mode, {"nearest", "linear", "bilinear", "bicubic", "trilinear"}),
            Flag("align_corners", k.align_corners)};
  }
  Arguments operator()(PixelShuffle& k) const {
    return {Size(k.inverse ? "downscale_factor" : "upscale_factor", k.factor)};
  }
  Arguments operator()(ChannelShuffle& k) const { return {Size("groups", k.groups)}; }
  Arguments operator()(Activation&) const { return {}; }
  Arguments operator()(Gelu& k) const {
    return {Choice("approximate", k.approximate, {"none", "tanh"})};
  }
  Arguments operator()(LeakyRelu& k) const { return {Real("negative_slope", k.negative_slope)}; }
  Arguments operator()(Elu& k) const { return {Real("alpha", k.alpha)}; }
  Arguments operator()(Softplus& k) const {
    return {Real("beta", k.beta), Real("threshold", k.threshold)};
  }
  Arguments operator()(Hardtanh& k) const {
    return {Real("min_val", k.min_val), Real("max_val", k.max_val)};
  }
  Arguments operator()(Clamp& k) const { return {Number("min", k.min), Number("max", k.max)}; }
  Arguments operator()(Shrink& k) const { return {From0("lambd", k.lambd)}; }
  Arguments operator()(Threshold& k) const {
    return {Number("threshold", k.threshold), Number("value", k.value)};
  }
  Arguments operator()(LogicalNot&) const { return {}; }
  Arguments operator()(Cast& k) const {
    return {{.name = "datatype", .field = &k.datatype, .required = true}};
  }
  Arguments operator()(Identity& k) const {
    if (!k.dropout) return {};
    return {Real("p", k.p)};
  }
  Arguments operator()(Softmax& k) const { return {Dim("dim", k.dim)}; }
  Arguments operator()(Glu& k) const { return {Dim("dim", k.dim)}; }
  Arguments operator()(Normalize& k) const {
    return {Real("p", k.p), Dim("dim", k.dim), Eps(k.eps)};
  }
  Arguments operator()(Reduce& k) const { return {Dims("dim", k.dim), Flag("keepdim", k.keepdim)}; }
  Arguments operator()(ArgReduce& k) const {
    return {Dim("dim", k.dim), Flag("keepdim", k.keepdim)};
  }
  Arguments operator()(Cumsum& k) const { return {Dim("dim", k.dim)}; }
  Arguments operator()(Elementwise& k) const { return {Number("value", k.value)}; }
  Arguments operator()(Compare& k) const {
    if (k.op == CompareOp::kAnd || k.op == CompareOp::kOr) return {};
    return {Number("value", k.value)};
  }
  Arguments operator()(Where&) const { return {}; }
  Arguments operator()(MaskedFill& k) const { return {Number("value", k.value)}; }
  Arguments operator()(Matmul&) const { return {}; }
  Arguments operator()(Concat& k) const { return {Dim("dim", k.dim)}; }
  Arguments operator()(Stack& k) const { return {Dim("dim", k.dim)}; }
  Arguments operator()(ScaledDotProductAttention& k) const {
    return {Flag("is_causal", k.is_causal), Real("scale", k.scale)};
  }
  Arguments operator()(Flatten& k) const {
    return {Dim("start_dim", k.start_dim), Dim("end_dim", k.end_dim)};
  }
  Arguments operator()(Unflatten& k) const {
    return {Dim("dim", k.dim), List("sizes", k.sizes, -1)};
  }
  Arguments operator()(Reshape& k) const { return {List("shape", k.shape, -1)}; }
  Arguments operator()(Permute& k) const {
    return {{.name = "dims", .field = &k.dims, .required = true}};
  }
  Arguments operator()(Transpose& k) const { return {Dim("dim0", k.dim0), Dim("dim1", k.dim1)}; }
  Arguments operator()(Squeeze& k) const { return {Dim("dim", k.dim)}; }
  Arguments operator()(Unsqueeze& k) const { return {Dim("dim", k.dim)}; }
  Arguments operator()(Select& k) const { return {Dim("dim", k.dim), Dim("index", k.index)}; }
  Arguments operator()(Slice& k) const {
    return {Dim("dim", k.dim),
            {.name = "start", .field = &k.start},
            {.name = "end", .field = &k.end, .most = std::numeric_limits<std::int64_t>::max()},
            AtLeast(1, "step", k.step)};
  }
  Arguments operator()(Split& k) const {
    return {List("split_size", k.split_size, 1), Dim("dim", k.dim)};
  }
  Arguments operator()(Chunk& k) const { return {Size("chunks", k.chunks), Dim("dim", k.dim)}; }
  Arguments operator()(ExpandAs& k) const { return {Dims("dim", k.dim)}; }
  Arguments operator()(Arange& k) const { return {Dim("dim", k.dim)}; }
};

using NamedKinds = std::vector<std::pair<std::string, LayerKind>>;

NamedKinds MakeKinds() {
  NamedKinds all = {
      {"linear", Linear{}},
      {"bilinear", Bilinear{}},
      {"layer_norm", LayerNorm{}},
      {"rms_norm", RmsNorm{}},
      {"group_norm", GroupNorm{}},
      {"embedding", Embedding{}},
      {"lstm", Recurrent{.op = RecurrentOp::kLstm}},
      {"gru", Recurrent{.op = RecurrentOp::kGru}},
      {"rnn", Recurrent{.op = RecurrentOp::kRnn}},
      {"multihead_attention", MultiheadAttention{}},
      {"prelu", Prelu{}},
      {"parameter", Parameter{}},
      {"local_response_norm", LocalResponseNorm{}},
      {"pad", Pad{}},
      {"upsample", Upsample{}},
      {"pixel_shuffle", PixelShuffle{}},
      {"pixel_unshuffle", PixelShuffle{.inverse = true}},
      {"channel_shuffle", ChannelShuffle{}},
      {"gelu", Gelu{}},
      {"leaky_relu", LeakyRelu{}},
      {"elu", Elu{}},
      {"celu", Elu{.continuous = true}},
      {"softplus", Softplus{}},
      {"hardtanh", Hardtanh{}},
      {"clamp", Clamp{}},
      {"softshrink", Shrink{}},
      {"hardshrink", Shrink{.hard = true}},
      {"threshold", Threshold{}},
      {"logical_not", LogicalNot{}},
      {"to", Cast{}},
      {"identity", Identity{}},
      {"dropout", Identity{.dropout = true}},
      {"softmax", Softmax{.op = SoftmaxOp::kSoftmax}},
      {"log_softmax", Softmax{.op = SoftmaxOp::kLogSoftmax}},
      {"softmin", Softmax{.op = SoftmaxOp::kSoftmin}},
      {"glu", Glu{}},
      {"normalize", Normalize{}},
      {"mean", Reduce{.op = ReduceOp::kMean}},
      {"sum", Reduce{.op = ReduceOp::kSum}},
      {"amax", Reduce{.op = ReduceOp::kAmax}},
      {"amin", Reduce{.op = ReduceOp::kAmin}},
      {"argmax", ArgReduce{.max = true}},
      {"argmin", ArgReduce{.max = false}},
      {"cumsum", Cumsum{}},
      {"add", Elementwise{.op = ElementwiseOp::kAdd}},
      {"mul", Elementwise{.op = ElementwiseOp::kMul}},
      {"sub", Elementwise{.op = ElementwiseOp::kSub}},
      {"rsub", Elementwise{.op = ElementwiseOp::kRsub}},
      {"div", Elementwise{.op = ElementwiseOp::kDiv}},
      {"pow", Elementwise{.op = ElementwiseOp::kPow}},
      {"maximum", Elementwise{.op = ElementwiseOp::kMaximum}},
      {"minimum", Elementwise{.op = ElementwiseOp::kMinimum}},
      {"eq", Compare{.op = CompareOp::kEq}},
      {"ne", Compare{.op = CompareOp::kNe}},
      {"lt", Compare{.op = CompareOp::kLt}},
      {"le", Compare{.op = CompareOp::kLe}},
      {"gt", Compare{.op = CompareOp::kGt}},
      {"ge", Compare{.op = CompareOp::kGe}},
      {"logical_and", Compare{.op = CompareOp::kAnd}},
      {"logical_or", Compare{.op = CompareOp::kOr}},
      {"where", Where{}},
      {"masked_fill", MaskedFill{}},
      {"matmul", Matmul{}},
      {"concat", Concat{}},
      {"stack", Stack{}},
      {"scaled_dot_product_attention", ScaledDotProductAttention{}},
      {"flatten", Flatten{}},
      {"unflatten", Unflatten{}},
      {"reshape", Reshape{}},
      {"permute", Permute{}},
      {"transpose", Transpose{}},
      {"squeeze", Squeeze{}},
      {"unsqueeze", Unsqueeze{}},
      {"select", Select{}},
      {"slice", Slice{}},
      {"split", Split{}},
      {"chunk", Chunk{}},
      {"expand_as", ExpandAs{}},
      {"arange", Arange{}},
  };
  for (int dims = 1; dims <= 3; ++dims) {
    const std::string d = absl::StrCat(dims, "d");
    all.insert(all.end(),
               {{"conv" + d, Conv{.spatial_dims = dims}},
                {"conv_transpose" + d, Conv{.spatial_dims = dims, .transposed = true}},
                {"batch_norm" + d, BatchNorm{.spatial_dims = dims}},
                {"instance_norm" + d, InstanceNorm{.spatial_dims = dims}},
                {"max_pool" + d, MaxPool{.spatial_dims = dims}},
                {"avg_pool" + d, AvgPool{.spatial_dims = dims}},
                {"adaptive_avg_pool" + d, AdaptivePool{.spatial_dims = dims}},
                {"adaptive_max_pool" + d, AdaptivePool{.spatial_dims = dims, .max = true}}});
  }
  const std::vector<std::pair<const char*, ActivationOp>> activations = {
      {"relu", ActivationOp::kRelu},
      {"relu6", ActivationOp::kRelu6},
      {"sigmoid", ActivationOp::kSigmoid},
      {"tanh", ActivationOp::kTanh},
      {"silu", ActivationOp::kSilu},
      {"hardswish", ActivationOp::kHardswish},
      {"hardsigmoid", ActivationOp::kHardsigmoid},
      {"selu", ActivationOp::kSelu},
      {"mish", ActivationOp::kMish},
      {"log_sigmoid", ActivationOp::kLogSigmoid},
      {"softsign", ActivationOp::kSoftsign},
      {"tanhshrink", ActivationOp::kTanhshrink},
      {"exp", ActivationOp::kExp},
      {"log", ActivationOp::kLog},
      {"sqrt", ActivationOp::kSqrt},
      {"rsqrt", ActivationOp::kRsqrt},
      {"reciprocal", ActivationOp::kReciprocal},
      {"erf", ActivationOp::kErf},
      {"sin", ActivationOp::kSin},
      {"cos", ActivationOp::kCos},
      {"abs", ActivationOp::kAbs},
      {"neg", ActivationOp::kNeg},
      {"square", ActivationOp::kSquare},
  };
  for (const auto& [name, op] : activations) all.emplace_back(name, Activation{.op = op});
  return all;
}

const NamedKinds& Kinds() {
  static const auto* const kKinds = new NamedKinds(MakeKinds());
  return *kKinds;
}

// What tells kinds apart that are kept in the same type.
struct Variety {
  template <typename Kind>
  int operator()(const Kind& kind) const {
    if constexpr (requires { kind.transposed; }) {
      return 2 * kind.spatial_dims + (kind.transposed ? 1 : 0);
    } else if constexpr (requires { kind.output_size; }) {
      return 2 * kind.spatial_dims + (kind.max ? 1 : 0);
    } else if constexpr (requires { kind.spatial_dims; }) {
      return kind.spatial_dims;
    } else if constexpr (requires { kind.op; }) {
      return static_cast<int>(kind.op);
    } else {
      return 0;
    }
  }
  int operator()(const PixelShuffle& kind) const { return kind.inverse ? 1 : 0; }
  int operator()(const Elu& kind) const { return kind.continuous ? 1 : 0; }
  int operator()(const Shrink& kind) const { return kind.hard ? 1 : 0; }
  int operator()(const Identity& kind) const { return kind.dropout ? 1 : 0; }
  int operator()(const ArgReduce& kind) const { return kind.max ? 1 : 0; }
};

using VarietyKey = std::pair<std::size_t, int>;

VarietyKey KeyOf(const LayerKind& kind) { return {kind.index(), std::visit(Variety(), kind)}; }

}  // namespace

std::vector<Argument> ArgumentsOf(LayerKind& kind) { return std::visit(ArgumentLister(), kind); }

std::string KindName(const LayerKind& kind) {
  static const auto* const kNames = [] {
    auto* names = new std::map<VarietyKey, std::string>;
    for (const auto& [name, known] : Kinds()) names->emplace(KeyOf(known), name);
    return names;
  }();
  return kNames->at(KeyOf(kind));
}

std::optional<LayerKind> KindNamed(std::string_view name) {
  static const auto* const kKinds = [] {
    auto* kinds = new std::map<std::string, LayerKind, std::less<>>;
    for (const auto& [known, kind] : Kinds()) kinds->emplace(known, kind);
    return kinds;
  }();
  const auto found = kKinds->find(name);
  if (found == kKinds->end()) return std::nullopt;
  return found->second;
}

const std::vector<std::string>& KindNames() {
  static const auto* const kNames = [] {
    auto* names = new std::vector<std::string>;
    for (const auto& [name, kind] : Kinds()) names->push_back(name);
    return names;
  }();
  return *kNames;
}

}  // namespace relight::network
