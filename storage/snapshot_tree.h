// What a snapshot of a served checkpoint holds.
#ifndef RELIGHT_STORAGE_SNAPSHOT_TREE_H_
#define RELIGHT_STORAGE_SNAPSHOT_TREE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/state_dict.h"
#include "storage/tree.h"

namespace relight::storage {

// A tree to write with WriteCheckpoint. Storages are those of the checkpoint that it came from;
// NeededStorages(tree, root) says which of them the file needs.
struct SnapshotTree {
  Tree tree;
  NodeId root = kNoNode;
};

// The whole checkpoint as it was, with `weights_only` just its state dict, without what a trainer
// put among its tensors. Where the weights came from a module object, which no restricted unpickler
// would take, an OrderedDict of what its state_dict() gives stands in its place (detached tensors
// under the file's own keys).
//
// INVALID_ARGUMENT where that place cannot be reached through dicts, lists and tuples.
absl::StatusOr<SnapshotTree> MakeSnapshotTree(const Tree& source, const StateDict& state_dict,
                                              bool weights_only);

// Whether the checkpoint holds anything that a snapshot of the weights alone leaves out.
bool HoldsMoreThanWeights(const Tree& source, const StateDict& state_dict);

// "/path: class" of each such thing. An object around a module is one of them.
std::vector<std::string> BesideStateDict(const Tree& source, const StateDict& state_dict);

// Appends an OrderedDict of `entries` under their original keys to `tree`: detached copies of their
// tensors, over the same storages.
NodeId AddStateDict(Tree& tree, const std::vector<StateDictEntry>& entries);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_SNAPSHOT_TREE_H_
