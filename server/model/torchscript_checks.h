// What can be told of a TorchScript module by looking at it, before it runs.
#ifndef RELIGHT_SERVER_MODEL_TORCHSCRIPT_CHECKS_H_
#define RELIGHT_SERVER_MODEL_TORCHSCRIPT_CHECKS_H_

#include <torch/csrc/jit/api/module.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/model/execution.h"
#include "server/network/parameters.h"

namespace relight::model {

// A parameter or buffer of a module: where it is, and what it was.
struct ParameterSlot {
  std::vector<std::string> path;  // Of the submodule that holds it; empty for the module itself.
  std::string attribute;
  ParameterSpec spec;
  at::Tensor tensor;
};

// All of them, in the order in which PyTorch's state_dict() lists them. One that a module holds in
// two places is listed under both names. Buffers other than running statistics are optional. Throws
// where one is of a type that cannot be served.
std::vector<ParameterSlot> FindParameterSlots(const torch::jit::Module& module);

// Puts `tensor` into the slot of `module` or of a copy of it. LibTorch checks neither its shape nor
// its dtype.
void SetSlot(const torch::jit::Module& module, const ParameterSlot& slot, const at::Tensor& tensor);

// INVALID_ARGUMENT where a checkpoint could replace nothing, or less than half of the weights,
// since they are constants in the code: torch.jit.freeze and the like fold them into it.
absl::Status CheckNotFrozen(const torch::jit::Module& module,
                            const std::vector<ParameterSlot>& slots);

// Whether forward() takes tensors and returns tensors, tuples of them, also within tuples, or a
// list or dict of them; as many as the signature declares, where that can be seen. INVALID_ARGUMENT
// lists all that is wrong.
absl::Status CheckForwardSchema(const torch::jit::Module& module, const Signature& signature);

// INVALID_ARGUMENT where the traced code itself says that it is in training mode: a dropout that
// drops, a batch norm that measures its batch.
absl::Status CheckTracedForEvaluation(const torch::jit::Module& module);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_TORCHSCRIPT_CHECKS_H_
