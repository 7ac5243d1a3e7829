#include "server/network/nearest_name.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/escape.h"

namespace relight::network {
namespace {

constexpr std::size_t kMaxNameBytes = 128;
constexpr std::size_t kMaxCandidates = 1024;

// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`.
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1);
  std::vector<std::size_t> last(b.size() + 1);
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

// "module.fc1.weight" and "fc1.weight"
bool DiffersByPrefix(std::string_view a, std::string_view b) {
  if (a.size() < b.size()) std::swap(a, b);
  return a.size() > b.size() && a.ends_with(b) && a[a.size() - b.size() - 1] == '.';
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  absl::AsciiStrToLower(&lower);
  return lower;
}

}  // namespace

std::optional<std::string> NearestName(std::string_view name,
                                       absl::Span<const std::string> candidates) {
  if (name.empty() || name.size() > kMaxNameBytes) return std::nullopt;
  const std::string wanted = Lower(name);
  const std::string* best = nullptr;
  std::size_t best_distance = std::max<std::size_t>(1, name.size() / 3) + 1;
  for (const std::string& candidate : candidates.subspan(0, kMaxCandidates)) {
    if (candidate.size() > kMaxNameBytes || candidate.empty()) continue;
    if (DiffersByPrefix(name, candidate)) return candidate;
    const std::size_t longer = std::max(name.size(), candidate.size());
    if (longer - std::min(name.size(), candidate.size()) >= best_distance) continue;
    const std::size_t distance = EditDistance(wanted, Lower(candidate));
    // Two short names that share no letter are no typo of each other.
    if (distance < best_distance && distance < longer) {
      best = &candidate;
      best_distance = distance;
    }
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

std::string DidYouMean(std::string_view name, absl::Span<const std::string> candidates) {
  const std::optional<std::string> nearest = NearestName(name, candidates);
  if (!nearest.has_value()) return "";
  return absl::StrCat("; did you mean \"", Escape(*nearest), "\"?");
}

}  // namespace relight::network
