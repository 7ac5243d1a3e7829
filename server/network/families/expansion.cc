#include "server/network/families/expansion.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"

namespace relight::network {
namespace {

const std::map<std::string, LayerKind>& Activations() {
  static const auto* const kKinds = new std::map<std::string, LayerKind>{
      {"gelu", Gelu{}},
      {"gelu_new", Gelu{.approximate = "tanh"}},
      {"gelu_pytorch_tanh", Gelu{.approximate = "tanh"}},
      {"relu", Activation{.op = ActivationOp::kRelu}},
      {"silu", Activation{.op = ActivationOp::kSilu}},
      {"tanh", Activation{.op = ActivationOp::kTanh}},
  };
  return *kKinds;
}

}  // namespace

BlockEntry Put(std::string name, LayerKind kind, std::vector<std::string> inputs,
               std::string parameters_of) {
  return {Layer{.name = std::move(name),
                .inputs = std::move(inputs),
                .kind = std::move(kind),
                .parameters_of = std::move(parameters_of)}};
}

BlockEntry PutBlock(std::string name, Entries entries, std::vector<std::string> inputs) {
  return {
      Block{.name = std::move(name), .inputs = std::move(inputs), .entries = std::move(entries)}};
}

void AddRepeated(const std::string& name, const Entries& entries, std::int64_t count,
                 std::int64_t first, Entries& to) {
  if (count == 0) return;
  to.push_back({Block{.name = name, .entries = entries, .repeat = count, .first = first}});
}

void Append(Entries more, Entries& to) {
  std::move(more.begin(), more.end(), std::back_inserter(to));
}

Conv SquareConv(std::int64_t in, std::int64_t out, std::int64_t kernel, std::int64_t stride,
                std::int64_t groups) {
  return {.in_channels = in,
          .out_channels = out,
          .kernel_size = {kernel},
          .stride = {stride},
          .padding = {kernel / 2},
          .groups = groups,
          .bias = false};
}

LayerKind ActivationNamed(const std::string& name) { return Activations().at(name); }

std::vector<std::string> ActivationNames() {
  std::vector<std::string> names;
  for (const auto& [name, kind] : Activations()) names.push_back(name);
  return names;
}

Entries SplitHeads(const std::string& name, const std::string& input, std::int64_t heads,
                   std::int64_t width) {
  return {Put("", Reshape{.shape = {0, 0, heads, width / heads}}, {input}),
          Put(name, Transpose{.dim0 = 1, .dim1 = 2})};
}

Entries MergeHeads() {
  return {Put("", Transpose{.dim0 = 1, .dim1 = 2}), Put("", Flatten{.start_dim = 2})};
}

Entries PaddingMask(const std::string& name, const std::string& input) {
  return {Put("", Cast{.datatype = DType::kFloat32}, {input}),
          Put("", Elementwise{.op = ElementwiseOp::kRsub, .value = 1}),
          Put("", Elementwise{.op = ElementwiseOp::kMul, .value = kHidden}),
          Put("", Unsqueeze{.dim = 1}), Put(name, Unsqueeze{.dim = 1})};
}

bool Expansion::Takes(const std::string& input) const {
  return std::any_of(network.inputs.begin(), network.inputs.end(),
                     [&input](const TensorSpec& spec) { return spec.name == input; });
}

std::vector<FamilyInput> ImageInput(std::int64_t channels, std::int64_t size) {
  return {
      {.spec = {.name = "input", .dtype = DType::kFloat32, .shape = {-1, channels, size, size}}}};
}

FamilyInput TokenInput(std::string name, bool optional) {
  return {.spec = {.name = std::move(name), .dtype = DType::kInt64, .shape = {-1, -1}},
          .optional = optional};
}

std::string NotAmong(const char* argument, std::int64_t value,
                     const std::vector<std::int64_t>& choices) {
  const auto all_but_last = absl::MakeConstSpan(choices).subspan(0, choices.size() - 1);
  const std::string known = absl::StrCat(absl::StrJoin(all_but_last, ", "), " or ", choices.back());
  if (value == 0) return absl::StrCat(argument, " is missing: give ", known);
  return absl::StrCat(argument, " is ", value, ", it can be ", known);
}

void CheckDivides(const char* argument, std::int64_t value, const char* divisor_argument,
                  std::int64_t divisor, std::vector<std::string>& errors) {
  if (value % divisor == 0) return;
  errors.push_back(absl::StrCat(argument, " is ", value, ", which ", divisor_argument, " ", divisor,
                                " does not divide"));
}

}  // namespace relight::network
