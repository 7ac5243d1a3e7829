// The prefixes that wrappers leave on the keys of a state dict, and the rules that rename them.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/error.h"
#include "storage/state_dict_finder.h"

namespace relight::storage {
namespace {

// Path components that wrap a module without a say in its structure.
constexpr std::string_view kWrappers[] = {"_orig_mod", "_fsdp_wrapped_module",
                                          "_checkpoint_wrapped_module"};
// What DataParallel and DDP put before every key, and what Lightning modules often do.
constexpr std::string_view kModulePrefix = "module.";
constexpr std::string_view kModelPrefix = "model.";

// How to rewrite keys: drop the wrappers, then strip these prefixes one after the other.
struct Recipe {
  bool drop_wrappers = false;
  std::vector<std::string_view> prefixes;
};

std::string DropWrappers(std::string_view key, std::string& dropped) {
  std::string result;
  while (true) {
    const std::size_t dot = std::min(key.find('.'), key.size());
    const std::string_view component = key.substr(0, dot);
    const bool last = dot == key.size();
    if (!last &&
        std::find(std::begin(kWrappers), std::end(kWrappers), component) != std::end(kWrappers)) {
      dropped = absl::StrCat(std::string(component), ".");
    } else {
      absl::StrAppend(&result, std::string(component), last ? "" : ".");
    }
    if (last) return result;
    key.remove_prefix(dot + 1);
  }
}

bool AllHave(const std::vector<std::string>& keys, std::string_view prefix) {
  return !keys.empty() && std::all_of(keys.begin(), keys.end(), [&](const std::string& key) {
    return key.size() > prefix.size() && key.starts_with(prefix);
  });
}

struct Rewritten {
  std::vector<std::string> keys;
  std::string stripped;
};

void Rename(const StateDictOptions& options, std::vector<std::string>& keys) {
  if (!options.rename) return;
  for (std::string& key : keys) key = options.rename(std::move(key));
}

Rewritten Apply(const Recipe& recipe, const StateDictOptions& options,
                const StateDict& state_dict) {
  Rewritten result;
  for (const StateDictEntry& entry : state_dict.entries) {
    result.keys.push_back(recipe.drop_wrappers ? DropWrappers(entry.original_key, result.stripped)
                                               : entry.original_key);
  }
  for (const std::string_view prefix : recipe.prefixes) {
    // A key outside of the wrapped module would change its meaning if others lost the prefix. With
    // Lightning's there may be such keys: the loss has its own.
    if (prefix == kModulePrefix && !AllHave(result.keys, prefix)) continue;
    bool any = false;
    for (std::string& key : result.keys) {
      if (key.size() <= prefix.size() || !key.starts_with(prefix)) continue;
      key.erase(0, prefix.size());
      any = true;
    }
    if (any) absl::StrAppend(&result.stripped, std::string(prefix));
  }
  Rename(options, result.keys);
  return result;
}

// Shortest first, so that a tie goes to the least change.
std::vector<Recipe> AllRecipes() {
  std::vector<Recipe> recipes = {{false, {}}, {true, {}}};
  constexpr std::size_t kMaxPrefixes = 3;
  for (std::size_t i = 0; i < recipes.size(); ++i) {
    if (recipes[i].prefixes.size() == kMaxPrefixes) continue;
    for (const std::string_view prefix : {kModulePrefix, kModelPrefix}) {
      Recipe longer = recipes[i];
      longer.prefixes.push_back(prefix);
      recipes.push_back(std::move(longer));
    }
  }
  return recipes;
}

std::size_t CountMatches(const Rewritten& rewritten,
                         const std::unordered_set<std::string>& wanted) {
  std::unordered_set<std::string_view> matched;
  for (const std::string& key : rewritten.keys) {
    if (wanted.contains(key)) matched.insert(key);
  }
  return matched.size();
}

Rewritten BestFor(const StateDictOptions& options, const StateDict& state_dict) {
  const std::unordered_set<std::string> wanted(options.wanted_keys.begin(),
                                               options.wanted_keys.end());
  Rewritten best = Apply(Recipe{}, options, state_dict);
  std::size_t best_matches = CountMatches(best, wanted);
  if (best_matches == wanted.size()) return best;
  for (const Recipe& recipe : AllRecipes()) {
    Rewritten candidate = Apply(recipe, options, state_dict);
    const std::size_t matches = CountMatches(candidate, wanted);
    if (matches <= best_matches) continue;
    best_matches = matches;
    best = std::move(candidate);
  }
  return best;
}

absl::StatusOr<Rewritten> StripConfigured(const StateDictOptions& options,
                                          const std::string& shown_name,
                                          const StateDict& state_dict) {
  const std::string& prefix = options.strip_prefix;
  Rewritten result;
  result.stripped = prefix;
  for (const StateDictEntry& entry : state_dict.entries) {
    if (!entry.original_key.starts_with(prefix) || entry.original_key.size() == prefix.size()) {
      return MakeError(ErrorCode::kNoStateDict,
                       absl::StrCat(shown_name, ": key ", Escape(entry.original_key),
                                    " does not begin with the prefix ", Escape(prefix),
                                    " that is to be stripped"));
    }
    result.keys.push_back(entry.original_key.substr(prefix.size()));
  }
  Rename(options, result.keys);
  return result;
}

absl::StatusOr<Rewritten> Rewrite(const StateDictOptions& options, const std::string& shown_name,
                                  const StateDict& state_dict) {
  if (!options.strip_prefix.empty()) {
    return StripConfigured(options, shown_name, state_dict);
  }
  if (!options.wanted_keys.empty()) return BestFor(options, state_dict);
  return Apply(Recipe{true, {kModulePrefix}}, options, state_dict);
}

}  // namespace

absl::Status StripPrefixes(const StateDictOptions& options, const std::string& shown_name,
                           StateDict& result) {
  RELIGHT_ASSIGN_OR_RETURN(Rewritten rewritten, Rewrite(options, shown_name, result));
  std::unordered_set<std::string_view> seen;
  for (const std::string& key : rewritten.keys) {
    if (seen.insert(key).second) continue;
    return MakeError(
        ErrorCode::kPickleDuplicateKey,
        absl::StrCat(shown_name, ": two tensors have the key ", Escape(key),
                     rewritten.stripped.empty()
                         ? std::string()
                         : absl::StrCat(" once ", Escape(rewritten.stripped), " is stripped"),
                     options.rename ? ", as the rules rename them" : ""));
  }
  result.stripped_prefix = std::move(rewritten.stripped);
  for (std::size_t i = 0; i < result.entries.size(); ++i) {
    result.entries[i].key = std::move(rewritten.keys[i]);
  }
  return absl::OkStatus();
}

}  // namespace relight::storage
