#include "storage/write_plan.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/element_values.h"
#include "storage/error.h"

namespace relight::storage {
namespace {

// LONG1 takes no more.
constexpr std::size_t kMaxIntBytes = 255;

bool IsSequence(NodeKind kind) {
  return kind == NodeKind::kList || kind == NodeKind::kTuple || kind == NodeKind::kSet ||
         kind == NodeKind::kSize || kind == NodeKind::kNumpyScalar;
}

std::size_t ChildCount(const Tree& tree, NodeId node) {
  if (IsSequence(tree.kind(node))) return tree.items(node).size();
  if (!tree.IsDict(node)) return 0;
  return 2 * tree.pairs(node).size() + (tree.attributes(node) == kNoNode ? 0 : 1);
}

NodeId Child(const Tree& tree, NodeId node, std::size_t index) {
  if (!tree.IsDict(node)) return tree.items(node)[index];
  const auto& pairs = tree.pairs(node);
  if (index / 2 >= pairs.size()) return tree.attributes(node);
  return index % 2 == 0 ? pairs[index / 2].first : pairs[index / 2].second;
}

bool CanWriteTensor(const TensorInfo& tensor) { return !tensor.neg || CanNegate(tensor.dtype); }

// Of what has no children; containers are as good as what they hold.
bool CanWriteAlone(const Tree& tree, NodeId node) {
  switch (tree.kind(node)) {
    case NodeKind::kBigInt:
      return tree.text(node).size() <= kMaxIntBytes;
    case NodeKind::kTensor:
      return CanWriteTensor(tree.tensor(node));
    case NodeKind::kDType:
      return DTypeFromName(tree.text(node)).has_value();
    case NodeKind::kNone:
    case NodeKind::kBool:
    case NodeKind::kInt:
    case NodeKind::kFloat:
    case NodeKind::kString:
    case NodeKind::kBytes:
    case NodeKind::kList:
    case NodeKind::kTuple:
    case NodeKind::kDict:
    case NodeKind::kOrderedDict:
    case NodeKind::kCounter:
    case NodeKind::kSet:
    case NodeKind::kSize:
    case NodeKind::kDevice:
    case NodeKind::kStorage:
    case NodeKind::kNumpyScalar:
      return true;
    case NodeKind::kComplex:
    case NodeKind::kByteArray:
    case NodeKind::kFrozenSet:
    case NodeKind::kLayout:
    case NodeKind::kQScheme:
    case NodeKind::kSymbol:
    case NodeKind::kUnsupportedTensor:
    case NodeKind::kNumpyArray:
    case NodeKind::kOpaque:
      return false;
  }
  return false;
}

std::string Dotted(std::string_view symbol) {
  std::string name = Escape(symbol);
  std::replace(name.begin(), name.end(), ' ', '.');
  return name;
}

}  // namespace

std::string ClassOf(const Tree& tree, NodeId node) {
  switch (tree.kind(node)) {
    case NodeKind::kOpaque: {
      const NodeId callable = tree.opaque(node).callable;
      if (callable != kNoNode && tree.Is(callable, NodeKind::kSymbol)) {
        return Dotted(tree.text(callable));
      }
      return "object";
    }
    case NodeKind::kSymbol:
      return absl::StrCat("the class or function ", Dotted(tree.text(node)));
    case NodeKind::kUnsupportedTensor:
      return absl::StrCat("tensor: ", Escape(tree.text(node)));
    case NodeKind::kNumpyArray:
      return "numpy.ndarray";
    default:
      return std::string(Name(tree.kind(node)));
  }
}

absl::StatusOr<WritePlan> WritePlan::Make(const Tree& tree, NodeId root) {
  WritePlan plan;
  RELIGHT_RETURN_IF_ERROR(plan.FindObstacles(tree, root));
  if (plan.CanWrite(root)) plan.CollectUses(tree, root);
  return plan;
}

absl::Status WritePlan::FindObstacles(const Tree& tree, NodeId root) {
  enum class State : std::uint8_t { kNew, kOpen, kDone };
  std::vector<State> states(tree.size(), State::kNew);
  obstacles_.assign(tree.size(), kNoNode);
  std::vector<std::pair<NodeId, std::size_t>> stack = {{root, 0}};
  states[root] = State::kOpen;
  while (!stack.empty()) {
    auto& [node, next] = stack.back();
    if (next < ChildCount(tree, node)) {
      const NodeId child = Child(tree, node, next++);
      if (states[child] == State::kOpen) {
        return MakeError(ErrorCode::kPickleCycle,
                         absl::StrCat("a ", std::string(Name(tree.kind(child))),
                                      " holds itself, which cannot be written"));
      }
      if (states[child] == State::kNew) {
        states[child] = State::kOpen;
        stack.emplace_back(child, 0);
      }
      continue;
    }
    const NodeId done = node;
    stack.pop_back();
    states[done] = State::kDone;
    if (!CanWriteAlone(tree, done)) obstacles_[done] = done;
    if (!IsSequence(tree.kind(done))) continue;
    for (const NodeId item : tree.items(done)) {
      if (obstacles_[item] == kNoNode) continue;
      obstacles_[done] = obstacles_[item];
      break;
    }
  }
  return absl::OkStatus();
}

void WritePlan::CollectUses(const Tree& tree, NodeId root) {
  std::vector<bool> seen(tree.size(), false);
  std::vector<NodeId> pending = {root};
  seen[root] = true;
  const auto visit = [&](NodeId node) {
    if (!seen[node]) pending.push_back(node);
    seen[node] = true;
  };
  while (!pending.empty()) {
    const NodeId node = pending.back();
    pending.pop_back();
    if (tree.Is(node, NodeKind::kTensor)) {
      AddTensor(tree.tensor(node));
    } else if (tree.Is(node, NodeKind::kStorage)) {
      uses_[tree.storage(node)].bare = true;
      needed_.insert(tree.storage(node));
    } else if (tree.IsDict(node)) {
      for (const auto& [key, value] : tree.pairs(node)) {
        if (!CanWrite(key) || !CanWrite(value)) continue;
        visit(key);
        visit(value);
      }
      if (tree.attributes(node) != kNoNode) visit(tree.attributes(node));
    } else if (IsSequence(tree.kind(node))) {
      for (const NodeId item : tree.items(node)) visit(item);
    }
  }
}

void WritePlan::AddTensor(const TensorInfo& tensor) {
  needed_.insert(tensor.storage);
  if (IsLazy(tensor)) return;
  StorageUse& use = uses_[tensor.storage];
  use.dtypes.insert(tensor.dtype);
  std::uint64_t last = static_cast<std::uint64_t>(tensor.offset_elements);
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    if (tensor.shape[i] == 0) return;
    last += static_cast<std::uint64_t>(tensor.shape[i] - 1) *
            static_cast<std::uint64_t>(tensor.stride[i]);
  }
  const std::uint64_t item = ItemSize(tensor.dtype);
  const std::uint64_t begin = static_cast<std::uint64_t>(tensor.offset_elements) * item;
  const bool first = use.begin_bytes == use.end_bytes;
  use.begin_bytes = first ? begin : std::min(use.begin_bytes, begin);
  use.end_bytes = std::max(use.end_bytes, (last + 1) * item);
}

std::vector<std::uint32_t> WritePlan::NeededStorages() const {
  return {needed_.begin(), needed_.end()};
}

}  // namespace relight::storage
