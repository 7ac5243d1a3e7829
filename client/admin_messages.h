// From the admin service's messages to the plain structs of the public header.
#ifndef RELIGHT_CLIENT_ADMIN_MESSAGES_H_
#define RELIGHT_CLIENT_ADMIN_MESSAGES_H_

#include "relight/admin.h"
#include "relight/v1/admin.pb.h"

namespace relight::client {

ModelStatus FromMessage(const v1::ModelStatus& message);
ServerStatus FromMessage(const v1::GetStatusResponse& message);
HistoryEntry FromMessage(const v1::HistoryEntry& message);
SnapshotResult FromMessage(const v1::SnapshotResult& message);
PushResult FromMessage(const v1::PushResponse& message);

}  // namespace relight::client

#endif  // RELIGHT_CLIENT_ADMIN_MESSAGES_H_
