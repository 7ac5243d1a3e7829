#include "server/serving/golden_requests.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/serving/batch_tensors.h"
#include "server/serving/tensor_shapes.h"
#include "storage/checkpoint.h"
#include "storage/state_dict.h"
#include "storage/strided.h"
#include "storage/weights.h"

namespace relight::serving {
namespace {

// In one message.
constexpr std::size_t kMaxProblems = 8;

std::string FileName(const std::string& path) {
  return Escape(std::filesystem::path(path).filename().string());
}

// ---- Reading ----

absl::StatusOr<std::shared_ptr<std::byte>> Allocate(std::uint64_t size_bytes) {
  const std::uint64_t rounded =
      (size_bytes / storage::kWeightAlignment + 1) * storage::kWeightAlignment;
  void* const memory = std::aligned_alloc(storage::kWeightAlignment, rounded);
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size_bytes, " bytes"));
  }
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory), std::free);
}

// Dense: a view of what is in `block`, or a copy where a tensor was saved with strides.
absl::StatusOr<model::HostTensor> TensorIn(const std::shared_ptr<std::byte>& block,
                                           const storage::WeightTensor& saved) {
  model::HostTensor tensor;
  tensor.dtype = saved.dtype;
  tensor.shape = saved.shape;
  tensor.size_bytes = storage::CountElements(saved.shape) * ItemSize(saved.dtype);
  std::byte* const first = block.get() + saved.offset_bytes;
  if (storage::IsDense(saved.shape, saved.stride)) {
    tensor.data = {block, first};
    return tensor;
  }
  RELIGHT_ASSIGN_OR_RETURN(const std::shared_ptr<std::byte> dense, Allocate(tensor.size_bytes));
  std::byte* end = dense.get();
  storage::ForEachStretch(first, saved.shape, saved.stride, ItemSize(saved.dtype),
                          [&end](absl::Span<const std::byte> bytes) {
                            end = std::copy(bytes.begin(), bytes.end(), end);
                          });
  tensor.data = dense;
  return tensor;
}

struct NamedTensor {
  std::string name;
  model::HostTensor tensor;
};

absl::Status CheckRoom(std::uint64_t bytes) {
  if (bytes <= kMaxGoldenBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("its tensors lie in ", bytes,
                                                 " bytes, the most is ", kMaxGoldenBytes,
                                                 "; save clones of them"));
}

absl::Status TakeOff(std::uint64_t& bytes_left, std::optional<std::uint64_t> bytes) {
  if (!bytes || *bytes > bytes_left) {
    return absl::InvalidArgumentError(absl::StrCat("a model's golden tensors have more than ",
                                                   kMaxGoldenBytes, " bytes; keep fewer rows"));
  }
  bytes_left -= *bytes;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<NamedTensor>> ReadTensors(const std::string& path,
                                                     const std::vector<std::string>& names,
                                                     std::uint64_t& bytes_left) {
  RELIGHT_ASSIGN_OR_RETURN(const storage::Checkpoint file, storage::Checkpoint::Open(path));
  storage::StateDictOptions options;
  options.wanted_keys = names;
  RELIGHT_ASSIGN_OR_RETURN(const storage::StateDict dict, storage::FindStateDict(file, options));
  // As they are kept: a file can say much in few bytes.
  for (const storage::StateDictEntry& entry : dict.entries) {
    const storage::TensorInfo& tensor = file.tree().tensor(entry.node);
    RELIGHT_RETURN_IF_ERROR(TakeOff(bytes_left, DenseBytes(tensor.dtype, tensor.shape)));
  }
  RELIGHT_ASSIGN_OR_RETURN(const storage::WeightPlan plan, storage::PlanWeights(file, dict, {}));
  RELIGHT_RETURN_IF_ERROR(CheckRoom(plan.total_bytes));
  RELIGHT_ASSIGN_OR_RETURN(const std::shared_ptr<std::byte> block, Allocate(plan.total_bytes));
  RELIGHT_RETURN_IF_ERROR(
      storage::LoadWeights(file, plan, absl::MakeSpan(block.get(), plan.total_bytes)).status());
  std::vector<NamedTensor> tensors;
  for (const storage::WeightTensor& saved : plan.tensors) {
    RELIGHT_ASSIGN_OR_RETURN(model::HostTensor tensor, TensorIn(block, saved));
    tensors.push_back({saved.key, std::move(tensor)});
  }
  return tensors;
}

std::string What(const TensorSpec& spec, const model::HostTensor& tensor) {
  return absl::StrCat("\"", Escape(spec.name), "\" is ", FormatDType(tensor.dtype), " ",
                      FormatShape(tensor.shape), ", the model has ", FormatDType(spec.dtype), " ",
                      FormatShape(spec.shape));
}

// Takes those of `specs` out of `tensors`.
std::vector<std::optional<model::HostTensor>> TakeOut(const std::vector<TensorSpec>& specs,
                                                      std::vector<NamedTensor>& tensors,
                                                      bool batched,
                                                      std::vector<std::string>& problems) {
  std::vector<std::optional<model::HostTensor>> taken;
  for (const TensorSpec& spec : specs) {
    std::optional<model::HostTensor>& one = taken.emplace_back();
    const auto found = std::find_if(tensors.begin(), tensors.end(),
                                    [&](const auto& tensor) { return tensor.name == spec.name; });
    if (found == tensors.end()) continue;
    if (found->tensor.dtype != spec.dtype || !ShapeFits(spec, found->tensor.shape, batched)) {
      problems.push_back(What(spec, found->tensor));
    }
    one = std::move(found->tensor);
    tensors.erase(found);
  }
  return taken;
}

void CheckRows(const std::vector<TensorSpec>& specs,
               const std::vector<std::optional<model::HostTensor>>& tensors, std::int64_t rows,
               std::vector<std::string>& problems) {
  for (std::size_t i = 0; i < specs.size(); ++i) {
    if (!tensors[i] || tensors[i]->shape.empty() || tensors[i]->shape.front() == rows) continue;
    problems.push_back(absl::StrCat("\"", Escape(specs[i].name), "\" has ",
                                    tensors[i]->shape.front(), " rows, the first input has ",
                                    rows));
  }
}

// ---- Comparing ----

// IEEE 754 binary16.
double HalfNumber(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1F;
  const int mantissa = bits & 0x3FF;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 0x1F) {
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(mantissa + 0x400, exponent - 25);
}

template <typename T>
T ValueAt(const std::byte* data, std::uint64_t index) {
  T value;
  std::memcpy(&value, data + index * sizeof(T), sizeof(T));
  return value;
}

// Of a datatype that a signature can have; of 64-bit integers as near as a double comes.
double NumberAt(const model::HostTensor& tensor, std::uint64_t index) {
  const std::byte* const data = tensor.data.get();
  switch (tensor.dtype) {
    case DType::kBool:
    case DType::kUInt8:
      return ValueAt<std::uint8_t>(data, index);
    case DType::kInt8:
      return ValueAt<std::int8_t>(data, index);
    case DType::kUInt16:
      return ValueAt<std::uint16_t>(data, index);
    case DType::kInt16:
      return ValueAt<std::int16_t>(data, index);
    case DType::kUInt32:
      return ValueAt<std::uint32_t>(data, index);
    case DType::kInt32:
      return ValueAt<std::int32_t>(data, index);
    case DType::kUInt64:
      return static_cast<double>(ValueAt<std::uint64_t>(data, index));
    case DType::kInt64:
      return static_cast<double>(ValueAt<std::int64_t>(data, index));
    case DType::kFloat16:
      return HalfNumber(ValueAt<std::uint16_t>(data, index));
    case DType::kBFloat16:
      return std::bit_cast<float>(std::uint32_t{ValueAt<std::uint16_t>(data, index)} << 16);
    case DType::kFloat32:
      return ValueAt<float>(data, index);
    case DType::kFloat64:
      return ValueAt<double>(data, index);
    default:
      return std::numeric_limits<double>::quiet_NaN();
  }
}

std::string ElementName(const model::HostTensor& tensor, std::uint64_t index) {
  return absl::StrCat("element ", FormatShape(storage::PositionOf(index, tensor.shape)));
}

// How far `actual` is from `expected`, which has the same shape, where that is more than
// `tolerance`, which messages call `limit`. `expected_by`: "expected is".
std::optional<std::string> Difference(const model::HostTensor& actual,
                                      const model::HostTensor& expected, double tolerance,
                                      const char* limit, const char* expected_by) {
  const std::uint64_t count = storage::CountElements(expected.shape);
  double largest_value = 0, largest_difference = 0;
  std::uint64_t at = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double a = NumberAt(actual, i);
    const double e = NumberAt(expected, i);
    if (std::isfinite(e)) largest_value = std::max(largest_value, std::abs(e));
    if (a == e || (std::isnan(a) && std::isnan(e))) continue;
    double difference = std::abs(a - e);
    if (std::isnan(difference)) difference = std::numeric_limits<double>::infinity();
    if (difference <= largest_difference) continue;
    largest_difference = difference;
    at = i;
  }
  if (largest_difference <= tolerance * largest_value) return std::nullopt;
  return absl::StrCat(ElementName(actual, at), " is ", NumberAt(actual, at), ", ", expected_by, " ",
                      NumberAt(expected, at), "; this difference of ", largest_difference,
                      " is the largest, and ", limit, " allows ", tolerance * largest_value, ", ",
                      tolerance, " of the largest value there");
}

// The first element for which `is_wrong` holds, and how many more there are.
template <typename Predicate>
std::optional<std::string> FindWrong(const model::HostTensor& tensor, const std::string& rule,
                                     Predicate is_wrong) {
  const std::uint64_t count = storage::CountElements(tensor.shape);
  std::uint64_t wrong = 0, first = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (!is_wrong(NumberAt(tensor, i))) continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong == 0) return std::nullopt;
  return absl::StrCat(ElementName(tensor, first), " is ", NumberAt(tensor, first), ", ", rule, " (",
                      wrong, " of ", count, " elements)");
}

void CheckRange(const config::OutputRange& range, const model::HostTensor& output,
                std::vector<std::string>& wrong) {
  if (!range.allow_non_finite) {
    auto found =
        FindWrong(output, "which is not finite", [](double x) { return !std::isfinite(x); });
    if (found) wrong.push_back(*std::move(found));
  }
  if (range.min) {
    auto found = FindWrong(output, absl::StrCat("min is ", *range.min),
                           [&](double x) { return x < *range.min; });
    if (found) wrong.push_back(*std::move(found));
  }
  if (range.max) {
    auto found = FindWrong(output, absl::StrCat("max is ", *range.max),
                           [&](double x) { return x > *range.max; });
    if (found) wrong.push_back(*std::move(found));
  }
}

}  // namespace

absl::StatusOr<GoldenRequests> GoldenRequests::Read(
    absl::Span<const config::GoldenRequest> requests, const Signature& signature) {
  GoldenRequests read;
  read.signature_ = signature;
  std::uint64_t bytes_left = kMaxGoldenBytes;
  for (const config::GoldenRequest& rules : requests) {
    absl::StatusOr<Request> request = ReadRequest(rules, signature, bytes_left);
    if (!request.ok()) {
      return absl::Status(request.status().code(),
                          absl::StrCat("golden request ", Escape(rules.file, 1024), ": ",
                                       request.status().message()));
    }
    read.requests_.push_back(*std::move(request));
  }
  return read;
}

absl::StatusOr<GoldenRequests::Request> GoldenRequests::ReadRequest(
    const config::GoldenRequest& rules, const Signature& signature, std::uint64_t& bytes_left) {
  std::vector<std::string> names;
  for (const auto* const specs : {&signature.inputs, &signature.outputs}) {
    for (const TensorSpec& spec : *specs) names.push_back(spec.name);
  }
  RELIGHT_ASSIGN_OR_RETURN(std::vector<NamedTensor> tensors,
                           ReadTensors(rules.file, names, bytes_left));
  const bool batched = signature.batching.max_batch_size > 0;
  std::vector<std::string> problems;
  std::vector<std::optional<model::HostTensor>> inputs =
      TakeOut(signature.inputs, tensors, batched, problems);
  Request request{.rules = rules, .rows = 0, .inputs = {}, .expected = {}};
  request.expected = TakeOut(signature.outputs, tensors, batched, problems);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i]) continue;
    problems.push_back(absl::StrCat("input \"", Escape(signature.inputs[i].name), "\" is missing"));
  }
  for (const NamedTensor& left : tensors) {
    problems.push_back(
        absl::StrCat("\"", Escape(left.name), "\" is no input or output of the model"));
  }
  if (problems.empty() && batched) {
    request.rows = inputs.front()->shape.front();
    if (request.rows < 1 || request.rows > signature.batching.max_batch_size) {
      problems.push_back(absl::StrCat("has ", request.rows, " rows, the model takes 1 to ",
                                      signature.batching.max_batch_size));
    }
    CheckRows(signature.inputs, inputs, request.rows, problems);
    CheckRows(signature.outputs, request.expected, request.rows, problems);
  }
  if (!problems.empty()) {
    if (problems.size() > kMaxProblems) problems.resize(kMaxProblems);
    return absl::InvalidArgumentError(absl::StrJoin(problems, "; "));
  }
  for (std::optional<model::HostTensor>& input : inputs)
    request.inputs.push_back(*std::move(input));
  return request;
}

absl::Status GoldenRequests::Check(const model::BoundModel& model, const model::BoundModel* serving,
                                   absl::FunctionRef<absl::Status()> between) const {
  std::vector<std::string> problems;
  for (const Request& request : requests_) {
    const std::string name = absl::StrCat("golden request ", FileName(request.rules.file));
    RELIGHT_RETURN_IF_ERROR(between());
    const absl::StatusOr<std::vector<model::HostTensor>> answer = model.Forward(request.inputs);
    if (!answer.ok()) {
      return absl::Status(answer.status().code(),
                          absl::StrCat(name, ": ", answer.status().message()));
    }
    absl::StatusOr<std::vector<model::HostTensor>> served = std::vector<model::HostTensor>();
    if (request.rules.max_change && serving != nullptr) {
      RELIGHT_RETURN_IF_ERROR(between());
      served = serving->Forward(request.inputs);
    }
    const auto known =
        served.ok() ? absl::MakeConstSpan(*served) : absl::Span<const model::HostTensor>();
    for (const std::string& problem : Problems(request, *answer, known)) {
      problems.push_back(absl::StrCat(name, ": ", problem));
    }
  }
  if (problems.empty()) return absl::OkStatus();
  if (problems.size() > kMaxProblems) {
    const std::size_t more = problems.size() - kMaxProblems;
    problems.resize(kMaxProblems);
    problems.push_back(absl::StrCat("and ", more, " more"));
  }
  return absl::FailedPreconditionError(absl::StrJoin(problems, "; "));
}

std::vector<std::string> GoldenRequests::Problems(
    const Request& request, absl::Span<const model::HostTensor> answer,
    absl::Span<const model::HostTensor> served) const {
  if (const absl::Status sound = CheckOutputs(signature_, request.rows, answer); !sound.ok()) {
    return {std::string(sound.message())};
  }
  std::vector<std::string> problems;
  for (std::size_t i = 0; i < answer.size(); ++i) {
    const model::HostTensor& output = answer[i];
    std::vector<std::string> wrong;
    const auto range =
        std::find_if(request.rules.ranges.begin(), request.rules.ranges.end(),
                     [&](const auto& one) { return one.name == signature_.outputs[i].name; });
    CheckRange(range == request.rules.ranges.end() ? config::OutputRange{} : *range, output, wrong);
    const auto compare = [&](const model::HostTensor& expected, double tolerance, const char* limit,
                             const char* expected_by) {
      if (output.shape != expected.shape) {
        wrong.push_back(absl::StrCat("has shape ", FormatShape(output.shape), ", ", expected_by,
                                     " ", FormatShape(expected.shape)));
      } else if (auto far = Difference(output, expected, tolerance, limit, expected_by)) {
        wrong.push_back(*std::move(far));
      }
    };
    if (request.expected[i]) {
      compare(*request.expected[i], request.rules.tolerance, "tolerance", "expected is");
    }
    if (!served.empty()) {
      compare(served[i], *request.rules.max_change, "max_change",
              "the version that serves answers");
    }
    for (const std::string& one : wrong) {
      problems.push_back(
          absl::StrCat("output \"", Escape(signature_.outputs[i].name), "\": ", one));
    }
  }
  return problems;
}

}  // namespace relight::serving
