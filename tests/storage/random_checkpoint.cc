#include "tests/storage/random_checkpoint.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <limits>
#include <utility>

#include "storage/bytes.h"

namespace relight::storage {
namespace {

constexpr int kMaxDepth = 6;
constexpr std::size_t kMaxShared = 500;

constexpr DType kDTypes[] = {
    DType::kBool,          DType::kUInt8,      DType::kInt8,           DType::kUInt16,
    DType::kInt16,         DType::kUInt32,     DType::kInt32,          DType::kUInt64,
    DType::kInt64,         DType::kFloat16,    DType::kBFloat16,       DType::kFloat32,
    DType::kFloat64,       DType::kComplex32,  DType::kComplex64,      DType::kComplex128,
    DType::kFloat8E4M3FN,  DType::kFloat8E5M2, DType::kFloat8E4M3FNUZ, DType::kFloat8E5M2FNUZ,
    DType::kFloat8E8M0FNU, DType::kBits8,      DType::kBits16,         DType::kBits1x8,
    DType::kBits2x4,       DType::kBits4x2,    DType::kFloat4E2M1FNx2,
};

}  // namespace

RandomCheckpoint::RandomCheckpoint(unsigned seed) : random_(seed) {
  AddStorages();
  const NodeKind kinds[] = {NodeKind::kDict, NodeKind::kOrderedDict};
  tree_.set_root(AddDict(kinds[Below(2)], 0));
}

absl::Status RandomCheckpoint::Stream(std::uint32_t index, const ByteSink& sink) const {
  constexpr std::size_t kPieceBytes = 300;
  std::string_view left = storages_[index].bytes;
  while (!left.empty()) {
    const std::string_view piece = left.substr(0, kPieceBytes);
    left.remove_prefix(piece.size());
    if (absl::Status status = sink(AsBytes(piece)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::size_t RandomCheckpoint::Below(std::size_t limit) {
  return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random_);
}

// Of every width, both signs.
std::int64_t RandomCheckpoint::Integer() {
  const auto bits = static_cast<std::int64_t>(random_() >> Below(64));
  return OneIn(2) ? bits : -bits;
}

std::string RandomCheckpoint::Text() {
  static const std::string kPieces[] = {"a",
                                        "layer.0.weight",
                                        "\xc3\xa9",
                                        "\xe2\x82\xac",
                                        "\xf0\x9f\x94\xa5",
                                        "\xed\xa0\x80",  // A surrogate alone.
                                        std::string(1, '\0'),
                                        "\n",
                                        "/"};
  std::string out;
  for (std::size_t i = Below(4); i > 0; --i) out += kPieces[Below(std::size(kPieces))];
  return out;
}

std::string RandomCheckpoint::Bytes(std::size_t size) {
  std::string bytes(size, '\0');
  for (char& c : bytes) c = static_cast<char>(random_());
  return bytes;
}

DType RandomCheckpoint::AnyDType() { return kDTypes[Below(std::size(kDTypes))]; }

void RandomCheckpoint::AddStorages() {
  for (std::size_t count = 1 + Below(8); count > 0; --count) {
    Storage storage;
    storage.untyped = OneIn(4);
    // Only these have a storage class; what PyTorch keeps of others is untyped.
    constexpr DType kWithClass[] = {DType::kFloat32, DType::kFloat64,   DType::kInt64,
                                    DType::kBool,    DType::kBFloat16,  DType::kInt16,
                                    DType::kInt8,    DType::kComplex64, DType::kComplex128};
    if (!storage.untyped) storage.dtype = kWithClass[Below(std::size(kWithClass))];
    const std::size_t item = ItemSize(storage.dtype);
    // Large enough, at times, that a small view of it is cut out.
    storage.bytes = Bytes((OneIn(3) ? Below(6000) : Below(200)) / item * item);
    storages_.push_back(std::move(storage));
  }
}

NodeId RandomCheckpoint::AddValue(int depth) {
  NodeId node = kNoNode;
  if (!finished_.empty() && OneIn(8)) return finished_[Below(finished_.size())];
  if (OneIn(20)) {
    node = AddUnwritable();
  } else if (depth < kMaxDepth && OneIn(3)) {
    node = AddContainer(depth + 1);
  } else if (OneIn(2)) {
    node = AddTensor();
  } else {
    node = AddLeaf();
  }
  const std::size_t unfolded = Unfolded(node);
  unfolded_.emplace(node, unfolded);
  if (unfolded <= kMaxShared) finished_.push_back(node);
  return node;
}

std::size_t RandomCheckpoint::Unfolded(NodeId node) const {
  const auto known = [this](NodeId child) {
    const auto found = unfolded_.find(child);
    return found == unfolded_.end() ? 1 : found->second;
  };
  std::size_t count = 1;
  if (tree_.IsDict(node)) {
    for (const auto& [key, value] : tree_.pairs(node)) count += known(value);
  } else if (tree_.Is(node, NodeKind::kList) || tree_.Is(node, NodeKind::kTuple)) {
    for (const NodeId item : tree_.items(node)) count += known(item);
  }
  return count;
}

NodeId RandomCheckpoint::AddContainer(int depth) {
  switch (Below(8)) {
    case 0:
      return AddSequence(NodeKind::kList, depth);
    case 1:
      return AddSequence(NodeKind::kTuple, depth);
    case 2:
      return AddSet(depth);
    case 3:
      return AddDict(NodeKind::kCounter, depth);
    case 4:
    case 5:
      return AddDict(NodeKind::kOrderedDict, depth);
    default:
      return AddDict(NodeKind::kDict, depth);
  }
}

NodeId RandomCheckpoint::AddSequence(NodeKind kind, int depth) {
  const NodeId sequence = tree_.Add(kind);
  // Beyond a thousand items, containers are written in batches.
  if (OneIn(50)) {
    for (std::size_t i = 990 + Below(30); i > 0; --i) tree_.Append(sequence, AddLeaf());
  }
  for (std::size_t i = Below(6); i > 0; --i) tree_.Append(sequence, AddValue(depth));
  return sequence;
}

NodeId RandomCheckpoint::AddSet(int) {
  const NodeId set = tree_.Add(NodeKind::kSet);
  for (std::size_t i = Below(5); i > 0; --i) tree_.Append(set, AddKey());
  return set;
}

NodeId RandomCheckpoint::AddDict(NodeKind kind, int depth) {
  const NodeId dict = tree_.Add(kind);
  // Beyond a thousand entries, dicts are written in batches. Those hold no containers.
  const bool large = OneIn(50);
  for (std::size_t i = large ? 1000 + Below(10) : Below(8); i > 0; --i) {
    const NodeId key = AddKey();
    tree_.SetItem(dict, key, AddValue(large ? kMaxDepth : depth));
  }
  if (kind != NodeKind::kOrderedDict || OneIn(2)) return dict;
  const NodeId attributes = tree_.Add(NodeKind::kDict);
  tree_.SetItem(attributes, tree_.AddText(NodeKind::kString, "_metadata"),
                AddDict(OneIn(2) ? NodeKind::kOrderedDict : NodeKind::kDict, kMaxDepth));
  if (OneIn(4)) tree_.SetItem(attributes, AddKey(), AddValue(depth));
  tree_.SetAttributes(dict, attributes);
  return dict;
}

NodeId RandomCheckpoint::AddLeaf() {
  static constexpr double kFloats[] = {0.0,
                                       -0.0,
                                       1.0,
                                       0.1,
                                       std::numeric_limits<double>::infinity(),
                                       std::numeric_limits<double>::quiet_NaN(),
                                       std::numeric_limits<double>::denorm_min()};
  switch (Below(11)) {
    case 0:
      return tree_.Add(NodeKind::kNone);
    case 1:
      return tree_.AddBool(OneIn(2));
    case 2:
      return tree_.AddInt(Integer());
    case 3:
      return tree_.AddFloat(OneIn(2) ? kFloats[Below(std::size(kFloats))]
                                     : std::bit_cast<double>(random_()));
    case 4: {
      // More bytes than an int64 has, none of which repeats the sign.
      std::string wide = Bytes(9 + Below(200));
      wide.back() = OneIn(2) ? '\x40' : '\x80';
      return tree_.AddText(NodeKind::kBigInt, wide);
    }
    case 5:
      return tree_.AddText(NodeKind::kBytes, Bytes(Below(40)));
    case 6:
      return tree_.AddText(NodeKind::kDevice, OneIn(2) ? "cpu" : "cuda:1");
    case 7:
      return tree_.AddText(NodeKind::kDType, Name(AnyDType()));
    case 8: {
      const NodeId size = tree_.Add(NodeKind::kSize);
      for (std::size_t i = Below(6); i > 0; --i) tree_.Append(size, tree_.AddInt(Integer()));
      return size;
    }
    case 9:
      return AddNumpyScalar();
    default:
      return tree_.AddText(NodeKind::kString, Text());
  }
}

NodeId RandomCheckpoint::AddNumpyScalar() {
  const NodeId value = OneIn(3)   ? tree_.AddFloat(std::bit_cast<double>(random_()))
                       : OneIn(2) ? tree_.AddInt(Integer())
                                  : tree_.AddBool(OneIn(2));
  const NodeId scalar = tree_.Add(NodeKind::kNumpyScalar);
  tree_.Append(scalar, value);
  return scalar;
}

NodeId RandomCheckpoint::AddUnwritable() {
  switch (Below(6)) {
    case 0:
      return tree_.AddComplex(1, 2);
    case 1:
      return tree_.AddText(NodeKind::kByteArray, "bytes");
    case 2:
      return tree_.AddText(NodeKind::kLayout, "strided");
    case 3:
      return tree_.AddUnsupportedTensor(TensorInfo(), "sparse_coo");
    case 4:
      return tree_.AddArray(NumpyArrayInfo());
    default: {
      OpaqueInfo object;
      object.callable = tree_.AddText(NodeKind::kSymbol, "argparse Namespace");
      object.arguments = tree_.Add(NodeKind::kTuple);
      return tree_.AddOpaque(std::move(object));
    }
  }
}

NodeId RandomCheckpoint::AddTensor() {
  TensorInfo tensor;
  tensor.storage = static_cast<std::uint32_t>(Below(storages_.size()));
  const Storage& storage = storages_[tensor.storage];
  if (OneIn(20)) return tree_.AddStorage(tensor.storage);
  tensor.dtype = storage.untyped || OneIn(6) ? AnyDType() : storage.dtype;
  const auto elements = static_cast<std::int64_t>(storage.bytes.size() / ItemSize(tensor.dtype));
  for (std::size_t rank = Below(5); rank > 0; --rank) {
    tensor.shape.push_back(static_cast<std::int64_t>(Below(6)));
  }
  MakeStrides(tensor, elements);
  tensor.is_parameter = OneIn(4);
  tensor.requires_grad = OneIn(3);
  tensor.conj = IsComplex(tensor.dtype) && OneIn(3);
  tensor.neg = (IsComplex(tensor.dtype) || IsFloatingPoint(tensor.dtype)) && OneIn(6);
  return tree_.AddTensor(std::move(tensor));
}

// Transposed, with gaps, overlapping or expanded; always within `elements`, unless nothing is seen.
void RandomCheckpoint::MakeStrides(TensorInfo& tensor, std::int64_t elements) {
  const std::size_t rank = tensor.shape.size();
  std::vector<std::size_t> order(rank);
  for (std::size_t i = 0; i < rank; ++i) order[i] = i;
  if (OneIn(2)) std::shuffle(order.begin(), order.end(), random_);
  tensor.stride.assign(rank, 0);
  const bool empty = std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end();
  std::int64_t step = 1;
  std::int64_t last = 0;
  for (const std::size_t i : order) {
    if (OneIn(8)) step = static_cast<std::int64_t>(Below(4));
    if (!empty && last + (tensor.shape[i] - 1) * step >= elements) tensor.shape[i] = 1;
    tensor.stride[i] = step;
    last += (tensor.shape[i] - 1) * step;
    step = std::max<std::int64_t>(step * tensor.shape[i], 1);
  }
  if (empty) {
    tensor.offset_elements = static_cast<std::int64_t>(Below(10000));
  } else if (elements == 0) {
    tensor.shape.assign(rank + 1, 0);
    tensor.stride.assign(rank + 1, 1);
  } else {
    const auto free = static_cast<std::size_t>(elements - last);
    tensor.offset_elements = static_cast<std::int64_t>(Below(free));
  }
}

NodeId RandomCheckpoint::AddKey() {
  const std::int64_t number = ++keys_;
  switch (Below(12)) {
    case 0:
      return tree_.AddInt(number);
    case 1:
      return tree_.AddFloat(static_cast<double>(number) + 0.5);
    case 2: {
      const NodeId tuple = tree_.Add(NodeKind::kTuple);
      tree_.Append(tuple, tree_.AddInt(number));
      tree_.Append(tuple, AddLeaf());
      return tuple;
    }
    case 3:
      return tree_.AddText(NodeKind::kBytes, std::to_string(number) + "\xff");
    case 4: {
      const NodeId scalar = tree_.Add(NodeKind::kNumpyScalar);
      tree_.Append(scalar, tree_.AddInt(number));
      return scalar;
    }
    case 5: {
      const NodeId tuple = tree_.Add(NodeKind::kTuple);
      tree_.Append(tuple, tree_.AddInt(number));
      tree_.Append(tuple, AddUnwritable());
      return tuple;
    }
    default:
      return tree_.AddText(NodeKind::kString, Text() + std::to_string(number));
  }
}

}  // namespace relight::storage
