// The `classification` parameter of a requested output: the k largest values, each as
// "value:index", in place of the tensor.
//
// Pure and thread-safe.
#ifndef RELIGHT_SERVER_RPC_CLASSIFICATION_H_
#define RELIGHT_SERVER_RPC_CLASSIFICATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/serving/infer.h"

namespace relight::rpc {

// The most that a request may ask for: each is a string of its own, in memory and on the wire.
inline constexpr std::uint64_t kMaxClasses = 1000;

struct Classes {
  std::vector<std::int64_t> shape;    // [k], or [rows, k] where `batched`.
  std::vector<std::string> elements;  // Row by row, largest value first; equal ones by index.
};

// With `batched` the first dimension counts rows that are ranked apart, else all elements are
// ranked together. Where there are fewer than k elements, all of them. NaN ranks last.
// INVALID_ARGUMENT for types without an order. REQUIRES: k is 1 to kMaxClasses.
absl::StatusOr<Classes> TopClasses(const serving::OutputTensor& output, std::uint64_t k,
                                   bool batched);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_CLASSIFICATION_H_
