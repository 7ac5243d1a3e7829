// From the tensors of requests to those of a batch and back.
//
// Thread-safe: no state but the buffers'.
#ifndef RELIGHT_SERVER_SERVING_BATCH_TENSORS_H_
#define RELIGHT_SERVER_SERVING_BATCH_TENSORS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/model/graph.h"
#include "server/model/host_tensor.h"
#include "server/serving/batch_buffers.h"
#include "server/serving/infer.h"
#include "server/serving/pending_request.h"
#include "server/serving/request_path.h"

namespace relight::serving {

// Requests that share a key; a view of whoever owns them.
using BatchView = absl::Span<const std::unique_ptr<PendingRequest>>;

std::int64_t TotalRows(BatchView batch);

// The graph's inputs in the signature's order, dense: the rows of the requests one after the other.
// A lone request's input that is one aligned slice is used where it lies (and keeps the request's
// bytes alive); all else is copied once: to where the model's device reads it from, or into a
// buffer of `buffers`. INTERNAL where there is no memory.
// REQUIRES: the requests were admitted against `signature`; the batch is not empty.
absl::StatusOr<std::vector<model::HostTensor>> AssembleInputs(const Signature& signature,
                                                              const model::BoundModel& model,
                                                              BatchView batch,
                                                              BatchBuffers& buffers);

// INTERNAL, naming each output, where what a graph returned is not what the signature promises in
// number, datatype, rows (where the model has a batch dimension) and bytes. What passes can be cut
// into rows safely.
absl::Status CheckOutputs(const Signature& signature, std::int64_t rows,
                          absl::Span<const model::HostTensor> outputs);

// The outputs that `pending` asked for: its `rows` rows from `first_row` on, sharing the memory of
// the batch's. Without a batch dimension: all of each output.
// REQUIRES: `outputs` passed CheckOutputs.
std::vector<OutputTensor> SliceOutputs(const Signature& signature,
                                       absl::Span<const model::HostTensor> outputs,
                                       std::int64_t batch_rows, std::int64_t first_row,
                                       const AdmittedRequest& admitted);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_BATCH_TENSORS_H_
