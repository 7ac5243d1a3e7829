// The graph of a config and its signature: a network that is built, or a TorchScript file.
#ifndef RELIGHT_SERVER_CONFIG_GRAPH_READER_H_
#define RELIGHT_SERVER_CONFIG_GRAPH_READER_H_

#include "relight/v1/model_config.pb.h"
#include "server/config/config_errors.h"
#include "server/config/model_config.h"
#include "server/config/text_proto.h"

namespace relight::config {

// Fills in `config.graph`, `config.inputs` and `config.outputs`; paths are resolved against
// `config.folder`. A network that did not build stays empty.
void ReadGraph(const v1::ModelConfig& proto, const Place& place, ModelConfig& config,
               ConfigErrors& errors);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_GRAPH_READER_H_
