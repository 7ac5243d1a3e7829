// The pieces that a draft is put together from: what a checkpoint shows of each layer.
#ifndef RELIGHT_SERVER_CONFIG_DRAFT_PARTS_H_
#define RELIGHT_SERVER_CONFIG_DRAFT_PARTS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "server/network/network.h"
#include "storage/state_dict.h"
#include "storage/tree.h"

namespace relight::config {

struct DraftPart {
  std::string name;                        // Path of the module, as in the state dict's keys.
  std::optional<network::LayerKind> kind;  // Absent where relight has no such layer.
  std::vector<std::string> checks = {};    // What to look at, escaped; without "check:".
  // Runs directly after the part before it: both are children of one Sequential.
  bool follows = false;
};

// By the names and shapes of a state dict: kernels are known, strides and activations are not.
std::vector<DraftPart> PartsFromKeys(const storage::Tree& tree, const storage::StateDict& weights);

// By the classes and attributes of a whole module, in the order in which it registered its
// children.
std::vector<DraftPart> PartsFromModule(const storage::Tree& tree,
                                       const storage::StateDict& weights);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_DRAFT_PARTS_H_
