#include "client/infer_messages.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"

namespace relight::client {
namespace {

using Contents = inference::InferTensorContents;
using OutputMessage = inference::ModelInferResponse::InferOutputTensor;

absl::Status CheckTensors(const std::vector<Tensor>& tensors) {
  std::vector<std::string> problems;
  for (const Tensor& tensor : tensors) {
    if (absl::Status status = tensor.Validate(); !status.ok()) {
      problems.emplace_back(status.message());
    }
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "; "));
}

// Narrows each value of a repeated field to what the datatype holds.
template <typename T, typename Field>
std::string Pack(const Field& field) {
  std::string bytes;
  bytes.reserve(static_cast<std::size_t>(field.size()) * sizeof(T));
  for (const auto& element : field) {
    const T value = static_cast<T>(element);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  return bytes;
}

std::string PackContents(DataType datatype, const Contents& contents) {
  switch (datatype) {
    case DataType::kBool:
      return Pack<bool>(contents.bool_contents());
    case DataType::kUint8:
      return Pack<std::uint8_t>(contents.uint_contents());
    case DataType::kUint16:
      return Pack<std::uint16_t>(contents.uint_contents());
    case DataType::kUint32:
      return Pack<std::uint32_t>(contents.uint_contents());
    case DataType::kUint64:
      return Pack<std::uint64_t>(contents.uint64_contents());
    case DataType::kInt8:
      return Pack<std::int8_t>(contents.int_contents());
    case DataType::kInt16:
      return Pack<std::int16_t>(contents.int_contents());
    case DataType::kInt32:
      return Pack<std::int32_t>(contents.int_contents());
    case DataType::kInt64:
      return Pack<std::int64_t>(contents.int64_contents());
    case DataType::kFp32:
      return Pack<float>(contents.fp32_contents());
    case DataType::kFp64:
      return Pack<double>(contents.fp64_contents());
    case DataType::kBytes: {
      const std::vector<std::string> strings(contents.bytes_contents().begin(),
                                             contents.bytes_contents().end());
      return MakeStringTensor("", {}, strings).bytes;
    }
    case DataType::kFp16:
    case DataType::kBf16:
      return {};  // Travel only as raw bytes.
  }
  return {};
}

absl::StatusOr<Tensor> ToTensor(OutputMessage& output, std::string* raw) {
  const std::optional<DataType> datatype = ParseDataType(output.datatype());
  if (!datatype.has_value()) {
    return absl::InternalError(absl::StrCat("the server answered with output ",
                                            Escape(output.name()), " of the unknown datatype ",
                                            Escape(output.datatype())));
  }
  Tensor tensor{std::move(*output.mutable_name()),
                *datatype,
                {output.shape().begin(), output.shape().end()},
                raw != nullptr ? std::move(*raw) : PackContents(*datatype, output.contents())};
  if (absl::Status status = tensor.Validate(); !status.ok()) {
    return absl::InternalError(
        absl::StrCat("the server's answer contradicts itself: ", status.message()));
  }
  return tensor;
}

DurationStatistics FromMessage(const inference::StatisticDuration& message) {
  return {message.count(), absl::Nanoseconds(message.ns())};
}

VersionStatistics FromMessage(const inference::ModelStatistics& message) {
  VersionStatistics statistics;
  statistics.model = message.name();
  statistics.version = message.version();
  if (message.last_inference() != 0) {
    statistics.last_inference =
        absl::FromUnixMillis(static_cast<std::int64_t>(message.last_inference()));
  }
  statistics.inference_count = message.inference_count();
  statistics.execution_count = message.execution_count();
  const inference::InferStatistics& infer = message.inference_stats();
  statistics.success = FromMessage(infer.success());
  statistics.fail = FromMessage(infer.fail());
  statistics.queue = FromMessage(infer.queue());
  statistics.compute_input = FromMessage(infer.compute_input());
  statistics.compute_infer = FromMessage(infer.compute_infer());
  statistics.compute_output = FromMessage(infer.compute_output());
  for (const inference::InferBatchStatistics& batch : message.batch_stats()) {
    statistics.batches.push_back({batch.batch_size(), FromMessage(batch.compute_infer())});
  }
  return statistics;
}

template <typename Field>
std::vector<TensorMetadata> FromTensorMetadata(const Field& field) {
  std::vector<TensorMetadata> tensors;
  for (const auto& tensor : field) {
    tensors.push_back(
        {tensor.name(), tensor.datatype(), {tensor.shape().begin(), tensor.shape().end()}});
  }
  return tensors;
}

}  // namespace

absl::StatusOr<inference::ModelInferRequest> ToMessage(InferRequest request) {
  RELIGHT_RETURN_IF_ERROR(CheckTensors(request.inputs));
  inference::ModelInferRequest message;
  message.set_model_name(std::move(request.model));
  if (request.version.has_value()) message.set_model_version(absl::StrCat(*request.version));
  message.set_id(std::move(request.id));
  for (Tensor& tensor : request.inputs) {
    auto* input = message.add_inputs();
    input->set_name(std::move(tensor.name));
    input->set_datatype(std::string(Name(tensor.datatype)));
    input->mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
    message.add_raw_input_contents(std::move(tensor.bytes));
  }
  for (std::string& name : request.outputs) message.add_outputs()->set_name(std::move(name));
  const std::size_t size = message.ByteSizeLong();
  if (size > static_cast<std::size_t>(std::numeric_limits<int>::max())) {
    return absl::InvalidArgumentError(absl::StrCat("the request has ", size,
                                                   " bytes, a message holds at most ",
                                                   std::numeric_limits<int>::max()));
  }
  return message;
}

absl::StatusOr<InferResponse> FromMessage(inference::ModelInferResponse message) {
  InferResponse response;
  response.model = std::move(*message.mutable_model_name());
  response.version = std::move(*message.mutable_model_version());
  response.id = std::move(*message.mutable_id());
  if (auto it = message.parameters().find("generation"); it != message.parameters().end()) {
    response.generation = static_cast<std::uint64_t>(it->second.int64_param());
  }
  if (auto it = message.parameters().find("weights_digest"); it != message.parameters().end()) {
    response.weights_digest = it->second.string_param();
  }
  const int raw_count = message.raw_output_contents_size();
  if (raw_count != 0 && raw_count != message.outputs_size()) {
    return absl::InternalError(absl::StrCat("the server answered with ", message.outputs_size(),
                                            " outputs but ", raw_count, " raw contents"));
  }
  for (int i = 0; i < message.outputs_size(); ++i) {
    std::string* raw = raw_count != 0 ? message.mutable_raw_output_contents(i) : nullptr;
    RELIGHT_ASSIGN_OR_RETURN(Tensor tensor, ToTensor(*message.mutable_outputs(i), raw));
    response.outputs.push_back(std::move(tensor));
  }
  return response;
}

ModelMetadata FromMessage(const inference::ModelMetadataResponse& message) {
  return {message.name(),
          {message.versions().begin(), message.versions().end()},
          message.platform(),
          FromTensorMetadata(message.inputs()),
          FromTensorMetadata(message.outputs())};
}

std::vector<VersionStatistics> FromMessage(const inference::ModelStatisticsResponse& message) {
  std::vector<VersionStatistics> statistics;
  for (const inference::ModelStatistics& version : message.model_stats()) {
    statistics.push_back(FromMessage(version));
  }
  return statistics;
}

}  // namespace relight::client
