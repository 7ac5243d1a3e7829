// What a name in a folder says about the file: whether it could be a checkpoint, and what it is
// called without its suffix. Pure.
#ifndef RELIGHT_STORAGE_CANDIDATE_NAMES_H_
#define RELIGHT_STORAGE_CANDIDATE_NAMES_H_

#include <string>
#include <string_view>

namespace relight::storage {

// For messages.
inline constexpr char kWholeFileSuffixes[] = ".pt .pth .bin .ckpt .safetensors";

// One of kWholeFileSuffixes.
bool HasCandidateSuffix(std::string_view name);

// Ends in ".index.json" or ".index.<variant>.json".
bool IsIndex(std::string_view name);

// The name without its suffix; the whole name where it has none, or nothing else.
std::string_view CandidateStem(std::string_view name);

// "model-00001-of-00002.safetensors", unless it is the only one. Such a file may arrive before the
// index that names it, and must not pass for a checkpoint meanwhile.
bool LooksLikeShard(std::string_view name);

// What trainers keep beside the weights in a folder per checkpoint.
bool IsHelper(std::string_view name);

// Why the name alone rules an entry out; empty where it does not.
std::string WhyNotByName(std::string_view name);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_CANDIDATE_NAMES_H_
