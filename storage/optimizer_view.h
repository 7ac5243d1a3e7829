// What torch.optim.Optimizer.state_dict() left in a tree, recognised by its keys.
#ifndef RELIGHT_STORAGE_OPTIMIZER_VIEW_H_
#define RELIGHT_STORAGE_OPTIMIZER_VIEW_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "storage/tree.h"

namespace relight::storage {

struct OptimizerGroup {
  std::uint64_t parameters = 0;
  // "lr", "betas", ... in the file's order, without the list of parameters. Any bytes.
  std::vector<std::pair<std::string, NodeId>> settings;
};

struct OptimizerView {
  // "Adam", "AdamW (amsgrad)", "Adam or AdamW"; "of an unknown kind". A guess: the file does not
  // say.
  std::string kind;
  std::vector<OptimizerGroup> groups;
  std::uint64_t states = 0;   // Parameters that have been stepped.
  std::uint64_t tensors = 0;  // Of all states.
  // Of the first state that has one: a number or a tensor of one element.
  NodeId step = kNoNode;
};

// Nullopt where `node` is no such dict: {'state': {...}, 'param_groups': [{..., 'params': [...]}]}.
// Takes time linear in the states and the groups.
std::optional<OptimizerView> ViewOptimizer(const Tree& tree, NodeId node);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_OPTIMIZER_VIEW_H_
