#include "server/network/network.h"

#include <algorithm>
#include <cstddef>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "server/network/layer_rules.h"
#include "server/network/nearest_name.h"

namespace relight::network {
namespace {

constexpr std::size_t kMaxErrors = 100;
// Suggestions compare with many names; after this many errors the reader has got the idea.
constexpr std::size_t kMaxSuggestions = 32;

struct LineError {
  int line = 0;
  std::string text;
};

absl::Status ToStatus(std::vector<LineError> errors) {
  std::stable_sort(errors.begin(), errors.end(),
                   [](const LineError& a, const LineError& b) { return a.line < b.line; });
  std::string message;
  for (std::size_t i = 0; i < errors.size() && i < kMaxErrors; ++i) {
    if (i > 0) message += '\n';
    if (errors[i].line > 0) absl::StrAppend(&message, "line ", errors[i].line, ": ");
    message += errors[i].text;
  }
  if (errors.size() > kMaxErrors) {
    absl::StrAppend(&message, "\nand ", errors.size() - kMaxErrors, " more");
  }
  return absl::InvalidArgumentError(message);
}

std::string TypeName(DType dtype) { return std::string(ProtocolName(dtype)); }

// Whether a shape that was declared can be what was inferred. -1 goes with anything: a free
// dimension may turn out to be that size, and a declaration may promise less than is known.
bool Agrees(absl::Span<const std::int64_t> declared, absl::Span<const std::int64_t> inferred) {
  if (declared.size() != inferred.size()) return false;
  for (std::size_t i = 0; i < declared.size(); ++i) {
    if (declared[i] >= 0 && inferred[i] >= 0 && declared[i] != inferred[i]) return false;
  }
  return true;
}

// One build of a network: each phase adds to `errors_` and leaves behind what later phases can
// still use, so that all errors come out together.
// However few lines of text they come from, these bound what a network takes.
constexpr std::size_t kMaxValues = 200'000;
constexpr std::size_t kMaxParameters = 200'000;

class Builder {
 public:
  explicit Builder(NetworkDescription description) : description_(std::move(description)) {}

  absl::Status Run();

  std::vector<TensorSpec>& inputs() { return description_.inputs; }
  std::vector<TensorSpec>& outputs() { return description_.outputs; }
  std::vector<Step>& steps() { return steps_; }
  std::vector<std::size_t>& output_values() { return output_values_; }
  std::vector<std::optional<std::size_t>>& producers() { return producers_; }
  std::vector<ParameterSpec>& parameters() { return parameters_; }
  std::string BatchingObstacle() const;

 private:
  absl::Status TooMany(std::size_t layer, const char* what, std::size_t limit);
  void DeclareInputs();
  void DeduceInput();
  void CheckInput(const TensorSpec& input);
  void NameLayers();
  void AddValue(const std::string& name, std::optional<Value> value,
                std::optional<std::size_t> producer);
  void WireLayer(std::size_t i);
  void WireInput(std::size_t i, const TakenInputs& taken, const std::string& text);
  void CheckInputCount(const Layer& layer, const TakenInputs& taken);
  static void SortBySlot(Step& step);
  std::optional<std::size_t> Resolve(const Layer& layer, std::size_t i, const std::string& name);
  static bool IsWired(const Step& step, const Layer& layer);
  void InferLayer(std::size_t i);
  void ListParameters(std::size_t i);
  void ShareParameters(const Layer& layer, std::vector<ParameterSpec>& specs);
  void ResolveOutputs();
  std::optional<std::size_t> ResolveOutput(TensorSpec& output);
  void CheckOutput(TensorSpec& output, std::size_t value);
  void FindUnused();

  void Error(int line, std::string text) { errors_.push_back({line, std::move(text)}); }
  void LayerError(const Layer& layer, const std::string& text) {
    Error(layer.line, absl::StrCat(Subject(layer), ": ", text));
  }
  static std::string Subject(const Layer& layer) {
    return absl::StrCat("layer \"", Escape(layer.name), "\" (", KindName(layer.kind), ")");
  }
  std::string Suggestion(std::string_view name, absl::Span<const std::string> candidates) {
    if (suggestions_++ >= kMaxSuggestions) return "";
    return DidYouMean(name, candidates);
  }
  std::size_t input_count() const { return description_.inputs.size(); }

  NetworkDescription description_;
  std::vector<LineError> errors_;
  std::size_t suggestions_ = 0;
  std::unordered_map<std::string, std::size_t> layer_by_name_;
  std::unordered_map<std::string, std::size_t> value_by_name_;
  // By value, in their order: names, which are also the candidates to suggest; nullopt where an
  // error hides it; the step that gives it.
  std::vector<std::string> names_;
  std::vector<std::optional<Value>> values_;
  std::vector<std::optional<std::size_t>> producers_;
  std::vector<Step> steps_;
  std::vector<std::size_t> output_values_;
  std::vector<ParameterSpec> parameters_;
  std::unordered_map<std::string, std::size_t> parameter_by_name_;
  bool wired_ = true;  // Every layer's and output's names were resolved.
};

absl::Status Builder::Run() {
  if (description_.layers.empty()) return absl::InvalidArgumentError("the network has no layers");
  DeclareInputs();
  NameLayers();
  steps_.resize(description_.layers.size());
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    WireLayer(i);
    InferLayer(i);
    if (values_.size() > kMaxValues) return TooMany(i, "outputs of layers", kMaxValues);
  }
  if (errors_.empty()) {
    for (std::size_t i = 0; i < steps_.size(); ++i) {
      ListParameters(i);
      if (parameters_.size() > kMaxParameters) return TooMany(i, "parameters", kMaxParameters);
    }
  }
  ResolveOutputs();
  if (wired_) FindUnused();
  if (!errors_.empty()) return ToStatus(std::move(errors_));
  return absl::OkStatus();
}

absl::Status Builder::TooMany(std::size_t layer, const char* what, std::size_t limit) {
  LayerError(steps_[layer].layer, absl::StrCat("up to here the network has more than ", limit, " ",
                                               what, "; split it into several models"));
  return ToStatus(std::move(errors_));
}

void Builder::DeclareInputs() {
  if (description_.inputs.empty()) {
    DeduceInput();
    return;
  }
  for (std::size_t i = 0; i < input_count(); ++i) {
    const TensorSpec& input = description_.inputs[i];
    CheckInput(input);
    if (value_by_name_.contains(input.name)) {
      Error(input.line, absl::StrCat("input \"", Escape(input.name), "\" is declared twice"));
    }
    const bool batched = !input.shape.empty() && input.shape[0] < 0;
    AddValue(input.name,
             Value{.dtype = input.dtype,
                   .shape = input.shape,
                   .rows = batched ? Rows::Along(0) : Rows::Mixed()},
             std::nullopt);
  }
}

void Builder::DeduceInput() {
  const Layer& first = description_.layers[0];
  TensorSpec input{.name = "input", .dtype = DType::kFloat32, .shape = {}, .line = first.line};
  if (const auto* linear = std::get_if<Linear>(&first.kind); linear && linear->in_features) {
    input.shape = {-1, *linear->in_features};
  } else if (const auto* conv = std::get_if<Conv>(&first.kind); conv && conv->in_channels) {
    input.shape = {-1, *conv->in_channels};
    input.shape.resize(2 + static_cast<std::size_t>(conv->spatial_dims), -1);
  }
  std::optional<Value> value;
  if (input.shape.empty()) {
    Error(first.line,
          absl::StrCat("no input is declared, and the first layer (", KindName(first.kind),
                       ") does not say what it takes: declare one, such as input { name: "
                       "\"input\" datatype: \"FP32\" shape: [-1, 10] }"));
  } else {
    value = Value{.dtype = input.dtype, .shape = input.shape, .rows = Rows::Along(0)};
  }
  AddValue(input.name, std::move(value), std::nullopt);
  description_.inputs.push_back(std::move(input));
}

void Builder::CheckInput(const TensorSpec& input) {
  if (input.name.empty()) Error(input.line, "an input has no name");
  const std::string subject = absl::StrCat("input \"", Escape(input.name), "\"");
  if (input.shape.empty()) {
    Error(input.line, absl::StrCat(subject, " has no shape: give one, such as shape: [-1, 10]"));
  } else if (input.shape.size() > kMaxRank) {
    Error(input.line, absl::StrCat(subject, " has ", input.shape.size(),
                                   " dimensions, the most is ", kMaxRank));
  }
  for (const std::int64_t size : input.shape) {
    if (size == -1 || (size >= 1 && size <= kMaxSize)) continue;
    Error(input.line, absl::StrCat(subject, " has a dimension of ", size,
                                   ": it must be -1 (free) or from 1 to ", kMaxSize));
  }
}

void Builder::AddValue(const std::string& name, std::optional<Value> value,
                       std::optional<std::size_t> producer) {
  value_by_name_.emplace(name, values_.size());
  names_.push_back(name);
  values_.push_back(std::move(value));
  producers_.push_back(producer);
}

void Builder::NameLayers() {
  for (std::size_t i = 0; i < description_.layers.size(); ++i) {
    Layer& layer = description_.layers[i];
    const std::string position = absl::StrCat("#", i);
    if (layer.name.empty()) layer.name = position;
    if (layer.name == position) {
      if (HasParameters(layer.kind)) {
        LayerError(layer, "has parameters and needs a name: where they are in the state dict");
      }
    } else if (layer.name[0] == '#') {
      LayerError(layer, "names that begin with # are those of unnamed layers");
    }
    if (value_by_name_.contains(layer.name)) {
      LayerError(layer, "is also the name of an input: rename one of them");
    }
    const auto [at, is_new] = layer_by_name_.emplace(layer.name, i);
    if (is_new) continue;
    const int line = description_.layers[at->second].line;
    LayerError(layer,
               absl::StrCat("the name is taken", line > 0 ? absl::StrCat(" by line ", line) : "",
                            ": to have a layer's parameters in two places, give the second "
                            "another name and parameters_of"));
  }
}

void Builder::WireLayer(std::size_t i) {
  Layer& layer = description_.layers[i];
  Step& step = steps_[i];
  const TakenInputs taken = InputsOf(layer.kind);
  if (layer.inputs.empty() && taken.least == 1) {
    const std::size_t value = i == 0 ? 0 : steps_[i - 1].first_value;
    layer.inputs.push_back(names_[value]);
    step.inputs.push_back(value);
    step.slots.push_back(0);
    return;
  }
  CheckInputCount(layer, taken);
  for (const std::string& text : layer.inputs) WireInput(i, taken, text);
  if (!wired_ || step.inputs.size() != layer.inputs.size()) return;
  SortBySlot(step);
  for (std::size_t slot = 0; slot < taken.least; ++slot) {
    if (std::find(step.slots.begin(), step.slots.end(), slot) != step.slots.end()) continue;
    LayerError(layer, absl::StrCat("is not given ", taken.names[slot]));
    wired_ = false;
  }
}

void Builder::CheckInputCount(const Layer& layer, const TakenInputs& taken) {
  const std::size_t count = layer.inputs.size();
  const std::size_t most = taken.names.size();
  if (count >= taken.least && (taken.any_number || count <= most)) return;
  wired_ = false;
  const char* const example = ": name them, as in input: \"a\" input: \"b\"";
  if (most == 0) {
    LayerError(layer, absl::StrCat("takes no input, got ", count));
  } else if (taken.any_number) {
    LayerError(layer, absl::StrCat("takes two inputs or more, got ", count, example));
  } else if (most == 1) {
    LayerError(layer, absl::StrCat("takes one input, got ", count));
  } else {
    LayerError(layer, absl::StrCat("takes ", taken.least,
                                   taken.least < most ? absl::StrCat(" to ", most) : "",
                                   " inputs (", absl::StrJoin(taken.names, ", "), "), got ", count,
                                   count < taken.least ? example : ""));
  }
}

// Whatever the order in which they were named.
void Builder::SortBySlot(Step& step) {
  std::vector<std::pair<std::size_t, std::size_t>> fed;
  for (std::size_t i = 0; i < step.slots.size(); ++i) {
    fed.emplace_back(step.slots[i], step.inputs[i]);
  }
  std::sort(fed.begin(), fed.end());
  for (std::size_t i = 0; i < fed.size(); ++i) std::tie(step.slots[i], step.inputs[i]) = fed[i];
}

// "name", or "argument=name" where no value has the whole text for a name.
void Builder::WireInput(std::size_t i, const TakenInputs& taken, const std::string& text) {
  Layer& layer = description_.layers[i];
  Step& step = steps_[i];
  std::size_t slot = taken.any_number ? step.inputs.size() : step.slots.size();
  std::string name = text;
  const std::size_t equals = text.find('=');
  if (equals != std::string::npos && !value_by_name_.contains(text)) {
    const auto named = std::find(taken.names.begin(), taken.names.end(), text.substr(0, equals));
    if (named != taken.names.end() && !taken.any_number) {
      slot = static_cast<std::size_t>(named - taken.names.begin());
      name = text.substr(equals + 1);
    }
  }
  if (std::find(step.slots.begin(), step.slots.end(), slot) != step.slots.end()) {
    LayerError(layer, absl::StrCat("is given ", taken.names[slot], " twice"));
    wired_ = false;
    return;
  }
  if (const auto value = Resolve(layer, i, name)) {
    step.inputs.push_back(*value);
    step.slots.push_back(slot);
  } else {
    wired_ = false;
  }
}

std::optional<std::size_t> Builder::Resolve(const Layer& layer, std::size_t i,
                                            const std::string& name) {
  const std::string subject = absl::StrCat("input \"", Escape(name), "\"");
  const auto found = value_by_name_.find(name);
  if (found != value_by_name_.end()) return found->second;
  const auto later = layer_by_name_.find(name);
  if (later != layer_by_name_.end()) {
    LayerError(layer, later->second == i
                          ? "takes its own output as input"
                          : absl::StrCat(subject, " is a later layer: move it before this one"));
    return std::nullopt;
  }
  // Of a layer that has an error, it is not known how many outputs it would have.
  const auto whole = value_by_name_.find(name.substr(0, name.rfind(':')));
  if (whole != value_by_name_.end() && !values_[whole->second].has_value()) return whole->second;
  LayerError(layer, absl::StrCat(subject, " is neither a layer nor an input of the network",
                                 Suggestion(name, names_)));
  return std::nullopt;
}

// Whether all that the layer names was found, and what it must be fed is among it.
bool Builder::IsWired(const Step& step, const Layer& layer) {
  if (step.inputs.size() != layer.inputs.size()) return false;
  const std::size_t least = InputsOf(layer.kind).least;
  for (std::size_t slot = 0; slot < least; ++slot) {
    const bool given = std::find(step.slots.begin(), step.slots.end(), slot) != step.slots.end();
    if (!given) return false;
  }
  return true;
}

void Builder::InferLayer(std::size_t i) {
  Layer& layer = description_.layers[i];
  Step& step = steps_[i];
  Messages messages;
  CompleteArguments(layer.kind, messages);
  std::vector<Value> outputs;
  const bool complete = IsWired(step, layer) &&
                        std::all_of(step.inputs.begin(), step.inputs.end(),
                                    [&](std::size_t value) { return values_[value].has_value(); });
  if (messages.empty() && complete) {
    std::vector<Value> inputs;
    for (const std::size_t value : step.inputs) inputs.push_back(*values_[value]);
    outputs = InferOutputs(layer.kind, {inputs, step.slots}, messages);
  }
  for (const std::string& message : messages) LayerError(layer, message);
  step.layer = layer;
  step.first_value = values_.size();
  if (outputs.empty()) return AddValue(layer.name, std::nullopt, i);
  for (std::size_t output = 0; output < outputs.size(); ++output) {
    step.shapes.push_back(outputs[output].shape);
    const std::string name = output == 0 ? layer.name : absl::StrCat(layer.name, ":", output);
    if (output > 0 && (value_by_name_.contains(name) || layer_by_name_.contains(name))) {
      LayerError(layer, absl::StrCat("its output ", output, " is called \"", Escape(name),
                                     "\", which is the name of a layer or an input"));
    }
    AddValue(name, std::move(outputs[output]), i);
  }
}

void Builder::ListParameters(std::size_t i) {
  const Layer& layer = steps_[i].layer;
  std::vector<ParameterSpec> specs = ParametersOf(layer.name, layer.kind);
  if (!layer.parameters_of.empty()) ShareParameters(layer, specs);
  for (ParameterSpec& spec : specs) {
    parameter_by_name_.emplace(spec.name, parameters_.size());
    parameters_.push_back(std::move(spec));
  }
}

// What the other layer has under the same name is shared; what it does not have is this one's own.
void Builder::ShareParameters(const Layer& layer, std::vector<ParameterSpec>& specs) {
  const std::string& source = layer.parameters_of;
  const std::string subject = absl::StrCat("parameters_of \"", Escape(source), "\"");
  const auto found = layer_by_name_.find(source);
  const bool earlier =
      found != layer_by_name_.end() && found->second < layer_by_name_.at(layer.name);
  if (!earlier) {
    LayerError(layer,
               absl::StrCat(subject, " is no layer before this one", Suggestion(source, names_)));
    return;
  }
  std::size_t shared = 0;
  for (ParameterSpec& spec : specs) {
    const bool whole = spec.name == layer.name;  // A `parameter`, whose key is the layer's name.
    const std::string key =
        whole ? source : absl::StrCat(source, spec.name.substr(layer.name.size()));
    const auto place = parameter_by_name_.find(key);
    if (place == parameter_by_name_.end()) continue;
    const ParameterSpec* const same = &parameters_[place->second];
    ++shared;
    if (same->shape != spec.shape || same->dtype != spec.dtype) {
      LayerError(layer,
                 absl::StrCat("shares ", Escape(key), ", which has shape ", ShapeText(same->shape),
                              ", but needs ", ShapeText(spec.shape)));
    }
    spec.same_as = same->same_as.empty() ? same->name : same->same_as;
    spec.required = false;
  }
  if (shared == 0) {
    LayerError(layer, absl::StrCat(subject, ": the two have no parameter in common"));
  }
}

void Builder::ResolveOutputs() {
  std::vector<TensorSpec>& outputs = description_.outputs;
  if (outputs.empty()) {
    outputs.push_back({.name = "output",
                       .dtype = DType::kFloat32,
                       .shape = {},
                       .line = description_.layers.back().line});
    const auto& last = values_[steps_.back().first_value];
    if (last.has_value()) outputs[0].dtype = last->dtype;
  }
  std::unordered_map<std::string_view, int> seen;
  for (TensorSpec& output : outputs) {
    if (!seen.emplace(output.name, output.line).second) {
      Error(output.line, absl::StrCat("output \"", Escape(output.name), "\" is declared twice"));
    }
    const auto value = ResolveOutput(output);
    output_values_.push_back(value.value_or(0));
    if (value.has_value()) {
      CheckOutput(output, *value);
    } else {
      wired_ = false;
    }
  }
}

std::optional<std::size_t> Builder::ResolveOutput(TensorSpec& output) {
  const std::string subject = absl::StrCat("output \"", Escape(output.name), "\"");
  if (output.name.empty()) {
    Error(output.line, "an output has no name");
    return std::nullopt;
  }
  const auto found = value_by_name_.find(output.name);
  if (found != value_by_name_.end()) {
    if (found->second >= input_count()) return found->second;
    Error(output.line, absl::StrCat(subject, " is also the name of an input"));
    return std::nullopt;
  }
  if (description_.outputs.size() == 1) return steps_.back().first_value;
  const auto layers = absl::MakeConstSpan(names_).subspan(input_count());
  Error(output.line,
        absl::StrCat(subject, " is no layer (of several outputs, each carries a layer's name)",
                     Suggestion(output.name, layers)));
  return std::nullopt;
}

void Builder::CheckOutput(TensorSpec& output, std::size_t value) {
  const std::optional<Value>& inferred = values_[value];
  if (!inferred.has_value()) return;
  const std::string subject = absl::StrCat("output \"", Escape(output.name), "\"");
  if (output.shape.empty()) {
    output.shape = inferred->shape;
  } else if (!Agrees(output.shape, inferred->shape)) {
    Error(output.line,
          absl::StrCat(subject, " is declared as ", ShapeText(output.shape), ", but layer \"",
                       Escape(names_[value]), "\" gives ", ShapeText(inferred->shape)));
  }
  const bool both_float = IsFloatingPoint(output.dtype) && IsFloatingPoint(inferred->dtype);
  if (output.dtype != inferred->dtype && !both_float) {
    const std::string type = TypeName(inferred->dtype);
    Error(output.line, absl::StrCat(subject, " is ", TypeName(output.dtype), ", but layer \"",
                                    Escape(names_[value]), "\" gives ", type,
                                    ": declare datatype: \"", type, "\""));
  }
}

void Builder::FindUnused() {
  std::vector<bool> used(values_.size(), false);
  for (const std::size_t value : output_values_) used[value] = true;
  const auto is_used = [&](const Step& step) {
    for (std::size_t i = 0; i < std::max<std::size_t>(step.shapes.size(), 1); ++i) {
      if (used[step.first_value + i]) return true;
    }
    return false;
  };
  for (std::size_t i = steps_.size(); i-- > 0;) {
    if (!is_used(steps_[i])) continue;
    for (const std::size_t value : steps_[i].inputs) used[value] = true;
    // One whose parameters are shared may stand for a second name of theirs alone.
    const auto shared = layer_by_name_.find(steps_[i].layer.parameters_of);
    if (shared != layer_by_name_.end()) used[steps_[shared->second].first_value] = true;
  }
  for (std::size_t i = 0; i < input_count(); ++i) {
    if (used[i]) continue;
    const TensorSpec& input = description_.inputs[i];
    Error(input.line, absl::StrCat("input \"", Escape(input.name),
                                   "\" reaches no output: feed it to a layer or remove it"));
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (is_used(steps_[i])) continue;
    LayerError(description_.layers[i],
               "reaches no output: feed it to another layer, declare it as an output or remove it");
  }
}

std::string Builder::BatchingObstacle() const {
  const auto free_first = [](const TensorSpec& spec) {
    return !spec.shape.empty() && spec.shape[0] < 0;
  };
  for (const TensorSpec& input : description_.inputs) {
    if (free_first(input)) continue;
    return absl::StrCat("input \"", Escape(input.name), "\" has no free first dimension");
  }
  for (const Step& step : steps_) {
    for (std::size_t i = 0; i < step.shapes.size(); ++i) {
      if (values_[step.first_value + i]->rows.state != Rows::State::kMixed) continue;
      return absl::StrCat(Subject(step.layer), " mixes rows or gives up the first dimension");
    }
  }
  for (const TensorSpec& output : description_.outputs) {
    if (free_first(output)) continue;
    return absl::StrCat("output \"", Escape(output.name), "\" has no free first dimension");
  }
  for (std::size_t i = 0; i < output_values_.size(); ++i) {
    if (values_[output_values_[i]]->rows.along(0)) continue;
    return absl::StrCat("output \"", Escape(description_.outputs[i].name),
                        "\" has its rows in another dimension than the first");
  }
  return "";
}

}  // namespace

absl::StatusOr<Network> Network::Build(NetworkDescription description) {
  Builder builder(std::move(description));
  if (absl::Status status = builder.Run(); !status.ok()) return status;
  Network network;
  network.batching_obstacle_ = builder.BatchingObstacle();
  network.parameters_ = std::move(builder.parameters());
  network.inputs_ = std::move(builder.inputs());
  network.outputs_ = std::move(builder.outputs());
  network.steps_ = std::move(builder.steps());
  network.output_values_ = std::move(builder.output_values());
  network.producers_ = std::move(builder.producers());
  return network;
}

const Sizes& Network::shape_of(std::size_t value) const {
  const std::optional<std::size_t> step = producers_[value];
  if (!step) return inputs_[value].shape;
  return steps_[*step].shapes[value - steps_[*step].first_value];
}

}  // namespace relight::network
