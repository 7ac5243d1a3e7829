#include "server/serving/admission.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "server/serving/tensor_shapes.h"

namespace relight::serving {
namespace {

constexpr std::size_t kAbsent = std::numeric_limits<std::size_t>::max();

// A signature is a handful of tensors: a scan beats a map.
std::size_t FindByName(const std::vector<TensorSpec>& specs, std::string_view name) {
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (specs[i].name == name) return i;
  }
  return kAbsent;
}

std::string ListNames(const std::vector<TensorSpec>& specs) {
  return absl::StrJoin(specs, ", ", [](std::string* text, const TensorSpec& spec) {
    absl::StrAppend(text, Escape(spec.name));
  });
}

}  // namespace

// What is wrong with one request, up to what a person would read.
class Admission::Problems {
 public:
  template <typename... Parts>
  void Add(const char* kind, std::string_view name, const Parts&... parts) {
    problems_.push_back(absl::StrCat(kind, " ", Escape(name), ": ", parts...));
  }
  bool enough() const { return problems_.size() >= kMax; }
  absl::Status ToStatus() const {
    if (problems_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(absl::StrJoin(problems_, "; "), enough() ? "; perhaps more" : ""));
  }

 private:
  static constexpr std::size_t kMax = 16;
  std::vector<std::string> problems_;
};

Admission::Admission(const Signature& signature) : signature_(signature) {}

absl::StatusOr<AdmittedRequest> Admission::Check(const InferRequest& request) const {
  AdmittedRequest admitted;
  Problems problems;
  CheckInputs(request, admitted, problems);
  CheckOutputs(request, admitted, problems);
  if (absl::Status status = problems.ToStatus(); !status.ok()) return status;
  FillKey(request, admitted);
  return admitted;
}

void Admission::CheckInputs(const InferRequest& request, AdmittedRequest& admitted,
                            Problems& problems) const {
  admitted.inputs.assign(signature_.inputs.size(), kAbsent);
  const InputTensor* first_sound = nullptr;
  for (std::size_t i = 0; i < request.inputs.size() && !problems.enough(); ++i) {
    const InputTensor& input = request.inputs[i];
    const std::size_t position = FindByName(signature_.inputs, input.name);
    if (position == kAbsent) {
      problems.Add("input", input.name, "unknown; the model's inputs are ",
                   ListNames(signature_.inputs));
      continue;
    }
    if (admitted.inputs[position] != kAbsent) {
      problems.Add("input", input.name, "given twice");
      continue;
    }
    admitted.inputs[position] = i;
    const TensorSpec& spec = signature_.inputs[position];
    if (input.dtype != spec.dtype) {
      problems.Add("input", input.name, "datatype is ", FormatDType(input.dtype),
                   ", the model needs ", FormatDType(spec.dtype));
    }
    if (!CheckShape(spec, input, problems)) continue;
    CheckBytes(input, admitted, problems);
    if (first_sound == nullptr) first_sound = &input;
    if (batched()) CheckRows(input, *first_sound, problems);
  }
  if (batched() && first_sound != nullptr) admitted.rows = first_sound->shape.front();
  for (std::size_t i = 0; i < signature_.inputs.size() && !problems.enough(); ++i) {
    if (admitted.inputs[i] == kAbsent) problems.Add("input", signature_.inputs[i].name, "missing");
  }
}

bool Admission::CheckShape(const TensorSpec& spec, const InputTensor& input,
                           Problems& problems) const {
  if (input.shape.size() != spec.shape.size()) {
    problems.Add("input", input.name, "shape ", FormatShape(input.shape), " has ",
                 input.shape.size(), " dimensions, the model needs ", spec.shape.size(), ": ",
                 FormatShape(spec.shape));
    return false;
  }
  bool sound = true;
  for (std::size_t i = 0; i < spec.shape.size(); ++i) {
    const bool free = spec.shape[i] < 0 || (batched() && i == 0);
    if (input.shape[i] < 0) {
      problems.Add("input", input.name, "dimension ", i, " of shape ", FormatShape(input.shape),
                   " is negative");
      sound = false;
    } else if (!free && input.shape[i] != spec.shape[i]) {
      problems.Add("input", input.name, "dimension ", i, " of shape ", FormatShape(input.shape),
                   " is ", input.shape[i], ", the model needs ", spec.shape[i], " in ",
                   FormatShape(spec.shape));
      sound = false;
    }
  }
  return sound;
}

void Admission::CheckBytes(const InputTensor& input, AdmittedRequest& admitted,
                           Problems& problems) const {
  const std::optional<std::uint64_t> needed = DenseBytes(input.dtype, input.shape);
  if (!needed.has_value()) {
    problems.Add("input", input.name, "shape ", FormatShape(input.shape), " of ",
                 FormatDType(input.dtype), " has more bytes than 64 bits can count");
    return;
  }
  std::uint64_t given = 0;
  for (const absl::Span<const std::byte> slice : input.bytes) given += slice.size();
  if (given != *needed) {
    problems.Add("input", input.name, "shape ", FormatShape(input.shape), " of ",
                 FormatDType(input.dtype), " needs ", *needed, " bytes, got ", given);
    return;
  }
  admitted.size_bytes += given;  // Bytes that are there: their sum fits.
}

void Admission::CheckRows(const InputTensor& input, const InputTensor& first,
                          Problems& problems) const {
  const std::int64_t rows = input.shape.front();
  const std::int64_t limit = signature_.batching.max_batch_size;
  if (rows == 0) {
    problems.Add("input", input.name, "batch size is 0, the model needs 1 to ", limit);
  } else if (rows > limit) {
    problems.Add("input", input.name, "batch size is ", rows, ", the limit is ", limit,
                 " (batching.max_batch_size)");
  }
  if (rows != first.shape.front()) {
    problems.Add("input", input.name, "batch size is ", rows, ", input ", Escape(first.name),
                 " has ", first.shape.front());
  }
}

void Admission::CheckOutputs(const InferRequest& request, AdmittedRequest& admitted,
                             Problems& problems) const {
  if (request.outputs.empty()) {
    for (std::size_t i = 0; i < signature_.outputs.size(); ++i) admitted.outputs.push_back(i);
    return;
  }
  for (const std::string& name : request.outputs) {
    if (problems.enough()) return;
    const std::size_t position = FindByName(signature_.outputs, name);
    if (position == kAbsent) {
      problems.Add("output", name, "unknown; the model's outputs are ",
                   ListNames(signature_.outputs));
    } else if (std::find(admitted.outputs.begin(), admitted.outputs.end(), position) !=
               admitted.outputs.end()) {
      problems.Add("output", name, "requested twice");
    } else {
      admitted.outputs.push_back(position);
    }
  }
}

void Admission::FillKey(const InferRequest& request, AdmittedRequest& admitted) const {
  admitted.key.version = request.version;
  if (!batched()) return;  // Never shares a batch.
  for (std::size_t i = 0; i < signature_.inputs.size(); ++i) {
    const std::vector<std::int64_t>& wanted = signature_.inputs[i].shape;
    const std::vector<std::int64_t>& given = request.inputs[admitted.inputs[i]].shape;
    for (std::size_t d = 1; d < wanted.size(); ++d) {
      if (wanted[d] < 0) admitted.key.free_dims.push_back(given[d]);
    }
  }
}

std::uint64_t LargestRequestBytes(const Signature& signature) {
  const std::uint64_t most = signature.batching.max_queue_bytes;
  const bool batched = signature.batching.max_batch_size > 0;
  bool free_shape = false;
  std::uint64_t total = 0;
  for (const TensorSpec& spec : signature.inputs) {
    std::vector<std::int64_t> shape = spec.shape;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (batched && i == 0) {
        shape[i] = signature.batching.max_batch_size;
      } else if (shape[i] < 0) {
        shape[i] = 1;
        free_shape = true;
      }
    }
    const std::optional<std::uint64_t> bytes = DenseBytes(spec.dtype, shape);
    const std::optional<std::uint64_t> sum =
        bytes.has_value() ? CheckedAdd(total, *bytes) : std::nullopt;
    if (!sum.has_value()) return most;
    total = *sum;
  }
  return std::min(free_shape ? std::max(total, kFreeShapeRequestBytes) : total, most);
}

}  // namespace relight::serving
