// Finds the tensors of a pickled torch.nn.Module, in the order of its state_dict().
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/error.h"
#include "storage/state_dict_finder.h"

namespace relight::storage {
namespace {

// A module shared all over unfolds to more keys than the tree has nodes.
constexpr std::size_t kMaxAllKeysBytes = std::size_t{256} << 20;

// An attribute of a module: the last state that sets it counts, as for Python.
NodeId Attribute(const Tree& tree, NodeId module, std::string_view name) {
  const std::vector<NodeId>& states = tree.opaque(module).states;
  for (auto state = states.rbegin(); state != states.rend(); ++state) {
    NodeId dict = *state;
    // Objects with slots have (dict, slots).
    if (tree.Is(dict, NodeKind::kTuple) && tree.items(dict).size() == 2) dict = tree.items(dict)[0];
    if (!tree.IsDict(dict)) continue;
    if (const NodeId value = tree.Find(dict, name); value != kNoNode) return value;
  }
  return kNoNode;
}

bool IsDictNode(const Tree& tree, NodeId node) { return node != kNoNode && tree.IsDict(node); }

bool IsTensor(const Tree& tree, NodeId node) {
  return tree.Is(node, NodeKind::kTensor) || tree.Is(node, NodeKind::kUnsupportedTensor);
}

std::unordered_set<std::string> NonPersistentBuffers(const Tree& tree, NodeId module) {
  std::unordered_set<std::string> names;
  const NodeId set = Attribute(tree, module, "_non_persistent_buffers_set");
  if (set == kNoNode || (!tree.Is(set, NodeKind::kSet) && !tree.Is(set, NodeKind::kFrozenSet))) {
    return names;
  }
  for (const NodeId item : tree.items(set)) {
    if (tree.Is(item, NodeKind::kString)) names.emplace(tree.text(item));
  }
  return names;
}

class Walker {
 public:
  Walker(const Tree& tree, const std::string& shown_name, StateDict& result)
      : tree_(tree), shown_name_(shown_name), result_(result) {}

  absl::Status Walk(NodeId root) {
    RELIGHT_RETURN_IF_ERROR(Enter(root, ""));
    while (!path_.empty()) {
      Frame& frame = path_.back();
      const auto& children = tree_.pairs(frame.children);
      if (frame.next == children.size()) {
        on_path_.erase(frame.module);
        path_.pop_back();
        continue;
      }
      const auto [name, child] = children[frame.next++];
      if (!tree_.Is(name, NodeKind::kString) || !tree_.Is(child, NodeKind::kOpaque)) continue;
      std::string prefix = absl::StrCat(frame.prefix, std::string(tree_.text(name)), ".");
      if (!IsModule(tree_, child)) {
        result_.other_keys.push_back(prefix.substr(0, prefix.size() - 1));
        continue;
      }
      RELIGHT_RETURN_IF_ERROR(Enter(child, std::move(prefix)));
    }
    return absl::OkStatus();
  }

 private:
  struct Frame {
    NodeId module;
    NodeId children;
    std::size_t next;
    std::string prefix;
  };

  absl::Status Enter(NodeId module, std::string prefix) {
    if (!on_path_.insert(module).second) {
      return MakeError(ErrorCode::kPickleCycle, absl::StrCat(shown_name_, ": the module ",
                                                             Escape(prefix), " contains itself"));
    }
    RELIGHT_RETURN_IF_ERROR(AddTensors(Attribute(tree_, module, "_parameters"), prefix, {}));
    RELIGHT_RETURN_IF_ERROR(AddTensors(Attribute(tree_, module, "_buffers"), prefix,
                                       NonPersistentBuffers(tree_, module)));
    path_.push_back({module, Attribute(tree_, module, "_modules"), 0, std::move(prefix)});
    return absl::OkStatus();
  }

  absl::Status AddTensors(NodeId dict, const std::string& prefix,
                          const std::unordered_set<std::string>& except) {
    for (const auto& [name, value] : tree_.pairs(dict)) {
      if (!tree_.Is(name, NodeKind::kString) || tree_.Is(value, NodeKind::kNone)) continue;
      const std::string text(tree_.text(name));
      if (except.contains(text)) continue;
      std::string key = absl::StrCat(prefix, text);
      key_bytes_ += sizeof(StateDictEntry) + 2 * key.size();
      if (key_bytes_ > kMaxAllKeysBytes) {
        return MakeError(ErrorCode::kLimitExceeded,
                         absl::StrCat(shown_name_, ": the modules have more or longer keys than ",
                                      kMaxAllKeysBytes, " bytes hold"));
      }
      if (IsTensor(tree_, value)) {
        result_.entries.push_back({key, key, value});
      } else {
        result_.other_keys.push_back(std::move(key));
      }
    }
    return absl::OkStatus();
  }

  const Tree& tree_;
  const std::string& shown_name_;
  StateDict& result_;
  std::vector<Frame> path_;
  std::unordered_set<NodeId> on_path_;
  std::size_t key_bytes_ = 0;
};

}  // namespace

bool IsModule(const Tree& tree, NodeId node) {
  return tree.Is(node, NodeKind::kOpaque) &&
         IsDictNode(tree, Attribute(tree, node, "_parameters")) &&
         IsDictNode(tree, Attribute(tree, node, "_buffers")) &&
         IsDictNode(tree, Attribute(tree, node, "_modules"));
}

std::string ClassName(const Tree& tree, NodeId opaque) {
  // What makes an object may be an object itself; its class then says enough.
  NodeId node = opaque;
  constexpr int kMaxSteps = 16;
  for (int step = 0; step < kMaxSteps && tree.Is(node, NodeKind::kOpaque); ++step) {
    node = tree.opaque(node).callable;
  }
  if (!tree.Is(node, NodeKind::kSymbol)) return "?";
  std::string name(tree.text(node));
  if (const std::size_t space = name.find(' '); space != std::string::npos) name[space] = '.';
  return name;
}

absl::Status WalkModule(const Tree& tree, NodeId module, const std::string& shown_name,
                        StateDict& result) {
  return Walker(tree, shown_name, result).Walk(module);
}

}  // namespace relight::storage
