#include "server/model/execution.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/model/torch_error.h"
#include "server/model/torch_types.h"

namespace relight::model {
namespace {

std::string Describe(DType dtype) { return std::string(Name(dtype)); }

// Whether `shape` is one that `spec` allows.
bool Allows(const TensorSpec& spec, absl::Span<const std::int64_t> shape) {
  if (shape.size() != spec.shape.size()) return false;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0 || (spec.shape[i] >= 0 && shape[i] != spec.shape[i])) return false;
  }
  return true;
}

std::optional<std::uint64_t> BytesOf(DType dtype, absl::Span<const std::int64_t> shape) {
  std::uint64_t bytes = ItemSize(dtype);
  for (const std::int64_t size : shape) {
    const auto product = CheckedMul(bytes, static_cast<std::uint64_t>(size));
    if (!product) return std::nullopt;
    bytes = *product;
  }
  return bytes;
}

absl::Status CheckInput(const TensorSpec& spec, const HostTensor& input) {
  if (input.dtype != spec.dtype) {
    return absl::InvalidArgumentError(absl::StrCat("input ", Escape(spec.name), ": is ",
                                                   Describe(input.dtype), ", the graph takes ",
                                                   Describe(spec.dtype)));
  }
  if (!Allows(spec, input.shape)) {
    return absl::InvalidArgumentError(absl::StrCat("input ", Escape(spec.name), ": has shape ",
                                                   ShapeString(input.shape), ", the graph takes ",
                                                   ShapeString(spec.shape)));
  }
  const std::optional<std::uint64_t> needed = BytesOf(input.dtype, input.shape);
  if (!needed || *needed != input.size_bytes || (*needed > 0 && input.data == nullptr)) {
    return absl::InvalidArgumentError(
        absl::StrCat("input ", Escape(spec.name), ": has ", input.size_bytes, " bytes, shape ",
                     ShapeString(input.shape), " of ", Describe(input.dtype), " takes ",
                     needed ? absl::StrCat(*needed) : "more than there can be"));
  }
  return absl::OkStatus();
}

// Copies `count` elements from one integer type to another; false where a value does not fit.
template <typename From, typename To>
bool ConvertElements(const void* from, void* to, std::int64_t count) {
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  for (std::int64_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, source + static_cast<std::size_t>(i) * sizeof(From), sizeof(From));
    if (!std::in_range<To>(value)) return false;
    const To converted = static_cast<To>(value);
    std::memcpy(target + static_cast<std::size_t>(i) * sizeof(To), &converted, sizeof(To));
  }
  return true;
}

// From an unsigned type that LibTorch lacks to the one that it travels in.
bool Widen(DType dtype, const void* from, void* to, std::int64_t count) {
  switch (dtype) {
    case DType::kUInt16:
      return ConvertElements<std::uint16_t, std::int32_t>(from, to, count);
    case DType::kUInt32:
      return ConvertElements<std::uint32_t, std::int64_t>(from, to, count);
    default:
      return ConvertElements<std::uint64_t, std::int64_t>(from, to, count);
  }
}

bool Narrow(DType dtype, const void* from, void* to, std::int64_t count) {
  switch (dtype) {
    case DType::kUInt16:
      return ConvertElements<std::int32_t, std::uint16_t>(from, to, count);
    case DType::kUInt32:
      return ConvertElements<std::int64_t, std::uint32_t>(from, to, count);
    default:
      return ConvertElements<std::int64_t, std::uint64_t>(from, to, count);
  }
}

bool TravelsWider(DType dtype) {
  return dtype == DType::kUInt16 || dtype == DType::kUInt32 || dtype == DType::kUInt64;
}

// A tensor in host memory, of the type in which the input travels; a view of it where possible.
absl::StatusOr<at::Tensor> ReadInput(const TensorSpec& spec, const HostTensor& input) {
  const std::optional<at::ScalarType> type = TravelType(input.dtype);
  if (!type) {
    return absl::InvalidArgumentError(absl::StrCat("input ", Escape(spec.name), ": ",
                                                   Describe(input.dtype), " cannot be computed"));
  }
  if (input.size_bytes == 0) return at::empty(input.shape, at::TensorOptions(*type));
  // LibTorch has no view of const memory; the computation has promised not to write.
  void* const data = const_cast<std::byte*>(input.data.get());
  // A bool must hold 0 or 1, but a client can send any byte.
  if (*type == at::kBool) return at::from_blob(data, input.shape, at::kByte).ne(0);
  if (!TravelsWider(input.dtype)) return at::from_blob(data, input.shape, *type);
  at::Tensor wide = at::empty(input.shape, at::TensorOptions(*type));
  if (!Widen(input.dtype, data, wide.data_ptr(), wide.numel())) {
    return absl::InvalidArgumentError(
        absl::StrCat("input ", Escape(spec.name), ": holds a value above ",
                     std::numeric_limits<std::int64_t>::max(), ", the largest that is computed"));
  }
  return wide;
}

// `staged` keeps what the copy reads until the stream is done.
absl::StatusOr<at::Tensor> Upload(Device& device, const HostInput& input,
                                  std::vector<at::Tensor>& staged) {
  staged.push_back(PageLocked(device, input));
  const at::Tensor& from = staged.back();
  at::Tensor there =
      at::empty(from.sizes(), at::TensorOptions(from.scalar_type()).device(device.torch_device()));
  RELIGHT_RETURN_IF_ERROR(
      device.CopyToDevice(there.data_ptr(), from.data_ptr(), TensorBytes(from), Stream::kCompute));
  return there;
}

bool IsInteger(at::ScalarType type) { return at::isIntegralType(type, /*includeBool=*/false); }

// The smallest and largest value that output type `dtype` can hold and that its travel type can
// too.
std::pair<std::int64_t, std::int64_t> IntegerRange(DType dtype) {
  switch (dtype) {
    case DType::kUInt8:
      return {0, std::numeric_limits<std::uint8_t>::max()};
    case DType::kInt8:
      return {std::numeric_limits<std::int8_t>::min(), std::numeric_limits<std::int8_t>::max()};
    case DType::kUInt16:
      return {0, std::numeric_limits<std::uint16_t>::max()};
    case DType::kInt16:
      return {std::numeric_limits<std::int16_t>::min(), std::numeric_limits<std::int16_t>::max()};
    case DType::kUInt32:
      return {0, std::numeric_limits<std::uint32_t>::max()};
    case DType::kInt32:
      return {std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()};
    case DType::kUInt64:
      return {0, std::numeric_limits<std::int64_t>::max()};
    default:
      return {std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()};
  }
}

absl::Status CheckRange(const TensorSpec& spec, const at::Tensor& tensor) {
  if (tensor.numel() == 0) return absl::OkStatus();
  const auto [low, high] = IntegerRange(spec.dtype);
  const std::int64_t least = tensor.min().item().to<std::int64_t>();
  const std::int64_t most = tensor.max().item().to<std::int64_t>();
  if (least >= low && most <= high) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("output ", Escape(spec.name), ": value ",
                                          least < low ? least : most, " does not fit ",
                                          Describe(spec.dtype), " (", low, " to ", high, ")"));
}

absl::Status CheckOutput(const TensorSpec& spec, const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.layout() != at::kStrided || tensor.is_quantized()) {
    return absl::InternalError(
        absl::StrCat("output ", Escape(spec.name), ": is not a dense tensor"));
  }
  if (!Allows(spec, absl::MakeConstSpan(tensor.sizes().data(), tensor.sizes().size()))) {
    return absl::InternalError(
        absl::StrCat("output ", Escape(spec.name), ": has shape ",
                     ShapeString(absl::MakeConstSpan(tensor.sizes().data(), tensor.sizes().size())),
                     ", the config declares ", ShapeString(spec.shape)));
  }
  const at::ScalarType from = tensor.scalar_type();
  const std::optional<at::ScalarType> to = TravelType(spec.dtype);
  const bool converts =
      to && (from == *to || (at::isFloatingType(*to) && !at::isComplexType(from)) ||
             (IsInteger(*to) && (IsInteger(from) || from == at::kBool)));
  if (!converts) {
    return absl::InternalError(absl::StrCat("output ", Escape(spec.name), ": is ",
                                            at::toString(from), ", the config declares ",
                                            Describe(spec.dtype)));
  }
  return absl::OkStatus();
}

// In the declared type, contiguous, in memory that nothing else refers to.
absl::StatusOr<at::Tensor> PrepareOutput(const TensorSpec& spec, at::Tensor tensor) {
  RELIGHT_RETURN_IF_ERROR(CheckOutput(spec, tensor));
  const at::ScalarType type = *TravelType(spec.dtype);
  if (IsInteger(type) && (tensor.scalar_type() != type || TravelsWider(spec.dtype))) {
    RELIGHT_RETURN_IF_ERROR(CheckRange(spec, tensor));
  }
  if (tensor.scalar_type() != type) tensor = tensor.to(type);
  // Parameters, inputs, other outputs and a graph's constants all hold a reference to what the
  // output may be a view of.
  const bool shared = tensor.use_count() > 1 || tensor.storage().use_count() > 1;
  // A small view of a large buffer would keep all of it.
  const bool wasteful = tensor.storage().nbytes() > 2 * TensorBytes(tensor);
  if (shared || wasteful || tensor.is_conj() || tensor.is_neg()) {
    tensor = tensor.clone(at::MemoryFormat::Contiguous);
  }
  return tensor.contiguous();
}

HostTensor Wrap(const TensorSpec& spec, at::Tensor tensor) {
  HostTensor output;
  output.dtype = spec.dtype;
  output.shape = tensor.sizes().vec();
  output.size_bytes = static_cast<std::uint64_t>(tensor.numel()) * ItemSize(spec.dtype);
  const auto owner = std::make_shared<at::Tensor>(std::move(tensor));
  output.data =
      std::shared_ptr<const std::byte>(owner, static_cast<const std::byte*>(owner->data_ptr()));
  return output;
}

HostTensor WrapNarrowed(const TensorSpec& spec, const at::Tensor& tensor) {
  HostTensor output;
  output.dtype = spec.dtype;
  output.shape = tensor.sizes().vec();
  output.size_bytes = static_cast<std::uint64_t>(tensor.numel()) * ItemSize(spec.dtype);
  const std::shared_ptr<std::byte[]> bytes(new std::byte[output.size_bytes]);
  Narrow(spec.dtype, tensor.data_ptr(), bytes.get(), tensor.numel());  // CheckRange was there.
  output.data = std::shared_ptr<const std::byte>(bytes, bytes.get());
  return output;
}

// Waits for the copies; where one fails, those before it are left under way.
absl::Status DownloadAll(Device& device, std::vector<at::Tensor>& outputs,
                         std::vector<at::Tensor>& hosts) {
  for (const at::Tensor& output : outputs) {
    hosts.push_back(device.EmptyHost(output.sizes(), output.scalar_type()));
    const absl::Status copied = device.CopyToHost(hosts.back().data_ptr(), output.data_ptr(),
                                                  TensorBytes(output), Stream::kCompute);
    RELIGHT_RETURN_IF_ERROR(copied);
  }
  RELIGHT_ASSIGN_OR_RETURN(const std::unique_ptr<Mark> mark, device.SetMark(Stream::kCompute));
  RELIGHT_RETURN_IF_ERROR(mark->Wait());
  return absl::OkStatus();
}

// Waits for the stream before what it works on goes away, also when a forward fails half-way.
class StreamFence {
 public:
  explicit StreamFence(Device& device) : device_(device) {}
  ~StreamFence() {
    if (!crossed_) device_.Synchronize(Stream::kCompute).IgnoreError();
  }
  void Crossed() { crossed_ = true; }

 private:
  Device& device_;
  bool crossed_ = false;
};

absl::StatusOr<std::vector<at::Tensor>> ComputeOnDevice(Device& device, const Signature& signature,
                                                        const std::vector<HostInput>& inputs,
                                                        Computation computation) {
  const std::unique_ptr<StreamScope> scope = device.Use(Stream::kCompute);
  // All that work under way refers to goes after the fence.
  std::vector<at::Tensor> staged, arguments, outputs, hosts;
  StreamFence fence(device);
  for (const HostInput& input : inputs) {
    RELIGHT_ASSIGN_OR_RETURN(at::Tensor argument, Upload(device, input, staged));
    arguments.push_back(std::move(argument));
  }
  RELIGHT_ASSIGN_OR_RETURN(outputs, Compute(signature, arguments, computation));
  RELIGHT_RETURN_IF_ERROR(DownloadAll(device, outputs, hosts));
  fence.Crossed();
  return hosts;
}

absl::StatusOr<std::vector<at::Tensor>> ComputeAnywhere(Device& device, const Signature& signature,
                                                        std::vector<HostInput> inputs,
                                                        Computation computation,
                                                        CapturedForwards* captured) {
  if (device.shares_host_memory()) {
    std::vector<at::Tensor> arguments;
    arguments.reserve(inputs.size());
    for (HostInput& input : inputs) arguments.push_back(std::move(input.tensor));
    return Compute(signature, arguments, computation);
  }
  if (captured != nullptr) {
    if (auto outputs = captured->Run(device, inputs)) return *std::move(outputs);
  }
  return ComputeOnDevice(device, signature, inputs, computation);
}

absl::StatusOr<std::vector<HostTensor>> ExecuteChecked(Device& device, const Signature& signature,
                                                       absl::Span<const HostTensor> inputs,
                                                       Computation computation,
                                                       CapturedForwards* captured) {
  LimitThreads();
  const c10::InferenceMode inference;
  RELIGHT_ASSIGN_OR_RETURN(std::vector<HostInput> arguments, ReadInputs(signature, inputs));
  RELIGHT_ASSIGN_OR_RETURN(
      std::vector<at::Tensor> results,
      ComputeAnywhere(device, signature, std::move(arguments), computation, captured));
  std::vector<HostTensor> outputs;
  outputs.reserve(results.size());
  for (std::size_t i = 0; i < results.size(); ++i) {
    const TensorSpec& spec = signature.outputs[i];
    outputs.push_back(TravelsWider(spec.dtype) ? WrapNarrowed(spec, results[i])
                                               : Wrap(spec, std::move(results[i])));
  }
  return outputs;
}

// Whether a request can choose a size: if not, a shape that fails is the graph's fault.
bool HasFreeDimensions(const Signature& signature) {
  for (const TensorSpec& spec : signature.inputs) {
    for (const std::int64_t size : spec.shape) {
      if (size < 0) return true;
    }
  }
  return false;
}

}  // namespace

void LimitThreads() {
  static thread_local const bool threads_set = (at::init_num_threads(), true);
  static_cast<void>(threads_set);
}

absl::Status CheckInputs(const Signature& signature, absl::Span<const HostTensor> inputs) {
  if (inputs.size() != signature.inputs.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", inputs.size(), " inputs, the graph takes ", signature.inputs.size()));
  }
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    RELIGHT_RETURN_IF_ERROR(CheckInput(signature.inputs[i], inputs[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<HostInput>> ReadInputs(const Signature& signature,
                                                  absl::Span<const HostTensor> inputs) {
  std::vector<HostInput> read;
  read.reserve(inputs.size());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    RELIGHT_ASSIGN_OR_RETURN(at::Tensor tensor, ReadInput(signature.inputs[i], inputs[i]));
    const bool in_place = tensor.data_ptr() == static_cast<const void*>(inputs[i].data.get());
    read.push_back({std::move(tensor), inputs[i].page_locked && in_place});
  }
  return read;
}

absl::StatusOr<std::vector<at::Tensor>> Compute(const Signature& signature,
                                                const std::vector<at::Tensor>& inputs,
                                                Computation computation) {
  std::vector<at::Tensor> outputs = computation(inputs);
  if (outputs.size() != signature.outputs.size()) {
    return absl::InternalError(absl::StrCat("the graph returned ", outputs.size(),
                                            " outputs, the config declares ",
                                            signature.outputs.size()));
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    RELIGHT_ASSIGN_OR_RETURN(outputs[i],
                             PrepareOutput(signature.outputs[i], std::move(outputs[i])));
  }
  return outputs;
}

bool LooksAtValues(const Signature& signature) {
  return std::any_of(signature.outputs.begin(), signature.outputs.end(),
                     [](const TensorSpec& spec) { return !IsFloatingPoint(spec.dtype); });
}

absl::StatusOr<std::vector<HostTensor>> Execute(Device& device, const Signature& signature,
                                                absl::Span<const HostTensor> inputs,
                                                Computation computation,
                                                CapturedForwards* captured) {
  RELIGHT_RETURN_IF_ERROR(CheckInputs(signature, inputs));
  try {
    return ExecuteChecked(device, signature, inputs, computation, captured);
  } catch (...) {
    return StatusOfForwardException(HasFreeDimensions(signature));
  }
}

}  // namespace relight::model
