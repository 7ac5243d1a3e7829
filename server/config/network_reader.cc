#include "server/config/network_reader.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "server/network/nearest_name.h"
#include "storage/dtype.h"

namespace relight::config {
namespace {

using google::protobuf::RepeatedField;
using network::ActivationOp;
using network::ElementwiseOp;
using network::Pair;

constexpr std::size_t kMaxNameBytes = 512;

// Whoever checks the range sees a number that is just as much too large.
std::int64_t Signed(std::uint64_t value) {
  return static_cast<std::int64_t>(
      std::min<std::uint64_t>(value, std::numeric_limits<std::int64_t>::max()));
}

std::optional<std::int64_t> Signed(bool given, std::uint64_t value) {
  if (!given) return std::nullopt;
  return Signed(value);
}

void CheckName(const std::string& name, int line, ConfigErrors& errors) {
  if (name.size() > kMaxNameBytes) {
    errors.Add(line,
               absl::StrCat("a name has ", name.size(), " bytes, the most is ", kMaxNameBytes));
  } else if (!IsUtf8(name)) {
    errors.Add(line, absl::StrCat("the name \"", Escape(name), "\" is not UTF-8"));
  }
}

std::optional<DType> ReadDatatype(const std::string& name, int line, ConfigErrors& errors) {
  if (name.empty()) return DType::kFloat32;
  if (name == "BYTES") {
    errors.Add(line,
               "datatype BYTES: a graph computes on numbers, so text cannot go in or come out; use "
               "a numeric datatype such as FP32 or INT64");
    return std::nullopt;
  }
  const std::optional<DType> dtype = DTypeFromProtocolName(name);
  if (!dtype.has_value()) {
    static const std::vector<std::string>* const kNames = new std::vector<std::string>{
        "BOOL",  "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
        "INT32", "INT64", "FP16",   "BF16",   "FP32",   "FP64"};
    errors.Add(line, absl::StrCat("unknown datatype \"", Escape(name), "\"",
                                  network::DidYouMean(name, *kNames)));
  }
  return dtype;
}

// Reads one layer's arguments; `place` is that of the kind's message.
class KindReader {
 public:
  KindReader(const v1::Layer& layer, const Place& place, ConfigErrors& errors)
      : layer_(layer), place_(place), errors_(errors) {}

  network::LayerKind Read() const {
    switch (layer_.kind_case()) {
      case v1::Layer::kLinear:
        return ReadLinear(layer_.linear());
      case v1::Layer::kConv2D:
        return ReadConv(layer_.conv2d(), place_.In("conv2d", layer_.conv2d()));
      case v1::Layer::kBatchNorm1D:
        return ReadNorm(layer_.batch_norm1d(), 1);
      case v1::Layer::kBatchNorm2D:
        return ReadNorm(layer_.batch_norm2d(), 2);
      case v1::Layer::kMaxPool2D:
        return ReadMaxPool(layer_.max_pool2d(), place_.In("max_pool2d", layer_.max_pool2d()));
      case v1::Layer::kAvgPool2D:
        return ReadAvgPool(layer_.avg_pool2d(), place_.In("avg_pool2d", layer_.avg_pool2d()));
      case v1::Layer::kAdaptiveAvgPool2D:
        return ReadAdaptivePool(layer_.adaptive_avg_pool2d(),
                                place_.In("adaptive_avg_pool2d", layer_.adaptive_avg_pool2d()));
      case v1::Layer::kFlatten:
        return ReadFlatten(layer_.flatten());
      case v1::Layer::kDropout:
        return ReadDropout(layer_.dropout(), place_.In("dropout", layer_.dropout()));
      case v1::Layer::kSoftmax:
        return ReadSoftmax(layer_.softmax(), false);
      case v1::Layer::kLogSoftmax:
        return ReadSoftmax(layer_.log_softmax(), true);
      case v1::Layer::kConcat:
        return network::Concat{.dim = layer_.concat().has_dim() ? layer_.concat().dim() : 1};
      case v1::Layer::kAdd:
        return network::Elementwise{.op = ElementwiseOp::kAdd};
      case v1::Layer::kMul:
        return network::Elementwise{.op = ElementwiseOp::kMul};
      case v1::Layer::kIdentity:
        return network::Identity{};
      case v1::Layer::KIND_NOT_SET:
        errors_.Add(place_.line(),
                    absl::StrCat("layer \"", Escape(layer_.name()),
                                 "\" does not say what it is, as in linear { out_features: 10 }"));
        return network::Identity{};
      default:
        return ReadActivation();
    }
  }

 private:
  network::LayerKind ReadActivation() const {
    switch (layer_.kind_case()) {
      case v1::Layer::kRelu6:
        return network::Activation{.op = ActivationOp::kRelu6};
      case v1::Layer::kSigmoid:
        return network::Activation{.op = ActivationOp::kSigmoid};
      case v1::Layer::kTanh:
        return network::Activation{.op = ActivationOp::kTanh};
      case v1::Layer::kSilu:
        return network::Activation{.op = ActivationOp::kSilu};
      case v1::Layer::kHardswish:
        return network::Activation{.op = ActivationOp::kHardswish};
      case v1::Layer::kHardsigmoid:
        return network::Activation{.op = ActivationOp::kHardsigmoid};
      case v1::Layer::kGelu:
        return ReadGelu(layer_.gelu(), place_.In("gelu", layer_.gelu()));
      case v1::Layer::kLeakyRelu: {
        network::LeakyRelu out;
        if (layer_.leaky_relu().has_negative_slope()) {
          out.negative_slope = layer_.leaky_relu().negative_slope();
        }
        return out;
      }
      case v1::Layer::kElu:
        return network::Elu{.alpha = layer_.elu().has_alpha() ? layer_.elu().alpha() : 1.0};
      case v1::Layer::kSoftplus: {
        network::Softplus out;
        if (layer_.softplus().has_beta()) out.beta = layer_.softplus().beta();
        if (layer_.softplus().has_threshold()) out.threshold = layer_.softplus().threshold();
        return out;
      }
      case v1::Layer::kHardtanh: {
        network::Hardtanh out;
        if (layer_.hardtanh().has_min_val()) out.min_val = layer_.hardtanh().min_val();
        if (layer_.hardtanh().has_max_val()) out.max_val = layer_.hardtanh().max_val();
        return out;
      }
      default:
        return network::Activation{.op = ActivationOp::kRelu};
    }
  }

  static network::LayerKind ReadLinear(const v1::Linear& linear) {
    return network::Linear{.in_features = Signed(linear.has_in_features(), linear.in_features()),
                           .out_features = Signed(linear.out_features()),
                           .bias = !linear.has_bias() || linear.bias()};
  }

  network::LayerKind ReadConv(const v1::Conv2d& conv, const Place& place) const {
    return network::Conv2d{
        .in_channels = Signed(conv.has_in_channels(), conv.in_channels()),
        .out_channels = Signed(conv.out_channels()),
        .kernel_size = ReadPair(conv.kernel_size(), "kernel_size", {0, 0}, place),
        .stride = ReadPair(conv.stride(), "stride", {1, 1}, place),
        .padding = ReadPair(conv.padding(), "padding", {0, 0}, place),
        .dilation = ReadPair(conv.dilation(), "dilation", {1, 1}, place),
        .groups = conv.has_groups() ? Signed(conv.groups()) : 1,
        .bias = !conv.has_bias() || conv.bias()};
  }

  static network::LayerKind ReadNorm(const v1::BatchNorm& norm, int spatial_dims) {
    return network::BatchNorm{.spatial_dims = spatial_dims,
                              .num_features = Signed(norm.has_num_features(), norm.num_features()),
                              .eps = norm.has_eps() ? norm.eps() : 1e-5,
                              .affine = !norm.has_affine() || norm.affine()};
  }

  network::LayerKind ReadMaxPool(const v1::Pool& pool, const Place& place) const {
    if (pool.has_count_include_pad()) {
      errors_.Add(place.Line("count_include_pad"), "count_include_pad is for avg_pool2d only");
    }
    const Pair kernel = ReadPair(pool.kernel_size(), "kernel_size", {0, 0}, place);
    return network::MaxPool2d{.kernel_size = kernel,
                              .stride = ReadPair(pool.stride(), "stride", kernel, place),
                              .padding = ReadPair(pool.padding(), "padding", {0, 0}, place),
                              .dilation = ReadPair(pool.dilation(), "dilation", {1, 1}, place),
                              .ceil_mode = pool.ceil_mode()};
  }

  network::LayerKind ReadAvgPool(const v1::Pool& pool, const Place& place) const {
    if (!pool.dilation().empty()) {
      errors_.Add(place.Line("dilation"), "dilation is for max_pool2d only");
    }
    const Pair kernel = ReadPair(pool.kernel_size(), "kernel_size", {0, 0}, place);
    return network::AvgPool2d{
        .kernel_size = kernel,
        .stride = ReadPair(pool.stride(), "stride", kernel, place),
        .padding = ReadPair(pool.padding(), "padding", {0, 0}, place),
        .ceil_mode = pool.ceil_mode(),
        .count_include_pad = !pool.has_count_include_pad() || pool.count_include_pad()};
  }

  network::LayerKind ReadAdaptivePool(const v1::AdaptivePool& pool, const Place& place) const {
    return network::AdaptiveAvgPool2d{
        .output_size = ReadPair(pool.output_size(), "output_size", {0, 0}, place)};
  }

  static network::LayerKind ReadFlatten(const v1::Flatten& flatten) {
    return network::Flatten{.start_dim = flatten.has_start_dim() ? flatten.start_dim() : 1,
                            .end_dim = flatten.has_end_dim() ? flatten.end_dim() : -1};
  }

  network::LayerKind ReadDropout(const v1::Dropout& dropout, const Place& place) const {
    if (!(dropout.p() >= 0 && dropout.p() <= 1)) {
      errors_.Add(place.Line("p"),
                  absl::StrCat("dropout: p is ", dropout.p(), ", a probability is from 0 to 1"));
    }
    return network::Identity{};
  }

  static network::LayerKind ReadSoftmax(const v1::Softmax& softmax, bool log) {
    return network::Softmax{.dim = softmax.has_dim() ? softmax.dim() : -1, .log = log};
  }

  network::LayerKind ReadGelu(const v1::Gelu& gelu, const Place& place) const {
    const std::string& approximate = gelu.approximate();
    if (!approximate.empty() && approximate != "none" && approximate != "tanh") {
      errors_.Add(place.Line("approximate"),
                  absl::StrCat("gelu: approximate is \"", Escape(approximate),
                               "\", it can be \"none\" or \"tanh\""));
    }
    return network::Gelu{.tanh = approximate == "tanh"};
  }

  Pair ReadPair(const RepeatedField<std::uint64_t>& values, const char* field, Pair otherwise,
                const Place& place) const {
    if (values.empty()) return otherwise;
    if (values.size() > 2) {
      errors_.Add(place.Line(field),
                  absl::StrCat(field, " has ", values.size(),
                               " values: give one for both directions, or height and width"));
    }
    return {Signed(values[0]), Signed(values[values.size() == 1 ? 0 : 1])};
  }

  const v1::Layer& layer_;
  const Place& place_;
  ConfigErrors& errors_;
};

}  // namespace

std::vector<TensorSpec> ReadTensors(const v1::ModelConfig& config, const Place& place,
                                    TensorRole role, ConfigErrors& errors) {
  const bool is_input = role == TensorRole::kInput;
  const char* field = is_input ? "input" : "output";
  std::vector<TensorSpec> specs;
  for (const v1::Tensor& tensor : is_input ? config.input() : config.output()) {
    const Place where = place.In(field, tensor, static_cast<int>(specs.size()));
    CheckName(tensor.name(), where.Line("name"), errors);
    const auto dtype = ReadDatatype(tensor.datatype(), where.Line("datatype"), errors);
    specs.push_back({.name = tensor.name(),
                     .dtype = dtype.value_or(DType::kFloat32),
                     .shape = {tensor.shape().begin(), tensor.shape().end()},
                     .line = where.line()});
  }
  return specs;
}

std::vector<network::Layer> ReadLayers(const v1::Network& network, const Place& place,
                                       ConfigErrors& errors) {
  std::vector<network::Layer> layers;
  for (const v1::Layer& layer : network.layer()) {
    const Place where = place.In("layer", layer, static_cast<int>(layers.size()));
    CheckName(layer.name(), where.Line("name"), errors);
    layers.push_back({.name = layer.name(),
                      .inputs = {layer.input().begin(), layer.input().end()},
                      .kind = KindReader(layer, where, errors).Read(),
                      .line = where.line()});
  }
  return layers;
}

}  // namespace relight::config
