// "Did you mean": the name that somebody probably meant.
#ifndef RELIGHT_SERVER_NETWORK_NEAREST_NAME_H_
#define RELIGHT_SERVER_NETWORK_NEAREST_NAME_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/types/span.h"

namespace relight::network {

// The candidate that looks most like `name`: one that differs in case, by a dotted prefix or by a
// few letters. nullopt where none does. Looks at the first 1024 candidates and at names of up to
// 128 bytes, so that its cost is bounded whatever a file holds.
std::optional<std::string> NearestName(std::string_view name,
                                       absl::Span<const std::string> candidates);

// `; did you mean "fc1"?`, escaped, or nothing.
std::string DidYouMean(std::string_view name, absl::Span<const std::string> candidates);

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_NEAREST_NAME_H_
