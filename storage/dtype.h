// Element types, under the names that PyTorch gives them.
#ifndef RELIGHT_STORAGE_DTYPE_H_
#define RELIGHT_STORAGE_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace relight {

enum class DType : std::uint8_t {
  kBool,
  kUInt8,
  kInt8,
  kUInt16,
  kInt16,
  kUInt32,
  kInt32,
  kUInt64,
  kInt64,
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
  kComplex32,
  kComplex64,
  kComplex128,
  kFloat8E4M3FN,
  kFloat8E5M2,
  kFloat8E4M3FNUZ,
  kFloat8E5M2FNUZ,
  kFloat8E8M0FNU,
  // Known by name only: parsed, never served.
  kQInt8,
  kQUInt8,
  kQInt32,
  kQUInt4x2,
  kQUInt2x4,
  kBits8,
  kBits16,
  kBits1x8,
  kBits2x4,
  kBits4x2,
  kFloat4E2M1FNx2,
};

// Bytes of one element; packed types count one byte.
std::size_t ItemSize(DType dtype);

// "float32", "bfloat16", ...: torch.<name>.
std::string_view Name(DType dtype);
std::optional<DType> DTypeFromName(std::string_view torch_name);

bool IsFloatingPoint(DType dtype);  // Real floating point, float8 included.
bool IsComplex(DType dtype);

// The Open Inference Protocol's names: "FP32", "BF16", "INT64", ... Types that have none give "".
std::string_view ProtocolName(DType dtype);
std::optional<DType> DTypeFromProtocolName(std::string_view name);

}  // namespace relight

#endif  // RELIGHT_STORAGE_DTYPE_H_
