// What kind of file a snapshot is.
#ifndef RELIGHT_SERVER_SERVING_SNAPSHOT_FORMAT_H_
#define RELIGHT_SERVER_SERVING_SNAPSHOT_FORMAT_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/serving/server_core.h"
#include "storage/checkpoint.h"

namespace relight::serving {

// What a version came from.
struct SnapshotOrigin {
  std::string file;  // Below the watched folder; any bytes.
  storage::Format format = storage::Format::kZip;
  bool holds_more_than_weights = false;
};

// The kind of file that `request` asks for: its format; else what the suffix of its path says; else
// the kind that the version came from. Never kAsSource.
//
// INVALID_ARGUMENT, naming both, where two things that the request says contradict each other;
// FAILED_PRECONDITION where it asks for a bundle of what never was one.
absl::StatusOr<SnapshotFormat> ChooseSnapshotFormat(const SnapshotRequest& request,
                                                    const SnapshotOrigin& origin);

// "bundle", "state-dict", "safetensors".
std::string_view Name(SnapshotFormat format);

// ".safetensors" or ".pt".
std::string_view SuffixOf(SnapshotFormat format);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_SNAPSHOT_FORMAT_H_
