#include "server/rpc/infer_translation.h"

#include <charconv>
#include <limits>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/rpc/classification.h"
#include "server/rpc/concat.h"
#include "server/rpc/typed_contents.h"

namespace relight::rpc {
namespace {

constexpr std::string_view kFinalResponse = "triton_final_response";
constexpr std::string_view kWantFinalResponse = "triton_enable_empty_final_response";

absl::Status Invalid(const std::string& message) { return absl::InvalidArgumentError(message); }

absl::Status WrongType(std::string_view parameter, std::string_view wanted) {
  return Invalid(Concat("parameter ", parameter, ": must be ", wanted));
}

absl::StatusOr<bool> BoolOf(std::string_view name, const WireParameter& value) {
  if (const bool* flag = std::get_if<bool>(&value)) return *flag;
  return WrongType(name, "a bool");
}

// Clients send counts as either integer type.
absl::StatusOr<std::uint64_t> CountOf(std::string_view name, const WireParameter& value) {
  if (const auto* number = std::get_if<std::uint64_t>(&value)) return *number;
  if (const auto* number = std::get_if<std::int64_t>(&value)) {
    if (*number >= 0) return static_cast<std::uint64_t>(*number);
    return Invalid(Concat("parameter ", name, ": ", *number, " is negative"));
  }
  return WrongType(name, "an integer");
}

// Sequence 0 and "" mean none, which is what clients send by default.
absl::Status CheckSequence(const WireParameter& value) {
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && text->empty()) return absl::OkStatus();
  if (text == nullptr) {
    RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t id, CountOf("sequence_id", value));
    if (id == 0) return absl::OkStatus();
  }
  return Invalid("parameter sequence_id: sequences are not supported; leave it out");
}

absl::Duration Microseconds(std::uint64_t count) {
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max() / 1000;
  if (count == 0 || count > kMost) return absl::InfiniteDuration();
  return absl::Microseconds(static_cast<std::int64_t>(count));
}

absl::Status ApplyParameter(std::string_view name, const WireParameter& value,
                            TranslatedRequest& out) {
  if (name == "sequence_id") return CheckSequence(value);
  if (name == "priority") {
    RELIGHT_ASSIGN_OR_RETURN(out.request.priority, CountOf(name, value));
  } else if (name == "timeout") {
    RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t timeout, CountOf(name, value));
    out.request.queue_timeout = Microseconds(timeout);
  } else if (name == "binary_data_output") {
    RELIGHT_ASSIGN_OR_RETURN(out.plan.raw, BoolOf(name, value));
  } else if (name.starts_with("triton_") && name != kFinalResponse && name != kWantFinalResponse) {
    return Invalid(Concat("parameter ", Escape(name), ": unknown, and triton_ names are reserved"));
  }
  return absl::OkStatus();
}

// What an error is about. Its text is made only where there is one: this is on every request's way.
struct Subject {
  std::string_view kind;
  std::string_view name;

  std::string text() const { return Concat(kind, " ", Escape(name)); }
};

absl::Status RefuseSharedMemory(const Subject& subject, const WireParameters& parameters) {
  const auto it = parameters.lower_bound("shared_memory_");
  if (it == parameters.end() || !it->first.starts_with("shared_memory_")) {
    return absl::OkStatus();
  }
  return absl::UnimplementedError(
      Concat(subject.text(), ": parameter ", Escape(it->first),
             ": shared memory is not supported; send the bytes in raw_input_contents"));
}

absl::StatusOr<std::uint64_t> ElementCount(const Subject& subject,
                                           const std::vector<std::int64_t>& shape) {
  std::uint64_t count = 1;
  bool overflow = false;
  bool empty = false;
  for (const std::int64_t dim : shape) {
    if (dim < 0) return Invalid(Concat(subject.text(), ": dimension ", dim, " is negative"));
    empty = empty || dim == 0;
    const auto product = CheckedMul(count, static_cast<std::uint64_t>(dim));
    overflow = overflow || !product;
    count = product.value_or(1);
  }
  if (empty) return 0;
  if (overflow) return Invalid(Concat(subject.text(), ": the shape has more than 2^64 elements"));
  return count;
}

absl::StatusOr<DType> ParseDatatype(const Subject& subject, const std::string& datatype) {
  if (datatype == "BYTES") {
    return Invalid(Concat(subject.text(), ": no model takes BYTES"));
  }
  const std::optional<DType> dtype = DTypeFromProtocolName(datatype);
  if (dtype) return *dtype;
  return Invalid(Concat(subject.text(), ": unknown datatype \"", Escape(datatype), "\""));
}

// Appends the unpacked elements of a typed input to `out`, and borrows them.
absl::Status AddTyped(const Subject& subject, const WireInput& wire, std::uint64_t max_bytes,
                      std::uint64_t& total_bytes, serving::InputTensor& tensor,
                      TranslatedRequest& out) {
  RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t count, ElementCount(subject, tensor.shape));
  const auto size = CheckedMul(count, static_cast<std::uint64_t>(ItemSize(tensor.dtype)));
  const auto total = CheckedAdd(total_bytes, size.value_or(0));
  if (!size || !total || *total > max_bytes) {
    return Invalid(Concat(subject.text(), ": ", count, " elements of ", wire.datatype,
                          " are more than the ", max_bytes,
                          " bytes that a request may have (--max-message-bytes)"));
  }
  total_bytes = *total;
  absl::StatusOr<std::vector<std::byte>> bytes = UnpackContents(wire.contents, tensor.dtype, count);
  if (!bytes.ok()) return Invalid(Concat(subject.text(), ": ", bytes.status().message()));
  out.unpacked.push_back(*std::move(bytes));
  tensor.bytes.emplace_back(out.unpacked.back());
  return absl::OkStatus();
}

absl::Status AddInputs(WireRequest& wire, std::uint64_t max_bytes, TranslatedRequest& out) {
  const bool raw = !wire.raw_inputs.empty();
  std::uint64_t total_bytes = 0;
  for (std::size_t i = 0; i < wire.inputs.size(); ++i) {
    WireInput& input = wire.inputs[i];
    serving::InputTensor& tensor = out.request.inputs.emplace_back();
    tensor.name = std::move(input.name);
    const Subject subject{"input", tensor.name};
    RELIGHT_RETURN_IF_ERROR(RefuseSharedMemory(subject, input.parameters));
    RELIGHT_ASSIGN_OR_RETURN(tensor.dtype, ParseDatatype(subject, input.datatype));
    tensor.shape = std::move(input.shape);
    if (!raw) {
      RELIGHT_RETURN_IF_ERROR(AddTyped(subject, input, max_bytes, total_bytes, tensor, out));
      continue;
    }
    if (!input.contents.empty()) {
      return Invalid(Concat(subject.text(),
                            ": has contents, and the request raw_input_contents; "
                            "only one of them may be used"));
    }
    if (i >= wire.raw_inputs.size()) {
      return Invalid(Concat("unable to find data for ", subject.text(), ": raw_input_contents has ",
                            wire.raw_inputs.size(), " entries for ", wire.inputs.size(),
                            " inputs"));
    }
    tensor.bytes = std::move(wire.raw_inputs[i]);
  }
  if (wire.raw_inputs.size() <= wire.inputs.size()) return absl::OkStatus();
  return Invalid(Concat("raw_input_contents has ", wire.raw_inputs.size(), " entries for ",
                        wire.inputs.size(), " inputs"));
}

absl::Status AddOutputs(WireRequest& wire, TranslatedRequest& out) {
  for (WireRequestedOutput& output : wire.outputs) {
    const Subject subject{"output", output.name};
    RELIGHT_RETURN_IF_ERROR(RefuseSharedMemory(subject, output.parameters));
    std::uint64_t classes = 0;
    if (const auto it = output.parameters.find("classification"); it != output.parameters.end()) {
      RELIGHT_ASSIGN_OR_RETURN(classes, CountOf("classification", it->second));
      if (classes > kMaxClasses) {
        return Invalid(Concat(subject.text(), ": parameter classification: ", classes,
                              " classes are asked for, at most ", kMaxClasses,
                              " are sent; ask for fewer, or for the tensor"));
      }
    }
    out.plan.classes.push_back(classes);
    out.request.outputs.push_back(std::move(output.name));
  }
  return absl::OkStatus();
}

// A string's bytes, kept alive by whoever holds the pointer.
std::shared_ptr<const std::byte> Own(std::string bytes) {
  auto owner = std::make_shared<const std::string>(std::move(bytes));
  return {owner, reinterpret_cast<const std::byte*>(owner->data())};
}

absl::Status ClassifyInto(const serving::OutputTensor& output, std::uint64_t k, bool batched,
                          bool raw, WireOutput& out) {
  RELIGHT_ASSIGN_OR_RETURN(Classes classes, TopClasses(output, k, batched));
  out.datatype = "BYTES";
  out.shape = std::move(classes.shape);
  if (!raw) {
    out.contents = PackBytesContents(classes.elements);
    return absl::OkStatus();
  }
  std::string bytes = PackRawBytes(classes.elements);
  out.size_bytes = bytes.size();
  out.data = Own(std::move(bytes));
  return absl::OkStatus();
}

void TensorInto(const serving::OutputTensor& output, bool raw, WireOutput& out) {
  out.datatype = ProtocolName(output.dtype);
  out.shape = output.shape;
  if (raw) {
    out.data = output.data;
    out.size_bytes = output.size_bytes;
  } else {
    out.contents = PackContents(output.dtype, output.data.get(), output.size_bytes);
  }
}

}  // namespace

absl::StatusOr<std::optional<std::int64_t>> ParseModelVersion(std::string_view text) {
  if (text.empty()) return std::optional<std::int64_t>();
  std::int64_t version = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, version);
  if (error == std::errc() && stop == end) return std::optional<std::int64_t>(version);
  return Invalid(Concat("model_version \"", Escape(text),
                        "\" is not an integer; leave it empty for the newest"));
}

absl::Status TranslateRequest(WireRequest wire, std::uint64_t max_bytes, TranslatedRequest& out) {
  out.plan.model = std::move(wire.model_name);
  out.plan.id = std::move(wire.id);
  out.plan.raw = !wire.raw_inputs.empty();
  if (const auto it = wire.parameters.find(kWantFinalResponse); it != wire.parameters.end()) {
    RELIGHT_ASSIGN_OR_RETURN(out.plan.final_marker, BoolOf(it->first, it->second));
  }
  RELIGHT_ASSIGN_OR_RETURN(out.request.version, ParseModelVersion(wire.model_version));
  for (const auto& [name, value] : wire.parameters) {
    RELIGHT_RETURN_IF_ERROR(ApplyParameter(name, value, out));
  }
  RELIGHT_RETURN_IF_ERROR(AddInputs(wire, max_bytes, out));
  return AddOutputs(wire, out);
}

WireResponse MakeErrorResponse(const ReplyPlan& plan) {
  WireResponse response;
  response.model_name = plan.model;
  response.id = plan.id;
  if (plan.final_marker) response.parameters.emplace_back(kFinalResponse, true);
  return response;
}

absl::StatusOr<WireResponse> MakeResponse(const ReplyPlan& plan, const serving::InferResult& result,
                                          bool batched, bool mark_final) {
  const auto classes = [&plan](std::size_t i) {
    return i < plan.classes.size() ? plan.classes[i] : 0;
  };
  WireResponse response;
  response.model_name = plan.model;
  response.model_version = Concat(result.version);
  response.id = plan.id;
  response.parameters.emplace_back("generation", static_cast<std::int64_t>(result.generation));
  if (result.weights_digest != nullptr) {
    response.parameters.emplace_back("weights_digest", std::string_view(*result.weights_digest));
  }
  if (mark_final) response.parameters.emplace_back(kFinalResponse, true);

  // Raw entries are found by position, so where one output has no typed form all of them go raw.
  response.raw = plan.raw;
  for (std::size_t i = 0; i < result.outputs.size(); ++i) {
    if (classes(i) == 0 && !ContentKindOf(result.outputs[i].dtype)) response.raw = true;
  }
  for (std::size_t i = 0; i < result.outputs.size(); ++i) {
    const serving::OutputTensor& output = result.outputs[i];
    WireOutput& out = response.outputs.emplace_back();
    out.name = output.name;
    if (classes(i) > 0) {
      RELIGHT_RETURN_IF_ERROR(ClassifyInto(output, classes(i), batched, response.raw, out));
    } else {
      TensorInto(output, response.raw, out);
    }
  }
  return response;
}

}  // namespace relight::rpc
