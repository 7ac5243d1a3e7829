// Nets of a few small linear layers, computed without LibTorch: getting in and out of it takes ten
// times as long as their arithmetic.
#ifndef RELIGHT_SERVER_MODEL_SMALL_NETWORK_H_
#define RELIGHT_SERVER_MODEL_SMALL_NETWORK_H_

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>

#include "server/model/execution.h"
#include "server/model/graph.h"
#include "server/network/network.h"

namespace relight::model {

// Whether `network` is one: a chain of linear layers and common activations from one float32 input
// to one float32 output, with few weights.
bool IsSmallNetwork(const network::Network& network);

// A model of a small network on the CPU. `weights` are float32, by the graph's names; they are
// copied. Each row is computed alone, so that its answer does not depend on its batch. `signature`
// is the network's own. Throws what LibTorch throws.
std::unique_ptr<BoundModel> MakeSmallNetwork(const network::Network& network,
                                             std::shared_ptr<const Signature> signature,
                                             const std::map<std::string, at::Tensor>& weights);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_SMALL_NETWORK_H_
