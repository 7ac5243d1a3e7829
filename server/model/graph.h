// A graph, and a graph with weights: the interface between what computes and what serves. No
// LibTorch here, so that everything above builds and is tested without it.
#ifndef RELIGHT_SERVER_MODEL_GRAPH_H_
#define RELIGHT_SERVER_MODEL_GRAPH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/model/host_tensor.h"
#include "server/network/parameters.h"
#include "server/network/tensor_spec.h"
#include "storage/dtype.h"

namespace relight::model {

// One named tensor of a checkpoint, in host memory that `BindRequest::keep_alive` owns.
struct WeightView {
  std::string name;  // The graph's name for it.
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> stride;  // In elements.
  const std::byte* data = nullptr;   // Element [0, ..., 0].
};

struct BindRequest {
  // Exactly the graph's parameters (optional ones may be missing), already compared by
  // CompareParameters. Views may alias each other: tied weights stay tied.
  std::vector<WeightView> weights;
  // Owns the memory of the views; the BoundModel holds it for as long as it reads them.
  std::shared_ptr<const void> keep_alive;
  // Where the device's copies go, on devices with memory of their own: the arena to use (0 or 1).
  int arena = 0;
};

// A graph with weights, ready to answer. Immutable.
//
// Thread-safety: Forward may be called from several threads at once. Destruction may free device
// memory and take long: only the manager's threads destroy models.
class BoundModel {
 public:
  virtual ~BoundModel() = default;

  // `inputs` in the graph's order, with the graph's dtypes; shapes may differ from call to call in
  // free dimensions. Outputs in the graph's order; they own their memory and never alias a
  // parameter or an input. INTERNAL with LibTorch's message where the computation fails,
  // INVALID_ARGUMENT where the shapes do.
  virtual absl::StatusOr<std::vector<HostTensor>> Forward(
      absl::Span<const HostTensor> inputs) const = 0;

  // Forward, and what makes Forwards with other numbers of rows fast from the first one on: on CUDA
  // they are captured, which takes device memory. Called before the model serves, by one thread.
  // Errors as Forward's, and RESOURCE_EXHAUSTED where that memory is not there.
  virtual absl::StatusOr<std::vector<HostTensor>> WarmUp(
      absl::Span<const HostTensor> inputs) const {
    return Forward(inputs);
  }

  // Uninitialised memory for an input, from which the device reads without another copy; null where
  // there is no such memory, or none better than any other. Thread-safe; may outlive the model.
  virtual std::shared_ptr<std::byte> AllocateInput(std::uint64_t /*size_bytes*/) const {
    return nullptr;
  }

  // Whether a Forward of inputs that have `input_bytes` together is sure to take no longer than
  // waking another thread for it would: some microseconds.
  virtual bool IsQuick(std::uint64_t /*input_bytes*/) const { return false; }
};

// How inputs become outputs; holds no weights.
//
// Thread-safety: Bind is called by one thread at a time; the rest is const.
class Graph {
 public:
  virtual ~Graph() = default;

  virtual const std::vector<TensorSpec>& inputs() const = 0;
  virtual const std::vector<TensorSpec>& outputs() const = 0;
  // What a checkpoint must have, in state dict order.
  virtual const std::vector<ParameterSpec>& parameters() const = 0;
  // "cpu", "cuda:0".
  virtual const std::string& device() const = 0;
  // How many Forwards at a time keep the device busy, beyond which batches better wait and grow. 0:
  // as many as there are threads.
  virtual int forwards_at_once() const { return 0; }

  // Makes a model of this graph and these weights. Never runs a random initialiser, and copies only
  // what it cannot adopt: on the CPU in the checkpoint's own dtype the weights are used in place.
  // What is derived from weights (casts, packed copies) belongs to the BoundModel, and with an
  // arena of the device to that.
  virtual absl::StatusOr<std::unique_ptr<BoundModel>> Bind(BindRequest request) = 0;
};

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_GRAPH_H_
