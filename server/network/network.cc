#include "server/network/network.h"

#include <algorithm>
#include <cstddef>
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
class Builder {
 public:
  explicit Builder(NetworkDescription description) : description_(std::move(description)) {}

  absl::Status Run();

  std::vector<TensorSpec>& inputs() { return description_.inputs; }
  std::vector<TensorSpec>& outputs() { return description_.outputs; }
  std::vector<Step>& steps() { return steps_; }
  std::vector<std::size_t>& output_values() { return output_values_; }
  std::vector<ParameterSpec> Parameters() const;
  std::string BatchingObstacle() const;

 private:
  void DeclareInputs();
  void DeduceInput();
  void CheckInput(const TensorSpec& input);
  void NameLayers();
  void AddName(const std::string& name, std::size_t value);
  void WireLayer(std::size_t i);
  std::optional<std::size_t> Resolve(const Layer& layer, std::size_t i, const std::string& name);
  void InferLayer(std::size_t i);
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
  std::unordered_map<std::string, std::size_t> value_by_name_;
  std::vector<std::string> names_;            // In the order of values; the candidates to suggest.
  std::vector<std::optional<Value>> values_;  // nullopt where an error hides it.
  std::vector<Step> steps_;
  std::vector<std::size_t> output_values_;
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
  }
  ResolveOutputs();
  if (wired_) FindUnused();
  if (!errors_.empty()) return ToStatus(std::move(errors_));
  return absl::OkStatus();
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
    AddName(input.name, i);
    values_.push_back(Value{.dtype = input.dtype,
                            .shape = input.shape,
                            .batched = !input.shape.empty() && input.shape[0] < 0});
  }
}

void Builder::DeduceInput() {
  const Layer& first = description_.layers[0];
  TensorSpec input{.name = "input", .dtype = DType::kFloat32, .shape = {}, .line = first.line};
  if (const auto* linear = std::get_if<Linear>(&first.kind); linear && linear->in_features) {
    input.shape = {-1, *linear->in_features};
  } else if (const auto* conv = std::get_if<Conv2d>(&first.kind); conv && conv->in_channels) {
    input.shape = {-1, *conv->in_channels, -1, -1};
  }
  if (input.shape.empty()) {
    Error(first.line,
          absl::StrCat("no input is declared, and the first layer (", KindName(first.kind),
                       ") does not say what it takes: declare one, such as input { name: "
                       "\"input\" datatype: \"FP32\" shape: [-1, 10] }"));
    values_.push_back(std::nullopt);
  } else {
    values_.push_back(Value{.dtype = input.dtype, .shape = input.shape, .batched = true});
  }
  AddName(input.name, 0);
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

void Builder::AddName(const std::string& name, std::size_t value) {
  value_by_name_.emplace(name, value);
  names_.push_back(name);
}

void Builder::NameLayers() {
  for (std::size_t i = 0; i < description_.layers.size(); ++i) {
    Layer& layer = description_.layers[i];
    if (layer.name.empty()) {
      layer.name = absl::StrCat("#", i);
      if (HasParameters(layer.kind)) {
        LayerError(layer, "has parameters and needs a name: where they are in the state dict");
      }
    } else if (layer.name[0] == '#') {
      LayerError(layer, "names that begin with # are those of unnamed layers");
    }
    const auto found = value_by_name_.find(layer.name);
    if (found != value_by_name_.end() && found->second < input_count()) {
      LayerError(layer, "is also the name of an input: rename one of them");
    } else if (found != value_by_name_.end()) {
      const Layer& other = description_.layers[found->second - input_count()];
      LayerError(layer, absl::StrCat("the name is taken",
                                     other.line > 0 ? absl::StrCat(" by line ", other.line) : "",
                                     ": a layer runs once, and sharing its weights between two "
                                     "places is not supported"));
    }
    AddName(layer.name, input_count() + i);
  }
}

void Builder::WireLayer(std::size_t i) {
  Layer& layer = description_.layers[i];
  Step& step = steps_[i];
  if (layer.inputs.empty() && !TakesSeveralInputs(layer.kind)) {
    const std::size_t value = i == 0 ? 0 : input_count() + i - 1;
    layer.inputs.push_back(names_[value]);
    step.inputs.push_back(value);
    return;
  }
  if (TakesSeveralInputs(layer.kind) && layer.inputs.size() < 2) {
    LayerError(layer, absl::StrCat("takes two inputs or more, got ", layer.inputs.size(),
                                   ": name them, as in input: \"a\" input: \"b\""));
    wired_ = false;
  } else if (!TakesSeveralInputs(layer.kind) && layer.inputs.size() != 1) {
    LayerError(layer, absl::StrCat("takes one input, got ", layer.inputs.size()));
    wired_ = false;
  }
  for (const std::string& name : layer.inputs) {
    if (const auto value = Resolve(layer, i, name)) {
      step.inputs.push_back(*value);
    } else {
      wired_ = false;
    }
  }
}

std::optional<std::size_t> Builder::Resolve(const Layer& layer, std::size_t i,
                                            const std::string& name) {
  const std::string subject = absl::StrCat("input \"", Escape(name), "\"");
  const auto found = value_by_name_.find(name);
  if (found == value_by_name_.end()) {
    const auto earlier = absl::MakeConstSpan(names_).subspan(0, input_count() + i);
    LayerError(layer, absl::StrCat(subject, " is neither a layer nor an input of the network",
                                   Suggestion(name, earlier)));
    return std::nullopt;
  }
  if (found->second == input_count() + i) {
    LayerError(layer, "takes its own output as input");
    return std::nullopt;
  }
  if (found->second > input_count() + i) {
    LayerError(layer, absl::StrCat(subject, " is a later layer: move it before this one"));
    return std::nullopt;
  }
  return found->second;
}

void Builder::InferLayer(std::size_t i) {
  Layer& layer = description_.layers[i];
  Messages messages;
  CheckArguments(layer.kind, messages);
  std::optional<Value> output;
  const bool several = TakesSeveralInputs(layer.kind);
  const std::vector<std::size_t>& wires = steps_[i].inputs;
  const bool complete = wires.size() == layer.inputs.size() &&
                        (several ? wires.size() >= 2 : wires.size() == 1) &&
                        std::all_of(wires.begin(), wires.end(),
                                    [&](std::size_t wire) { return values_[wire].has_value(); });
  if (messages.empty() && complete) {
    std::vector<Value> inputs;
    for (const std::size_t wire : wires) inputs.push_back(*values_[wire]);
    output = InferOutput(layer.kind, inputs, messages);
  }
  for (const std::string& message : messages) LayerError(layer, message);
  steps_[i].layer = layer;
  if (output.has_value()) steps_[i].shape = output->shape;
  values_.push_back(std::move(output));
}

void Builder::ResolveOutputs() {
  std::vector<TensorSpec>& outputs = description_.outputs;
  if (outputs.empty()) {
    outputs.push_back({.name = "output",
                       .dtype = DType::kFloat32,
                       .shape = {},
                       .line = description_.layers.back().line});
    const auto& last = values_.back();
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
  if (description_.outputs.size() == 1) return values_.size() - 1;
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
  for (std::size_t i = steps_.size(); i-- > 0;) {
    if (!used[input_count() + i]) continue;
    for (const std::size_t value : steps_[i].inputs) used[value] = true;
  }
  for (std::size_t i = 0; i < input_count(); ++i) {
    if (used[i]) continue;
    const TensorSpec& input = description_.inputs[i];
    Error(input.line, absl::StrCat("input \"", Escape(input.name),
                                   "\" reaches no output: feed it to a layer or remove it"));
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (used[input_count() + i]) continue;
    LayerError(description_.layers[i],
               "reaches no output: feed it to another layer, declare it as an output or remove it");
  }
}

std::vector<ParameterSpec> Builder::Parameters() const {
  std::vector<ParameterSpec> all;
  for (const Step& step : steps_) {
    for (ParameterSpec& spec : ParametersOf(step.layer.name, step.layer.kind)) {
      all.push_back(std::move(spec));
    }
  }
  return all;
}

std::string Builder::BatchingObstacle() const {
  const auto free_first = [](const TensorSpec& spec) {
    return !spec.shape.empty() && spec.shape[0] < 0;
  };
  for (const TensorSpec& input : description_.inputs) {
    if (free_first(input)) continue;
    return absl::StrCat("input \"", Escape(input.name), "\" has no free first dimension");
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (values_[input_count() + i]->batched) continue;
    return absl::StrCat(Subject(steps_[i].layer), " mixes rows or gives up the first dimension");
  }
  for (const TensorSpec& output : description_.outputs) {
    if (free_first(output)) continue;
    return absl::StrCat("output \"", Escape(output.name), "\" has no free first dimension");
  }
  return "";
}

}  // namespace

absl::StatusOr<Network> Network::Build(NetworkDescription description) {
  Builder builder(std::move(description));
  if (absl::Status status = builder.Run(); !status.ok()) return status;
  Network network;
  network.batching_obstacle_ = builder.BatchingObstacle();
  network.parameters_ = builder.Parameters();
  network.inputs_ = std::move(builder.inputs());
  network.outputs_ = std::move(builder.outputs());
  network.steps_ = std::move(builder.steps());
  network.output_values_ = std::move(builder.output_values());
  return network;
}

}  // namespace relight::network
