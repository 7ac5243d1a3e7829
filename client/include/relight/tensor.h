// A tensor as it travels: a name, a datatype of the Open Inference Protocol, a shape, and the
// elements as bytes: little-endian, row-major, dense.
//
//   Tensor x = MakeTensor<float>("x", {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
//   absl::StatusOr<std::vector<float>> values = y.Values<float>();
#ifndef RELIGHT_TENSOR_H_
#define RELIGHT_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "relight/export.h"

namespace relight::client {

enum class DataType : std::uint8_t {
  kBool,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kFp16,
  kBf16,
  kFp32,
  kFp64,
  kBytes,  // Strings: each element is a 4-byte little-endian length, then so many bytes.
};

// The protocol's name: "FP32", "INT64", "BYTES".
RELIGHT_CLIENT_API std::string_view Name(DataType datatype);
RELIGHT_CLIENT_API std::optional<DataType> ParseDataType(std::string_view name);
// Of one element; 0 for kBytes, whose elements differ.
RELIGHT_CLIENT_API std::size_t ElementBytes(DataType datatype);

// The product of the sizes; 1 for a scalar. INVALID_ARGUMENT for a negative size or a product that
// no int64 holds.
RELIGHT_CLIENT_API absl::StatusOr<std::int64_t> ElementCount(std::span<const std::int64_t> shape);

// Which DataType a C++ type is; FP16, BF16 and BYTES have none and are handled as bytes.
template <typename T>
constexpr DataType DataTypeOf() {
  if constexpr (std::is_same_v<T, bool>)
    return DataType::kBool;
  else if constexpr (std::is_same_v<T, std::uint8_t>)
    return DataType::kUint8;
  else if constexpr (std::is_same_v<T, std::uint16_t>)
    return DataType::kUint16;
  else if constexpr (std::is_same_v<T, std::uint32_t>)
    return DataType::kUint32;
  else if constexpr (std::is_same_v<T, std::uint64_t>)
    return DataType::kUint64;
  else if constexpr (std::is_same_v<T, std::int8_t>)
    return DataType::kInt8;
  else if constexpr (std::is_same_v<T, std::int16_t>)
    return DataType::kInt16;
  else if constexpr (std::is_same_v<T, std::int32_t>)
    return DataType::kInt32;
  else if constexpr (std::is_same_v<T, std::int64_t>)
    return DataType::kInt64;
  else if constexpr (std::is_same_v<T, float>)
    return DataType::kFp32;
  else if constexpr (std::is_same_v<T, double>)
    return DataType::kFp64;
  else
    static_assert(sizeof(T) == 0, "no datatype of the protocol stands for this type");
}

// Owns its bytes.
struct RELIGHT_CLIENT_API Tensor {
  std::string name;
  DataType datatype = DataType::kFp32;
  std::vector<std::int64_t> shape;
  std::string bytes;

  // INVALID_ARGUMENT where `bytes` is not what datatype and shape make; names both numbers.
  absl::Status Validate() const;

  // The elements in row-major order. INVALID_ARGUMENT for another datatype than T's, or where
  // Validate fails.
  template <typename T>
  absl::StatusOr<std::vector<T>> Values() const;

  // The elements of a BYTES tensor. INVALID_ARGUMENT for any other, or where a length lies.
  absl::StatusOr<std::vector<std::string>> Strings() const;

 private:
  absl::Status ValidateAs(DataType wanted) const;
};

// `values` holds the elements in row-major order. That their number fits the shape is checked when
// the tensor is sent (Tensor::Validate).
template <typename T>
Tensor MakeTensor(std::string name, std::vector<std::int64_t> shape,
                  std::type_identity_t<std::span<const T>> values) {
  Tensor tensor{std::move(name), DataTypeOf<T>(), std::move(shape), {}};
  tensor.bytes.assign(reinterpret_cast<const char*>(values.data()), values.size_bytes());
  return tensor;
}

// A BYTES tensor.
RELIGHT_CLIENT_API Tensor MakeStringTensor(std::string name, std::vector<std::int64_t> shape,
                                           std::span<const std::string> values);

template <typename T>
absl::StatusOr<std::vector<T>> Tensor::Values() const {
  if (absl::Status status = ValidateAs(DataTypeOf<T>()); !status.ok()) return status;
  std::vector<T> values(bytes.size() / sizeof(T));
  if constexpr (std::is_same_v<T, bool>) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = bytes[i] != 0;
  } else if (!bytes.empty()) {
    std::memcpy(values.data(), bytes.data(), bytes.size());
  }
  return values;
}

}  // namespace relight::client

#endif  // RELIGHT_TENSOR_H_
