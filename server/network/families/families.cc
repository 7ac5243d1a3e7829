#include "server/network/families/families.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "server/network/families/expansion.h"
#include "server/network/nearest_name.h"

namespace relight::network {
namespace {

// Beyond what any such network has, and small enough for products of a few.
constexpr std::int64_t kMostSize = std::int64_t{1} << 20;
constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;

Argument Size(const char* name, std::int64_t& field, std::int64_t most = kMostSize) {
  return {.name = name, .field = &field, .least = 1, .most = most};
}
Argument RequiredSize(const char* name, std::int64_t& field, std::int64_t most = kMostSize) {
  return {.name = name, .field = &field, .least = 1, .most = most, .required = true};
}
Argument SizeOr(const char* name, std::optional<std::int64_t>& field) {
  return {.name = name, .field = &field, .least = 1, .most = kMostSize};
}
// One of a few, which its family lists.
Argument Depth(std::int64_t& field) { return {.name = "depth", .field = &field}; }
Argument Flag(const char* name, bool& field) { return {.name = name, .field = &field}; }
Argument Real(const char* name, double& field) { return {.name = name, .field = &field}; }
Argument From0(const char* name, double& field) {
  return {.name = name, .field = &field, .least_real = 0};
}
Argument Choice(const char* name, std::string& field, std::vector<std::string> choices) {
  return {.name = name, .field = &field, .choices = std::move(choices)};
}

struct ArgumentLister {
  std::vector<Argument> operator()(ResNet& f) const {
    return {Depth(f.depth), Size("num_classes", f.num_classes), Size("groups", f.groups),
            Size("width_per_group", f.width_per_group), Size("in_channels", f.in_channels)};
  }
  std::vector<Argument> operator()(Vgg& f) const {
    return {Depth(f.depth), Flag("batch_norm", f.batch_norm), Size("num_classes", f.num_classes),
            Size("in_channels", f.in_channels)};
  }
  std::vector<Argument> operator()(MobileNetV2& f) const {
    return {Size("num_classes", f.num_classes), Real("width_mult", f.width_mult),
            Size("round_nearest", f.round_nearest), Size("in_channels", f.in_channels)};
  }
  std::vector<Argument> operator()(VisionTransformer& f) const {
    return {Size("image_size", f.image_size),
            RequiredSize("patch_size", f.patch_size),
            RequiredSize("num_layers", f.num_layers, kMostFamilyLayers),
            RequiredSize("num_heads", f.num_heads),
            RequiredSize("hidden_dim", f.hidden_dim),
            RequiredSize("mlp_dim", f.mlp_dim),
            Size("num_classes", f.num_classes),
            SizeOr("representation_size", f.representation_size),
            Size("in_channels", f.in_channels)};
  }
  std::vector<Argument> operator()(Bert& f) const {
    return {Choice("architecture", f.architecture,
                   {"BertModel", "BertForMaskedLM", "BertForSequenceClassification",
                    "BertForTokenClassification", "BertForQuestionAnswering"}),
            Size("vocab_size", f.vocab_size, kMostTokens),
            Size("hidden_size", f.hidden_size),
            Size("num_hidden_layers", f.num_hidden_layers, kMostFamilyLayers),
            Size("num_attention_heads", f.num_attention_heads),
            Size("intermediate_size", f.intermediate_size),
            Choice("hidden_act", f.hidden_act, ActivationNames()),
            Size("max_position_embeddings", f.max_position_embeddings, kMostTokens),
            Size("type_vocab_size", f.type_vocab_size),
            From0("layer_norm_eps", f.layer_norm_eps),
            Flag("add_pooling_layer", f.add_pooling_layer),
            Size("num_labels", f.num_labels),
            Flag("tie_word_embeddings", f.tie_word_embeddings)};
  }
  std::vector<Argument> operator()(Gpt2& f) const {
    return {Choice("architecture", f.architecture, {"GPT2LMHeadModel", "GPT2Model"}),
            Size("vocab_size", f.vocab_size, kMostTokens),
            Size("n_positions", f.n_positions, kMostTokens),
            Size("n_embd", f.n_embd),
            Size("n_layer", f.n_layer, kMostFamilyLayers),
            Size("n_head", f.n_head),
            SizeOr("n_inner", f.n_inner),
            Choice("activation_function", f.activation_function, ActivationNames()),
            From0("layer_norm_epsilon", f.layer_norm_epsilon),
            Flag("tie_word_embeddings", f.tie_word_embeddings)};
  }
};

const std::vector<std::pair<std::string, Family>>& Families() {
  static const auto* const kFamilies = new std::vector<std::pair<std::string, Family>>{
      {"resnet", ResNet{}},
      {"vgg", Vgg{}},
      {"mobilenet_v2", MobileNetV2{}},
      {"vision_transformer", VisionTransformer{}},
      {"bert", Bert{}},
      {"gpt2", Gpt2{}},
  };
  return *kFamilies;
}

std::vector<std::string> NamesOf(const std::vector<FamilyInput>& inputs) {
  std::vector<std::string> names;
  for (const FamilyInput& input : inputs) names.push_back(input.spec.name);
  return names;
}

// The declared inputs, where the family has such.
std::vector<TensorSpec> ChooseInputs(const std::vector<FamilyInput>& own,
                                     const std::vector<TensorSpec>& declared,
                                     std::vector<std::string>& errors) {
  std::vector<TensorSpec> chosen;
  if (declared.empty()) {
    for (const FamilyInput& input : own) chosen.push_back(input.spec);
    return chosen;
  }
  if (own.size() == 1) {
    if (declared.size() == 1) return declared;
    errors.push_back(absl::StrCat(declared.size(), " inputs are declared, it takes one, ",
                                  ShapeText(own.front().spec.shape)));
    return declared;
  }
  const std::vector<std::string> names = NamesOf(own);
  for (const TensorSpec& spec : declared) {
    if (std::find(names.begin(), names.end(), spec.name) != names.end()) continue;
    errors.push_back(absl::StrCat("it has no input \"", Escape(spec.name), "\"",
                                  DidYouMean(spec.name, names), ": its inputs are ",
                                  absl::StrJoin(names, ", ")));
  }
  for (const FamilyInput& input : own) {
    const bool given = std::any_of(declared.begin(), declared.end(), [&](const TensorSpec& spec) {
      return spec.name == input.spec.name;
    });
    if (given || input.optional) continue;
    errors.push_back(absl::StrCat("its input ", input.spec.name,
                                  " is not among those declared: declare it, too, or none"));
  }
  return declared;
}

}  // namespace

std::string FamilyName(const Family& family) {
  for (const auto& [name, known] : Families()) {
    if (known.index() == family.index()) return name;
  }
  return "";
}

std::optional<Family> FamilyNamed(std::string_view name) {
  for (const auto& [known, family] : Families()) {
    if (known == name) return family;
  }
  return std::nullopt;
}

std::vector<Argument> ArgumentsOf(Family& family) { return std::visit(ArgumentLister(), family); }

absl::StatusOr<WrittenNetwork> Expand(const Family& family,
                                      const std::vector<TensorSpec>& declared_inputs) {
  Expansion expansion;
  Family checked = family;
  CheckArguments(ArgumentsOf(checked), expansion.errors);
  if (expansion.errors.empty()) {
    const auto own = std::visit([](const auto& known) { return InputsOf(known); }, family);
    expansion.network.inputs = ChooseInputs(own, declared_inputs, expansion.errors);
  }
  if (expansion.errors.empty()) {
    std::visit([&expansion](const auto& known) { ExpandInto(known, expansion); }, family);
  }
  if (expansion.errors.empty()) return std::move(expansion.network);
  for (std::string& error : expansion.errors) {
    error = absl::StrCat(FamilyName(family), ": ", error);
  }
  return absl::InvalidArgumentError(absl::StrJoin(expansion.errors, "\n"));
}

}  // namespace relight::network
