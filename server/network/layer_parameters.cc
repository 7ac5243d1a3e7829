// What each kind of layer is fed, and the state dict entries that it needs.
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/network/layer_rules.h"

namespace relight::network {
namespace {

struct InputLister {
  TakenInputs operator()(const Bilinear&) const { return {{"input1", "input2"}, 2}; }
  TakenInputs operator()(const Recurrent& layer) const {
    if (layer.op == RecurrentOp::kLstm) return {{"input", "h_0", "c_0"}};
    return {{"input", "h_0"}};
  }
  TakenInputs operator()(const MultiheadAttention&) const {
    return {{"query", "key", "value", "key_padding_mask", "attn_mask"}};
  }
  TakenInputs operator()(const ScaledDotProductAttention&) const {
    return {{"query", "key", "value", "attn_mask"}, 3};
  }
  TakenInputs operator()(const Parameter&) const { return {{}, 0}; }
  // How many there must be depends on the value: inference says.
  TakenInputs operator()(const Elementwise&) const { return {{"input"}, 1, true}; }
  TakenInputs operator()(const Compare&) const { return {{"input"}, 1, true}; }
  TakenInputs operator()(const Concat&) const { return {{"tensors"}, 2, true}; }
  TakenInputs operator()(const Stack&) const { return {{"tensors"}, 2, true}; }
  TakenInputs operator()(const Where&) const { return {{"condition", "input", "other"}, 3}; }
  TakenInputs operator()(const MaskedFill&) const { return {{"input", "mask"}, 2}; }
  TakenInputs operator()(const Matmul&) const { return {{"input", "other"}, 2}; }
  TakenInputs operator()(const ExpandAs&) const { return {{"input", "other"}, 2}; }
  template <typename Other>
  TakenInputs operator()(const Other&) const {
    return {{"input"}};
  }
};

// Lists a layer's entries under its name.
class SpecLister {
 public:
  explicit SpecLister(const std::string& layer) : layer_(layer) {}

  std::vector<ParameterSpec> operator()(const Linear& layer) {
    Add("weight", {layer.out_features, *layer.in_features});
    if (layer.bias) Add("bias", {layer.out_features});
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const Bilinear& layer) {
    Add("weight", {layer.out_features, *layer.in1_features, *layer.in2_features});
    if (layer.bias) Add("bias", {layer.out_features});
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const Conv& layer) {
    Sizes weight = layer.transposed ? Sizes{*layer.in_channels, layer.out_channels / layer.groups}
                                    : Sizes{layer.out_channels, *layer.in_channels / layer.groups};
    weight.insert(weight.end(), layer.kernel_size.begin(), layer.kernel_size.end());
    Add("weight", std::move(weight));
    if (layer.bias) Add("bias", {layer.out_channels});
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const BatchNorm& layer) {
    if (layer.affine) AddAffine({*layer.num_features}, true);
    AddStatistics(*layer.num_features);
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const InstanceNorm& layer) {
    if (layer.affine) AddAffine({*layer.num_features}, true);
    if (layer.track_running_stats) AddStatistics(*layer.num_features);
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const LayerNorm& layer) {
    if (layer.elementwise_affine) AddAffine(layer.normalized_shape, layer.bias);
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const RmsNorm& layer) {
    if (layer.elementwise_affine) AddAffine(layer.normalized_shape, false);
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const GroupNorm& layer) {
    if (layer.affine) AddAffine({*layer.num_channels}, true);
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const Embedding& layer) {
    Add("weight", {layer.num_embeddings, layer.embedding_dim});
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const Recurrent& layer) {
    const std::int64_t gates = layer.op == RecurrentOp::kLstm  ? 4
                               : layer.op == RecurrentOp::kGru ? 3
                                                               : 1;
    const std::int64_t hidden = layer.hidden_size;
    const std::int64_t width = layer.proj_size > 0 ? layer.proj_size : hidden;
    const int directions = layer.bidirectional ? 2 : 1;
    for (std::int64_t i = 0; i < layer.num_layers; ++i) {
      const std::int64_t in = i == 0 ? *layer.input_size : width * directions;
      for (int direction = 0; direction < directions; ++direction) {
        const std::string of = absl::StrCat("_l", i, direction == 1 ? "_reverse" : "");
        Add("weight_ih" + of, {gates * hidden, in});
        Add("weight_hh" + of, {gates * hidden, width});
        if (layer.bias) Add("bias_ih" + of, {gates * hidden});
        if (layer.bias) Add("bias_hh" + of, {gates * hidden});
        if (layer.proj_size > 0) Add("weight_hr" + of, {layer.proj_size, hidden});
      }
    }
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const MultiheadAttention& layer) {
    const std::int64_t width = *layer.embed_dim;
    if (*layer.kdim == width && *layer.vdim == width) {
      Add("in_proj_weight", {3 * width, width});
    } else {
      Add("q_proj_weight", {width, width});
      Add("k_proj_weight", {width, *layer.kdim});
      Add("v_proj_weight", {width, *layer.vdim});
    }
    if (layer.bias) Add("in_proj_bias", {3 * width});
    if (layer.add_bias_kv) Add("bias_k", {1, 1, width});
    if (layer.add_bias_kv) Add("bias_v", {1, 1, width});
    Add("out_proj.weight", {width, width});
    if (layer.bias) Add("out_proj.bias", {width});
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const Prelu& layer) {
    Add("weight", {layer.num_parameters});
    return std::move(specs_);
  }
  std::vector<ParameterSpec> operator()(const Parameter& layer) {
    return {{.name = layer_,
             .shape = layer.shape,
             .dtype = IsFloatingPoint(layer.datatype) ? DType::kFloat32 : layer.datatype,
             .buffer = layer.buffer}};
  }
  template <typename Other>
  std::vector<ParameterSpec> operator()(const Other&) {
    return {};
  }

 private:
  ParameterSpec& Add(const std::string& name, Sizes shape) {
    specs_.push_back({.name = absl::StrCat(layer_, ".", name), .shape = std::move(shape)});
    return specs_.back();
  }

  void AddAffine(const Sizes& shape, bool bias) {
    Add("weight", shape);
    if (bias) Add("bias", shape);
  }

  void AddStatistics(std::int64_t channels) {
    Add("running_mean", {channels}).buffer = true;
    Add("running_var", {channels}).buffer = true;
    ParameterSpec& counter = Add("num_batches_tracked", {});
    counter.buffer = true;
    counter.dtype = DType::kInt64;
    counter.required = false;  // PyTorch before 0.4.1 had none.
  }

  const std::string& layer_;
  std::vector<ParameterSpec> specs_;
};

struct ParameterCheck {
  template <typename Kind>
  bool operator()(const Kind&) const {
    return std::is_same_v<Kind, Linear> || std::is_same_v<Kind, Bilinear> ||
           std::is_same_v<Kind, Conv> || std::is_same_v<Kind, BatchNorm> ||
           std::is_same_v<Kind, Embedding> || std::is_same_v<Kind, Recurrent> ||
           std::is_same_v<Kind, MultiheadAttention> || std::is_same_v<Kind, Prelu> ||
           std::is_same_v<Kind, Parameter>;
  }
  bool operator()(const GroupNorm& layer) const { return layer.affine; }
  bool operator()(const LayerNorm& layer) const { return layer.elementwise_affine; }
  bool operator()(const RmsNorm& layer) const { return layer.elementwise_affine; }
  bool operator()(const InstanceNorm& layer) const {
    return layer.affine || layer.track_running_stats;
  }
};

}  // namespace

TakenInputs InputsOf(const LayerKind& kind) { return std::visit(InputLister(), kind); }

bool HasParameters(const LayerKind& kind) { return std::visit(ParameterCheck(), kind); }

std::vector<ParameterSpec> ParametersOf(const std::string& name, const LayerKind& kind) {
  return std::visit(SpecLister(name), kind);
}

}  // namespace relight::network
