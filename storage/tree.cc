#include "storage/tree.h"

#include <bit>
#include <cassert>

namespace relight::storage {
namespace {

[[maybe_unused]] bool HoldsText(NodeKind kind) {
  switch (kind) {
    case NodeKind::kBigInt:
    case NodeKind::kString:
    case NodeKind::kBytes:
    case NodeKind::kByteArray:
    case NodeKind::kDevice:
    case NodeKind::kDType:
    case NodeKind::kLayout:
    case NodeKind::kQScheme:
    case NodeKind::kSymbol:
      return true;
    default:
      return false;
  }
}

bool HoldsItems(NodeKind kind) {
  switch (kind) {
    case NodeKind::kList:
    case NodeKind::kTuple:
    case NodeKind::kSet:
    case NodeKind::kFrozenSet:
    case NodeKind::kSize:
    case NodeKind::kNumpyScalar:
      return true;
    default:
      return false;
  }
}

bool HoldsPairs(NodeKind kind) {
  return kind == NodeKind::kDict || kind == NodeKind::kOrderedDict || kind == NodeKind::kCounter;
}

[[maybe_unused]] bool HoldsTensor(NodeKind kind) {
  return kind == NodeKind::kTensor || kind == NodeKind::kUnsupportedTensor;
}

}  // namespace

std::string_view Name(NodeKind kind) {
  switch (kind) {
    case NodeKind::kNone:
      return "None";
    case NodeKind::kBool:
      return "bool";
    case NodeKind::kInt:
    case NodeKind::kBigInt:
      return "int";
    case NodeKind::kFloat:
      return "float";
    case NodeKind::kComplex:
      return "complex";
    case NodeKind::kString:
      return "str";
    case NodeKind::kBytes:
      return "bytes";
    case NodeKind::kByteArray:
      return "bytearray";
    case NodeKind::kList:
      return "list";
    case NodeKind::kTuple:
      return "tuple";
    case NodeKind::kDict:
      return "dict";
    case NodeKind::kOrderedDict:
      return "OrderedDict";
    case NodeKind::kCounter:
      return "Counter";
    case NodeKind::kSet:
      return "set";
    case NodeKind::kFrozenSet:
      return "frozenset";
    case NodeKind::kSize:
      return "torch.Size";
    case NodeKind::kDevice:
      return "torch.device";
    case NodeKind::kDType:
      return "torch.dtype";
    case NodeKind::kLayout:
      return "torch.layout";
    case NodeKind::kQScheme:
      return "torch.qscheme";
    case NodeKind::kSymbol:
      return "class or function";
    case NodeKind::kStorage:
      return "storage";
    case NodeKind::kTensor:
      return "tensor";
    case NodeKind::kUnsupportedTensor:
      return "unsupported tensor";
    case NodeKind::kNumpyScalar:
      return "numpy scalar";
    case NodeKind::kNumpyArray:
      return "numpy array";
    case NodeKind::kOpaque:
      return "object";
  }
  return "?";
}

bool Tree::IsDict(NodeId node) const { return HoldsPairs(nodes_[node].kind); }

double Tree::real(NodeId node) const {
  assert(Is(node, NodeKind::kFloat));
  return std::bit_cast<double>(nodes_[node].payload);
}

std::pair<double, double> Tree::complex(NodeId node) const {
  assert(Is(node, NodeKind::kComplex));
  return complexes_[PoolIndex(node)];
}

std::string_view Tree::text(NodeId node) const {
  const Node& n = nodes_[node];
  if (n.kind == NodeKind::kUnsupportedTensor) return unsupported_[PoolIndex(node)].what;
  assert(HoldsText(n.kind));
  const TextRun& run = texts_[PoolIndex(node)];
  return std::string_view(text_).substr(run.offset, run.size_bytes);
}

const std::vector<NodeId>& Tree::items(NodeId node) const {
  assert(HoldsItems(kind(node)));
  return sequences_[PoolIndex(node)];
}

const std::vector<std::pair<NodeId, NodeId>>& Tree::pairs(NodeId node) const {
  assert(IsDict(node));
  return dicts_[PoolIndex(node)].pairs;
}

NodeId Tree::attributes(NodeId node) const {
  assert(IsDict(node));
  return dicts_[PoolIndex(node)].attributes;
}

std::string_view Tree::lost_type(NodeId node) const {
  const auto found = lost_types_.find(node);
  return found == lost_types_.end() ? std::string_view() : found->second;
}

const TensorInfo& Tree::tensor(NodeId node) const {
  if (kind(node) == NodeKind::kUnsupportedTensor) return unsupported_[PoolIndex(node)].info;
  assert(Is(node, NodeKind::kTensor));
  return tensors_[PoolIndex(node)];
}

std::uint32_t Tree::storage(NodeId node) const {
  assert(Is(node, NodeKind::kStorage));
  return static_cast<std::uint32_t>(nodes_[node].payload);
}

const NumpyArrayInfo& Tree::array(NodeId node) const {
  assert(Is(node, NodeKind::kNumpyArray));
  return arrays_[PoolIndex(node)];
}

const OpaqueInfo& Tree::opaque(NodeId node) const {
  assert(Is(node, NodeKind::kOpaque));
  return opaques_[PoolIndex(node)];
}

NodeId Tree::Find(NodeId dict, std::string_view key) const {
  for (const auto& [candidate, value] : pairs(dict)) {
    if (Is(candidate, NodeKind::kString) && text(candidate) == key) return value;
  }
  return kNoNode;
}

NodeId Tree::AddNode(NodeKind kind, std::int64_t payload) {
  nodes_.push_back({kind, payload});
  return static_cast<NodeId>(nodes_.size() - 1);
}

NodeId Tree::Add(NodeKind kind) {
  if (HoldsItems(kind)) {
    sequences_.emplace_back();
    return AddNode(kind, static_cast<std::int64_t>(sequences_.size() - 1));
  }
  if (HoldsPairs(kind)) {
    dicts_.emplace_back();
    return AddNode(kind, static_cast<std::int64_t>(dicts_.size() - 1));
  }
  assert(kind == NodeKind::kNone);
  return AddNode(kind, 0);
}

NodeId Tree::AddBool(bool value) { return AddNode(NodeKind::kBool, value ? 1 : 0); }

NodeId Tree::AddInt(std::int64_t value) { return AddNode(NodeKind::kInt, value); }

NodeId Tree::AddFloat(double value) {
  return AddNode(NodeKind::kFloat, std::bit_cast<std::int64_t>(value));
}

NodeId Tree::AddComplex(double real, double imaginary) {
  complexes_.emplace_back(real, imaginary);
  return AddNode(NodeKind::kComplex, static_cast<std::int64_t>(complexes_.size() - 1));
}

NodeId Tree::AddText(NodeKind kind, std::string_view text) {
  assert(HoldsText(kind));
  texts_.push_back({text_.size(), text.size()});
  text_.append(text);
  return AddNode(kind, static_cast<std::int64_t>(texts_.size() - 1));
}

NodeId Tree::AddTensor(TensorInfo tensor) {
  tensors_.push_back(std::move(tensor));
  return AddNode(NodeKind::kTensor, static_cast<std::int64_t>(tensors_.size() - 1));
}

NodeId Tree::AddUnsupportedTensor(TensorInfo tensor, std::string_view what) {
  unsupported_.push_back({std::move(tensor), std::string(what)});
  return AddNode(NodeKind::kUnsupportedTensor, static_cast<std::int64_t>(unsupported_.size() - 1));
}

NodeId Tree::AddStorage(std::uint32_t storage) { return AddNode(NodeKind::kStorage, storage); }

NodeId Tree::AddArray(NumpyArrayInfo array) {
  arrays_.push_back(std::move(array));
  return AddNode(NodeKind::kNumpyArray, static_cast<std::int64_t>(arrays_.size() - 1));
}

NodeId Tree::AddOpaque(OpaqueInfo opaque) {
  opaques_.push_back(std::move(opaque));
  return AddNode(NodeKind::kOpaque, static_cast<std::int64_t>(opaques_.size() - 1));
}

void Tree::Append(NodeId container, NodeId item) {
  assert(HoldsItems(kind(container)));
  sequences_[PoolIndex(container)].push_back(item);
}

void Tree::SetItem(NodeId dict, NodeId key, NodeId value) {
  assert(IsDict(dict));
  dicts_[PoolIndex(dict)].pairs.emplace_back(key, value);
}

void Tree::SetAttributes(NodeId object, NodeId dict) {
  assert(IsDict(object));
  dicts_[PoolIndex(object)].attributes = dict;
}

void Tree::SetLostType(NodeId node, std::string_view type) { lost_types_[node] = type; }

OpaqueInfo& Tree::mutable_opaque(NodeId node) {
  assert(Is(node, NodeKind::kOpaque));
  return opaques_[PoolIndex(node)];
}

TensorInfo& Tree::mutable_tensor(NodeId node) {
  assert(HoldsTensor(kind(node)));
  if (kind(node) == NodeKind::kUnsupportedTensor) return unsupported_[PoolIndex(node)].info;
  return tensors_[PoolIndex(node)];
}

void Tree::BecomeArray(NodeId opaque, NumpyArrayInfo array) {
  assert(Is(opaque, NodeKind::kOpaque));
  arrays_.push_back(std::move(array));
  nodes_[opaque] = {NodeKind::kNumpyArray, static_cast<std::int64_t>(arrays_.size() - 1)};
}

}  // namespace relight::storage
