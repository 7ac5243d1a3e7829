#include "server/config/draft_layer_text.h"

#include <charconv>
#include <cstdint>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/network/layer_rules.h"

namespace relight::config {
namespace {

using network::Pair;

// "name { field: value field: value }"; fields at their defaults are not added.
class Writer {
 public:
  Writer& Add(const char* field, const std::string& value) {
    fields_.push_back(absl::StrCat(field, ": ", value));
    return *this;
  }
  Writer& Size(const char* field, std::int64_t value) { return Add(field, absl::StrCat(value)); }
  Writer& Unless(bool is_default, const char* field, const std::string& value) {
    return is_default ? *this : Add(field, value);
  }
  Writer& Sizes(const char* field, const Pair& pair) { return Add(field, PairText(pair)); }
  Writer& Sizes(const char* field, const Pair& pair, const Pair& by_default) {
    return Unless(pair == by_default, field, PairText(pair));
  }
  Writer& Real(const char* field, double value, double by_default) {
    char text[40];
    const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
    return Unless(value == by_default, field, std::string(text, end));
  }
  Writer& Flag(const char* field, bool value, bool by_default) {
    return Unless(value == by_default, field, value ? "true" : "false");
  }
  std::string In(const std::string& name) const {
    if (fields_.empty()) return name + " {}";
    return absl::StrCat(name, " { ", absl::StrJoin(fields_, " "), " }");
  }

 private:
  static std::string PairText(const Pair& pair) {
    if (pair[0] == pair[1]) return absl::StrCat(pair[0]);
    return absl::StrCat("[", pair[0], ", ", pair[1], "]");
  }

  std::vector<std::string> fields_;
};

struct FieldWriter {
  Writer& out;

  void operator()(const network::Linear& layer) const {
    if (layer.in_features) out.Size("in_features", *layer.in_features);
    out.Size("out_features", layer.out_features).Flag("bias", layer.bias, true);
  }
  void operator()(const network::Conv2d& layer) const {
    if (layer.in_channels) out.Size("in_channels", *layer.in_channels);
    out.Size("out_channels", layer.out_channels)
        .Sizes("kernel_size", layer.kernel_size)
        .Sizes("stride", layer.stride, {1, 1})
        .Sizes("padding", layer.padding, {0, 0})
        .Sizes("dilation", layer.dilation, {1, 1})
        .Unless(layer.groups == 1, "groups", absl::StrCat(layer.groups))
        .Flag("bias", layer.bias, true);
  }
  void operator()(const network::BatchNorm& layer) const {
    if (layer.num_features) out.Size("num_features", *layer.num_features);
    out.Real("eps", layer.eps, 1e-5).Flag("affine", layer.affine, true);
  }
  void operator()(const network::MaxPool2d& layer) const {
    out.Sizes("kernel_size", layer.kernel_size)
        .Sizes("stride", layer.stride, layer.kernel_size)
        .Sizes("padding", layer.padding, {0, 0})
        .Sizes("dilation", layer.dilation, {1, 1})
        .Flag("ceil_mode", layer.ceil_mode, false);
  }
  void operator()(const network::AvgPool2d& layer) const {
    out.Sizes("kernel_size", layer.kernel_size)
        .Sizes("stride", layer.stride, layer.kernel_size)
        .Sizes("padding", layer.padding, {0, 0})
        .Flag("ceil_mode", layer.ceil_mode, false)
        .Flag("count_include_pad", layer.count_include_pad, true);
  }
  void operator()(const network::AdaptiveAvgPool2d& layer) const {
    out.Sizes("output_size", layer.output_size);
  }
  void operator()(const network::Flatten& layer) const {
    out.Unless(layer.start_dim == 1, "start_dim", absl::StrCat(layer.start_dim))
        .Unless(layer.end_dim == -1, "end_dim", absl::StrCat(layer.end_dim));
  }
  void operator()(const network::Softmax& layer) const {
    out.Unless(layer.dim == -1, "dim", absl::StrCat(layer.dim));
  }
  void operator()(const network::Concat& layer) const {
    out.Unless(layer.dim == 1, "dim", absl::StrCat(layer.dim));
  }
  void operator()(const network::Gelu& layer) const {
    out.Unless(!layer.tanh, "approximate", "\"tanh\"");
  }
  void operator()(const network::LeakyRelu& layer) const {
    out.Real("negative_slope", layer.negative_slope, 0.01);
  }
  void operator()(const network::Elu& layer) const { out.Real("alpha", layer.alpha, 1.0); }
  void operator()(const network::Softplus& layer) const {
    out.Real("beta", layer.beta, 1.0).Real("threshold", layer.threshold, 20.0);
  }
  void operator()(const network::Hardtanh& layer) const {
    out.Real("min_val", layer.min_val, -1.0).Real("max_val", layer.max_val, 1.0);
  }
  // Without arguments.
  void operator()(const network::Elementwise&) const {}
  void operator()(const network::Identity&) const {}
  void operator()(const network::Activation&) const {}
};

}  // namespace

std::string LayerKindText(const network::LayerKind& kind) {
  Writer out;
  std::visit(FieldWriter{out}, kind);
  return out.In(network::KindName(kind));
}

std::string QuotedText(const std::string& bytes) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(bytes), "\"");
}

}  // namespace relight::config
