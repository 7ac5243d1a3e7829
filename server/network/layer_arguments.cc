// CompleteArguments: what is wrong with the arguments of a layer alone, and what stands for those
// that were left out.
#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "server/network/layer_rules.h"

namespace relight::network {
namespace {

// What arguments have to do with each other.
class Combination {
 public:
  explicit Combination(Messages& errors) : errors_(errors) {}

  void operator()(const Conv& layer) const {
    if (layer.groups < 1) return;
    CheckDivides("out_channels", layer.out_channels, layer.groups);
    CheckDivides("in_channels", layer.in_channels.value_or(0), layer.groups);
    if (!layer.transposed) return;
    for (std::size_t i = 0; i < layer.output_padding.size(); ++i) {
      if (i >= layer.stride.size() || i >= layer.dilation.size()) return;
      const std::int64_t most = std::max(layer.stride[i], layer.dilation[i]) - 1;
      if (layer.output_padding[i] <= most) continue;
      errors_.push_back(absl::StrCat("output_padding is ", layer.output_padding[i],
                                     ", it must be less than stride or dilation, at most ", most));
      return;
    }
  }
  void operator()(const MaxPool& layer) const {
    CheckPoolPadding(layer.padding, layer.kernel_size);
  }
  void operator()(const AvgPool& layer) const {
    CheckPoolPadding(layer.padding, layer.kernel_size);
  }
  void operator()(const GroupNorm& layer) const {
    if (layer.num_channels && layer.num_groups > 0 && *layer.num_channels % layer.num_groups != 0) {
      errors_.push_back(absl::StrCat("num_channels is ", *layer.num_channels, ", which num_groups ",
                                     layer.num_groups, " does not divide"));
    }
  }
  void operator()(const Recurrent& layer) const {
    if (layer.proj_size > 0 && layer.proj_size >= layer.hidden_size) {
      errors_.push_back(absl::StrCat("proj_size is ", layer.proj_size,
                                     ", it must be less than hidden_size ", layer.hidden_size));
    }
    if (layer.num_layers > kMostLayers) {
      errors_.push_back(
          absl::StrCat("num_layers is ", layer.num_layers, ", the most is ", kMostLayers));
    }
  }
  void operator()(const MultiheadAttention& layer) const {
    if (layer.num_heads > 0)
      CheckDivides("embed_dim", layer.embed_dim.value_or(0), layer.num_heads, "num_heads");
  }
  void operator()(const Pad& layer) const {
    if (layer.padding.size() % 2 == 0) return;
    errors_.push_back(absl::StrCat("padding has ", layer.padding.size(),
                                   " values: give two for each dimension, before and after"));
  }
  void operator()(const Upsample& layer) const {
    if (layer.size.empty() == layer.scale_factor.empty()) {
      errors_.push_back("give either size or scale_factor");
    }
    for (const double factor : layer.scale_factor) {
      if (factor > 0) continue;
      errors_.push_back(absl::StrCat("scale_factor is ", factor, ", it must be positive"));
    }
    if (layer.align_corners && layer.mode == "nearest") {
      errors_.push_back("align_corners means nothing in mode \"nearest\"");
    }
  }
  void operator()(const Softplus& layer) const {
    if (layer.beta == 0) errors_.push_back("beta is 0, by which softplus divides");
  }
  void operator()(const Elu& layer) const {
    if (layer.continuous && layer.alpha == 0) {
      errors_.push_back("alpha is 0, by which celu divides");
    }
  }
  void operator()(const Hardtanh& layer) const {
    if (layer.min_val >= layer.max_val) {
      errors_.push_back(absl::StrCat("min_val is ", layer.min_val,
                                     ", it must be less than max_val ", layer.max_val));
    }
  }
  void operator()(const Clamp& layer) const {
    if (!layer.min && !layer.max) errors_.push_back("give min, max or both");
  }
  void operator()(const Identity& layer) const {
    if ((layer.p >= 0 && layer.p <= 1) || !std::isfinite(layer.p)) return;
    errors_.push_back(absl::StrCat("p is ", layer.p, ", a probability is from 0 to 1"));
  }
  void operator()(const Normalize& layer) const {
    if (layer.p <= 0) errors_.push_back(absl::StrCat("p is ", layer.p, ", it must be positive"));
  }
  void operator()(const Unflatten& layer) const {
    CheckOpen("sizes", layer.sizes);
    if (std::find(layer.sizes.begin(), layer.sizes.end(), 0) != layer.sizes.end()) {
      errors_.push_back("sizes has a 0: give at least 1, or -1 for what is left");
    }
  }
  void operator()(const Reshape& layer) const { CheckOpen("shape", layer.shape); }

  template <typename Other>
  void operator()(const Other&) const {}

 private:
  static constexpr std::int64_t kMostLayers = 1024;

  void CheckDivides(const char* argument, std::int64_t value, std::int64_t by,
                    const char* divisor = "groups") const {
    if (value % by == 0) return;
    errors_.push_back(
        absl::StrCat(argument, " is ", value, ", which ", divisor, " ", by, " does not divide"));
  }

  void CheckPoolPadding(const Sizes& padding, const Sizes& kernel) const {
    for (std::size_t i = 0; i < std::min(padding.size(), kernel.size()); ++i) {
      if (padding[i] <= kernel[i] / 2) continue;
      errors_.push_back(absl::StrCat("padding is ", padding[i],
                                     ", the most is half of kernel_size, that is ", kernel[i] / 2));
      return;
    }
  }

  void CheckOpen(const char* argument, const Sizes& sizes) const {
    if (std::count(sizes.begin(), sizes.end(), -1) <= 1) return;
    errors_.push_back(absl::StrCat(argument, " has more than one -1"));
  }

  Messages& errors_;
};

}  // namespace

void CompleteArguments(LayerKind& kind, Messages& errors) {
  const auto stride_is_kernel = [](auto& pool) {
    if (pool.stride.empty()) pool.stride = pool.kernel_size;
  };
  if (auto* max = std::get_if<MaxPool>(&kind)) stride_is_kernel(*max);
  if (auto* average = std::get_if<AvgPool>(&kind)) stride_is_kernel(*average);
  CheckArguments(ArgumentsOf(kind), errors);
  std::visit(Combination(errors), kind);
}

}  // namespace relight::network
