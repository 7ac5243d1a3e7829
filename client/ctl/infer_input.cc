#include "client/ctl/infer_input.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "client/ctl/arguments.h"
#include "client/ctl/npy.h"
#include "client/ctl/tensor_json.h"

namespace relight::ctl {
namespace {

using client::DataType;
using client::Tensor;
using client::TensorMetadata;
using Json = nlohmann::ordered_json;

// What is known of one input before its value is read.
struct InputContext {
  std::string name;
  DataType datatype = DataType::kFp32;
  std::optional<std::vector<std::int64_t>> shape;  // Of --shape.
  std::vector<std::int64_t> model_shape;           // -1 for free dimensions.
};

std::string InputNames(const client::ModelMetadata& metadata) {
  std::vector<std::string> names;
  for (const TensorMetadata& input : metadata.inputs) names.push_back(Escape(input.name));
  return absl::StrJoin(names, ", ");
}

absl::StatusOr<const TensorMetadata*> FindInput(const client::ModelMetadata& metadata,
                                                const std::string& name) {
  if (name.empty() && metadata.inputs.size() == 1) return &metadata.inputs.front();
  for (const TensorMetadata& input : metadata.inputs) {
    if (!name.empty() && input.name == name) return &input;
  }
  return UsageError(absl::StrCat(
      name.empty() ? std::string("an input without a name needs a model with one input")
                   : absl::StrCat("model ", Escape(metadata.name), " has no input ", Escape(name)),
      "; its inputs: ", InputNames(metadata)));
}

absl::StatusOr<std::vector<std::int64_t>> ParseShape(const std::string& text) {
  std::vector<std::int64_t> shape;
  for (const auto& part : absl::StrSplit(text, absl::ByAnyChar(",x"), absl::SkipWhitespace())) {
    std::int64_t size = 0;
    if (!absl::SimpleAtoi(part, &size) || size < 0) {
      return UsageError(
          absl::StrCat("--shape is \"", Escape(text), "\", not sizes such as 1,3,224,224"));
    }
    shape.push_back(size);
  }
  return shape;
}

// The last of "name=value" words that is meant for `name`.
std::optional<std::string> ValueFor(const std::vector<std::string>& words,
                                    const std::string& name) {
  std::optional<std::string> value;
  for (const std::string& word : words) {
    auto [for_name, text] = SplitNamed(word);
    if (for_name.empty() || for_name == name) value = std::move(text);
  }
  return value;
}

absl::StatusOr<InputContext> MakeContext(const InputOptions& options,
                                         const TensorMetadata& metadata) {
  InputContext context{metadata.name, DataType::kFp32, std::nullopt, metadata.shape};
  const std::string datatype =
      ValueFor(options.datatypes, metadata.name).value_or(metadata.datatype);
  const std::optional<DataType> parsed = client::ParseDataType(datatype);
  if (!parsed.has_value()) {
    return UsageError(absl::StrCat("input ", Escape(metadata.name), ": datatype \"",
                                   Escape(datatype), "\" is unknown; say FP32, INT64, ..."));
  }
  context.datatype = *parsed;
  if (const auto shape = ValueFor(options.shapes, metadata.name)) {
    RELIGHT_ASSIGN_OR_RETURN(context.shape, ParseShape(*shape));
  }
  return context;
}

absl::Status Reshape(const InputContext& context, Tensor& tensor) {
  if (!context.shape.has_value()) return absl::OkStatus();
  RELIGHT_ASSIGN_OR_RETURN(const std::int64_t has, client::ElementCount(tensor.shape));
  RELIGHT_ASSIGN_OR_RETURN(const std::int64_t wants, client::ElementCount(*context.shape));
  if (has != wants) {
    return UsageError(absl::StrCat("input ", Escape(context.name), " has ", has,
                                   " elements, --shape asks for ", wants));
  }
  tensor.shape = *context.shape;
  return absl::OkStatus();
}

absl::StatusOr<Tensor> FromJsonText(const InputContext& context, const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return UsageError(absl::StrCat("input ", Escape(context.name), ": \"", Escape(text, 60),
                                   "\" is not JSON; files begin with @"));
  }
  RELIGHT_ASSIGN_OR_RETURN(Tensor tensor, TensorFromJson(context.name, context.datatype, json));
  RELIGHT_RETURN_IF_ERROR(Reshape(context, tensor));
  return tensor;
}

absl::StatusOr<Tensor> FromNpy(const InputContext& context, const std::string& bytes) {
  absl::StatusOr<Tensor> tensor = ParseNpy(bytes);
  if (!tensor.ok()) {
    return UsageError(
        absl::StrCat("input ", Escape(context.name), ": ", tensor.status().message()));
  }
  tensor->name = context.name;
  RELIGHT_RETURN_IF_ERROR(Reshape(context, *tensor));
  return tensor;
}

// The model's shape with its one free dimension chosen to fit the bytes.
absl::StatusOr<std::vector<std::int64_t>> FitShape(const InputContext& context,
                                                   std::size_t size_bytes) {
  if (context.shape.has_value()) return *context.shape;
  const std::size_t element_bytes = client::ElementBytes(context.datatype);
  std::vector<std::int64_t> shape = context.model_shape;
  std::int64_t* free = nullptr;
  std::uint64_t row_bytes = element_bytes;
  bool fits = element_bytes != 0;
  for (std::int64_t& size : shape) {
    if (size < 0) {
      fits = fits && free == nullptr;
      free = &size;
    } else {
      fits =
          fits && !__builtin_mul_overflow(row_bytes, static_cast<std::uint64_t>(size), &row_bytes);
    }
  }
  if (!fits || row_bytes == 0 || size_bytes % row_bytes != 0) {
    return UsageError(absl::StrCat("input ", Escape(context.name), ": ", size_bytes,
                                   " raw bytes do not say their shape; give it with --shape ",
                                   Escape(context.name), "=1,3,224,224"));
  }
  if (free != nullptr) *free = static_cast<std::int64_t>(size_bytes / row_bytes);
  return shape;
}

absl::StatusOr<Tensor> FromRaw(const InputContext& context, std::string bytes) {
  RELIGHT_ASSIGN_OR_RETURN(std::vector<std::int64_t> shape, FitShape(context, bytes.size()));
  Tensor tensor{context.name, context.datatype, std::move(shape), std::move(bytes)};
  if (absl::Status status = tensor.Validate(); !status.ok()) {
    return UsageError(std::string(status.message()));
  }
  return tensor;
}

absl::StatusOr<Tensor> ReadInput(const InputContext& context, const std::string& value) {
  if (!value.starts_with("@")) return FromJsonText(context, value);
  const std::string path = value.substr(1);
  RELIGHT_ASSIGN_OR_RETURN(std::string bytes, ReadFile(path));
  if (path.ends_with(".npy")) return FromNpy(context, bytes);
  if (path.ends_with(".json") || path == "-") return FromJsonText(context, bytes);
  return FromRaw(context, std::move(bytes));
}

}  // namespace

std::pair<std::string, std::string> SplitNamed(const std::string& text) {
  const std::size_t equals = text.find('=');
  const std::size_t value = text.find_first_of("[\"@");
  if (equals == std::string::npos || (value != std::string::npos && value < equals)) {
    return {"", text};
  }
  return {text.substr(0, equals), text.substr(equals + 1)};
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const bool is_stdin = path == "-";
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> opened(
      is_stdin ? nullptr : std::fopen(path.c_str(), "rb"),
      [](std::FILE* f) { return std::fclose(f); });
  std::FILE* const file = is_stdin ? stdin : opened.get();
  std::string bytes;
  std::array<char, 64 * 1024> buffer;
  while (file != nullptr) {
    const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), file);
    bytes.append(buffer.data(), count);
    if (count < buffer.size()) break;
  }
  if (file == nullptr || std::ferror(file) != 0) {
    const int error = errno;
    const std::string message = absl::StrCat(Escape(path), ": ", std::strerror(error));
    return error == ENOENT ? absl::NotFoundError(message) : absl::FailedPreconditionError(message);
  }
  return bytes;
}

absl::StatusOr<std::vector<Tensor>> ReadInputs(const InputOptions& options,
                                               const client::ModelMetadata& metadata) {
  std::vector<Tensor> tensors;
  for (const std::string& word : options.inputs) {
    const auto [name, value] = SplitNamed(word);
    RELIGHT_ASSIGN_OR_RETURN(const TensorMetadata* const input, FindInput(metadata, name));
    RELIGHT_ASSIGN_OR_RETURN(const InputContext context, MakeContext(options, *input));
    RELIGHT_ASSIGN_OR_RETURN(Tensor tensor, ReadInput(context, value));
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace relight::ctl
