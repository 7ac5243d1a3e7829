// What of a tree can be written so that every restricted unpickler takes it, and which bytes that
// needs.
#ifndef RELIGHT_STORAGE_WRITE_PLAN_H_
#define RELIGHT_STORAGE_WRITE_PLAN_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/dtype.h"
#include "storage/tree.h"

namespace relight::storage {

// What the tensors that will be written use of one storage.
struct StorageUse {
  // The run of bytes that their elements lie in; empty where none has elements.
  std::uint64_t begin_bytes = 0;
  std::uint64_t end_bytes = 0;
  std::set<DType> dtypes;  // Of the tensors.
  bool bare = false;       // Also written as a storage without a tensor.
};

// A value that cannot be written takes the nearest dict entry around it along, so that no position
// in a list or tuple ever shifts.
class WritePlan {
 public:
  // Looks at everything that is reachable from `root` without entering opaque objects. PICKLE_CYCLE
  // where that leads in a circle.
  static absl::StatusOr<WritePlan> Make(const Tree& tree, NodeId root);

  // The node, at or below `node`, that keeps it from being written; kNoNode where it can be.
  NodeId Obstacle(NodeId node) const { return obstacles_[node]; }
  bool CanWrite(NodeId node) const { return Obstacle(node) == kNoNode; }

  // By storage, of the values that will be written. Lazily conjugated or negated tensors are not
  // in it: they are written as dense bytes of their own.
  const std::map<std::uint32_t, StorageUse>& uses() const { return uses_; }
  // Every storage whose bytes are needed, in ascending order.
  std::vector<std::uint32_t> NeededStorages() const;

 private:
  WritePlan() = default;
  absl::Status FindObstacles(const Tree& tree, NodeId root);
  void CollectUses(const Tree& tree, NodeId root);
  void AddTensor(const TensorInfo& tensor);

  std::vector<NodeId> obstacles_;
  std::map<std::uint32_t, StorageUse> uses_;
  std::set<std::uint32_t> needed_;
};

// The Python class of a node, for reports: "argparse.Namespace", "numpy.ndarray", "sparse_coo".
// Escaped.
std::string ClassOf(const Tree& tree, NodeId node);

// Whether the tensor's bytes in its storage are not yet its values.
inline bool IsLazy(const TensorInfo& tensor) { return tensor.conj || tensor.neg; }

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WRITE_PLAN_H_
