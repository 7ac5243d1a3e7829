#include "storage/state_dict.h"

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/error.h"
#include "storage/state_dict_finder.h"

namespace relight::storage {
namespace {

// Where trainers put the state dict of a bundle, most telling first, averaged weights last.
constexpr std::string_view kUsualKeys[] = {
    "model_state_dict", "state_dict",     "model",   "model_state", "net",
    "network",          "module",         "params",  "weights",     "generator",
    "encoder",          "student",        "teacher", "params_ema",  "ema",
    "model_ema",        "state_dict_ema",
};
constexpr int kMaxLevels = 8;
constexpr std::size_t kMaxShownKeys = 32;
constexpr std::size_t kMaxOtherLocations = 16;

bool IsTensor(const Tree& tree, NodeId node) {
  return tree.Is(node, NodeKind::kTensor) || tree.Is(node, NodeKind::kUnsupportedTensor);
}

bool HasMetadata(const Tree& tree, NodeId node) { return MetadataOf(tree, node) != kNoNode; }

bool HoldsTensorsByName(const Tree& tree, NodeId node) {
  if (!tree.IsDict(node)) return false;
  bool any = false;
  for (const auto& [key, value] : tree.pairs(node)) {
    if (!tree.Is(key, NodeKind::kString)) return false;
    any = any || IsTensor(tree, value);
  }
  return any;
}

std::string ShowKey(const Tree& tree, NodeId key) {
  if (tree.Is(key, NodeKind::kString)) return Escape(tree.text(key));
  if (tree.Is(key, NodeKind::kInt)) return absl::StrCat(tree.integer(key));
  return absl::StrCat("<", std::string(Name(tree.kind(key))), ">");
}

// What stands at `node`, for who expected a state dict there.
std::string Describe(const Tree& tree, NodeId node) {
  if (tree.Is(node, NodeKind::kOpaque)) {
    return absl::StrCat("an object of ", Escape(ClassName(tree, node)));
  }
  if (!tree.IsDict(node))
    return absl::StrCat("a value of type ", std::string(Name(tree.kind(node))));
  const auto& pairs = tree.pairs(node);
  if (pairs.empty()) return "an empty dict";
  std::vector<std::string> shown;
  for (std::size_t i = 0; i < std::min(pairs.size(), kMaxShownKeys); ++i) {
    shown.push_back(absl::StrCat(ShowKey(tree, pairs[i].first), " (",
                                 std::string(Name(tree.kind(pairs[i].second))), ")"));
  }
  const std::string more = pairs.size() > kMaxShownKeys
                               ? absl::StrCat(" and ", pairs.size() - kMaxShownKeys, " more")
                               : "";
  return absl::StrCat("a dict with the keys ", absl::StrJoin(shown, ", "), more);
}

class Finder {
 public:
  Finder(const Tree& tree, const std::string& shown_name) : tree_(tree), shown_name_(shown_name) {}

  struct Place {
    NodeId node = kNoNode;
    std::string location;
  };

  // Nullopt: nothing at `node` or below is a state dict. Calls itself at most kMaxLevels deep.
  absl::StatusOr<std::optional<Place>> Find(NodeId node, const std::string& location, int level) {
    if (IsModule(tree_, node) || HasMetadata(tree_, node)) return Place{node, location};
    // Each node once, however many keys lead to it: what was found below it is told already.
    if (!tree_.IsDict(node) || level > kMaxLevels || seen_.contains(node)) return std::nullopt;
    path_.push_back(node);
    RELIGHT_ASSIGN_OR_RETURN(std::optional<Place> below, FindBelow(node, location, level));
    path_.pop_back();
    seen_.insert(node);
    if (below.has_value()) return below;
    if (HoldsTensorsByName(tree_, node)) return Place{node, location};
    return std::nullopt;
  }

  std::vector<std::string> TakeOtherLocations() { return std::move(other_locations_); }

 private:
  absl::StatusOr<std::optional<Place>> FindBelow(NodeId node, const std::string& location,
                                                 int level) {
    std::optional<Place> first;
    for (const std::string_view key : kUsualKeys) {
      const NodeId value = tree_.Find(node, key);
      if (value == kNoNode || (!tree_.IsDict(value) && !tree_.Is(value, NodeKind::kOpaque))) {
        continue;
      }
      if (std::find(path_.begin(), path_.end(), value) != path_.end()) {
        return MakeError(ErrorCode::kPickleCycle,
                         absl::StrCat(shown_name_, ": ", location, "/", std::string(key),
                                      " leads back to a dict that holds it"));
      }
      RELIGHT_ASSIGN_OR_RETURN(std::optional<Place> place,
                               Find(value, absl::StrCat(location, PointerStep(key)), level + 1));
      if (!place.has_value()) continue;
      if (!first.has_value()) {
        first = std::move(place);
      } else if (other_locations_.size() < kMaxOtherLocations) {
        other_locations_.push_back(place->location);
      }
    }
    return first;
  }

  const Tree& tree_;
  const std::string& shown_name_;
  std::vector<NodeId> path_;
  std::unordered_set<NodeId> seen_;
  std::vector<std::string> other_locations_;
};

std::optional<std::size_t> ParseIndex(std::string_view text) {
  if (text.empty() || text.size() > 9) return std::nullopt;
  std::size_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::size_t>(c - '0');
  }
  return value;
}

NodeId Step(const Tree& tree, NodeId node, std::string_view key) {
  if (tree.IsDict(node)) return tree.Find(node, key);
  if (!tree.Is(node, NodeKind::kList) && !tree.Is(node, NodeKind::kTuple)) return kNoNode;
  const std::optional<std::size_t> index = ParseIndex(key);
  if (!index.has_value() || *index >= tree.items(node).size()) return kNoNode;
  return tree.items(node)[*index];
}

absl::StatusOr<Finder::Place> FollowKey(const Tree& tree, const std::string& shown_name,
                                        std::string_view key) {
  Finder::Place place{tree.root(), ""};
  while (!key.empty()) {
    const std::size_t slash = std::min(key.find('/'), key.size());
    const std::string_view step = key.substr(0, slash);
    key.remove_prefix(std::min(slash + 1, key.size()));
    const NodeId next = Step(tree, place.node, step);
    if (next == kNoNode) {
      return MakeError(
          ErrorCode::kNoStateDict,
          absl::StrCat(shown_name, ": there is no key ", Escape(step), " at '",
                       Escape(place.location), "', where there is ", Describe(tree, place.node)));
    }
    place = {next, absl::StrCat(place.location, PointerStep(step))};
  }
  const bool fits = IsModule(tree, place.node) || HasMetadata(tree, place.node) ||
                    HoldsTensorsByName(tree, place.node);
  if (fits) return place;
  return MakeError(ErrorCode::kNoStateDict,
                   absl::StrCat(shown_name, ": at '", Escape(place.location),
                                "' there is no state dict but ", Describe(tree, place.node)));
}

absl::StatusOr<Finder::Place> FindPlace(const Tree& tree, const std::string& shown_name,
                                        const std::string& key,
                                        std::vector<std::string>& other_locations) {
  if (!key.empty()) return FollowKey(tree, shown_name, key);
  Finder finder(tree, shown_name);
  RELIGHT_ASSIGN_OR_RETURN(std::optional<Finder::Place> place, finder.Find(tree.root(), "", 0));
  if (!place.has_value()) {
    return MakeError(ErrorCode::kNoStateDict,
                     absl::StrCat(shown_name, ": no state dict was found in it but ",
                                  Describe(tree, tree.root()),
                                  "; save model.state_dict(), or say under which key it is"));
  }
  other_locations = finder.TakeOtherLocations();
  return *std::move(place);
}

void TakeDict(const Tree& tree, StateDict& result) {
  for (const auto& [key, value] : tree.pairs(result.container)) {
    if (tree.Is(key, NodeKind::kString) && IsTensor(tree, value)) {
      const std::string text(tree.text(key));
      result.entries.push_back({text, text, value});
    } else {
      result.other_keys.push_back(tree.Is(key, NodeKind::kString) ? std::string(tree.text(key))
                                                                  : ShowKey(tree, key));
    }
  }
}

}  // namespace

NodeId MetadataOf(const Tree& tree, NodeId node) {
  if (!tree.Is(node, NodeKind::kOrderedDict)) return kNoNode;
  const NodeId attributes = tree.attributes(node);
  if (attributes == kNoNode || !tree.IsDict(attributes)) return kNoNode;
  return tree.Find(attributes, "_metadata");
}

std::string PointerStep(std::string_view key) {
  std::string step = "/";
  for (const char c : key) {
    if (c == '~') {
      step += "~0";
    } else if (c == '/') {
      step += "~1";
    } else {
      step += c;
    }
  }
  return step;
}

absl::StatusOr<StateDict> FindStateDictInTree(const Tree& tree, const std::string& shown_name,
                                              const StateDictOptions& options) {
  StateDict result;
  RELIGHT_ASSIGN_OR_RETURN(Finder::Place place,
                           FindPlace(tree, shown_name, options.key, result.other_locations));
  result.container = place.node;
  result.location = std::move(place.location);
  if (tree.Is(place.node, NodeKind::kOpaque)) {
    result.from_module = true;
    result.module_class = ClassName(tree, place.node);
    RELIGHT_RETURN_IF_ERROR(WalkModule(tree, place.node, shown_name, result));
  } else {
    TakeDict(tree, result);
  }
  RELIGHT_RETURN_IF_ERROR(StripPrefixes(options, shown_name, result));
  return result;
}

absl::StatusOr<StateDict> FindStateDict(const Checkpoint& checkpoint,
                                        const StateDictOptions& options) {
  const std::string& path = checkpoint.path();
  const std::size_t slash = path.find_last_of('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  return FindStateDictInTree(checkpoint.tree(), Escape(name), options);
}

}  // namespace relight::storage
