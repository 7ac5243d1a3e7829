// Writing a version that is in memory as the checkpoint that it came from.
#ifndef RELIGHT_SERVER_SERVING_SNAPSHOT_H_
#define RELIGHT_SERVER_SERVING_SNAPSHOT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/serving/model_manager.h"
#include "server/serving/server_core.h"

namespace relight::serving {

// Runs on the calling thread, which may wait: writes to a temporary file below `snapshot_dir`,
// reads it back and compares it with the weights in memory, and moves it into place. What it takes
// in memory does not grow with the model.
//
// INVALID_ARGUMENT for a path that leaves the folder or a request that contradicts itself,
// ALREADY_EXISTS, FAILED_PRECONDITION where the training state is gone (weights_only still works),
// RESOURCE_EXHAUSTED where the disk is full, DATA_LOSS where the file reads back otherwise,
// CANCELLED by `progress`.
absl::StatusOr<SnapshotResult> WriteSnapshot(const SnapshotRequest& request,
                                             const ModelManager::SnapshotSource& source,
                                             const std::string& snapshot_dir,
                                             const ServerCore::SnapshotProgress& progress);

// The same for a reader instead of a folder: the file, once it is verified, loses the name that it
// had in `folder`. Of the request's path only the suffix counts.
absl::StatusOr<std::unique_ptr<OutgoingSnapshot>> WriteSnapshotForReader(
    const SnapshotRequest& request, const ModelManager::SnapshotSource& source,
    const std::string& folder, const ServerCore::SnapshotProgress& progress);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_SNAPSHOT_H_
