#include "client/ctl/npy.h"

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/escape.h"
#include "base/status_macros.h"

namespace relight::ctl {
namespace {

using client::DataType;

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kAlignment = 64;

struct NpyType {
  std::string_view descr;
  DataType datatype;
};

constexpr std::array<NpyType, 12> kTypes = {{{"|b1", DataType::kBool},
                                             {"|u1", DataType::kUint8},
                                             {"<u2", DataType::kUint16},
                                             {"<u4", DataType::kUint32},
                                             {"<u8", DataType::kUint64},
                                             {"|i1", DataType::kInt8},
                                             {"<i2", DataType::kInt16},
                                             {"<i4", DataType::kInt32},
                                             {"<i8", DataType::kInt64},
                                             {"<f2", DataType::kFp16},
                                             {"<f4", DataType::kFp32},
                                             {"<f8", DataType::kFp64}}};

std::uint32_t ReadLittleEndian(std::string_view bytes) {
  std::uint32_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

// The text after "'key':" in the header, a Python dict literal; empty where there is none.
std::string_view ValueOf(std::string_view header, std::string_view key) {
  const std::size_t at = header.find(key);
  if (at == std::string_view::npos) return {};
  std::string_view value = header.substr(at + key.size());
  while (!value.empty() && (value.front() == ' ' || value.front() == ':')) value.remove_prefix(1);
  return value;
}

absl::StatusOr<DataType> ReadType(std::string_view header) {
  const std::string_view value = ValueOf(header, "'descr'");
  const std::size_t end = value.size() < 2 ? std::string_view::npos : value.find('\'', 1);
  if (end == std::string_view::npos || value.front() != '\'') {
    return absl::InvalidArgumentError("the .npy header names no plain type");
  }
  const std::string_view descr = value.substr(1, end - 1);
  for (const NpyType& type : kTypes) {
    if (type.descr == descr) return type.datatype;
  }
  return absl::InvalidArgumentError(absl::StrCat("the .npy file holds type '", Escape(descr),
                                                 "'; numbers and booleans, little-endian, do"));
}

absl::StatusOr<std::vector<std::int64_t>> ReadShape(std::string_view header) {
  const std::string_view value = ValueOf(header, "'shape'");
  const std::size_t end = value.find(')');
  if (value.empty() || value.front() != '(' || end == std::string_view::npos) {
    return absl::InvalidArgumentError("the .npy header has no shape");
  }
  std::vector<std::int64_t> shape;
  const std::string inner(value.substr(1, end - 1));
  for (const auto& part : absl::StrSplit(inner, ',', absl::SkipWhitespace())) {
    std::int64_t size = 0;
    if (!absl::SimpleAtoi(part, &size)) {
      return absl::InvalidArgumentError("the .npy header's shape is not one of numbers");
    }
    shape.push_back(size);
  }
  return shape;
}

}  // namespace

absl::StatusOr<client::Tensor> ParseNpy(std::string_view file) {
  if (!file.starts_with(kMagic) || file.size() < 10) {
    return absl::InvalidArgumentError("not a .npy file");
  }
  const std::size_t length_bytes = file[6] == 1 ? 2 : 4;
  const std::size_t start = 8 + length_bytes;
  if (file.size() < start) return absl::InvalidArgumentError("the .npy header is cut short");
  const std::size_t length = ReadLittleEndian(file.substr(8, length_bytes));
  if (file.size() - start < length) {
    return absl::InvalidArgumentError("the .npy header is cut short");
  }
  const std::string_view header = file.substr(start, length);
  if (!ValueOf(header, "'fortran_order'").starts_with("False")) {
    return absl::InvalidArgumentError(
        "the .npy file is in Fortran order; save numpy.ascontiguousarray(x)");
  }
  client::Tensor tensor;
  RELIGHT_ASSIGN_OR_RETURN(tensor.datatype, ReadType(header));
  RELIGHT_ASSIGN_OR_RETURN(tensor.shape, ReadShape(header));
  tensor.bytes = file.substr(start + length);
  RELIGHT_RETURN_IF_ERROR(tensor.Validate());
  return tensor;
}

absl::StatusOr<std::string> FormatNpy(const client::Tensor& tensor) {
  RELIGHT_RETURN_IF_ERROR(tensor.Validate());
  for (const NpyType& type : kTypes) {
    if (type.datatype != tensor.datatype) continue;
    std::string header = absl::StrCat(
        "{'descr': '", std::string(type.descr), "', 'fortran_order': False, 'shape': (",
        absl::StrJoin(tensor.shape, ", "), tensor.shape.size() == 1 ? ",), }" : "), }");
    const std::size_t unpadded = kMagic.size() + 4 + header.size() + 1;
    header.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ');
    header += '\n';
    std::string file(kMagic);
    file += std::string_view("\x01\x00", 2);
    file += static_cast<char>(header.size() & 0xFF);
    file += static_cast<char>(header.size() >> 8);
    return absl::StrCat(file, header, tensor.bytes);
  }
  return absl::InvalidArgumentError(absl::StrCat("output ", Escape(tensor.name), " is ",
                                                 std::string(Name(tensor.datatype)),
                                                 ", which .npy files cannot hold"));
}

}  // namespace relight::ctl
