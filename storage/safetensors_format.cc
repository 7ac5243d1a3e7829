#include "storage/safetensors_format.h"

#include <algorithm>
#include <iterator>

namespace relight::storage {
namespace {

struct Row {
  std::string_view name;
  DType dtype;
};

// By rank, as the reference implementation has them: in increasing alignment.
constexpr Row kRows[] = {
    {"BOOL", DType::kBool},
    {"U8", DType::kUInt8},
    {"I8", DType::kInt8},
    {"F8_E5M2", DType::kFloat8E5M2},
    {"F8_E4M3", DType::kFloat8E4M3FN},
    {"F8_E8M0", DType::kFloat8E8M0FNU},
    {"F8_E4M3FNUZ", DType::kFloat8E4M3FNUZ},
    {"F8_E5M2FNUZ", DType::kFloat8E5M2FNUZ},
    {"I16", DType::kInt16},
    {"U16", DType::kUInt16},
    {"F16", DType::kFloat16},
    {"BF16", DType::kBFloat16},
    {"I32", DType::kInt32},
    {"U32", DType::kUInt32},
    {"F32", DType::kFloat32},
    {"C64", DType::kComplex64},
    {"F64", DType::kFloat64},
    {"I64", DType::kInt64},
    {"U64", DType::kUInt64},
};
constexpr std::string_view kSubByteNames[] = {"F4", "F6_E2M3", "F6_E3M2"};

const Row* FindRow(DType dtype) {
  return std::find_if(std::begin(kRows), std::end(kRows),
                      [dtype](const Row& row) { return row.dtype == dtype; });
}

}  // namespace

std::optional<std::string_view> SafetensorsName(DType dtype) {
  const Row* const row = FindRow(dtype);
  if (row == std::end(kRows)) return std::nullopt;
  return row->name;
}

std::optional<DType> DTypeFromSafetensorsName(std::string_view name) {
  for (const Row& row : kRows) {
    if (row.name == name) return row.dtype;
  }
  return std::nullopt;
}

bool IsSubByteSafetensorsName(std::string_view name) {
  return std::find(std::begin(kSubByteNames), std::end(kSubByteNames), name) !=
         std::end(kSubByteNames);
}

int SafetensorsRank(DType dtype) { return static_cast<int>(FindRow(dtype) - std::begin(kRows)); }

}  // namespace relight::storage
