// One step's arithmetic, with its parameters at hand.
#ifndef RELIGHT_SERVER_MODEL_OPERATIONS_H_
#define RELIGHT_SERVER_MODEL_OPERATIONS_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "server/model/derived_tensors.h"
#include "server/model/step_plan.h"
#include "server/network/network.h"

namespace relight::model {

// Computes a layer's output. `arguments` are its inputs; those that nothing else refers to may be
// overwritten. Thread-safe; throws what LibTorch throws.
using Operation = std::function<at::Tensor(std::vector<at::Tensor>& arguments)>;
// The same for a layer with one output or several.
using SeveralOperation = std::function<std::vector<at::Tensor>(std::vector<at::Tensor>& arguments)>;
using StepOperation = std::variant<Operation, SeveralOperation>;

// As `plan` says, which is one of `network`. `weights` holds what Network::parameters() lists, by
// full name; the operation keeps those that it reads, and what it derives from others: in `derived`
// where that is not null.
StepOperation MakeOperation(const network::Network& network, const std::vector<StepPlan>& plan,
                            std::size_t step, const std::map<std::string, at::Tensor>& weights,
                            DerivedTensors* derived);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_OPERATIONS_H_
