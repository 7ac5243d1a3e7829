#include "server/model/step_plan.h"

#include <algorithm>
#include <variant>

#include "absl/types/span.h"
#include "server/network/inference.h"

namespace relight::model {
namespace {

using network::Network;
using network::Step;
using Shape = std::vector<std::int64_t>;

// Below this, what oneDNN takes to begin is more than packed weights save.
constexpr std::int64_t kLargeLinear = std::int64_t{1} << 19;
// Within a run, smaller layers are worth it too.
constexpr std::int64_t kLinearInRun = 128 * 128;
// How many values oneDNN may add up to one, for the sum to be exact enough: a pool adds up one
// after the other, a product of matrices several side by side.
constexpr std::int64_t kMostPooled = 16 * 16;
constexpr std::int64_t kMostInputs = 65536;

// How often each value is read, by steps and as an output.
std::vector<std::size_t> CountUses(const Network& network) {
  std::vector<std::size_t> uses(network.value_count(), 0);
  for (const Step& step : network.steps()) {
    for (const std::size_t value : step.inputs) ++uses[value];
  }
  for (const std::size_t value : network.output_values()) ++uses[value];
  return uses;
}

// A convolution whose output channels are the first dimension of its weight.
bool IsPlain(const network::LayerKind& kind) {
  const auto* const conv = std::get_if<network::Conv>(&kind);
  return conv != nullptr && !conv->transposed;
}

// One of images, which oneDNN and cuDNN have layouts for.
const network::Conv* ImageConvolution(const network::LayerKind& kind) {
  const auto* const conv = std::get_if<network::Conv>(&kind);
  const bool images = conv != nullptr && conv->spatial_dims == 2 && !conv->transposed &&
                      conv->padding_mode == "zeros";
  return images ? conv : nullptr;
}

// For each convolution, the batch norm that alone sees its output.
std::vector<std::optional<std::size_t>> NormsAfter(const Network& network) {
  const std::vector<std::size_t> uses = CountUses(network);
  std::vector<std::optional<std::size_t>> norms(network.steps().size());
  for (std::size_t i = 0; i < norms.size(); ++i) {
    const Step& step = network.steps()[i];
    if (!std::holds_alternative<network::BatchNorm>(step.layer.kind)) continue;
    const std::size_t value = step.inputs.front();
    const std::optional<std::size_t> before = network.producer(value);
    if (!before || uses[value] != 1) continue;
    if (IsPlain(network.steps()[*before].layer.kind)) norms[*before] = i;
  }
  return norms;
}

// Known but for the number of rows.
bool IsImage(const Shape& shape) {
  return shape.size() == 4 &&
         std::all_of(shape.begin() + 1, shape.end(), [](std::int64_t size) { return size > 0; });
}

// Whether LibTorch computes a single row's convolution with oneDNN (use_mkldnn in
// aten/src/ATen/native/Convolution.cpp): below this its own code is faster.
bool IsLarge(const network::Conv& conv, const Shape& input) {
  constexpr std::int64_t kLargeRow = 20480;
  const bool large_kernel = conv.kernel_size[0] > 3 && conv.kernel_size[1] > 3;
  const auto row = network::Product(absl::MakeConstSpan(input).subspan(1));
  return conv.groups > 1 || large_kernel || !row || *row > kLargeRow;
}

std::int64_t WeightsOf(const network::Linear& linear) {
  return *linear.in_features * linear.out_features;
}

// With a bias, which a norm that is taken in always leaves.
std::uint64_t ElementsOf(const network::LayerKind& kind) {
  if (const auto* linear = std::get_if<network::Linear>(&kind)) {
    return static_cast<std::uint64_t>(WeightsOf(*linear) + linear->out_features);
  }
  const auto* conv = std::get_if<network::Conv>(&kind);
  if (conv == nullptr) return 0;
  std::int64_t per_output = *conv->in_channels / conv->groups;
  for (const std::int64_t size : conv->kernel_size) per_output *= size;
  return static_cast<std::uint64_t>(conv->out_channels * (per_output + 1));
}

template <typename Kind>
std::uint64_t ElementsInAll(const Network& network) {
  std::uint64_t elements = 0;
  for (const Step& step : network.steps()) {
    if (std::holds_alternative<Kind>(step.layer.kind)) elements += ElementsOf(step.layer.kind);
  }
  return elements;
}

// In which layout a layer leaves its value, if all its inputs are in `before`, and that is not
// kRowMajor.
class LayoutAfter {
 public:
  LayoutAfter(const Network& network, const Step& step, Layout before)
      : network_(network), step_(step), before_(before) {}

  Layout operator()(const network::Conv&) const {
    return If(ImageConvolution(step_.layer.kind) != nullptr && IsImage(step_.shape()));
  }
  Layout operator()(const network::Linear& linear) const {
    return If(before_ == Layout::kRows && WeightsOf(linear) >= kLinearInRun &&
              *linear.in_features <= kMostInputs);
  }
  Layout operator()(const network::MaxPool& pool) const {
    return If(pool.dilation == network::Sizes{1, 1} && IsImage(step_.shape()));
  }
  Layout operator()(const network::AdaptivePool& pool) const {
    if (pool.max || pool.spatial_dims != 2) return Layout::kRowMajor;
    const Shape& input = network_.shape_of(step_.inputs.front());
    // Only for a single mean is LibTorch more exact than oneDNN.
    const auto pooled = network::Product(absl::MakeConstSpan(input).subspan(2));
    if (pool.output_size == network::Sizes{1, 1} && (!pooled || *pooled > kMostPooled)) {
      return Layout::kRowMajor;
    }
    return If(input[2] % pool.output_size[0] == 0 && input[3] % pool.output_size[1] == 0);
  }
  Layout operator()(const network::Elementwise& elementwise) const {
    return If(elementwise.op == network::ElementwiseOp::kAdd && !elementwise.value &&
              std::all_of(step_.inputs.begin(), step_.inputs.end(), [this](std::size_t value) {
                return network_.shape_of(value) == step_.shape();
              }));
  }
  Layout operator()(const network::Activation& activation) const {
    return If(activation.op == network::ActivationOp::kRelu);
  }
  Layout operator()(const network::Identity&) const { return before_; }
  template <typename Other>
  Layout operator()(const Other&) const {
    return Layout::kRowMajor;
  }

 private:
  Layout If(bool keeps) const { return keeps ? before_ : Layout::kRowMajor; }

  const Network& network_;
  const Step& step_;
  const Layout before_;
};

// In which layout a layer that gets row-major values begins a run.
Layout LayoutFrom(const Network& network, const Step& step) {
  if (step.inputs.empty()) return Layout::kRowMajor;
  const Shape& input = network.shape_of(step.inputs.front());
  if (const auto* conv = ImageConvolution(step.layer.kind)) {
    const bool begins = IsImage(input) && IsImage(step.shape()) && IsLarge(*conv, input);
    return begins ? Layout::kImages : Layout::kRowMajor;
  }
  const auto* linear = std::get_if<network::Linear>(&step.layer.kind);
  const bool begins = linear != nullptr && input.size() == 2 &&
                      WeightsOf(*linear) >= kLargeLinear && *linear->in_features <= kMostInputs;
  return begins ? Layout::kRows : Layout::kRowMajor;
}

// The layout that all inputs of `step` are in; kRowMajor where they differ.
Layout LayoutOfInputs(const Network& network, const Step& step, const std::vector<StepPlan>& plan) {
  std::optional<Layout> common;
  for (const std::size_t value : step.inputs) {
    const Layout layout = LayoutOf(network, plan, value);
    if (common.value_or(layout) != layout) return Layout::kRowMajor;
    common = layout;
  }
  return common.value_or(Layout::kRowMajor);
}

}  // namespace

std::vector<StepPlan> PlanSteps(const Network& network, const PlanOptions& options) {
  const std::vector<std::optional<std::size_t>> norms = NormsAfter(network);
  const bool derive_convolutions =
      ElementsInAll<network::Conv>(network) <= options.most_convolution_elements;
  const bool derive_linear =
      ElementsInAll<network::Linear>(network) <= options.most_linear_elements;
  std::vector<StepPlan> plan(network.steps().size());
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const Step& step = network.steps()[i];
    if (std::holds_alternative<network::Conv>(step.layer.kind) && !derive_convolutions) continue;
    if (std::holds_alternative<network::Linear>(step.layer.kind) && !derive_linear) continue;
    if (options.take_in_norms && norms[i].has_value()) {
      plan[i].norm_taken_in = norms[i];
      plan[*norms[i]].taken_in = true;
    }
    plan[i].channels_last = options.channels_last && ImageConvolution(step.layer.kind) != nullptr;
    if (!options.pack) continue;
    const Layout before = LayoutOfInputs(network, step, plan);
    if (before == Layout::kRowMajor) {
      plan[i].layout = LayoutFrom(network, step);
    } else if (plan[i].taken_in) {
      plan[i].layout = before;
    } else {
      plan[i].layout = std::visit(LayoutAfter(network, step, before), step.layer.kind);
    }
  }
  return plan;
}

Layout LayoutOf(const Network& network, const std::vector<StepPlan>& plan, std::size_t value) {
  const std::optional<std::size_t> step = network.producer(value);
  return step ? plan[*step].layout : Layout::kRowMajor;
}

std::uint64_t DerivedElements(const Network& network, const std::vector<StepPlan>& plan) {
  std::uint64_t elements = 0;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const bool derives = plan[i].layout != Layout::kRowMajor || plan[i].channels_last ||
                         plan[i].norm_taken_in.has_value();
    if (!derives) continue;
    elements += ElementsOf(network.steps()[i].layer.kind);
  }
  return elements;
}

}  // namespace relight::model
