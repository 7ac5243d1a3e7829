// What surrounds every forward: host tensors in, LibTorch's tensors through a computation, host
// tensors out.
#ifndef RELIGHT_SERVER_MODEL_EXECUTION_H_
#define RELIGHT_SERVER_MODEL_EXECUTION_H_

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/model/captured_forwards.h"
#include "server/model/device.h"
#include "server/model/host_tensor.h"
#include "server/network/tensor_spec.h"

namespace relight::model {

struct Signature {
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
};

// To be called on each thread before LibTorch computes there: OpenMP counts threads per calling
// thread, and without this oneDNN would take all cores. Cheap from the second call on.
void LimitThreads();

// INVALID_ARGUMENT for inputs that are not as `signature` says.
absl::Status CheckInputs(const Signature& signature, absl::Span<const HostTensor> inputs);

// Gets the inputs on the device, in the types in which they travel (UINT16 as int32, ...); they may
// be views of the caller's memory and must not be written to. Returns the outputs, one per spec, in
// any type of the same category; may alias what it likes. May throw.
using Computation =
    absl::FunctionRef<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

// Thread-safe. The results own their memory. INVALID_ARGUMENT for inputs that are not as
// `signature` says, INTERNAL for outputs that are not; else as BoundModel::Forward. Where
// `captured`, which may be null, has a forward for these inputs, that is computed.
absl::StatusOr<std::vector<HostTensor>> Execute(Device& device, const Signature& signature,
                                                absl::Span<const HostTensor> inputs,
                                                Computation computation,
                                                CapturedForwards* captured = nullptr);

// The inputs as they go to a device. Errors as Execute's. Throws what LibTorch throws.
absl::StatusOr<std::vector<HostInput>> ReadInputs(const Signature& signature,
                                                  absl::Span<const HostTensor> inputs);

// What `computation` gives, as `signature` declares it: each output in its type, contiguous, in
// memory that nothing else refers to. INTERNAL where that cannot be. Throws what LibTorch throws.
absl::StatusOr<std::vector<at::Tensor>> Compute(const Signature& signature,
                                                const std::vector<at::Tensor>& inputs,
                                                Computation computation);

// Whether Compute may have to look at values before it knows what to queue next.
bool LooksAtValues(const Signature& signature);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_EXECUTION_H_
