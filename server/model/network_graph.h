// Executes a described net with LibTorch's functions.
#ifndef RELIGHT_SERVER_MODEL_NETWORK_GRAPH_H_
#define RELIGHT_SERVER_MODEL_NETWORK_GRAPH_H_

#include <memory>

#include "server/config/model_config.h"
#include "server/model/captured_forwards.h"
#include "server/model/device.h"
#include "server/model/graph.h"
#include "server/network/network.h"

namespace relight::model {

std::unique_ptr<Graph> MakeNetworkGraph(network::Network network, std::shared_ptr<Device> device,
                                        config::Precision precision, CaptureSettings capture = {});

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_NETWORK_GRAPH_H_
