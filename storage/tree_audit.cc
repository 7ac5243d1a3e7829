#include "storage/tree_audit.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/strings/str_cat.h"
#include "storage/error.h"

namespace relight::storage {
namespace {

std::optional<NodeId> OpaqueChildAt(const OpaqueInfo& opaque, std::size_t index) {
  if (index == 0) return opaque.callable;
  if (index == 1) return opaque.arguments;
  index -= 2;
  if (index < opaque.states.size()) return opaque.states[index];
  index -= opaque.states.size();
  if (index < opaque.appended.size()) return opaque.appended[index];
  index -= opaque.appended.size();
  if (index < 2 * opaque.set_items.size()) {
    const auto& pair = opaque.set_items[index / 2];
    return index % 2 == 0 ? pair.first : pair.second;
  }
  return std::nullopt;
}

struct Frame {
  NodeId node;
  std::size_t next_child = 0;
  std::uint64_t depth = 1;
  std::uint64_t expanded = 1;
};

// What a finished node adds to each that refers to it. Zero while it is unvisited or on the path.
struct Measure {
  std::uint32_t depth = 0;
  bool on_path = false;
  std::uint64_t expanded = 0;
};

}  // namespace

std::optional<NodeId> ChildAt(const Tree& tree, NodeId node, std::size_t index) {
  switch (tree.kind(node)) {
    case NodeKind::kList:
    case NodeKind::kTuple:
    case NodeKind::kSet:
    case NodeKind::kFrozenSet:
    case NodeKind::kSize:
    case NodeKind::kNumpyScalar: {
      const std::vector<NodeId>& items = tree.items(node);
      if (index < items.size()) return items[index];
      return std::nullopt;
    }
    case NodeKind::kDict:
    case NodeKind::kOrderedDict:
    case NodeKind::kCounter: {
      const auto& pairs = tree.pairs(node);
      if (index < 2 * pairs.size()) {
        return index % 2 == 0 ? pairs[index / 2].first : pairs[index / 2].second;
      }
      if (index == 2 * pairs.size() && tree.attributes(node) != kNoNode) {
        return tree.attributes(node);
      }
      return std::nullopt;
    }
    case NodeKind::kOpaque:
      return OpaqueChildAt(tree.opaque(node), index);
    default:
      return std::nullopt;
  }
}

absl::Status AuditTree(const Tree& tree, const ReadLimits& limits, const std::string& where) {
  const auto too_much = [&](std::string_view what, std::uint64_t limit) {
    return MakeError(ErrorCode::kLimitExceeded,
                     absl::StrCat(where, ": ", std::string(what), ", the limit is ", limit));
  };
  std::vector<Measure> measures(tree.size());
  std::vector<Frame> path;
  path.push_back({tree.root()});
  measures[tree.root()].on_path = true;
  while (true) {
    Frame& frame = path.back();
    const std::optional<NodeId> child = ChildAt(tree, frame.node, frame.next_child);
    if (child.has_value()) {
      ++frame.next_child;
      const Measure& measure = measures[*child];
      if (measure.on_path) {
        ++frame.expanded;  // A reference back into the path ends there for every walker.
      } else if (measure.depth != 0) {
        frame.depth = std::max<std::uint64_t>(frame.depth, 1 + measure.depth);
        frame.expanded += measure.expanded;
      } else {
        if (path.size() >= limits.max_depth) return too_much("nests too deeply", limits.max_depth);
        measures[*child].on_path = true;
        path.push_back({*child});
        continue;
      }
    }
    if (frame.depth > limits.max_depth) return too_much("nests too deeply", limits.max_depth);
    if (frame.expanded > limits.max_expanded_nodes) {
      return too_much("refers to the same values so often that it unfolds to too many",
                      limits.max_expanded_nodes);
    }
    if (child.has_value()) continue;
    const Frame done = frame;
    measures[done.node] = {static_cast<std::uint32_t>(done.depth), false, done.expanded};
    path.pop_back();
    if (path.empty()) return absl::OkStatus();
    path.back().depth = std::max(path.back().depth, 1 + done.depth);
    path.back().expanded += done.expanded;
  }
}

}  // namespace relight::storage
