// Statuses, history, snapshots and pushes as the admin service's messages. Names of files and
// models are escaped; reasons have been, name by name.
//
// Pure and thread-safe.
#ifndef RELIGHT_SERVER_RPC_ADMIN_MESSAGES_H_
#define RELIGHT_SERVER_RPC_ADMIN_MESSAGES_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "relight/v1/admin.pb.h"
#include "server/serving/server_core.h"
#include "server/serving/status.h"

namespace relight::rpc {

v1::ModelStatus ToMessage(const serving::ModelStatus& status);
v1::HistoryEntry ToMessage(const serving::HistoryEntry& entry);
v1::SnapshotResult ToMessage(const serving::SnapshotResult& result);
// INVALID_ARGUMENT for a format that this server does not know.
absl::StatusOr<serving::SnapshotRequest> FromMessage(const v1::SnapshotRequest& request);
absl::StatusOr<serving::SnapshotRequest> FromMessage(const v1::DownloadRequest& request);
serving::PushRequest FromMessage(const v1::PushHeader& header);
v1::PushResponse ToMessage(const serving::PushResult& result);

void SetTimestamp(absl::Time time, google::protobuf::Timestamp& out);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_ADMIN_MESSAGES_H_
