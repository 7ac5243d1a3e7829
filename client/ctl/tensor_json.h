// Tensors as nested JSON arrays and back. Floats are written with the fewest digits that read back
// the same; "NaN", "Infinity" and "-Infinity" stand for what JSON has no numbers for.
#ifndef RELIGHT_CLIENT_CTL_TENSOR_JSON_H_
#define RELIGHT_CLIENT_CTL_TENSOR_JSON_H_

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"
#include "relight/tensor.h"

namespace relight::ctl {

// The nesting gives the shape; a bare number is a scalar. Usage errors: ragged rows, elements that
// `datatype` does not hold, nesting deeper than 32.
absl::StatusOr<client::Tensor> TensorFromJson(const std::string& name, client::DataType datatype,
                                              const nlohmann::ordered_json& json);

// REQUIRES: tensor.Validate() is OK.
nlohmann::ordered_json TensorToJson(const client::Tensor& tensor);

// For people: rows one per line, at most `max_elements` of them.
std::string TensorToText(const client::Tensor& tensor, std::size_t max_elements);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_TENSOR_JSON_H_
