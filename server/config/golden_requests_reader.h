// What a model's checkpoints are asked before they serve.
#ifndef RELIGHT_SERVER_CONFIG_GOLDEN_REQUESTS_READER_H_
#define RELIGHT_SERVER_CONFIG_GOLDEN_REQUESTS_READER_H_

#include <cstddef>

#include "relight/v1/model_config.pb.h"
#include "server/config/config_errors.h"
#include "server/config/model_config.h"
#include "server/config/text_proto.h"

namespace relight::config {

// Each is computed by every checkpoint.
inline constexpr std::size_t kMaxGoldenRequests = 64;

// Fills in `config.golden_requests`, of which the files are not looked at yet. `config` has its
// outputs and arenas; `place` is that of `accept`.
void ReadGoldenRequests(const v1::Acceptance& accept, const Place& place, ModelConfig& config,
                        ConfigErrors& errors);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_GOLDEN_REQUESTS_READER_H_
