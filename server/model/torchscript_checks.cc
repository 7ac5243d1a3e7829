#include "server/model/torchscript_checks.h"

#include <ATen/core/function_schema.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/inliner.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "server/model/torch_types.h"

namespace relight::model {
namespace {

ParameterSpec SpecOf(std::string name, const at::Tensor& tensor, bool buffer) {
  ParameterSpec spec;
  const std::optional<DType> dtype = FromScalarType(tensor.scalar_type());
  TORCH_CHECK(dtype && tensor.layout() == at::kStrided && !tensor.is_quantized(), name,
              " is of type ", tensor.toString(), ", which no checkpoint can replace");
  spec.shape = tensor.sizes().vec();
  spec.dtype = IsFloatingPoint(*dtype) ? DType::kFloat32 : *dtype;
  spec.buffer = buffer;
  // An archive does not say which buffers are persistent, and a state dict has only those; so one
  // may be missing, unless it is learned.
  spec.required = !buffer || name.ends_with("running_mean") || name.ends_with("running_var");
  spec.name = std::move(name);
  return spec;
}

// A submodule that is still to be looked at.
struct Pending {
  torch::jit::Module module;
  std::vector<std::string> path;
};

void AppendOwnSlots(const Pending& at, bool buffers, std::vector<ParameterSlot>& slots) {
  const c10::ClassTypePtr type = at.module.type();
  for (std::size_t i = 0; i < type->numAttributes(); ++i) {
    const c10::IValue value = at.module._ivalue()->getSlot(i);
    if (!value.isTensor() || !(buffers ? type->is_buffer(i) : type->is_parameter(i))) continue;
    const std::string attribute = type->getAttributeName(i);
    std::vector<std::string> full = at.path;
    full.push_back(attribute);
    slots.push_back({at.path, attribute,
                     SpecOf(absl::StrJoin(full, "."), value.toTensor(), buffers),
                     value.toTensor()});
  }
}

bool TakesTensor(const c10::Argument& argument) {
  return c10::TensorType::get()->isSubtypeOf(*argument.type());
}

// How many outputs a return type stands for; nullopt where only running it can tell. Adds to
// `problems` where some would not be tensors.
std::optional<std::size_t> CountOutputs(const c10::TypePtr& type,
                                        std::vector<std::string>& problems) {
  const c10::TypePtr tensor = c10::TensorType::get();
  if (type->isSubtypeOf(*tensor)) return 1;
  if (const auto list = type->cast<c10::ListType>()) {
    if (list->getElementType()->isSubtypeOf(*tensor)) return std::nullopt;
  }
  if (const auto dict = type->cast<c10::DictType>()) {
    const bool named = dict->getKeyType()->isSubtypeOf(*c10::StringType::get());
    if (named && dict->getValueType()->isSubtypeOf(*tensor)) return std::nullopt;
  }
  if (const auto tuple = type->cast<c10::TupleType>()) {
    std::optional<std::size_t> count = 0;
    for (const c10::TypePtr& element : tuple->elements()) {
      if (element->cast<c10::DictType>()) {
        problems.push_back("forward() returns a dict within a tuple; return the dict alone");
        return std::nullopt;
      }
      const std::optional<std::size_t> inner = CountOutputs(element, problems);
      count = count && inner ? std::optional(*count + *inner) : std::nullopt;
    }
    return count;
  }
  problems.push_back(absl::StrCat("forward() returns ", Escape(type->str()),
                                  ", not a tensor, or a tuple, list or dict of tensors"));
  return std::nullopt;
}

// All of forward(), with what it calls; inner blocks, too.
template <typename Visit>
void ForEachNode(const torch::jit::Module& module, Visit visit) {
  const std::shared_ptr<torch::jit::Graph> graph = module.get_method("forward").graph()->copy();
  torch::jit::Inline(*graph);
  std::vector<torch::jit::Block*> pending{graph->block()};
  while (!pending.empty()) {
    torch::jit::Block* const block = pending.back();
    pending.pop_back();
    for (torch::jit::Node* const node : block->nodes()) {
      visit(node);
      for (torch::jit::Block* const inner : node->blocks()) pending.push_back(inner);
    }
  }
}

// Adds what a node's argument "weight" is, where that is a constant: where it lies, and how many
// numbers of that are used at most.
void FindConstantWeights(torch::jit::Node* node, std::map<const void*, std::int64_t>& found) {
  const c10::FunctionSchema* const schema = node->maybeSchema();
  if (schema == nullptr) return;
  for (std::size_t i = 0; i < schema->arguments().size() && i < node->inputs().size(); ++i) {
    if (schema->arguments()[i].name() != "weight") continue;
    const auto value = torch::jit::toIValue(node->input(i));
    if (!value || !value->isTensor()) continue;
    const at::Tensor tensor = value->toTensor();
    const void* const place = tensor.has_storage()
                                  ? static_cast<const void*>(tensor.data_ptr())
                                  : static_cast<const void*>(tensor.unsafeGetTensorImpl());
    std::int64_t& count = found[place];
    count = std::max(count, tensor.numel());
  }
}

bool IsTrue(torch::jit::Node* node, const char* input) {
  const auto value = torch::jit::toIValue(node->namedInput(input));
  return value && value->isBool() && value->toBool();
}

// The operator's name where the node behaves as in training, whatever eval() says.
std::optional<std::string> TrainingOperator(torch::jit::Node* node) {
  static const std::vector<std::string> kDropouts = {"aten::dropout",
                                                     "aten::dropout_",
                                                     "aten::feature_dropout",
                                                     "aten::feature_dropout_",
                                                     "aten::alpha_dropout",
                                                     "aten::alpha_dropout_",
                                                     "aten::feature_alpha_dropout",
                                                     "aten::feature_alpha_dropout_"};
  const std::string kind = node->kind().toQualString();
  if (std::find(kDropouts.begin(), kDropouts.end(), kind) != kDropouts.end()) {
    return IsTrue(node, "train") ? std::optional(kind) : std::nullopt;
  }
  // A batch norm without running statistics measures its batch in eval mode too.
  if (kind == "aten::batch_norm" && IsTrue(node, "training") &&
      !node->namedInput("running_mean")->mustBeNone()) {
    return kind;
  }
  return std::nullopt;
}

}  // namespace

std::vector<ParameterSlot> FindParameterSlots(const torch::jit::Module& module) {
  std::vector<ParameterSlot> slots;
  std::vector<Pending> pending{{module, {}}};
  while (!pending.empty()) {
    const Pending at = std::move(pending.back());
    pending.pop_back();
    AppendOwnSlots(at, /*buffers=*/false, slots);
    AppendOwnSlots(at, /*buffers=*/true, slots);
    const c10::ClassTypePtr type = at.module.type();
    for (std::size_t i = type->numAttributes(); i-- > 0;) {
      const c10::IValue value = at.module._ivalue()->getSlot(i);
      if (!value.isModule()) continue;
      std::vector<std::string> path = at.path;
      path.push_back(type->getAttributeName(i));
      pending.push_back({value.toModule(), std::move(path)});
    }
  }
  return slots;
}

void SetSlot(const torch::jit::Module& module, const ParameterSlot& slot,
             const at::Tensor& tensor) {
  torch::jit::Module at = module;
  for (const std::string& name : slot.path) at = at.attr(name).toModule();
  at.setattr(slot.attribute, tensor);
}

absl::Status CheckNotFrozen(const torch::jit::Module& module,
                            const std::vector<ParameterSlot>& slots) {
  std::int64_t replaceable = 0;
  for (const ParameterSlot& slot : slots) replaceable += slot.tensor.numel();
  std::map<const void*, std::int64_t> constants;
  ForEachNode(module, [&](torch::jit::Node* node) { FindConstantWeights(node, constants); });
  std::int64_t constant = 0;
  for (const auto& [data, count] : constants) constant += count;
  // A fixed kernel beside learned weights is the net's own business.
  if (!slots.empty() && constant <= replaceable) return absl::OkStatus();
  const std::string has =
      slots.empty() ? "no parameters and no buffers that a checkpoint could replace"
                    : absl::StrCat("parameters and buffers of ", replaceable,
                                   " numbers that a checkpoint could replace, and weights of ",
                                   constant, " that are constants in its code");
  return absl::InvalidArgumentError(
      absl::StrCat("the archive has ", has,
                   ": torch.jit.freeze or optimize_for_inference folded them into it; export it "
                   "without (weights that are meant to be fixed belong in buffers)"));
}

absl::Status CheckForwardSchema(const torch::jit::Module& module, const Signature& signature) {
  const auto method = module.find_method("forward");
  if (!method) return absl::InvalidArgumentError("the module has no forward()");
  const c10::FunctionSchema& schema = method->function().getSchema();
  std::vector<std::string> problems;
  const std::vector<c10::Argument>& arguments = schema.arguments();  // The first is self.
  std::size_t needed = 0;
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    if (!arguments[i].default_value()) needed = i;
    if (i <= signature.inputs.size() && !TakesTensor(arguments[i])) {
      problems.push_back(absl::StrCat("forward()'s argument ", Escape(arguments[i].name()), " is ",
                                      Escape(arguments[i].type()->str()), ", not a tensor"));
    }
  }
  if (signature.inputs.size() < needed || signature.inputs.size() + 1 > arguments.size()) {
    problems.push_back(absl::StrCat("forward() takes ", arguments.size() - 1,
                                    " inputs, the config declares ", signature.inputs.size()));
  }
  const std::optional<std::size_t> outputs = CountOutputs(schema.returns().at(0).type(), problems);
  if (outputs && *outputs != signature.outputs.size()) {
    problems.push_back(absl::StrCat("forward() returns ", *outputs,
                                    " outputs, the config declares ", signature.outputs.size()));
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "; "));
}

absl::Status CheckTracedForEvaluation(const torch::jit::Module& module) {
  std::optional<std::string> trains;
  ForEachNode(module, [&](torch::jit::Node* node) {
    if (!trains) trains = TrainingOperator(node);
  });
  if (!trains) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the archive was traced in training mode (its ", *trains,
                   " trains); call model.eval() before torch.jit.trace and export it again"));
}

}  // namespace relight::model
