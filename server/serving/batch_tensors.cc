#include "server/serving/batch_tensors.h"

#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/serving/tensor_shapes.h"

namespace relight::serving {
namespace {

const InputTensor& InputAt(const PendingRequest& pending, std::size_t position) {
  return pending.request.inputs[pending.admitted.inputs[position]];
}

bool Batched(const Signature& signature) { return signature.batching.max_batch_size > 0; }

// Whether the graph may read the bytes where the transport put them.
bool UsableInPlace(const InputTensor& input) {
  if (input.bytes.size() != 1 || input.bytes.front().empty()) return false;
  const auto address = reinterpret_cast<std::uintptr_t>(input.bytes.front().data());
  return address % ItemSize(input.dtype) == 0;
}

absl::StatusOr<model::HostTensor> AssembleInput(const model::BoundModel& model, BatchView batch,
                                                std::size_t position, std::int64_t rows,
                                                bool batched, BatchBuffers& buffers) {
  const InputTensor& first = InputAt(*batch.front(), position);
  model::HostTensor tensor;
  tensor.dtype = first.dtype;
  tensor.shape = first.shape;
  if (batched) tensor.shape.front() = rows;
  if (batch.size() == 1 && UsableInPlace(first)) {
    const absl::Span<const std::byte> bytes = first.bytes.front();
    tensor.data = {batch.front()->request.keep_alive, bytes.data()};
    tensor.size_bytes = bytes.size();
    return tensor;
  }
  for (const std::unique_ptr<PendingRequest>& pending : batch) {
    for (const auto& slice : InputAt(*pending, position).bytes) tensor.size_bytes += slice.size();
  }
  std::shared_ptr<std::byte> buffer = model.AllocateInput(tensor.size_bytes);
  tensor.page_locked = buffer != nullptr;
  if (buffer == nullptr) buffer = buffers.Acquire(tensor.size_bytes);
  if (buffer == nullptr) {
    return absl::InternalError(absl::StrCat("input ", Escape(first.name), ": no memory for ",
                                            tensor.size_bytes, " bytes of a batch of ", rows,
                                            "; lower batching.max_batch_size"));
  }
  std::byte* end = buffer.get();
  for (const std::unique_ptr<PendingRequest>& pending : batch) {
    for (const auto& slice : InputAt(*pending, position).bytes) {
      if (slice.empty()) continue;
      std::memcpy(end, slice.data(), slice.size());
      end += slice.size();
    }
  }
  tensor.data = std::move(buffer);
  return tensor;
}

// Empty where nothing is wrong.
std::string DescribeWrongOutput(const TensorSpec& spec, const model::HostTensor& output,
                                std::int64_t rows, bool batched) {
  const auto subject = [&spec] {
    return absl::StrCat("output ", Escape(spec.name), ": the graph returned ");
  };
  if (output.dtype != spec.dtype) {
    return absl::StrCat(subject(), "datatype ", FormatDType(output.dtype), ", the model promises ",
                        FormatDType(spec.dtype));
  }
  if (batched && (output.shape.empty() || output.shape.front() != rows)) {
    return absl::StrCat(subject(), "shape ", FormatShape(output.shape), " for a batch of ", rows,
                        " rows: its first dimension must be the batch's");
  }
  const std::optional<std::uint64_t> needed = DenseBytes(output.dtype, output.shape);
  if (needed != output.size_bytes || (output.size_bytes > 0 && output.data == nullptr)) {
    return absl::StrCat(subject(), output.size_bytes, " bytes for shape ",
                        FormatShape(output.shape), " of ", FormatDType(output.dtype));
  }
  return "";
}

}  // namespace

std::int64_t TotalRows(BatchView batch) {
  std::int64_t rows = 0;
  for (const std::unique_ptr<PendingRequest>& pending : batch) rows += pending->admitted.rows;
  return rows;
}

absl::StatusOr<std::vector<model::HostTensor>> AssembleInputs(const Signature& signature,
                                                              const model::BoundModel& model,
                                                              BatchView batch,
                                                              BatchBuffers& buffers) {
  const std::int64_t rows = TotalRows(batch);
  std::vector<model::HostTensor> inputs;
  inputs.reserve(signature.inputs.size());
  for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
    RELIGHT_ASSIGN_OR_RETURN(model::HostTensor input,
                             AssembleInput(model, batch, i, rows, Batched(signature), buffers));
    inputs.push_back(std::move(input));
  }
  return inputs;
}

absl::Status CheckOutputs(const Signature& signature, std::int64_t rows,
                          absl::Span<const model::HostTensor> outputs) {
  if (outputs.size() != signature.outputs.size()) {
    return absl::InternalError(absl::StrCat("the graph returned ", outputs.size(),
                                            " outputs, the model promises ",
                                            signature.outputs.size()));
  }
  std::vector<std::string> problems;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    std::string problem =
        DescribeWrongOutput(signature.outputs[i], outputs[i], rows, Batched(signature));
    if (!problem.empty()) problems.push_back(std::move(problem));
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InternalError(absl::StrJoin(problems, "; "));
}

std::vector<OutputTensor> SliceOutputs(const Signature& signature,
                                       absl::Span<const model::HostTensor> outputs,
                                       std::int64_t batch_rows, std::int64_t first_row,
                                       const AdmittedRequest& admitted) {
  std::vector<OutputTensor> slices;
  slices.reserve(admitted.outputs.size());
  for (const std::size_t position : admitted.outputs) {
    const model::HostTensor& whole = outputs[position];
    OutputTensor slice;
    slice.name = signature.outputs[position].name;
    slice.dtype = whole.dtype;
    slice.shape = whole.shape;
    slice.data = whole.data;
    slice.size_bytes = whole.size_bytes;
    if (Batched(signature)) {
      const std::uint64_t row_bytes = whole.size_bytes / static_cast<std::uint64_t>(batch_rows);
      const std::uint64_t offset = row_bytes * static_cast<std::uint64_t>(first_row);
      slice.shape.front() = admitted.rows;
      slice.size_bytes = row_bytes * static_cast<std::uint64_t>(admitted.rows);
      if (slice.size_bytes > 0) slice.data = {whole.data, whole.data.get() + offset};
    }
    slices.push_back(std::move(slice));
  }
  return slices;
}

}  // namespace relight::serving
