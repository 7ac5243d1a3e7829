// Finding the weights in a checkpoint: the state dict itself, a bundle's, or a whole module's.
#ifndef RELIGHT_STORAGE_STATE_DICT_H_
#define RELIGHT_STORAGE_STATE_DICT_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "storage/checkpoint.h"
#include "storage/tree.h"

namespace relight::storage {

struct StateDictOptions {
  // Where the state dict is, as keys joined by "/". Empty: by the rules of FindStateDict.
  std::string key;
  // A prefix to strip from every key; it is an error if some key lacks it.
  std::string strip_prefix;
  // The keys that the graph needs, where known: "module.", "_orig_mod." and "model." are then
  // stripped only if that makes more keys match. Without them the first two are always stripped.
  absl::Span<const std::string> wanted_keys;
  // What becomes of a key after that; a prefix is worth stripping for what it makes of the keys.
  // Empty: they stay.
  std::function<std::string(std::string key)> rename;
};

struct StateDictEntry {
  std::string key;           // After stripping and renaming.
  std::string original_key;  // As in the file.
  NodeId node = kNoNode;     // kTensor or kUnsupportedTensor.
};

struct StateDict {
  std::vector<StateDictEntry> entries;       // In file order; keys are distinct.
  NodeId container = kNoNode;                // The dict, or the module object.
  bool from_module = false;                  // Extracted from a whole module by its own order.
  std::string location;                      // JSON pointer from the root: "", "/model_state_dict".
  std::string stripped_prefix;               // Empty where none was.
  std::vector<std::string> other_keys;       // Entries that are no tensors (get_extra_state).
  std::vector<std::string> other_locations;  // Further places that hold a state dict.
  std::string module_class;                  // Of a whole module: "__main__.SimpleNet".
};

// The first of: options.key; the root if it is a module; an OrderedDict with _metadata; a dict
// under one of the usual names (model_state_dict, state_dict, model, ...: checkpoint format, 5.1),
// at most 8 levels down; a dict of string keys with a tensor among its values. Else NO_STATE_DICT,
// naming what was found instead.
absl::StatusOr<StateDict> FindStateDict(const Checkpoint& checkpoint,
                                        const StateDictOptions& options = {});

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_STATE_DICT_H_
