#include "server/model/torchscript_trial.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/model/torch_types.h"

namespace relight::model {
namespace {

constexpr int kRuns = 3;
// Far above what the order of summation can do, far below what dropout does.
constexpr double kRelativeTolerance = 1e-2;

// Small values, none zero (a dropped zero looks like a kept one): floats in [0.25, 1), integers
// that are indices into all but the smallest tables.
at::Tensor MadeUpValues(const std::vector<std::int64_t>& shape, at::ScalarType type) {
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  const at::Tensor index = at::arange(count, at::TensorOptions(at::kLong)).reshape(shape);
  if (!at::isFloatingType(type)) return index.remainder(2).to(type);
  return index.remainder(13).to(at::kFloat).div(18).add(0.25).to(type);
}

absl::StatusOr<HostTensor> MakeInput(const TensorSpec& spec, const TrialSizes& sizes) {
  HostTensor input;
  input.dtype = spec.dtype;
  input.shape = spec.shape;
  for (std::size_t i = 0; i < input.shape.size(); ++i) {
    if (input.shape[i] < 0) input.shape[i] = i == 0 ? sizes.batch : sizes.free_dim;
  }
  const std::optional<at::ScalarType> type = TravelType(spec.dtype);
  if (!type) {
    return absl::InvalidArgumentError(absl::StrCat(
        "input ", Escape(spec.name), ": ", std::string(Name(spec.dtype)), " cannot be computed"));
  }
  const at::Tensor values = MadeUpValues(input.shape, *type);
  input.size_bytes = static_cast<std::uint64_t>(values.numel()) * ItemSize(spec.dtype);
  const std::shared_ptr<std::byte[]> bytes(new std::byte[input.size_bytes + 1]());
  // Little-endian, so that the first bytes of a wider integer are the narrower one.
  const auto* from = static_cast<const std::byte*>(values.data_ptr());
  const std::size_t step = values.element_size();
  const std::size_t item = ItemSize(spec.dtype);
  for (std::size_t i = 0; i < static_cast<std::size_t>(values.numel()); ++i) {
    std::memcpy(bytes.get() + i * item, from + i * step, item);
  }
  input.data = std::shared_ptr<const std::byte>(bytes, bytes.get());
  return input;
}

std::string CopyOf(const HostTensor& tensor) {
  return std::string(reinterpret_cast<const char*>(tensor.data.get()), tensor.size_bytes);
}

bool SameBytes(const HostTensor& a, const HostTensor& b) {
  return a.shape == b.shape && a.size_bytes == b.size_bytes &&
         (a.size_bytes == 0 || std::memcmp(a.data.get(), b.data.get(), a.size_bytes) == 0);
}

at::Tensor View(const HostTensor& tensor, at::ScalarType type) {
  return at::from_blob(const_cast<std::byte*>(tensor.data.get()), tensor.shape, type);
}

// What is wrong about `second` being the answer to the same question as `first`.
std::optional<std::string> Disagreement(const TensorSpec& spec, const HostTensor& first,
                                        const HostTensor& second) {
  if (SameBytes(first, second)) return std::nullopt;
  const std::optional<at::ScalarType> type = ToScalarType(spec.dtype);
  if (first.shape != second.shape || !type) {
    return absl::StrCat("output ", Escape(spec.name), " changes");
  }
  const at::Tensor a = View(first, *type).to(at::kDouble);
  const at::Tensor b = View(second, *type).to(at::kDouble);
  const double difference = at::sub(a, b).abs().max().item().to<double>();
  const double magnitude = a.abs().max().item().to<double>();
  if (difference <= kRelativeTolerance * magnitude) return std::nullopt;  // False for NaN.
  return absl::StrCat("output ", Escape(spec.name), " changes by up to ", difference);
}

absl::Status CheckAgreement(const Signature& signature, const std::vector<HostTensor>& first,
                            const std::vector<HostTensor>& next) {
  for (std::size_t i = 0; i < first.size(); ++i) {
    if (const auto problem = Disagreement(signature.outputs[i], first[i], next[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("two runs on the same input do not agree (", *problem,
                       "): the archive was traced in training mode, or draws random numbers; call "
                       "model.eval() before torch.jit.trace and export it again"));
    }
  }
  return absl::OkStatus();
}

// LibTorch counts the writes to every tensor.
absl::Status CheckUnwritten(const std::vector<ParameterSlot>& slots,
                            const std::vector<std::int64_t>& versions_before) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (static_cast<std::int64_t>(slots[i].tensor._version()) == versions_before[i]) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "the graph writes to its own ", Escape(slots[i].spec.name),
        " while it computes: the archive was traced in training mode; call model.eval() before "
        "torch.jit.trace and export it again"));
  }
  return absl::OkStatus();
}

std::string DescribeShapes(const std::vector<HostTensor>& inputs) {
  std::vector<std::string> shapes;
  for (const HostTensor& input : inputs) shapes.push_back(ShapeString(input.shape));
  return absl::StrJoin(shapes, ", ");
}

}  // namespace

absl::StatusOr<TrialReport> TryArchive(Device& device, const Signature& signature,
                                       const TrialSizes& sizes,
                                       const std::vector<ParameterSlot>& slots,
                                       Computation computation) {
  std::vector<HostTensor> inputs;
  for (const TensorSpec& spec : signature.inputs) {
    RELIGHT_ASSIGN_OR_RETURN(HostTensor input, MakeInput(spec, sizes));
    inputs.push_back(std::move(input));
  }
  std::vector<std::int64_t> versions;
  for (const ParameterSlot& slot : slots) {
    versions.push_back(static_cast<std::int64_t>(slot.tensor._version()));
  }
  TrialReport report;
  std::optional<std::vector<HostTensor>> first;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<std::string> before;
    for (const HostTensor& input : inputs) before.push_back(CopyOf(input));
    absl::StatusOr<std::vector<HostTensor>> outputs =
        Execute(device, signature, inputs, computation);
    if (!outputs.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a trial run on inputs of shape ", DescribeShapes(inputs),
                       " failed: ", std::string(outputs.status().message()),
                       "; warm_up { free_dim } sets what stands in for free dimensions"));
    }
    RELIGHT_RETURN_IF_ERROR(CheckUnwritten(slots, versions));
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      if (CopyOf(inputs[i]) == before[i]) continue;
      report.writes_to_inputs = true;
      RELIGHT_ASSIGN_OR_RETURN(inputs[i], MakeInput(signature.inputs[i], sizes));
    }
    if (!first) {
      first = *std::move(outputs);
    } else {
      RELIGHT_RETURN_IF_ERROR(CheckAgreement(signature, *first, *outputs));
    }
  }
  return report;
}

}  // namespace relight::model
