#include "storage/tree_pickler.h"

#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/checkpoint.h"
#include "storage/error.h"
#include "storage/pickle_writer.h"
#include "storage/strided.h"

namespace relight::storage {
namespace {

constexpr std::size_t kBatch = 1000;  // As Python's pickler.
// Slices of a storage begin at multiples of this, so that no element is cut.
constexpr std::uint64_t kSliceAlignment = 16;
// Below this, what slicing would save is not worth a change.
constexpr std::uint64_t kWorthSlicing = 1024;

// The class of storages of a dtype; nullopt for dtypes that PyTorch writes over untyped ones.
std::optional<std::string_view> StorageClass(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return "DoubleStorage";
    case DType::kFloat32:
      return "FloatStorage";
    case DType::kFloat16:
      return "HalfStorage";
    case DType::kBFloat16:
      return "BFloat16Storage";
    case DType::kInt64:
      return "LongStorage";
    case DType::kInt32:
      return "IntStorage";
    case DType::kInt16:
      return "ShortStorage";
    case DType::kInt8:
      return "CharStorage";
    case DType::kUInt8:
      return "ByteStorage";
    case DType::kBool:
      return "BoolStorage";
    case DType::kComplex64:
      return "ComplexFloatStorage";
    case DType::kComplex128:
      return "ComplexDoubleStorage";
    default:
      return std::nullopt;
  }
}

// A storage as it will be named in the pickle.
struct NamedStorage {
  std::string key;
  std::optional<DType> dtype;  // nullopt: untyped.
  std::uint64_t begin_bytes = 0;
  std::uint64_t size_bytes = 0;
  bool sliced = false;
};

class TreePickler {
 public:
  TreePickler(const Tree& tree, const WritePlan& plan, const StorageSource& source,
              const ReadLimits& limits)
      : tree_(tree), plan_(plan), source_(source), limits_(limits) {}

  absl::StatusOr<PickledTree> Run(NodeId root);

 private:
  // A container that is being written.
  struct Frame {
    NodeId node = kNoNode;
    std::vector<NodeId> children;  // Of dicts: key, value, key, value, ...
    std::size_t next = 0;
    bool closed = false;  // Its children are written; only attributes may follow.
  };

  absl::Status Enter(NodeId node);
  absl::Status Step();
  void Open(NodeId node);
  void CloseItems(const Frame& frame);
  absl::Status CheckSize(std::size_t pickle_bytes) const;
  void Finish(const Frame& frame);
  bool IsBatched(NodeId node) const {
    return tree_.IsDict(node) || tree_.Is(node, NodeKind::kList) || tree_.Is(node, NodeKind::kSet);
  }
  std::size_t BatchLength(NodeId node) const { return tree_.IsDict(node) ? 2 * kBatch : kBatch; }
  void EndBatch(NodeId node) { tree_.IsDict(node) ? out_.SetItems() : out_.Appends(); }

  std::vector<NodeId> WritablePairs(NodeId dict);
  void WriteLeaf(NodeId node);
  void WriteNumpyScalar(NodeId node);
  absl::Status WriteTensor(NodeId node);
  void WriteLazyTensor(NodeId node);
  void WriteTensorParts(const TensorInfo& tensor, const NamedStorage& storage);
  absl::Status WriteBareStorage(NodeId node);
  absl::StatusOr<NamedStorage> Name(std::uint32_t storage);
  absl::StatusOr<NamedStorage> Describe(std::uint32_t storage) const;
  std::string NextKey() const { return absl::StrCat(storages_.size()); }
  void WriteStorageId(const NamedStorage& storage);

  std::string Path() const;
  std::string KeyText(NodeId key) const;
  void ReportLostMetadata(NodeId dict);

  const Tree& tree_;
  const WritePlan& plan_;
  const StorageSource& source_;
  const ReadLimits limits_;
  PickleWriter out_;
  std::vector<Frame> frames_;
  std::map<std::uint32_t, NamedStorage> named_;
  std::map<NodeId, NamedStorage> resolved_;  // Of lazy tensors, by their node.
  std::vector<OutputStorage> storages_;
  ReportLines left_out_;
  ReportLines converted_;
  std::uint64_t written_nodes_ = 0;
};

absl::StatusOr<PickledTree> TreePickler::Run(NodeId root) {
  if (const NodeId obstacle = plan_.Obstacle(root); obstacle != kNoNode) {
    return absl::InvalidArgumentError(
        absl::StrCat("the value to write is or holds ", ClassOf(tree_, obstacle),
                     ", which cannot be written safely, and no dict entry to leave out"));
  }
  RELIGHT_RETURN_IF_ERROR(Enter(root));
  while (!frames_.empty()) RELIGHT_RETURN_IF_ERROR(Step());
  std::string pickle = std::move(out_).Finish();
  RELIGHT_RETURN_IF_ERROR(CheckSize(pickle.size()));
  WriteReport report = {std::move(left_out_).Take(), std::move(converted_).Take()};
  return PickledTree{std::move(pickle), std::move(storages_), std::move(report)};
}

absl::Status TreePickler::CheckSize(std::size_t pickle_bytes) const {
  if (pickle_bytes <= limits_.max_pickle_bytes) return absl::OkStatus();
  return MakeError(ErrorCode::kLimitExceeded,
                   absl::StrCat("the pickle to write is over ", limits_.max_pickle_bytes,
                                " bytes without the tensors"));
}

// Writes a leaf, or the beginning of a container whose frame is pushed. What is shared is written
// again each time: tensors stay shared through their storage's key.
absl::Status TreePickler::Enter(NodeId node) {
  if (++written_nodes_ > limits_.max_expanded_nodes) {
    return MakeError(ErrorCode::kLimitExceeded, absl::StrCat("the values to write unfold to over ",
                                                             limits_.max_expanded_nodes, " nodes"));
  }
  RELIGHT_RETURN_IF_ERROR(CheckSize(out_.size_bytes()));
  if (const std::string_view lost = tree_.lost_type(node); !lost.empty()) {
    converted_.Add(absl::StrCat(Path(), ": ", Escape(lost), ", written as a plain ",
                                std::string(storage::Name(tree_.kind(node)))));
  }
  switch (tree_.kind(node)) {
    case NodeKind::kTensor:
      return WriteTensor(node);
    case NodeKind::kStorage:
      return WriteBareStorage(node);
    case NodeKind::kNumpyScalar:
      WriteNumpyScalar(node);
      return absl::OkStatus();
    case NodeKind::kList:
    case NodeKind::kTuple:
    case NodeKind::kSet:
    case NodeKind::kSize:
    case NodeKind::kDict:
    case NodeKind::kOrderedDict:
    case NodeKind::kCounter:
      Open(node);
      return absl::OkStatus();
    default:
      WriteLeaf(node);
      return absl::OkStatus();
  }
}

void TreePickler::Open(NodeId node) {
  Frame frame;
  frame.node = node;
  frame.children = tree_.IsDict(node) ? WritablePairs(node) : tree_.items(node);
  if (tree_.Is(node, NodeKind::kDict) && tree_.attributes(node) != kNoNode) {
    ReportLostMetadata(node);
  }
  switch (tree_.kind(node)) {
    case NodeKind::kList:
      out_.EmptyList();
      break;
    case NodeKind::kSet:
      out_.Global("__builtin__", "set");
      out_.EmptyList();
      break;
    case NodeKind::kSize:
      out_.Global("torch", "Size");
      [[fallthrough]];
    case NodeKind::kTuple:
      if (PickleWriter::NeedsMark(frame.children.size())) out_.Mark();
      break;
    case NodeKind::kOrderedDict:
      out_.EmptyOrderedDict();
      break;
    case NodeKind::kCounter:
      out_.Global("collections", "Counter");
      [[fallthrough]];
    default:
      out_.EmptyDict();
  }
  frames_.push_back(std::move(frame));
}

absl::Status TreePickler::Step() {
  Frame& frame = frames_.back();
  if (frame.next < frame.children.size()) {
    if (IsBatched(frame.node) && frame.next % BatchLength(frame.node) == 0) {
      if (frame.next > 0) EndBatch(frame.node);
      out_.Mark();
    }
    return Enter(frame.children[frame.next++]);
  }
  if (!frame.closed) {
    frame.closed = true;
    CloseItems(frame);
    const NodeId attributes = tree_.IsDict(frame.node) ? tree_.attributes(frame.node) : kNoNode;
    if (tree_.Is(frame.node, NodeKind::kOrderedDict) && attributes != kNoNode) {
      return Enter(attributes);
    }
  }
  Finish(frame);
  frames_.pop_back();
  return absl::OkStatus();
}

void TreePickler::CloseItems(const Frame& frame) {
  if (IsBatched(frame.node)) {
    if (!frame.children.empty()) EndBatch(frame.node);
  } else {
    out_.Tuple(frame.children.size());
  }
}

void TreePickler::Finish(const Frame& frame) {
  switch (tree_.kind(frame.node)) {
    case NodeKind::kSet:
    case NodeKind::kSize:
    case NodeKind::kCounter:
      out_.Tuple(1);
      out_.Reduce();
      break;
    case NodeKind::kOrderedDict:
      if (tree_.attributes(frame.node) != kNoNode) out_.Build();
      break;
    default:
      break;
  }
}

std::vector<NodeId> TreePickler::WritablePairs(NodeId dict) {
  std::vector<NodeId> children;
  for (const auto& [key, value] : tree_.pairs(dict)) {
    NodeId obstacle = plan_.Obstacle(key);
    if (obstacle == kNoNode) obstacle = plan_.Obstacle(value);
    if (obstacle == kNoNode) {
      children.push_back(key);
      children.push_back(value);
      continue;
    }
    const char* relation = obstacle == value ? ": " : ": holds ";
    left_out_.Add(absl::StrCat(Path(), "/", KeyText(key), relation, ClassOf(tree_, obstacle)));
  }
  return children;
}

void TreePickler::WriteLeaf(NodeId node) {
  switch (tree_.kind(node)) {
    case NodeKind::kBool:
      return out_.Bool(tree_.boolean(node));
    case NodeKind::kInt:
      return out_.Int(tree_.integer(node));
    case NodeKind::kBigInt:
      out_.BigInt(tree_.text(node));
      return;
    case NodeKind::kFloat:
      return out_.Float(tree_.real(node));
    case NodeKind::kString:
      return out_.String(tree_.text(node));
    case NodeKind::kBytes:
      return out_.Bytes(tree_.text(node));
    case NodeKind::kDType:
      return out_.Global("torch", tree_.text(node));
    case NodeKind::kDevice:
      out_.Global("torch", "device");
      out_.String(tree_.text(node));
      out_.Tuple(1);
      return out_.Reduce();
    default:
      return out_.None();
  }
}

void TreePickler::WriteNumpyScalar(NodeId node) {
  const NodeId value = tree_.items(node).front();
  WriteLeaf(value);
  converted_.Add(absl::StrCat(Path(), ": numpy scalar, written as a Python ",
                              std::string(storage::Name(tree_.kind(value)))));
}

absl::Status TreePickler::WriteTensor(NodeId node) {
  const TensorInfo& tensor = tree_.tensor(node);
  if (tensor.is_parameter) out_.Global("torch._utils", "_rebuild_parameter");
  if (IsLazy(tensor)) {
    WriteLazyTensor(node);
  } else {
    RELIGHT_ASSIGN_OR_RETURN(const NamedStorage storage, Name(tensor.storage));
    WriteTensorParts(tensor, storage);
  }
  if (tensor.is_parameter) {
    out_.Bool(tensor.requires_grad);
    out_.EmptyOrderedDict();
    out_.Tuple(3);
    out_.Reduce();
  }
  return absl::OkStatus();
}

void TreePickler::WriteLazyTensor(NodeId node) {
  TensorInfo dense = tree_.tensor(node);
  const auto [known, is_new] = resolved_.try_emplace(node);
  NamedStorage& storage = known->second;
  if (is_new) {
    storage.key = NextKey();
    if (StorageClass(dense.dtype)) storage.dtype = dense.dtype;
    storage.size_bytes = CountElements(dense.shape) * ItemSize(dense.dtype);
    storages_.push_back({dense.storage, 0, storage.size_bytes, node});
  }
  dense.offset_elements = 0;
  dense.stride = DenseStride(dense.shape);
  WriteTensorParts(dense, storage);
}

void TreePickler::WriteTensorParts(const TensorInfo& tensor, const NamedStorage& storage) {
  const bool typed = storage.dtype.has_value();
  const auto begin = static_cast<std::int64_t>(storage.begin_bytes / ItemSize(tensor.dtype));
  const bool empty = CountElements(tensor.shape) == 0;
  out_.Global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  out_.Mark();
  WriteStorageId(storage);
  // The offset of a tensor without elements means nothing, and may lie before the slice.
  out_.Int(empty && storage.sliced ? 0 : tensor.offset_elements - begin);
  out_.IntTuple(tensor.shape);
  out_.IntTuple(tensor.stride);
  // Parameters carry the flag outside.
  out_.Bool(tensor.requires_grad && !tensor.is_parameter);
  out_.EmptyOrderedDict();
  if (!typed) out_.Global("torch", relight::Name(tensor.dtype));
  out_.Tuple(typed ? 6 : 7);
  out_.Reduce();
}

void TreePickler::WriteStorageId(const NamedStorage& storage) {
  if (storage.dtype) {
    out_.Storage("torch", *StorageClass(*storage.dtype), storage.key,
                 storage.size_bytes / ItemSize(*storage.dtype));
  } else {
    out_.Storage("torch.storage", "UntypedStorage", storage.key, storage.size_bytes);
  }
}

absl::Status TreePickler::WriteBareStorage(NodeId node) {
  RELIGHT_ASSIGN_OR_RETURN(const NamedStorage storage, Name(tree_.storage(node)));
  WriteStorageId(storage);
  return absl::OkStatus();
}

// The storage under its key, which the first mention settles.
absl::StatusOr<NamedStorage> TreePickler::Name(std::uint32_t storage) {
  if (const auto found = named_.find(storage); found != named_.end()) return found->second;
  RELIGHT_ASSIGN_OR_RETURN(NamedStorage named, Describe(storage));
  named.key = NextKey();
  storages_.push_back({storage, named.begin_bytes, named.size_bytes, kNoNode});
  return named_.emplace(storage, std::move(named)).first->second;
}

absl::StatusOr<NamedStorage> TreePickler::Describe(std::uint32_t storage) const {
  const StorageUse& use = plan_.uses().at(storage);
  NamedStorage named;
  named.size_bytes = source_.SizeBytes(storage);
  if (use.end_bytes > named.size_bytes) {
    return absl::DataLossError(absl::StrCat("storage ", storage, " has ", named.size_bytes,
                                            " bytes, its tensors need ", use.end_bytes));
  }
  // One class per storage: a typed one where all agree on a dtype that has one.
  std::set<DType> dtypes = use.dtypes;
  if (use.bare) dtypes.insert(source_.ElementType(storage));
  const bool untyped = use.bare && source_.IsUntyped(storage);
  if (!untyped && dtypes.size() == 1 && StorageClass(*dtypes.begin())) {
    named.dtype = *dtypes.begin();
  }
  const std::uint64_t begin = use.begin_bytes / kSliceAlignment * kSliceAlignment;
  const std::uint64_t used = use.end_bytes - begin;
  if (!use.bare && used + kWorthSlicing <= named.size_bytes && 2 * used <= named.size_bytes) {
    named.begin_bytes = begin;
    named.size_bytes = used;
    named.sliced = true;
  }
  // Records may have a tail that is no element.
  if (named.dtype) named.size_bytes -= named.size_bytes % ItemSize(*named.dtype);
  return named;
}

std::string TreePickler::Path() const {
  std::string path;
  for (const Frame& frame : frames_) {
    if (frame.closed) {
      path += "/@attributes";
    } else if (tree_.IsDict(frame.node)) {
      absl::StrAppend(&path, "/", KeyText(frame.children[(frame.next - 1) / 2 * 2]));
    } else {
      path += absl::StrCat("/", frame.next - 1);
    }
  }
  return path;
}

std::string TreePickler::KeyText(NodeId key) const {
  if (tree_.Is(key, NodeKind::kString)) return Escape(tree_.text(key));
  if (tree_.Is(key, NodeKind::kInt)) return absl::StrCat("#", tree_.integer(key));
  return absl::StrCat("<", std::string(storage::Name(tree_.kind(key))), ">");
}

// The attributes of a plain dict are the metadata of a safetensors file. That it is for PyTorch
// goes without saying.
void TreePickler::ReportLostMetadata(NodeId dict) {
  for (const auto& [name, metadata] : tree_.pairs(tree_.attributes(dict))) {
    if (!tree_.IsDict(metadata)) continue;
    for (const auto& [key, value] : tree_.pairs(metadata)) {
      if (tree_.Is(key, NodeKind::kString) && tree_.text(key) == "format") continue;
      left_out_.Add(absl::StrCat(Path(), "/@attributes/", KeyText(name), "/", KeyText(key),
                                 ": metadata of safetensors"));
    }
  }
}

}  // namespace

absl::StatusOr<PickledTree> PickleTree(const Tree& tree, NodeId root, const WritePlan& plan,
                                       const StorageSource& source, const ReadLimits& limits) {
  return TreePickler(tree, plan, source, limits).Run(root);
}

}  // namespace relight::storage
