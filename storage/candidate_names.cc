#include "storage/candidate_names.h"

#include <algorithm>
#include <array>

namespace relight::storage {
namespace {

constexpr std::array<std::string_view, 5> kSuffixes = {".pt", ".pth", ".bin", ".ckpt",
                                                       ".safetensors"};

// Name without one of kSuffixes; the whole name where it has none, or nothing else.
std::string_view WithoutSuffix(std::string_view name) {
  for (const std::string_view suffix : kSuffixes) {
    if (name.size() > suffix.size() && name.ends_with(suffix)) {
      return name.substr(0, name.size() - suffix.size());
    }
  }
  return name;
}

// Where ".index.json" or ".index.<variant>.json" begins in a name, else npos.
std::size_t IndexPosition(std::string_view name) {
  if (!name.ends_with(".json")) return std::string_view::npos;
  const std::size_t at = name.rfind(".index.");
  if (at == std::string_view::npos || at == 0) return std::string_view::npos;
  // What follows is "json", or a variant without dots and ".json".
  const std::string_view rest = name.substr(at + std::string_view(".index.").size());
  const bool plain = rest == "json";
  const bool variant = rest.size() > 5 && rest.find('.') == rest.size() - 5;
  return plain || variant ? at : std::string_view::npos;
}

bool AllDigits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

bool HasCandidateSuffix(std::string_view name) { return WithoutSuffix(name).size() != name.size(); }

bool IsIndex(std::string_view name) { return IndexPosition(name) != std::string_view::npos; }

std::string_view CandidateStem(std::string_view name) {
  const std::size_t index = IndexPosition(name);
  return WithoutSuffix(index == std::string_view::npos ? name : name.substr(0, index));
}

bool LooksLikeShard(std::string_view name) {
  const std::string_view stem = WithoutSuffix(name);
  constexpr std::string_view kOf = "-of-";
  const std::size_t of = stem.rfind(kOf);
  if (of == std::string_view::npos) return false;
  const std::string_view count = stem.substr(of + kOf.size());
  const std::size_t dash = stem.rfind('-', of == 0 ? 0 : of - 1);
  if (dash == std::string_view::npos || !AllDigits(count)) return false;
  const std::size_t digit = count.find_first_not_of('0');
  const bool single = digit != std::string_view::npos && count.substr(digit) == "1";
  return AllDigits(stem.substr(dash + 1, of - dash - 1)) && !single;
}

bool IsHelper(std::string_view name) {
  const auto is = [name](std::string_view prefix, std::string_view suffix) {
    return name.starts_with(prefix) && name.ends_with(suffix);
  };
  return is("optimizer", ".pt") || is("optimizer", ".bin") || is("scheduler", ".pt") ||
         is("scheduler", ".bin") || is("sampler", ".bin") || is("scaler", ".pt") ||
         is("rng_state", ".pth") || name == "training_args.bin";
}

std::string WhyNotByName(std::string_view name) {
  if (name.starts_with(".")) return "hidden: the name starts with a dot";
  if (name.ends_with(".tmp") || name.ends_with(".part") || name.ends_with("~")) {
    return "temporary: the name ends in .tmp, .part or ~";
  }
  return "";
}

}  // namespace relight::storage
