// Bounds what later walks over a tree can cost, in one pass that takes time linear in its nodes and
// edges however often they are shared.
#ifndef RELIGHT_STORAGE_TREE_AUDIT_H_
#define RELIGHT_STORAGE_TREE_AUDIT_H_

#include <cstddef>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "storage/checkpoint.h"
#include "storage/tree.h"

namespace relight::storage {

// The `index`th node that `node` refers to, whatever its kind; nullopt behind the last.
std::optional<NodeId> ChildAt(const Tree& tree, NodeId node, std::size_t index);

// LIMIT_EXCEEDED where the tree nests deeper than max_depth, or would have more than
// max_expanded_nodes nodes if nothing in it were shared. `where` opens the message.
absl::Status AuditTree(const Tree& tree, const ReadLimits& limits, const std::string& where);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_TREE_AUDIT_H_
