// FindStateDict (storage/state_dict.h) on a tree alone, and its pieces.
#ifndef RELIGHT_STORAGE_STATE_DICT_FINDER_H_
#define RELIGHT_STORAGE_STATE_DICT_FINDER_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/state_dict.h"
#include "storage/tree.h"

namespace relight::storage {

// `shown_name` opens messages.
absl::StatusOr<StateDict> FindStateDictInTree(const Tree& tree, const std::string& shown_name,
                                              const StateDictOptions& options);

// The `_metadata` that state_dict() leaves at an OrderedDict; kNoNode where `node` has none.
NodeId MetadataOf(const Tree& tree, NodeId node);

// "/" and the key as a component of a JSON pointer (RFC 6901).
std::string PointerStep(std::string_view key);

// An object whose state has _parameters, _buffers and _modules: a torch.nn.Module.
bool IsModule(const Tree& tree, NodeId node);

// "package.module.Class" of an opaque object; what made it, where that is no class.
std::string ClassName(const Tree& tree, NodeId opaque);

// The tensors of a module in the order of its state_dict(), appended to `result.entries`. What is
// no tensor goes to `result.other_keys`. PICKLE_CYCLE where a module contains itself.
absl::Status WalkModule(const Tree& tree, NodeId module, const std::string& shown_name,
                        StateDict& result);

// Rewrites the keys of `result.entries` as `options` ask.
absl::Status StripPrefixes(const StateDictOptions& options, const std::string& shown_name,
                           StateDict& result);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_STATE_DICT_FINDER_H_
