// From the config's messages to plain descriptions of tensors and nets.
#ifndef RELIGHT_SERVER_CONFIG_NETWORK_READER_H_
#define RELIGHT_SERVER_CONFIG_NETWORK_READER_H_

#include <optional>
#include <vector>

#include "relight/v1/model_config.pb.h"
#include "server/config/config_errors.h"
#include "server/config/text_proto.h"
#include "server/network/blocks.h"
#include "server/network/families/families.h"
#include "server/network/network.h"

namespace relight::config {

enum class TensorRole { kInput, kOutput };

// The declared inputs or outputs. Checks names and datatypes; shapes are the graph's to check.
std::vector<TensorSpec> ReadTensors(const v1::ModelConfig& config, const Place& place,
                                    TensorRole role, ConfigErrors& errors);

// The layers and blocks of a network as they are written. Checks names and that each has a kind;
// what the arguments may be is the network's to check.
std::vector<network::BlockEntry> ReadLayers(const v1::Network& network, const Place& place,
                                            ConfigErrors& errors);

// The family that the graph is; nullopt where it is something else.
std::optional<network::Family> ReadFamily(const v1::ModelConfig& config, const Place& place,
                                          ConfigErrors& errors);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_NETWORK_READER_H_
