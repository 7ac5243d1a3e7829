// From a tree to the pickle of a checkpoint, and the list of storages that it names.
#ifndef RELIGHT_STORAGE_TREE_PICKLER_H_
#define RELIGHT_STORAGE_TREE_PICKLER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/tree.h"
#include "storage/write_plan.h"
#include "storage/writer.h"

namespace relight::storage {

// What goes into one record data/<key>.
struct OutputStorage {
  // The run of a storage of the source that is written.
  std::uint32_t source = 0;
  std::uint64_t begin_bytes = 0;
  std::uint64_t size_bytes = 0;
  // A lazy tensor whose values are written instead, dense and row-major.
  NodeId resolved = kNoNode;
};

struct PickledTree {
  std::string pickle;
  std::vector<OutputStorage> storages;  // The index is the key.
  WriteReport report;
};

// Pickles what `plan` says can be written below `root`. `source` is only asked for sizes and types.
// INVALID_ARGUMENT where the root itself cannot be written, LIMIT_EXCEEDED for a pickle that
// whoever reads by `limits` would refuse.
absl::StatusOr<PickledTree> PickleTree(const Tree& tree, NodeId root, const WritePlan& plan,
                                       const StorageSource& source, const ReadLimits& limits = {});

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_TREE_PICKLER_H_
