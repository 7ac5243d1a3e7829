#include "storage/object_factory.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/numpy_values.h"

namespace relight::storage {
namespace {

constexpr std::size_t kMaxReportedClasses = 64;
// Calls of more arguments than any honest one has count against the context's budget.
constexpr std::size_t kFreeArguments = 16;

bool IsTensor(const Tree& tree, NodeId node) {
  return tree.Is(node, NodeKind::kTensor) || tree.Is(node, NodeKind::kUnsupportedTensor);
}

bool IsSequence(const Tree& tree, NodeId node) {
  return tree.Is(node, NodeKind::kList) || tree.Is(node, NodeKind::kTuple);
}

// Latin-1 out of UTF-8; nullopt where a code point is beyond 0xFF.
std::optional<std::string> ToLatin1(std::string_view utf8) {
  std::string result;
  result.reserve(utf8.size());
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const auto lead = static_cast<std::uint8_t>(utf8[i]);
    if (lead < 0x80) {
      result.push_back(utf8[i]);
    } else if ((lead == 0xC2 || lead == 0xC3) && i + 1 < utf8.size()) {
      const auto next = static_cast<std::uint8_t>(utf8[++i]);
      result.push_back(static_cast<char>(((lead & 0x03) << 6) | (next & 0x3F)));
    } else {
      return std::nullopt;
    }
  }
  return result;
}

std::string DottedName(std::string_view symbol) {
  std::string name(symbol);
  std::replace(name.begin(), name.end(), ' ', '.');
  return name;
}

}  // namespace

TorchObjectFactory::TorchObjectFactory(ParseContext& context, DictKeys& keys,
                                       const StorageLocator& locator, StorageTable::Ids ids,
                                       bool big_endian)
    : context_(context),
      tree_(context.tree()),
      keys_(keys),
      storages_(context, symbols_, locator, ids),
      tensors_(context, symbols_, storages_, big_endian) {}

absl::Status TorchObjectFactory::BadValue(std::string_view message) const {
  return context_.Error(ErrorCode::kPickleBadValue, message);
}

Meaning TorchObjectFactory::MeaningOf(NodeId node) const {
  const auto found = symbols_.find(node);
  return found == symbols_.end() ? Meaning::kUnknown : found->second.meaning;
}

absl::StatusOr<NodeId> TorchObjectFactory::MakeSymbol(std::string_view module,
                                                      std::string_view name) {
  const Symbol symbol = LookUpSymbol(module, name);
  if (symbol.meaning == Meaning::kUnknown && context_.options().reject_unknown_globals) {
    return context_.Error(
        ErrorCode::kUnsafeGlobal,
        absl::StrCat("names ", Escape(absl::StrCat(std::string(module), ".", std::string(name))),
                     ", which is not among the classes that a state dict needs"));
  }
  NodeId node = kNoNode;
  if (symbol.meaning == Meaning::kDTypeValue) {
    node = tree_.AddText(NodeKind::kDType, symbol.has_dtype ? Name(symbol.dtype) : name);
  } else if (symbol.meaning == Meaning::kQSchemeValue) {
    node = tree_.AddText(NodeKind::kQScheme, name);
  } else {
    node =
        tree_.AddText(NodeKind::kSymbol, absl::StrCat(std::string(module), " ", std::string(name)));
  }
  symbols_.emplace(node, symbol);
  return node;
}

absl::StatusOr<NodeId> TorchObjectFactory::Call(NodeId callable, NodeId arguments, OpaqueMake how) {
  if (!tree_.Is(callable, NodeKind::kSymbol) && !tree_.Is(callable, NodeKind::kOpaque)) {
    return context_.Error(ErrorCode::kPickleBadStack,
                          absl::StrCat("calls a ", std::string(Name(tree_.kind(callable)))));
  }
  const Meaning meaning = MeaningOf(callable);
  if (how != OpaqueMake::kNewObjEx && meaning != Meaning::kUnknown) {
    if (tree_.items(arguments).size() > kFreeArguments) {
      RELIGHT_RETURN_IF_ERROR(context_.Charge(tree_.items(arguments).size() * sizeof(NodeId)));
    }
    // A copy: making nodes moves the tree's own.
    const Arguments copy = tree_.items(arguments);
    RELIGHT_ASSIGN_OR_RETURN(const std::optional<NodeId> made, Apply(meaning, copy));
    if (made.has_value()) return *made;
  }
  return MakeOpaque(callable, arguments, how);
}

TorchObjectFactory::MaybeNode TorchObjectFactory::Apply(Meaning meaning,
                                                        const Arguments& arguments) {
  switch (meaning) {
    case Meaning::kOrderedDict:
    case Meaning::kDefaultDict:
    case Meaning::kCounter:
    case Meaning::kDict:
    case Meaning::kSet:
    case Meaning::kFrozenSet:
      return ApplyContainer(meaning, arguments);
    case Meaning::kEncode:
    case Meaning::kBytes:
    case Meaning::kByteArray:
    case Meaning::kComplex:
    case Meaning::kSize:
    case Meaning::kDevice:
    case Meaning::kGetLayout:
    case Meaning::kTorchVersion:
    case Meaning::kFirstArgument:
    case Meaning::kNumpyScalar:
    case Meaning::kNumpyFromBuffer:
      return ApplyValue(meaning, arguments);
    case Meaning::kUnknown:
    case Meaning::kInert:
    case Meaning::kList:
    case Meaning::kTuple:
    case Meaning::kDTypeValue:
    case Meaning::kQSchemeValue:
    case Meaning::kStorageClass:
    case Meaning::kNumpyReconstruct:
    case Meaning::kNumpyDType:
    case Meaning::kNumpyArrayClass:
      return std::nullopt;
    default:
      return ApplyTensor(meaning, arguments);
  }
}

TorchObjectFactory::MaybeNode TorchObjectFactory::ApplyContainer(Meaning meaning,
                                                                 const Arguments& arguments) {
  switch (meaning) {
    case Meaning::kOrderedDict:
      return MakeOrderedDict(arguments);
    case Meaning::kDefaultDict:
      // The argument is the factory of missing values, which nothing here asks for.
      if (arguments.size() > 1) return std::nullopt;
      return LosingType(tree_.Add(NodeKind::kDict), "collections.defaultdict");
    case Meaning::kCounter:
      return CopyDict(NodeKind::kCounter, arguments);
    case Meaning::kDict:
      return CopyDict(NodeKind::kDict, arguments);
    case Meaning::kSet:
      return CopySet(NodeKind::kSet, arguments);
    default:
      return CopySet(NodeKind::kFrozenSet, arguments);
  }
}

TorchObjectFactory::MaybeNode TorchObjectFactory::ApplyValue(Meaning meaning,
                                                             const Arguments& arguments) {
  switch (meaning) {
    case Meaning::kEncode:
      return Encode(NodeKind::kBytes, arguments);
    case Meaning::kBytes:
      if (!arguments.empty()) return std::nullopt;
      return tree_.AddText(NodeKind::kBytes, "");
    case Meaning::kByteArray:
      return MakeByteArray(arguments);
    case Meaning::kComplex:
      return MakeComplex(arguments);
    case Meaning::kSize:
      return MakeSize(arguments);
    case Meaning::kDevice:
      return MakeDevice(arguments);
    case Meaning::kGetLayout: {
      if (arguments.size() != 1 || !tree_.Is(arguments[0], NodeKind::kString)) {
        return BadValue("has a layout that is no name");
      }
      std::string layout(tree_.text(arguments[0]));
      if (layout.starts_with("torch.")) layout.erase(0, 6);
      RELIGHT_RETURN_IF_ERROR(context_.Charge(layout.size()));
      return tree_.AddText(NodeKind::kLayout, layout);
    }
    case Meaning::kTorchVersion:
      if (arguments.empty() || !tree_.Is(arguments[0], NodeKind::kString)) {
        return BadValue("has a TorchVersion that is no text");
      }
      return MakeTorchVersion(arguments[0]);
    case Meaning::kFirstArgument:
      if (arguments.empty()) return BadValue("wraps a value without giving one");
      return arguments[0];
    case Meaning::kNumpyScalar:
      return DecodeNumpyScalar(context_, arguments);
    default:
      return FromBuffer(arguments);
  }
}

TorchObjectFactory::MaybeNode TorchObjectFactory::ApplyTensor(Meaning meaning,
                                                              const Arguments& arguments) {
  switch (meaning) {
    case Meaning::kParameter:
      return MakeParameter(arguments);
    case Meaning::kBuffer:
      if (arguments.empty() || !IsTensor(tree_, arguments[0])) {
        return context_.Error(ErrorCode::kBadTensorMetadata, "a buffer holds no tensor");
      }
      return arguments[0];
    case Meaning::kOldTensorClass:
      return context_.Error(ErrorCode::kUnsupportedFormat,
                            "holds tensors as torch 0.1 wrote them; load and save the file with a "
                            "newer torch");
    case Meaning::kRebuildFromType:
    case Meaning::kRebuildFromTypeV2:
      return FromType(arguments);
    default: {
      RELIGHT_ASSIGN_OR_RETURN(const NodeId tensor, tensors_.Rebuild(meaning, arguments));
      return tensor;
    }
  }
}

TorchObjectFactory::MaybeNode TorchObjectFactory::LosingType(NodeId node, std::string_view type) {
  RELIGHT_RETURN_IF_ERROR(context_.Charge(type.size()));
  tree_.SetLostType(node, type);
  return node;
}

// The text may be shared with values that are no version.
TorchObjectFactory::MaybeNode TorchObjectFactory::MakeTorchVersion(NodeId text) {
  const std::string version(tree_.text(text));
  RELIGHT_RETURN_IF_ERROR(context_.Charge(version.size()));
  return LosingType(tree_.AddText(NodeKind::kString, version), "torch.torch_version.TorchVersion");
}

TorchObjectFactory::MaybeNode TorchObjectFactory::MakeOrderedDict(const Arguments& arguments) {
  const NodeId dict = tree_.Add(NodeKind::kOrderedDict);
  if (arguments.empty()) return dict;
  if (arguments.size() != 1 || !IsSequence(tree_, arguments[0])) {
    return BadValue("makes an OrderedDict from something that is no list of pairs");
  }
  const Arguments& pairs = tree_.items(arguments[0]);
  RELIGHT_RETURN_IF_ERROR(context_.Charge(pairs.size() * 2 * sizeof(NodeId)));
  for (const NodeId pair : pairs) {
    if (!IsSequence(tree_, pair) || tree_.items(pair).size() != 2) {
      return BadValue("makes an OrderedDict from something that is no list of pairs");
    }
    const NodeId key = tree_.items(pair)[0];
    RELIGHT_RETURN_IF_ERROR(keys_.Insert(dict, key));
    tree_.SetItem(dict, key, tree_.items(pair)[1]);
  }
  return dict;
}

TorchObjectFactory::MaybeNode TorchObjectFactory::CopyDict(NodeKind kind,
                                                           const Arguments& arguments) {
  const NodeId dict = tree_.Add(kind);
  if (arguments.empty()) return dict;
  if (arguments.size() != 1 || !tree_.IsDict(arguments[0])) {
    return BadValue(
        absl::StrCat("makes a ", std::string(Name(kind)), " from something that is no dict"));
  }
  const auto& pairs = tree_.pairs(arguments[0]);
  RELIGHT_RETURN_IF_ERROR(context_.Charge(pairs.size() * 2 * sizeof(NodeId)));
  for (const auto& [key, value] : pairs) {
    RELIGHT_RETURN_IF_ERROR(keys_.Insert(dict, key));
    tree_.SetItem(dict, key, value);
  }
  return dict;
}

TorchObjectFactory::MaybeNode TorchObjectFactory::CopySet(NodeKind kind,
                                                          const Arguments& arguments) {
  const NodeId set = tree_.Add(kind);
  if (arguments.empty()) return set;
  if (arguments.size() != 1 || !IsSequence(tree_, arguments[0])) {
    return BadValue("makes a set from something that is no list");
  }
  const Arguments& items = tree_.items(arguments[0]);
  RELIGHT_RETURN_IF_ERROR(context_.Charge(items.size() * sizeof(NodeId)));
  for (const NodeId item : items) {
    RELIGHT_RETURN_IF_ERROR(keys_.CheckHashable(item));
    tree_.Append(set, item);
  }
  return set;
}

TorchObjectFactory::MaybeNode TorchObjectFactory::Encode(NodeKind kind,
                                                         const Arguments& arguments) {
  if (arguments.size() != 2 || !tree_.Is(arguments[0], NodeKind::kString) ||
      !tree_.Is(arguments[1], NodeKind::kString)) {
    return BadValue("encodes something that is no text");
  }
  const std::string_view encoding = tree_.text(arguments[1]);
  if (encoding != "latin1" && encoding != "latin-1") {
    return BadValue("encodes bytes by another rule than latin1");
  }
  RELIGHT_RETURN_IF_ERROR(context_.Charge(tree_.text(arguments[0]).size()));
  const std::optional<std::string> bytes = ToLatin1(tree_.text(arguments[0]));
  if (!bytes.has_value()) return BadValue("encodes text beyond latin1 as bytes");
  return tree_.AddText(kind, *bytes);
}

TorchObjectFactory::MaybeNode TorchObjectFactory::MakeByteArray(const Arguments& arguments) {
  if (arguments.empty()) return tree_.AddText(NodeKind::kByteArray, "");
  if (arguments.size() == 2) return Encode(NodeKind::kByteArray, arguments);
  if (arguments.size() != 1 || !tree_.Is(arguments[0], NodeKind::kBytes)) return std::nullopt;
  const std::string bytes(tree_.text(arguments[0]));
  RELIGHT_RETURN_IF_ERROR(context_.Charge(bytes.size()));
  return tree_.AddText(NodeKind::kByteArray, bytes);
}

TorchObjectFactory::MaybeNode TorchObjectFactory::MakeComplex(const Arguments& arguments) {
  if (arguments.size() != 2 || !tree_.Is(arguments[0], NodeKind::kFloat) ||
      !tree_.Is(arguments[1], NodeKind::kFloat)) {
    return BadValue("makes a complex number of something else than two floats");
  }
  return tree_.AddComplex(tree_.real(arguments[0]), tree_.real(arguments[1]));
}

TorchObjectFactory::MaybeNode TorchObjectFactory::MakeSize(const Arguments& arguments) {
  if (arguments.size() != 1 || !IsSequence(tree_, arguments[0])) {
    return BadValue("makes a torch.Size of something that is no tuple");
  }
  const Arguments items = tree_.items(arguments[0]);
  RELIGHT_RETURN_IF_ERROR(context_.Charge(items.size() * sizeof(NodeId)));
  const NodeId size = tree_.Add(NodeKind::kSize);
  for (const NodeId item : items) {
    if (!tree_.Is(item, NodeKind::kInt)) {
      return BadValue("makes a torch.Size of something else than integers");
    }
    tree_.Append(size, item);
  }
  return size;
}

TorchObjectFactory::MaybeNode TorchObjectFactory::MakeDevice(const Arguments& arguments) {
  constexpr std::size_t kMaxDeviceBytes = 64;
  if (arguments.empty() || arguments.size() > 2 || !tree_.Is(arguments[0], NodeKind::kString) ||
      tree_.text(arguments[0]).size() > kMaxDeviceBytes) {
    return BadValue("has a torch.device that is no name");
  }
  std::string device(tree_.text(arguments[0]));
  if (arguments.size() == 2) {
    if (!tree_.Is(arguments[1], NodeKind::kInt)) {
      return BadValue("has a torch.device whose index is no integer");
    }
    absl::StrAppend(&device, ":", tree_.integer(arguments[1]));
    // A snapshot writes name and index as one text.
    if (device.size() > kMaxDeviceBytes) {
      return BadValue("has a torch.device whose name is too long");
    }
  }
  return tree_.AddText(NodeKind::kDevice, device);
}

TorchObjectFactory::MaybeNode TorchObjectFactory::MakeParameter(const Arguments& arguments) {
  const bool with_flag = arguments.size() == 2;
  if ((arguments.size() != 1 && !with_flag) ||
      (with_flag && !tree_.Is(arguments[1], NodeKind::kBool))) {
    return context_.Error(ErrorCode::kBadTensorMetadata,
                          "a parameter is made from something else than a tensor and a flag");
  }
  const bool requires_grad = !with_flag || tree_.boolean(arguments[1]);
  RELIGHT_ASSIGN_OR_RETURN(const NodeId parameter,
                           tensors_.MakeParameter(arguments[0], requires_grad));
  bare_parameters_.insert(parameter);
  return parameter;
}

// (function, type, arguments, state): how subclasses of torch.Tensor are pickled.
TorchObjectFactory::MaybeNode TorchObjectFactory::FromType(const Arguments& arguments) {
  const auto bad = [&](std::string_view message) {
    return context_.Error(ErrorCode::kBadTensorMetadata, message);
  };
  if (arguments.size() != 4 || !tree_.Is(arguments[0], NodeKind::kSymbol) ||
      !tree_.Is(arguments[1], NodeKind::kSymbol) || !tree_.Is(arguments[2], NodeKind::kTuple)) {
    return bad("a tensor of a subclass is not rebuilt from (function, type, arguments, state)");
  }
  const Meaning inner = MeaningOf(arguments[0]);
  if (inner == Meaning::kRebuildFromType || inner == Meaning::kRebuildFromTypeV2) {
    return bad("a tensor of a subclass is rebuilt through another subclass");
  }
  if (tree_.items(arguments[2]).size() > kFreeArguments) {
    return bad("a tensor of a subclass is rebuilt from too many arguments");
  }
  const Arguments inner_arguments = tree_.items(arguments[2]);
  RELIGHT_ASSIGN_OR_RETURN(const NodeId tensor, tensors_.Rebuild(inner, inner_arguments));
  const bool has_state = !tree_.Is(arguments[3], NodeKind::kNone) &&
                         !(tree_.IsDict(arguments[3]) && tree_.pairs(arguments[3]).empty());
  const std::string type = DottedName(tree_.text(arguments[1]));
  const Meaning meaning = MeaningOf(arguments[1]);
  if (meaning == Meaning::kParameter) tree_.mutable_tensor(tensor).is_parameter = true;
  if (has_state) return LosingType(tensor, absl::StrCat(type, " with attributes"));
  const bool is_known = meaning == Meaning::kParameter || meaning == Meaning::kInert;
  return is_known ? MaybeNode(tensor) : LosingType(tensor, type);
}

TorchObjectFactory::MaybeNode TorchObjectFactory::FromBuffer(const Arguments& arguments) {
  RELIGHT_ASSIGN_OR_RETURN(std::optional<NumpyArrayInfo> array,
                           DecodeNumpyBuffer(context_, arguments));
  if (!array.has_value()) return std::nullopt;
  return tree_.AddArray(*std::move(array));
}

absl::StatusOr<NodeId> TorchObjectFactory::MakeOpaque(NodeId callable, NodeId arguments,
                                                      OpaqueMake how) {
  RELIGHT_RETURN_IF_ERROR(context_.Charge(sizeof(OpaqueInfo)));
  // numpy's own pieces are no classes that an operator should hear of.
  const Meaning meaning = MeaningOf(callable);
  if (tree_.Is(callable, NodeKind::kSymbol) && meaning != Meaning::kNumpyDType &&
      meaning != Meaning::kNumpyReconstruct && opaque_classes_.size() < kMaxReportedClasses &&
      reported_classes_.insert(callable).second) {
    opaque_classes_.push_back(DottedName(tree_.text(callable)));
  }
  OpaqueInfo info;
  info.callable = callable;
  info.arguments = arguments;
  info.made_by = how;
  return tree_.AddOpaque(std::move(info));
}

absl::Status TorchObjectFactory::Build(NodeId object, NodeId state) {
  switch (tree_.kind(object)) {
    case NodeKind::kOpaque:
      return BuildOpaque(object, state);
    case NodeKind::kOrderedDict:
      return BuildOrderedDict(object, state);
    case NodeKind::kTensor:
    case NodeKind::kUnsupportedTensor:
      if (bare_parameters_.contains(object)) return BuildParameter(object, state);
      break;
    default:
      break;
  }
  return context_.Error(
      ErrorCode::kPickleBadStack,
      absl::StrCat("sets the state of a ", std::string(Name(tree_.kind(object)))));
}

absl::Status TorchObjectFactory::BuildOpaque(NodeId object, NodeId state) {
  if (MeaningOf(tree_.opaque(object).callable) == Meaning::kNumpyReconstruct) {
    RELIGHT_ASSIGN_OR_RETURN(std::optional<NumpyArrayInfo> array,
                             DecodeNumpyState(context_, state));
    if (array.has_value()) {
      tree_.BecomeArray(object, *std::move(array));
      return absl::OkStatus();
    }
  }
  tree_.mutable_opaque(object).states.push_back(state);
  return absl::OkStatus();
}

absl::Status TorchObjectFactory::BuildOrderedDict(NodeId object, NodeId state) {
  // Objects with slots have (dict or None, slots).
  if (tree_.Is(state, NodeKind::kTuple) && tree_.items(state).size() == 2) {
    state = tree_.items(state)[0];
    if (tree_.Is(state, NodeKind::kNone)) return absl::OkStatus();
  }
  if (!tree_.IsDict(state)) return BadValue("has an OrderedDict whose attributes are not a dict");
  const NodeId metadata = tree_.Find(state, "_metadata");
  if (metadata != kNoNode && !tree_.IsDict(metadata)) {
    return BadValue("has a state dict whose _metadata is not a dict");
  }
  if (tree_.attributes(object) != kNoNode) {
    return BadValue("sets the attributes of an OrderedDict twice");
  }
  tree_.SetAttributes(object, state);
  return absl::OkStatus();
}

// (requires_grad, bool, hooks): files of torch 0.3.
absl::Status TorchObjectFactory::BuildParameter(NodeId object, NodeId state) {
  if (!tree_.Is(state, NodeKind::kTuple) || tree_.items(state).size() != 3 ||
      !tree_.Is(tree_.items(state)[0], NodeKind::kBool)) {
    return context_.Error(ErrorCode::kPickleBadStack,
                          "sets the state of a parameter to something else than three values");
  }
  tree_.mutable_tensor(object).requires_grad = tree_.boolean(tree_.items(state)[0]);
  return absl::OkStatus();
}

}  // namespace relight::storage
