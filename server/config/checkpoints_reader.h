// Where a model's checkpoints are and how they are read.
#ifndef RELIGHT_SERVER_CONFIG_CHECKPOINTS_READER_H_
#define RELIGHT_SERVER_CONFIG_CHECKPOINTS_READER_H_

#include "relight/v1/model_config.pb.h"
#include "server/config/config_errors.h"
#include "server/config/model_config.h"
#include "server/config/text_proto.h"

namespace relight::config {

// Fills in `config.checkpoints`; the folder is resolved against `config.folder`. `place` is that of
// `checkpoints`.
void ReadCheckpoints(const v1::Checkpoints& checkpoints, const Place& place, ModelConfig& config,
                     ConfigErrors& errors);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_CHECKPOINTS_READER_H_
