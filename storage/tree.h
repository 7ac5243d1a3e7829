// What a checkpoint holds, as plain values: numbers, strings, containers, tensors described but not
// read, and opaque nodes for every class that we do not know (nothing is ever called).
//
// Nodes live in one arena and refer to each other by index, so that no depth of nesting and no
// cycle touches the C++ stack. Nodes may be shared (a tied weight is one node under two keys).
//
// Thread-safety: const methods may be called from several threads at once.
#ifndef RELIGHT_STORAGE_TREE_H_
#define RELIGHT_STORAGE_TREE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "storage/dtype.h"

namespace relight::storage {

using NodeId = std::uint32_t;
inline constexpr NodeId kNoNode = 0xFFFFFFFF;

enum class NodeKind : std::uint8_t {
  kNone,
  kBool,
  kInt,     // Fits an int64.
  kBigInt,  // Wider: two's complement little-endian bytes in text().
  kFloat,   // 64 bits, kept bit for bit.
  kComplex,
  kString,     // UTF-8 (lone surrogates allowed) in text().
  kBytes,      // text()
  kByteArray,  // text()
  kList,
  kTuple,
  kDict,
  kOrderedDict,  // attributes() may hold a dict such as {'_metadata': ...}.
  kCounter,
  kSet,
  kFrozenSet,
  kSize,               // torch.Size: items() are ints.
  kDevice,             // torch.device: text() such as "cuda:0".
  kDType,              // torch.float32 as a value: text() is its torch name.
  kLayout,             // text()
  kQScheme,            // text()
  kSymbol,             // A class or function by name: text() is "module name" joined by one space.
  kStorage,            // A bare storage as a value: storage().
  kTensor,             // tensor()
  kUnsupportedTensor,  // Sparse, quantised, meta, nested: tensor() without bytes; text() says what.
  kNumpyScalar,        // items()[0] is the kInt, kFloat, kBool or kComplex that it stands for.
  kNumpyArray,         // array()
  kOpaque,             // opaque()
};

std::string_view Name(NodeKind kind);

struct TensorInfo {
  DType dtype = DType::kFloat32;
  std::uint32_t storage = 0;         // Index into Checkpoint::storages().
  std::int64_t offset_elements = 0;  // Into the storage, in elements of `dtype`.
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> stride;  // In elements; never negative.
  bool requires_grad = false;
  bool is_parameter = false;  // Was a torch.nn.Parameter.
  bool conj = false;          // The bytes are those before conjugation.
  bool neg = false;           // The bytes are those before negation.
};

struct NumpyArrayInfo {
  std::string dtype;  // "f4", "i8", ... without byte order.
  std::vector<std::int64_t> shape;
  bool fortran = false;
  std::string bytes;  // Little-endian.
};

enum class OpaqueMake : std::uint8_t { kReduce, kNewObj, kNewObjEx };

// An object of a class without a meaning here: what would have been called, with what.
struct OpaqueInfo {
  NodeId callable = kNoNode;   // A symbol or another opaque.
  NodeId arguments = kNoNode;  // A tuple.
  OpaqueMake made_by = OpaqueMake::kReduce;
  std::vector<NodeId> states;  // Arguments of BUILD.
  std::vector<NodeId> appended;
  std::vector<std::pair<NodeId, NodeId>> set_items;
};

class Tree {
 public:
  NodeId root() const { return root_; }
  std::size_t size() const { return nodes_.size(); }

  NodeKind kind(NodeId node) const { return nodes_[node].kind; }
  bool Is(NodeId node, NodeKind kind) const { return nodes_[node].kind == kind; }
  // kDict, kOrderedDict or kCounter.
  bool IsDict(NodeId node) const;

  bool boolean(NodeId node) const { return nodes_[node].payload != 0; }
  std::int64_t integer(NodeId node) const { return nodes_[node].payload; }
  double real(NodeId node) const;
  std::pair<double, double> complex(NodeId node) const;
  // Valid until the next node is added.
  std::string_view text(NodeId node) const;
  // Of kList, kTuple, kSet, kFrozenSet, kSize and kNumpyScalar.
  const std::vector<NodeId>& items(NodeId node) const;
  // Of dicts, in the file's order.
  const std::vector<std::pair<NodeId, NodeId>>& pairs(NodeId node) const;
  // Of an OrderedDict that had attributes set, or the root of a safetensors file ({'__metadata__':
  // ...}): a kDict. Else kNoNode.
  NodeId attributes(NodeId node) const;
  // What the file says of a node's type beyond its kind, and nothing here needs to know but who
  // writes it again: "collections.defaultdict" of a kDict, the subclass of a tensor. Else "".
  std::string_view lost_type(NodeId node) const;
  const TensorInfo& tensor(NodeId node) const;
  std::uint32_t storage(NodeId node) const;
  const NumpyArrayInfo& array(NodeId node) const;
  const OpaqueInfo& opaque(NodeId node) const;

  // The value under a string key of a dict; kNoNode where there is none.
  NodeId Find(NodeId dict, std::string_view key) const;

  // Building. A node's kind is settled when it is added; containers grow afterwards, because a
  // pickle memoises them empty. Only the parser and tests build trees.
  NodeId Add(NodeKind kind);
  NodeId AddBool(bool value);
  NodeId AddInt(std::int64_t value);
  NodeId AddFloat(double value);
  NodeId AddComplex(double real, double imaginary);
  NodeId AddText(NodeKind kind, std::string_view text);
  NodeId AddTensor(TensorInfo tensor);
  // `what` says why its elements cannot be had: "sparse_coo", "quantised", "meta", ...
  NodeId AddUnsupportedTensor(TensorInfo tensor, std::string_view what);
  NodeId AddStorage(std::uint32_t storage);
  NodeId AddArray(NumpyArrayInfo array);
  NodeId AddOpaque(OpaqueInfo opaque);
  void Append(NodeId container, NodeId item);
  void SetItem(NodeId dict, NodeId key, NodeId value);  // Does not look for duplicates.
  void SetAttributes(NodeId object, NodeId dict);
  void SetLostType(NodeId node, std::string_view type);
  OpaqueInfo& mutable_opaque(NodeId node);
  TensorInfo& mutable_tensor(NodeId node);
  // A numpy array comes in two steps: made without content, filled later. Until then its kind is
  // not settled.
  void BecomeArray(NodeId opaque, NumpyArrayInfo array);
  void set_root(NodeId root) { root_ = root; }

 private:
  struct Node {
    NodeKind kind;
    // The value itself for bools, ints, floats (their bits) and storages; else an index into the
    // pool that the kind uses.
    std::int64_t payload = 0;
  };
  struct TextRun {
    std::uint64_t offset = 0;
    std::uint64_t size_bytes = 0;
  };
  struct DictData {
    std::vector<std::pair<NodeId, NodeId>> pairs;
    NodeId attributes = kNoNode;
  };
  struct UnsupportedTensor {
    TensorInfo info;
    std::string what;
  };

  NodeId AddNode(NodeKind kind, std::int64_t payload);
  std::size_t PoolIndex(NodeId node) const {
    return static_cast<std::size_t>(nodes_[node].payload);
  }

  NodeId root_ = kNoNode;
  std::vector<Node> nodes_;
  std::string text_;
  std::vector<TextRun> texts_;
  std::vector<std::pair<double, double>> complexes_;
  std::vector<std::vector<NodeId>> sequences_;
  std::vector<DictData> dicts_;
  std::vector<TensorInfo> tensors_;
  std::vector<UnsupportedTensor> unsupported_;
  std::vector<NumpyArrayInfo> arrays_;
  std::vector<OpaqueInfo> opaques_;
  std::map<NodeId, std::string> lost_types_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_TREE_H_
