// Files to a server and from it: what AdminClient::Push and DownloadSnapshot do.
#ifndef RELIGHT_CLIENT_TRANSFER_H_
#define RELIGHT_CLIENT_TRANSFER_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/channel.h"
#include "relight/admin.h"
#include "relight/v1/admin.grpc.pb.h"

namespace relight::client {

absl::StatusOr<PushResult> SendCheckpoint(v1::Admin::Stub& stub, CallContext& context,
                                          const std::string& model, const std::string& path,
                                          const PushOptions& options, const Progress& progress);

absl::StatusOr<SnapshotResult> ReceiveSnapshot(v1::Admin::Stub& stub, CallContext& context,
                                               const std::string& model, const std::string& path,
                                               const DownloadOptions& options,
                                               const Progress& progress);

}  // namespace relight::client

#endif  // RELIGHT_CLIENT_TRANSFER_H_
