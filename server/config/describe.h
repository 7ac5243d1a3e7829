// A model.textproto with its graph written out: what a family stands for, or what a description
// says as relight understands it.
#ifndef RELIGHT_SERVER_CONFIG_DESCRIBE_H_
#define RELIGHT_SERVER_CONFIG_DESCRIBE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "server/config/model_config.h"

namespace relight::config {

// The text of a config that is the same model as `text`, with inputs, outputs and the network's
// layers and blocks in full; what else it says stays. Arguments as ParseModelConfig has them, and
// its errors. FAILED_PRECONDITION for a TorchScript graph, which only LibTorch can look into.
absl::StatusOr<std::string> DescribeModelConfig(std::string_view text, const std::string& folder,
                                                std::string_view file_name = kModelConfigName);

// The same for a model's folder, or its file.
absl::StatusOr<std::string> DescribeModelConfigAt(const std::string& path);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_DESCRIBE_H_
