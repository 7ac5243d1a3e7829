// The datatypes and tensors that travel, and what makes one hold together.
#include "relight/tensor.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"

namespace relight::client {
namespace {

struct DataTypeRow {
  DataType datatype;
  std::string_view name;
  std::size_t element_bytes;
};

constexpr std::array<DataTypeRow, 14> kDataTypes = {{
    {DataType::kBool, "BOOL", 1},
    {DataType::kUint8, "UINT8", 1},
    {DataType::kUint16, "UINT16", 2},
    {DataType::kUint32, "UINT32", 4},
    {DataType::kUint64, "UINT64", 8},
    {DataType::kInt8, "INT8", 1},
    {DataType::kInt16, "INT16", 2},
    {DataType::kInt32, "INT32", 4},
    {DataType::kInt64, "INT64", 8},
    {DataType::kFp16, "FP16", 2},
    {DataType::kBf16, "BF16", 2},
    {DataType::kFp32, "FP32", 4},
    {DataType::kFp64, "FP64", 8},
    {DataType::kBytes, "BYTES", 0},
}};

const DataTypeRow& Row(DataType datatype) { return kDataTypes[static_cast<std::size_t>(datatype)]; }

std::uint32_t ReadLength(const char* bytes) {
  std::uint32_t length = 0;
  for (int i = 3; i >= 0; --i) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  return length;
}

std::string Subject(const Tensor& tensor) {
  return absl::StrCat("tensor ", Escape(tensor.name), " (", std::string(Name(tensor.datatype)),
                      " [", absl::StrJoin(tensor.shape, ", "), "])");
}

// Calls `visit` with every element of a BYTES tensor; false where the lengths do not add up.
template <typename Visit>
bool VisitStrings(std::string_view bytes, const Visit& visit) {
  while (!bytes.empty()) {
    if (bytes.size() < 4) return false;
    const std::uint32_t length = ReadLength(bytes.data());
    bytes.remove_prefix(4);
    if (length > bytes.size()) return false;
    visit(bytes.substr(0, length));
    bytes.remove_prefix(length);
  }
  return true;
}

}  // namespace

std::string_view Name(DataType datatype) { return Row(datatype).name; }

std::optional<DataType> ParseDataType(std::string_view name) {
  for (const DataTypeRow& row : kDataTypes) {
    if (row.name == name) return row.datatype;
  }
  return std::nullopt;
}

std::size_t ElementBytes(DataType datatype) { return Row(datatype).element_bytes; }

absl::StatusOr<std::int64_t> ElementCount(std::span<const std::int64_t> shape) {
  std::int64_t count = 1;
  bool overflow = false;
  bool zero = false;
  for (std::int64_t size : shape) {
    if (size < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("shape [", absl::StrJoin(shape, ", "), "] has a negative size"));
    }
    zero = zero || size == 0;
    overflow = overflow || __builtin_mul_overflow(count, size, &count);
  }
  if (zero) return 0;
  if (overflow) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape [", absl::StrJoin(shape, ", "), "] has more elements than 2^63 - 1"));
  }
  return count;
}

absl::Status Tensor::Validate() const {
  absl::StatusOr<std::int64_t> count = ElementCount(shape);
  if (!count.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", Escape(name), ": ", count.status().message()));
  }
  if (datatype == DataType::kBytes) {
    std::int64_t found = 0;
    if (!VisitStrings(bytes, [&](std::string_view) { ++found; })) {
      return absl::InvalidArgumentError(
          absl::StrCat(Subject(*this), ": its bytes end within an element"));
    }
    if (found == *count) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(Subject(*this), " has ", found, " elements, its shape needs ", *count));
  }
  std::uint64_t needed = 0;
  if (__builtin_mul_overflow(static_cast<std::uint64_t>(*count), ElementBytes(datatype), &needed) ||
      needed != bytes.size()) {
    return absl::InvalidArgumentError(absl::StrCat(Subject(*this), " has ", bytes.size(),
                                                   " bytes, its shape needs ", *count, " x ",
                                                   ElementBytes(datatype)));
  }
  return absl::OkStatus();
}

absl::Status Tensor::ValidateAs(DataType wanted) const {
  if (datatype != wanted) {
    return absl::InvalidArgumentError(
        absl::StrCat(Subject(*this), " was asked for as ", std::string(client::Name(wanted))));
  }
  return Validate();
}

absl::StatusOr<std::vector<std::string>> Tensor::Strings() const {
  RELIGHT_RETURN_IF_ERROR(ValidateAs(DataType::kBytes));
  std::vector<std::string> strings;
  VisitStrings(bytes, [&](std::string_view element) { strings.emplace_back(element); });
  return strings;
}

Tensor MakeStringTensor(std::string name, std::vector<std::int64_t> shape,
                        std::span<const std::string> values) {
  Tensor tensor{std::move(name), DataType::kBytes, std::move(shape), {}};
  for (const std::string& value : values) {
    const auto length = static_cast<std::uint32_t>(value.size());
    for (int shift = 0; shift < 32; shift += 8) {
      tensor.bytes.push_back(static_cast<char>(length >> shift & 0xFF));
    }
    tensor.bytes += value;
  }
  return tensor;
}

}  // namespace relight::client
