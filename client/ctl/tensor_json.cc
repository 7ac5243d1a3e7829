#include "client/ctl/tensor_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "client/ctl/arguments.h"
#include "client/ctl/half.h"

namespace relight::ctl {
namespace {

using client::DataType;
using client::Tensor;
using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxRank = 32;
constexpr std::size_t kMaxShownBytes = 40;

template <typename T>
void AppendRaw(T value, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

template <typename T>
T ReadRaw(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

std::string Show(const Json& element) {
  return Escape(element.dump(-1, ' ', false, Json::error_handler_t::replace), kMaxShownBytes);
}

std::optional<double> ToReal(const Json& element) {
  if (element.is_number()) return element.get<double>();
  if (!element.is_string()) return std::nullopt;
  const std::string& text = element.get_ref<const std::string&>();
  if (text == "NaN") return std::numeric_limits<double>::quiet_NaN();
  if (text == "Infinity") return std::numeric_limits<double>::infinity();
  if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
  return std::nullopt;
}

template <typename T>
bool AppendInteger(const Json& element, std::string* bytes) {
  if (element.is_number_unsigned()) {
    const auto value = element.get<std::uint64_t>();
    if (!std::in_range<T>(value)) return false;
    AppendRaw(static_cast<T>(value), bytes);
    return true;
  }
  if (!element.is_number_integer()) return false;
  const auto value = element.get<std::int64_t>();
  if (!std::in_range<T>(value)) return false;
  AppendRaw(static_cast<T>(value), bytes);
  return true;
}

bool AppendReal(DataType datatype, const Json& element, std::string* bytes) {
  const std::optional<double> value = ToReal(element);
  if (!value.has_value()) return false;
  const auto narrow = static_cast<float>(*value);
  const bool is_double = datatype == DataType::kFp64;
  const bool overflows =
      std::isinf(datatype == DataType::kFp16 ? Fp16ToFloat(FloatToFp16(narrow)) : narrow);
  if (!is_double && overflows && !std::isinf(*value)) return false;
  switch (datatype) {
    case DataType::kFp16:
      AppendRaw(FloatToFp16(narrow), bytes);
      break;
    case DataType::kBf16:
      AppendRaw(FloatToBf16(narrow), bytes);
      break;
    case DataType::kFp32:
      AppendRaw(narrow, bytes);
      break;
    default:
      AppendRaw(*value, bytes);
      break;
  }
  return true;
}

bool AppendBool(const Json& element, std::string* bytes) {
  if (element.is_boolean()) {
    bytes->push_back(element.get<bool>() ? 1 : 0);
    return true;
  }
  return element.is_number_integer() && (element == 0 || element == 1) &&
         AppendInteger<std::uint8_t>(element, bytes);
}

bool AppendString(const Json& element, std::string* bytes) {
  if (!element.is_string()) return false;
  const std::vector<std::string> strings = {element.get<std::string>()};
  *bytes += client::MakeStringTensor("", {}, strings).bytes;
  return true;
}

bool AppendElement(DataType datatype, const Json& element, std::string* bytes) {
  switch (datatype) {
    case DataType::kBool:
      return AppendBool(element, bytes);
    case DataType::kUint8:
      return AppendInteger<std::uint8_t>(element, bytes);
    case DataType::kUint16:
      return AppendInteger<std::uint16_t>(element, bytes);
    case DataType::kUint32:
      return AppendInteger<std::uint32_t>(element, bytes);
    case DataType::kUint64:
      return AppendInteger<std::uint64_t>(element, bytes);
    case DataType::kInt8:
      return AppendInteger<std::int8_t>(element, bytes);
    case DataType::kInt16:
      return AppendInteger<std::int16_t>(element, bytes);
    case DataType::kInt32:
      return AppendInteger<std::int32_t>(element, bytes);
    case DataType::kInt64:
      return AppendInteger<std::int64_t>(element, bytes);
    case DataType::kFp16:
    case DataType::kBf16:
    case DataType::kFp32:
    case DataType::kFp64:
      return AppendReal(datatype, element, bytes);
    case DataType::kBytes:
      return AppendString(element, bytes);
  }
  return false;
}

// The sizes along the first elements; every other row must agree.
absl::StatusOr<std::vector<std::int64_t>> ShapeOf(const std::string& name, const Json& json) {
  std::vector<std::int64_t> shape;
  for (const Json* level = &json; level->is_array(); level = &level->front()) {
    if (shape.size() == kMaxRank) {
      return UsageError(
          absl::StrCat("input ", Escape(name), " is nested deeper than ", kMaxRank, " dimensions"));
    }
    shape.push_back(static_cast<std::int64_t>(level->size()));
    if (level->empty()) break;
  }
  return shape;
}

class JsonReader {
 public:
  JsonReader(const std::string& name, DataType datatype, const std::vector<std::int64_t>& shape)
      : name_(name), datatype_(datatype), shape_(shape) {}

  // No deeper than the shape, which ShapeOf bounds.
  absl::Status Read(const Json& json, std::size_t depth) {
    if (depth == shape_.size()) return ReadElement(json);
    if (!json.is_array() || static_cast<std::int64_t>(json.size()) != shape_[depth]) {
      return UsageError(absl::StrCat(
          "input ", Escape(name_), " is ragged: at depth ", depth, " one row has ", shape_[depth],
          " elements, another ",
          json.is_array() ? absl::StrCat("has ", json.size()) : absl::StrCat("is ", Show(json))));
    }
    for (const Json& row : json) RELIGHT_RETURN_IF_ERROR(Read(row, depth + 1));
    return absl::OkStatus();
  }

  std::string TakeBytes() { return std::move(bytes_); }

 private:
  absl::Status ReadElement(const Json& json) {
    if (AppendElement(datatype_, json, &bytes_)) return absl::OkStatus();
    return UsageError(absl::StrCat("input ", Escape(name_), ": ", Show(json), " is no ",
                                   std::string(Name(datatype_))));
  }

  const std::string& name_;
  const DataType datatype_;
  const std::vector<std::int64_t>& shape_;
  std::string bytes_;
};

template <typename T>
Json RealToJson(T value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  // Through the shortest text of its own type, or 0.1f would read 0.10000000149011612.
  char text[32];
  const auto written = std::to_chars(text, text + sizeof(text), value);
  double shortest = 0;
  std::from_chars(text, written.ptr, shortest);
  return shortest;
}

Json ElementToJson(DataType datatype, const char* bytes) {
  switch (datatype) {
    case DataType::kBool:
      return *bytes != 0;
    case DataType::kUint8:
      return ReadRaw<std::uint8_t>(bytes);
    case DataType::kUint16:
      return ReadRaw<std::uint16_t>(bytes);
    case DataType::kUint32:
      return ReadRaw<std::uint32_t>(bytes);
    case DataType::kUint64:
      return ReadRaw<std::uint64_t>(bytes);
    case DataType::kInt8:
      return ReadRaw<std::int8_t>(bytes);
    case DataType::kInt16:
      return ReadRaw<std::int16_t>(bytes);
    case DataType::kInt32:
      return ReadRaw<std::int32_t>(bytes);
    case DataType::kInt64:
      return ReadRaw<std::int64_t>(bytes);
    case DataType::kFp16:
      return RealToJson(Fp16ToFloat(ReadRaw<std::uint16_t>(bytes)));
    case DataType::kBf16:
      return RealToJson(Bf16ToFloat(ReadRaw<std::uint16_t>(bytes)));
    case DataType::kFp32:
      return RealToJson(ReadRaw<float>(bytes));
    case DataType::kFp64:
      return RealToJson(ReadRaw<double>(bytes));
    case DataType::kBytes:
      break;  // FlatElements reads those.
  }
  return nullptr;
}

// The first `limit` elements, in row-major order.
std::vector<Json> FlatElements(const Tensor& tensor, std::size_t limit) {
  std::vector<Json> elements;
  if (tensor.datatype == DataType::kBytes) {
    for (const std::string& text : tensor.Strings().value_or(std::vector<std::string>())) {
      if (elements.size() == limit) break;
      elements.emplace_back(IsUtf8(text) ? text : Escape(text, text.size() * 4 + 4));
    }
    return elements;
  }
  const std::size_t size = client::ElementBytes(tensor.datatype);
  const std::size_t count = std::min(limit, tensor.bytes.size() / size);
  elements.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    elements.push_back(ElementToJson(tensor.datatype, tensor.bytes.data() + i * size));
  }
  return elements;
}

// One dimension: `size` rows of what `rows` holds.
std::vector<Json> Group(std::vector<Json> rows, std::size_t size, std::size_t groups) {
  std::vector<Json> grouped;
  grouped.reserve(groups);
  for (std::size_t g = 0; g < groups; ++g) {
    Json group = Json::array();
    for (std::size_t i = 0; i < size; ++i) group.push_back(std::move(rows[g * size + i]));
    grouped.push_back(std::move(group));
  }
  return grouped;
}

std::string ShowElement(const Json& element) {
  return element.is_string() ? element.dump(-1, ' ', false, Json::error_handler_t::replace)
                             : element.dump();
}

}  // namespace

absl::StatusOr<Tensor> TensorFromJson(const std::string& name, DataType datatype,
                                      const Json& json) {
  Tensor tensor{name, datatype, {}, {}};
  RELIGHT_ASSIGN_OR_RETURN(tensor.shape, ShapeOf(name, json));
  JsonReader reader(name, datatype, tensor.shape);
  RELIGHT_RETURN_IF_ERROR(reader.Read(json, 0));
  tensor.bytes = reader.TakeBytes();
  return tensor;
}

Json TensorToJson(const Tensor& tensor) {
  std::vector<Json> rows = FlatElements(tensor, std::numeric_limits<std::size_t>::max());
  if (rows.empty()) return Json::array();
  // From the last dimension outwards.
  for (std::size_t axis = tensor.shape.size(); axis-- > 0;) {
    std::size_t groups = 1;
    for (std::size_t i = 0; i < axis; ++i) groups *= static_cast<std::size_t>(tensor.shape[i]);
    rows = Group(std::move(rows), static_cast<std::size_t>(tensor.shape[axis]), groups);
  }
  return std::move(rows.front());
}

std::string TensorToText(const Tensor& tensor, std::size_t max_elements) {
  const std::vector<Json> elements = FlatElements(tensor, max_elements);
  const auto total = static_cast<std::size_t>(client::ElementCount(tensor.shape).value_or(0));
  const std::size_t row =
      tensor.shape.empty()
          ? 1
          : static_cast<std::size_t>(std::max<std::int64_t>(tensor.shape.back(), 1));
  std::string text;
  for (std::size_t i = 0; i < elements.size(); ++i) {
    absl::StrAppend(&text, i % row == 0 ? "  " : " ", ShowElement(elements[i]));
    if ((i + 1) % row == 0 || i + 1 == elements.size()) text += '\n';
  }
  if (total > elements.size()) {
    absl::StrAppend(&text, "  ... ", total - elements.size(), " more; --json prints all\n");
  }
  return text;
}

}  // namespace relight::ctl
