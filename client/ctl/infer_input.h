// What the words after --input, --shape and --datatype mean.
#ifndef RELIGHT_CLIENT_CTL_INFER_INPUT_H_
#define RELIGHT_CLIENT_CTL_INFER_INPUT_H_

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "relight/client.h"

namespace relight::ctl {

struct InputOptions {
  std::vector<std::string> inputs;     // "x=[[1, 2]]", "x=@file.json", "[[1, 2]]"
  std::vector<std::string> shapes;     // "x=1,10"
  std::vector<std::string> datatypes;  // "x=FP32"
};

// The tensors to send: datatypes and missing shapes come from `metadata`. Usage errors for what
// does not parse or has no matching input; NOT_FOUND for a file that is not there.
absl::StatusOr<std::vector<client::Tensor>> ReadInputs(const InputOptions& options,
                                                       const client::ModelMetadata& metadata);

// "name=value"; the name is empty where `text` begins with a value.
std::pair<std::string, std::string> SplitNamed(const std::string& text);

absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_INFER_INPUT_H_
