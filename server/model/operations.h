// One layer's arithmetic, with its parameters at hand.
#ifndef RELIGHT_SERVER_MODEL_OPERATIONS_H_
#define RELIGHT_SERVER_MODEL_OPERATIONS_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "server/network/network.h"

namespace relight::model {

// Computes a layer's output. `arguments` are its inputs; those that nothing else refers to may be
// overwritten. Thread-safe; throws what LibTorch throws.
using Operation = std::function<at::Tensor(std::vector<at::Tensor>& arguments)>;

// `weights` holds what Network::parameters() lists for the layer, by full name.
Operation MakeOperation(const network::Layer& layer,
                        const std::map<std::string, at::Tensor>& weights);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_OPERATIONS_H_
