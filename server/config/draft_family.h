// Families by the names and shapes in a state dict.
#ifndef RELIGHT_SERVER_CONFIG_DRAFT_FAMILY_H_
#define RELIGHT_SERVER_CONFIG_DRAFT_FAMILY_H_

#include <optional>
#include <string>
#include <vector>

#include "server/network/families/families.h"
#include "storage/state_dict.h"
#include "storage/tree.h"

namespace relight::config {

struct RecognizedFamily {
  network::Family family;
  std::vector<std::string> checks;  // What shapes cannot tell, without "check:".
};

// The family that needs just the tensors that are in `weights`, with its hyperparameters; nullopt
// where there is none. What shapes cannot tell is what is usual.
std::optional<RecognizedFamily> RecognizeFamily(const storage::Tree& tree,
                                                const storage::StateDict& weights);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_DRAFT_FAMILY_H_
