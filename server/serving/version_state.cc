#include "server/serving/version_state.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace relight::serving {
namespace {

constexpr std::uint32_t Bit(VersionState state) {
  return std::uint32_t{1} << static_cast<unsigned>(state);
}

template <typename... States>
constexpr std::uint32_t Set(States... states) {
  return (Bit(states) | ... | 0u);
}

using enum VersionState;

// What a load that is not seen under way may end in.
constexpr std::uint32_t kAfterLoad = Set(kWaiting, kServing, kLoaded, kRefused, kRetrying);

// By the state before.
constexpr std::array<std::uint32_t, 9> kNext = {
    /* kFound */ Set(kLoading) | kAfterLoad,
    /* kWaiting */ Set(kLoading) | kAfterLoad,
    /* kLoading */ kAfterLoad,
    /* kServing */ Set(kLoaded, kRetired, kLoading),
    /* kLoaded */ Set(kServing, kRetired, kLoading),
    /* kRetired */ Set(kLoading) | kAfterLoad,
    /* kRefused */ Set(kLoading) | kAfterLoad,
    /* kRetrying */ Set(kLoading) | kAfterLoad,
    /* kPassedOver */ Set(kLoading, kRetired) | kAfterLoad,
};

}  // namespace

bool MayFollow(VersionState from, VersionState to) {
  if (from == to || to == kFound || to == kPassedOver) return true;
  return (kNext[static_cast<std::size_t>(from)] & Bit(to)) != 0;
}

}  // namespace relight::serving
