// Drafts a model.textproto from a checkpoint, so that nobody begins with an empty file.
//
// A whole module says which layers there are, with their arguments; a state dict only lets guess
// them from names and shapes, unless these are those of a family. What is guessed carries a comment
// that begins with "check:".
#ifndef RELIGHT_SERVER_CONFIG_DRAFT_H_
#define RELIGHT_SERVER_CONFIG_DRAFT_H_

#include <string>

#include "absl/status/statusor.h"
#include "storage/state_dict.h"
#include "storage/tree.h"

namespace relight::config {

struct DraftOptions {
  std::string file_name = {};  // For the heading; may be empty.
  // How `weights` was found, where not by itself; written into the draft.
  std::string state_dict_key = {};
  std::string strip_prefix = {};
};

// The text of a model.textproto for the checkpoint of `tree`, whose state dict is `weights`. A
// draft that does not build or does not fit the checkpoint says so in comments at its end.
// INVALID_ARGUMENT where `weights` has no tensors, or too many for a net written by hand.
absl::StatusOr<std::string> DraftModelConfig(const storage::Tree& tree,
                                             const storage::StateDict& weights,
                                             const DraftOptions& options = {});

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_DRAFT_H_
