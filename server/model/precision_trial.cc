#include "server/model/precision_trial.h"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/strided.h"

namespace relight::model {
namespace {

std::vector<std::int64_t> Filled(std::vector<std::int64_t> shape, std::int64_t batch,
                                 std::int64_t free_dim) {
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0) shape[i] = i == 0 ? batch : free_dim;
  }
  return shape;
}

std::size_t BytesOf(DType dtype, const std::vector<std::int64_t>& shape) {
  return storage::CountElements(shape) * ItemSize(dtype);
}

absl::Status Compute(Graph& graph, const std::vector<std::vector<std::int64_t>>& shapes) {
  std::size_t most_bytes = 1;
  for (const ParameterSpec& spec : graph.parameters()) {
    most_bytes = std::max(most_bytes, BytesOf(spec.dtype, spec.shape));
  }
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    most_bytes = std::max(most_bytes, BytesOf(graph.inputs()[i].dtype, shapes[i]));
  }
  const std::shared_ptr<std::byte> zeros(static_cast<std::byte*>(std::calloc(most_bytes, 1)),
                                         std::free);
  if (zeros == nullptr) return absl::OkStatus();
  BindRequest request{.weights = {}, .keep_alive = zeros};
  for (const ParameterSpec& spec : graph.parameters()) {
    request.weights.push_back(
        {spec.name, spec.dtype, spec.shape, storage::DenseStride(spec.shape), zeros.get()});
  }
  std::vector<HostTensor> inputs;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const DType dtype = graph.inputs()[i].dtype;
    HostTensor& input = inputs.emplace_back();
    input.dtype = dtype;
    input.shape = shapes[i];
    input.data = zeros;
    input.size_bytes = BytesOf(dtype, shapes[i]);
  }
  RELIGHT_ASSIGN_OR_RETURN(const std::unique_ptr<BoundModel> bound, graph.Bind(std::move(request)));
  return bound->Forward(inputs).status();
}

}  // namespace

absl::Status TryPrecision(Graph& graph, std::int64_t batch, std::int64_t free_dim) {
  std::vector<std::vector<std::int64_t>> shapes;
  for (const TensorSpec& spec : graph.inputs())
    shapes.push_back(Filled(spec.shape, batch, free_dim));
  const absl::Status computed = Compute(graph, shapes);
  const bool missing = absl::StrContains(computed.message(), "not implemented for") ||
                       absl::StrContains(computed.message(), "expected scalar type");
  if (!missing) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(graph.device(), " does not compute all of this network in that precision: ",
                   computed.message(), "; set precision: FP32, or another device"));
}

}  // namespace relight::model
