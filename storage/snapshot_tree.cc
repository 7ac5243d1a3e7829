#include "storage/snapshot_tree.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/write_plan.h"
#include "storage/write_report.h"

namespace relight::storage {
namespace {

bool IsListOrTuple(const Tree& tree, NodeId node) {
  return tree.Is(node, NodeKind::kList) || tree.Is(node, NodeKind::kTuple);
}

// The containers from `target` up to the root, nearest first; empty where it cannot be reached.
std::vector<NodeId> ContainersAround(const Tree& tree, NodeId target) {
  std::map<NodeId, NodeId> parents = {{tree.root(), kNoNode}};
  std::vector<NodeId> pending = {tree.root()};
  for (std::size_t i = 0; i < pending.size() && parents.count(target) == 0; ++i) {
    const NodeId node = pending[i];
    const auto visit = [&](NodeId child) {
      if (parents.emplace(child, node).second) pending.push_back(child);
    };
    if (tree.IsDict(node)) {
      for (const auto& [key, value] : tree.pairs(node)) visit(value);
    } else if (IsListOrTuple(tree, node)) {
      for (const NodeId item : tree.items(node)) visit(item);
    }
  }
  std::vector<NodeId> path;
  const auto found = parents.find(target);
  if (found == parents.end()) return path;
  for (NodeId node = found->second; node != kNoNode; node = parents[node]) path.push_back(node);
  return path;
}

// A copy of `container` in which `with` stands wherever `what` did.
NodeId CopyReplacing(Tree& tree, NodeId container, NodeId what, NodeId with) {
  const auto replaced = [&](NodeId node) { return node == what ? with : node; };
  const NodeId copy = tree.Add(tree.kind(container));
  if (const std::string lost(tree.lost_type(container)); !lost.empty()) {
    tree.SetLostType(copy, lost);
  }
  if (!tree.IsDict(container)) {
    const std::vector<NodeId> items = tree.items(container);
    for (const NodeId item : items) tree.Append(copy, replaced(item));
    return copy;
  }
  const std::vector<std::pair<NodeId, NodeId>> pairs = tree.pairs(container);
  for (const auto& [key, value] : pairs) tree.SetItem(copy, key, replaced(value));
  if (tree.attributes(container) != kNoNode) tree.SetAttributes(copy, tree.attributes(container));
  return copy;
}

// What a module keeps beside its tensors is part of its state dict ("fc._extra_state"); an
// optimizer that was saved into the same dict is not.
bool IsModuleState(std::string_view key) { return key.ends_with("_extra_state"); }

bool MixesOthersIn(const StateDict& state_dict) {
  return std::any_of(state_dict.other_keys.begin(), state_dict.other_keys.end(),
                     [](const std::string& key) { return !IsModuleState(key); });
}

// The entries of a state dict that are neither tensors nor a module's.
class OtherEntries {
 public:
  OtherEntries(const Tree& tree, const StateDict& state_dict) : tree_(tree) {
    for (const StateDictEntry& entry : state_dict.entries) tensors_.insert(entry.node);
  }
  bool Contains(NodeId key, NodeId value) const {
    const bool named = tree_.Is(key, NodeKind::kString);
    return !named || (!tensors_.contains(value) && !IsModuleState(tree_.text(key)));
  }

 private:
  const Tree& tree_;
  std::set<NodeId> tensors_;
};

NodeId CopyWithoutOthers(Tree& tree, const StateDict& state_dict) {
  const OtherEntries others(tree, state_dict);
  const NodeId container = state_dict.container;
  const NodeId copy = tree.Add(tree.kind(container));
  const std::vector<std::pair<NodeId, NodeId>> pairs = tree.pairs(container);
  for (const auto& [key, value] : pairs) {
    if (!others.Contains(key, value)) tree.SetItem(copy, key, value);
  }
  if (tree.attributes(container) != kNoNode) tree.SetAttributes(copy, tree.attributes(container));
  return copy;
}

std::string ShownKey(const Tree& tree, NodeId key) {
  if (tree.Is(key, NodeKind::kString)) return Escape(tree.text(key));
  return absl::StrCat("<", std::string(Name(tree.kind(key))), ">");
}

// What a container holds, with the names that paths show.
std::vector<std::pair<std::string, NodeId>> NamedChildren(const Tree& tree, NodeId container) {
  std::vector<std::pair<std::string, NodeId>> children;
  if (tree.IsDict(container)) {
    for (const auto& [key, value] : tree.pairs(container)) {
      children.emplace_back(ShownKey(tree, key), value);
    }
    return children;
  }
  for (const NodeId item : tree.items(container)) {
    children.emplace_back(absl::StrCat(children.size()), item);
  }
  return children;
}

// Lists what lies beside the way from the root to `target`; the way's own path.
std::string ListBesideTheWay(const Tree& tree, NodeId target, ReportLines& lines) {
  std::string path;
  const std::vector<NodeId> around = ContainersAround(tree, target);
  for (std::size_t i = around.size(); i-- > 0;) {
    const NodeId next = i == 0 ? target : around[i - 1];
    std::string step;
    for (const auto& [name, child] : NamedChildren(tree, around[i])) {
      if (child != next) {
        lines.Add(absl::StrCat(path, "/", name, ": ", ClassOf(tree, child)));
      } else if (step.empty()) {  // By a second name it is there as well, and carried.
        step = absl::StrCat("/", name);
      }
    }
    path += step;
  }
  return path;
}

}  // namespace

bool HoldsMoreThanWeights(const Tree& source, const StateDict& state_dict) {
  if (source.root() != state_dict.container) return true;
  return !state_dict.from_module && MixesOthersIn(state_dict);
}

NodeId AddStateDict(Tree& tree, const std::vector<StateDictEntry>& entries) {
  const NodeId dict = tree.Add(NodeKind::kOrderedDict);
  std::map<NodeId, NodeId> detached;
  for (const StateDictEntry& entry : entries) {
    NodeId value = entry.node;
    if (tree.Is(value, NodeKind::kTensor)) {
      const auto [found, added] = detached.emplace(value, kNoNode);
      if (added) {
        TensorInfo tensor = tree.tensor(value);
        tensor.requires_grad = false;
        tensor.is_parameter = false;
        found->second = tree.AddTensor(std::move(tensor));
      }
      value = found->second;
    }
    tree.SetItem(dict, tree.AddText(NodeKind::kString, entry.original_key), value);
  }
  return dict;
}

std::vector<std::string> BesideStateDict(const Tree& source, const StateDict& state_dict) {
  ReportLines lines;
  const NodeId container = state_dict.container;
  const std::string path = ListBesideTheWay(source, container, lines);
  if (path.empty() && container != source.root()) {
    lines.Add(absl::StrCat("/: ", ClassOf(source, source.root())));
  }
  if (!state_dict.from_module) {
    const OtherEntries others(source, state_dict);
    for (const auto& [key, value] : source.pairs(container)) {
      if (!others.Contains(key, value)) continue;
      lines.Add(absl::StrCat(path, "/", ShownKey(source, key), ": ", ClassOf(source, value)));
    }
  }
  return std::move(lines).Take();
}

absl::StatusOr<SnapshotTree> MakeSnapshotTree(const Tree& source, const StateDict& state_dict,
                                              bool weights_only) {
  SnapshotTree snapshot{source, source.root()};
  if (!state_dict.from_module) {
    if (weights_only) {
      snapshot.root = MixesOthersIn(state_dict) ? CopyWithoutOthers(snapshot.tree, state_dict)
                                                : state_dict.container;
    }
    return snapshot;
  }
  Tree& tree = snapshot.tree;
  NodeId copy = AddStateDict(tree, state_dict.entries);
  if (!weights_only && state_dict.container != source.root()) {
    const std::vector<NodeId> around = ContainersAround(source, state_dict.container);
    if (around.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the module at ", Escape(state_dict.location),
                       " lies in an object that cannot be written: ask for the weights only"));
    }
    NodeId original = state_dict.container;
    for (const NodeId container : around) {
      copy = CopyReplacing(tree, container, original, copy);
      original = container;
    }
  }
  snapshot.root = copy;
  tree.set_root(copy);
  return snapshot;
}

}  // namespace relight::storage
