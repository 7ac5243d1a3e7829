// The graph of a config and its signature: a network, by its layers or as a family, or a
// TorchScript file.
#ifndef RELIGHT_SERVER_CONFIG_GRAPH_READER_H_
#define RELIGHT_SERVER_CONFIG_GRAPH_READER_H_

#include <string>
#include <vector>

#include "relight/v1/model_config.pb.h"
#include "server/config/config_errors.h"
#include "server/config/model_config.h"
#include "server/config/text_proto.h"
#include "server/network/families/families.h"

namespace relight::config {

// The network as it is written down, or as its family would have been: without entries where the
// errors say what is wrong with that.
//
// REQUIRES: `proto` has a graph that is no TorchScript.
network::WrittenNetwork ReadDescription(const v1::ModelConfig& proto, const Place& place,
                                        ConfigErrors& errors);

// Fills in `config.graph`, `config.inputs` and `config.outputs`, and adds the keys that a family
// ignores to `config.checkpoints.ignore`; paths are resolved against `config.folder`. A network
// that did not build stays empty.
void ReadGraph(const v1::ModelConfig& proto, const Place& place, ModelConfig& config,
               ConfigErrors& errors);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_GRAPH_READER_H_
