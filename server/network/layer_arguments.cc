// CheckArguments: what is wrong with the arguments of a layer alone.
#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "server/network/layer_rules.h"

namespace relight::network {
namespace {

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

}  // namespace

void CheckArguments(const LayerKind& kind, Messages& errors) {
  std::visit(ArgumentCheck{errors}, kind);
}

}  // namespace relight::network
