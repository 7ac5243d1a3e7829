#include "storage/dtype.h"

#include <array>

namespace relight {
namespace {

enum class Family : std::uint8_t { kOther, kReal, kComplex };

struct Row {
  DType dtype;
  std::uint8_t item_size;
  Family family;
  std::string_view name;
  std::string_view protocol_name;
};

constexpr std::array<Row, 32> kRows = {{
    {DType::kBool, 1, Family::kOther, "bool", "BOOL"},
    {DType::kUInt8, 1, Family::kOther, "uint8", "UINT8"},
    {DType::kInt8, 1, Family::kOther, "int8", "INT8"},
    {DType::kUInt16, 2, Family::kOther, "uint16", "UINT16"},
    {DType::kInt16, 2, Family::kOther, "int16", "INT16"},
    {DType::kUInt32, 4, Family::kOther, "uint32", "UINT32"},
    {DType::kInt32, 4, Family::kOther, "int32", "INT32"},
    {DType::kUInt64, 8, Family::kOther, "uint64", "UINT64"},
    {DType::kInt64, 8, Family::kOther, "int64", "INT64"},
    {DType::kFloat16, 2, Family::kReal, "float16", "FP16"},
    {DType::kBFloat16, 2, Family::kReal, "bfloat16", "BF16"},
    {DType::kFloat32, 4, Family::kReal, "float32", "FP32"},
    {DType::kFloat64, 8, Family::kReal, "float64", "FP64"},
    {DType::kComplex32, 4, Family::kComplex, "complex32", ""},
    {DType::kComplex64, 8, Family::kComplex, "complex64", ""},
    {DType::kComplex128, 16, Family::kComplex, "complex128", ""},
    {DType::kFloat8E4M3FN, 1, Family::kReal, "float8_e4m3fn", ""},
    {DType::kFloat8E5M2, 1, Family::kReal, "float8_e5m2", ""},
    {DType::kFloat8E4M3FNUZ, 1, Family::kReal, "float8_e4m3fnuz", ""},
    {DType::kFloat8E5M2FNUZ, 1, Family::kReal, "float8_e5m2fnuz", ""},
    {DType::kFloat8E8M0FNU, 1, Family::kReal, "float8_e8m0fnu", ""},
    {DType::kQInt8, 1, Family::kOther, "qint8", ""},
    {DType::kQUInt8, 1, Family::kOther, "quint8", ""},
    {DType::kQInt32, 4, Family::kOther, "qint32", ""},
    {DType::kQUInt4x2, 1, Family::kOther, "quint4x2", ""},
    {DType::kQUInt2x4, 1, Family::kOther, "quint2x4", ""},
    {DType::kBits8, 1, Family::kOther, "bits8", ""},
    {DType::kBits16, 2, Family::kOther, "bits16", ""},
    {DType::kBits1x8, 1, Family::kOther, "bits1x8", ""},
    {DType::kBits2x4, 1, Family::kOther, "bits2x4", ""},
    {DType::kBits4x2, 1, Family::kOther, "bits4x2", ""},
    {DType::kFloat4E2M1FNx2, 1, Family::kOther, "float4_e2m1fn_x2", ""},
}};

constexpr bool RowsAreInEnumOrder() {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<std::size_t>(kRows[i].dtype) != i) return false;
  }
  return true;
}
static_assert(RowsAreInEnumOrder());

const Row& RowOf(DType dtype) { return kRows[static_cast<std::size_t>(dtype)]; }

}  // namespace

std::size_t ItemSize(DType dtype) { return RowOf(dtype).item_size; }

std::string_view Name(DType dtype) { return RowOf(dtype).name; }

std::optional<DType> DTypeFromName(std::string_view torch_name) {
  for (const Row& row : kRows) {
    if (row.name == torch_name) return row.dtype;
  }
  return std::nullopt;
}

bool IsFloatingPoint(DType dtype) { return RowOf(dtype).family == Family::kReal; }

bool IsComplex(DType dtype) { return RowOf(dtype).family == Family::kComplex; }

std::string_view ProtocolName(DType dtype) { return RowOf(dtype).protocol_name; }

std::optional<DType> DTypeFromProtocolName(std::string_view name) {
  if (name.empty()) return std::nullopt;
  for (const Row& row : kRows) {
    if (row.protocol_name == name) return row.dtype;
  }
  return std::nullopt;
}

}  // namespace relight
