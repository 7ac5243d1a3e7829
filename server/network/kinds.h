// The kinds of layers, each with PyTorch's arguments and defaults.
//
// What a kind demands of its inputs, what it gives and which parameters it has: layer_rules.h.
#ifndef RELIGHT_SERVER_NETWORK_KINDS_H_
#define RELIGHT_SERVER_NETWORK_KINDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "storage/dtype.h"

namespace relight::network {

using Sizes = std::vector<std::int64_t>;
// A size that follows from the input where it is absent; always set once a net is built.
using Inferred = std::optional<std::int64_t>;

// Layers with parameters.

struct Linear {
  Inferred in_features = std::nullopt;
  std::int64_t out_features = 0;
  bool bias = true;
};
struct Bilinear {  // Of two inputs.
  Inferred in1_features = std::nullopt;
  Inferred in2_features = std::nullopt;
  std::int64_t out_features = 0;
  bool bias = true;
};
// Sizes per spatial dimension, slowest first (height, width); one stands for all until the net is
// built.
struct Conv {
  int spatial_dims = 2;
  bool transposed = false;
  Inferred in_channels = std::nullopt;
  std::int64_t out_channels = 0;
  Sizes kernel_size = {};
  Sizes stride = {1};
  Sizes padding = {0};
  Sizes output_padding = {0};  // Transposed only.
  Sizes dilation = {1};
  std::int64_t groups = 1;
  bool bias = true;
  std::string padding_mode = "zeros";  // Or "reflect", "replicate", "circular".
};
struct BatchNorm {
  int spatial_dims = 2;  // 1: [N, C] or [N, C, L]; 2: [N, C, H, W]; 3: [N, C, D, H, W].
  Inferred num_features = std::nullopt;
  double eps = 1e-5;
  bool affine = true;
};
struct InstanceNorm {
  int spatial_dims = 2;
  Inferred num_features = std::nullopt;
  double eps = 1e-5;
  bool affine = false;
  bool track_running_stats = false;
};
struct LayerNorm {
  Sizes normalized_shape = {};
  double eps = 1e-5;
  bool elementwise_affine = true;
  bool bias = true;
};
struct RmsNorm {
  Sizes normalized_shape = {};
  std::optional<double> eps =
      std::nullopt;  // Absent: the smallest step from 1 in the input's type.
  bool elementwise_affine = true;
};
struct GroupNorm {
  std::int64_t num_groups = 0;
  Inferred num_channels = std::nullopt;
  double eps = 1e-5;
  bool affine = true;
};
struct Embedding {
  std::int64_t num_embeddings = 0;
  std::int64_t embedding_dim = 0;
};
enum class RecurrentOp { kLstm, kGru, kRnn };
// Of the sequence and, where given, the first hidden state (and LSTM's cell state). Gives the last
// layer's hidden states, the final ones of all layers, and LSTM's final cell states.
struct Recurrent {
  RecurrentOp op = RecurrentOp::kLstm;
  Inferred input_size = std::nullopt;
  std::int64_t hidden_size = 0;
  std::int64_t num_layers = 1;
  bool bias = true;
  bool batch_first = false;
  bool bidirectional = false;
  std::int64_t proj_size = 0;         // LSTM only; 0: none.
  std::string nonlinearity = "tanh";  // RNN only; or "relu".
};
// Of query, key and value (one input stands for all three), and masks: key_padding_mask and
// attn_mask, which are added where they are floats and keep out where they are true.
struct MultiheadAttention {
  Inferred embed_dim = std::nullopt;
  std::int64_t num_heads = 0;
  bool bias = true;
  bool add_bias_kv = false;
  bool add_zero_attn = false;
  Inferred kdim = std::nullopt;
  Inferred vdim = std::nullopt;
  bool batch_first = false;
  bool is_causal = false;
  bool need_weights = false;  // A second output: attention averaged over heads.
};
struct Prelu {
  std::int64_t num_parameters = 1;
};
// A tensor of the state dict itself: its key is the layer's name. No inputs.
struct Parameter {
  Sizes shape = {};
  DType datatype = DType::kFloat32;
  bool buffer = false;
};

// Pools and other windows.

struct MaxPool {
  int spatial_dims = 2;
  Sizes kernel_size = {};
  Sizes stride = {};  // Empty: kernel_size.
  Sizes padding = {0};
  Sizes dilation = {1};
  bool ceil_mode = false;
};
struct AvgPool {
  int spatial_dims = 2;
  Sizes kernel_size = {};
  Sizes stride = {};  // Empty: kernel_size.
  Sizes padding = {0};
  bool ceil_mode = false;
  bool count_include_pad = true;
  std::optional<std::int64_t> divisor_override = std::nullopt;
};
struct AdaptivePool {
  int spatial_dims = 2;
  bool max = false;  // Else the mean.
  Sizes output_size = {};
};
struct LocalResponseNorm {
  std::int64_t size = 0;
  double alpha = 1e-4;
  double beta = 0.75;
  double k = 1;
};
struct Pad {
  Sizes padding = {};  // Pairs, the last dimension's first, as torch.nn.functional.pad has them.
  std::string mode = "constant";  // Or "reflect", "replicate", "circular".
  double value = 0;
};
struct Upsample {
  Sizes size = {};  // This or scale_factor; per spatial dimension, or one for all.
  std::vector<double> scale_factor = {};
  std::string mode = "nearest";  // Or "linear", "bilinear", "bicubic", "trilinear".
  bool align_corners = false;
};
struct PixelShuffle {
  bool inverse = false;     // pixel_unshuffle.
  std::int64_t factor = 0;  // upscale_factor, downscale_factor.
};
struct ChannelShuffle {
  std::int64_t groups = 0;
};

// Functions of single numbers.

enum class ActivationOp {
  kRelu,
  kRelu6,
  kSigmoid,
  kTanh,
  kSilu,
  kHardswish,
  kHardsigmoid,
  kSelu,
  kMish,
  kLogSigmoid,
  kSoftsign,
  kTanhshrink,
  kExp,
  kLog,
  kSqrt,
  kRsqrt,
  kReciprocal,
  kErf,
  kSin,
  kCos,
  kAbs,
  kNeg,
  kSquare,
};
struct Activation {
  ActivationOp op = ActivationOp::kRelu;
};
struct Gelu {
  std::string approximate = "none";  // Or "tanh".
};
struct LeakyRelu {
  double negative_slope = 0.01;
};
struct Elu {
  bool continuous = false;  // celu.
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
struct Clamp {
  std::optional<double> min = std::nullopt;
  std::optional<double> max = std::nullopt;
};
struct Shrink {
  bool hard = false;  // hardshrink, else softshrink.
  double lambd = 0.5;
};
struct Threshold {
  double threshold = 0;
  double value = 0;
};
struct LogicalNot {};
struct Cast {  // "to".
  DType datatype = DType::kFloat32;
};
// Identity, and dropout, which does nothing in eval mode.
struct Identity {
  bool dropout = false;
  double p = 0.5;
};

// Along one dimension or several.

enum class SoftmaxOp { kSoftmax, kLogSoftmax, kSoftmin };
struct Softmax {
  SoftmaxOp op = SoftmaxOp::kSoftmax;
  std::int64_t dim = -1;
};
struct Glu {
  std::int64_t dim = -1;
};
struct Normalize {
  double p = 2;
  std::int64_t dim = 1;
  double eps = 1e-12;
};
enum class ReduceOp { kMean, kSum, kAmax, kAmin };
struct Reduce {
  ReduceOp op = ReduceOp::kMean;
  Sizes dim = {};
  bool keepdim = false;
};
struct ArgReduce {
  bool max = true;  // argmax, else argmin.
  std::int64_t dim = -1;
  bool keepdim = false;
};
struct Cumsum {
  std::int64_t dim = -1;
};

// Of several inputs.

enum class ElementwiseOp { kAdd, kMul, kSub, kRsub, kDiv, kPow, kMaximum, kMinimum };
// Of two inputs (add, mul, maximum and minimum: or more), which are broadcast as PyTorch does it;
// or of one and `value`. rsub is value - input.
struct Elementwise {
  ElementwiseOp op = ElementwiseOp::kAdd;
  std::optional<double> value = std::nullopt;
};
enum class CompareOp { kEq, kNe, kLt, kLe, kGt, kGe, kAnd, kOr };
// Gives booleans. Of two inputs, or (but for logical_and and logical_or) of one and `value`.
struct Compare {
  CompareOp op = CompareOp::kEq;
  std::optional<double> value = std::nullopt;
};
struct Where {};     // Of a condition and what stands where it is true, and where it is not.
struct MaskedFill {  // Of an input and a mask of booleans.
  double value = 0;
};
struct Matmul {};  // Of two inputs with two dimensions or more each.
struct Concat {    // Of two inputs or more.
  std::int64_t dim = 1;
};
struct Stack {  // Of two inputs or more.
  std::int64_t dim = 0;
};
// softmax(query key^T * scale + attn_mask) value, of the last two dimensions.
struct ScaledDotProductAttention {
  bool is_causal = false;
  std::optional<double> scale = std::nullopt;  // Absent: 1 / sqrt(last dimension).
};

// Shapes.

struct Flatten {
  std::int64_t start_dim = 1;
  std::int64_t end_dim = -1;
};
struct Unflatten {
  std::int64_t dim = 1;
  Sizes sizes = {};  // One may be -1.
};
struct Reshape {
  Sizes shape = {};  // One may be -1: what is left. 0: as many as the input has there.
};
struct Permute {
  Sizes dims = {};
};
struct Transpose {
  std::int64_t dim0 = 0;
  std::int64_t dim1 = 1;
};
struct Squeeze {
  std::int64_t dim = -1;
};
struct Unsqueeze {
  std::int64_t dim = 0;
};
struct Select {
  std::int64_t dim = 0;
  std::int64_t index = 0;
};
struct Slice {
  std::int64_t dim = 0;
  std::optional<std::int64_t> start = std::nullopt;
  std::optional<std::int64_t> end = std::nullopt;
  std::int64_t step = 1;
};
struct Split {
  Sizes split_size = {};  // Of each part, or of every part but the last.
  std::int64_t dim = 0;
};
struct Chunk {
  std::int64_t chunks = 0;
  std::int64_t dim = 0;
};
// Of an input and one to be like: repeats what has a size of 1 in these dimensions (none: in all)
// as often as the other has it.
struct ExpandAs {
  Sizes dim = {};
};
// 0, 1, 2, ...: as many as the input's dimension has.
struct Arange {
  std::int64_t dim = 1;
};

using LayerKind =
    std::variant<Linear, Bilinear, Conv, BatchNorm, InstanceNorm, LayerNorm, RmsNorm, GroupNorm,
                 Embedding, Recurrent, MultiheadAttention, Prelu, Parameter, MaxPool, AvgPool,
                 AdaptivePool, LocalResponseNorm, Pad, Upsample, PixelShuffle, ChannelShuffle,
                 Activation, Gelu, LeakyRelu, Elu, Softplus, Hardtanh, Clamp, Shrink, Threshold,
                 LogicalNot, Cast, Identity, Softmax, Glu, Normalize, Reduce, ArgReduce, Cumsum,
                 Elementwise, Compare, Where, MaskedFill, Matmul, Concat, Stack,
                 ScaledDotProductAttention, Flatten, Unflatten, Reshape, Permute, Transpose,
                 Squeeze, Unsqueeze, Select, Slice, Split, Chunk, ExpandAs, Arange>;

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_KINDS_H_
