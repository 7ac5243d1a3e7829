#include "server/serving/warm_up.h"

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/serving/batch_tensors.h"
#include "server/serving/tensor_shapes.h"

namespace relight::serving {
namespace {

absl::StatusOr<model::HostTensor> Zeros(const TensorSpec& spec, bool batched,
                                        std::int64_t batch_size, std::int64_t free_dim) {
  model::HostTensor tensor;
  tensor.dtype = spec.dtype;
  tensor.shape = spec.shape;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    if (batched && i == 0) {
      tensor.shape[i] = batch_size;
    } else if (tensor.shape[i] < 0) {
      tensor.shape[i] = free_dim;
    }
  }
  const std::optional<std::uint64_t> bytes = DenseBytes(tensor.dtype, tensor.shape);
  if (!bytes.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("input ", Escape(spec.name), ": shape ",
                                                   FormatShape(tensor.shape), " of ",
                                                   FormatDType(tensor.dtype), " has no size"));
  }
  void* zeros = std::calloc(*bytes + 1, 1);
  if (zeros == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("input ", Escape(spec.name), ": no memory for ", *bytes, " bytes"));
  }
  tensor.data = std::shared_ptr<const std::byte>(
      static_cast<std::byte*>(zeros),
      [](const std::byte* memory) { std::free(const_cast<std::byte*>(memory)); });
  tensor.size_bytes = *bytes;
  return tensor;
}

std::string FreeDimHint(const Signature& signature, bool batched) {
  for (const TensorSpec& spec : signature.inputs) {
    for (std::size_t i = batched ? 1 : 0; i < spec.shape.size(); ++i) {
      if (spec.shape[i] < 0)
        return "; warm_up { free_dim } sets what stands in for free dimensions";
    }
  }
  return "";
}

absl::Status CheckAgainstSignature(const Signature& signature, std::int64_t rows,
                                   absl::Span<const model::HostTensor> outputs) {
  if (const absl::Status status = CheckOutputs(signature, rows, outputs); !status.ok()) {
    return absl::FailedPreconditionError(status.message());
  }
  const bool batched = signature.batching.max_batch_size > 0;
  std::vector<std::string> problems;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const TensorSpec& spec = signature.outputs[i];
    if (ShapeFits(spec, outputs[i].shape, batched)) continue;
    problems.push_back(absl::StrCat("output ", Escape(spec.name), ": the graph returned shape ",
                                    FormatShape(outputs[i].shape), ", the model promises ",
                                    FormatShape(spec.shape)));
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrJoin(problems, "; "));
}

}  // namespace

absl::Status RunWarmUp(const Signature& signature, const model::BoundModel& model,
                       std::int64_t batch_size, std::int64_t free_dim) {
  const std::int64_t limit = signature.batching.max_batch_size;
  const bool batched = limit > 0;
  if (batched && (batch_size < 1 || batch_size > limit)) {
    return absl::InvalidArgumentError(absl::StrCat("warm-up batch size is ", batch_size,
                                                   ", the model takes 1 to ", limit,
                                                   " (batching.max_batch_size)"));
  }
  std::vector<model::HostTensor> inputs;
  for (const TensorSpec& spec : signature.inputs) {
    RELIGHT_ASSIGN_OR_RETURN(model::HostTensor input, Zeros(spec, batched, batch_size, free_dim));
    inputs.push_back(std::move(input));
  }
  const absl::StatusOr<std::vector<model::HostTensor>> outputs = model.WarmUp(inputs);
  if (outputs.ok()) return CheckAgainstSignature(signature, batch_size, *outputs);
  std::vector<std::string> shapes;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    shapes.push_back(
        absl::StrCat(Escape(signature.inputs[i].name), " ", FormatShape(inputs[i].shape)));
  }
  return absl::Status(outputs.status().code(),
                      absl::StrCat("the warm-up with ", absl::StrJoin(shapes, ", "), " failed: ",
                                   outputs.status().message(), FreeDimHint(signature, batched)));
}

}  // namespace relight::serving
