// Between the plain structs of the public header and the protocol's messages.
#ifndef RELIGHT_CLIENT_INFER_MESSAGES_H_
#define RELIGHT_CLIENT_INFER_MESSAGES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "inference/grpc_service.pb.h"
#include "relight/client.h"

namespace relight::client {

// Moves the tensors' bytes. INVALID_ARGUMENT, listing all, for tensors that do not hold together,
// and for a request that no message can hold.
absl::StatusOr<inference::ModelInferRequest> ToMessage(InferRequest request);

// Moves the tensors' bytes; typed contents, which some servers answer with, become bytes. INTERNAL
// for an answer that contradicts itself.
absl::StatusOr<InferResponse> FromMessage(inference::ModelInferResponse message);

ModelMetadata FromMessage(const inference::ModelMetadataResponse& message);
std::vector<VersionStatistics> FromMessage(const inference::ModelStatisticsResponse& message);

}  // namespace relight::client

#endif  // RELIGHT_CLIENT_INFER_MESSAGES_H_
