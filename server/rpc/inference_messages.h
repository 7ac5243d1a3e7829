// What the core knows, as the Open Inference Protocol's messages.
//
// Pure and thread-safe.
#ifndef RELIGHT_SERVER_RPC_INFERENCE_MESSAGES_H_
#define RELIGHT_SERVER_RPC_INFERENCE_MESSAGES_H_

#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "inference/grpc_service.pb.h"
#include "server/serving/server_core.h"
#include "server/serving/statistics.h"
#include "server/serving/status.h"

namespace relight::rpc {

// Shapes include the batch dimension here ...
inference::ModelMetadataResponse ToMetadata(const serving::ModelInfo& info);
// ... and leave it out here, where max_batch_size > 0.
inference::ModelConfig ToConfig(const serving::ModelInfo& info);
inference::ModelStatistics ToStatistics(std::string_view model,
                                        const serving::VersionStatistics& statistics);
// A row per version that is loaded, loading or refused; with `only_ready`, loaded alone. A model
// without any has one row of its own.
inference::RepositoryIndexResponse ToIndex(absl::Span<const serving::ModelStatus> models,
                                           bool only_ready);

// Whether `name` can be a model's folder: no path, not blank, no control character.
absl::Status CheckModelName(std::string_view name);
absl::Status CheckRepositoryRequest(const inference::RepositoryModelLoadRequest& request);
absl::Status CheckRepositoryRequest(const inference::RepositoryModelUnloadRequest& request);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_INFERENCE_MESSAGES_H_
