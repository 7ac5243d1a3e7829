// RefuseNonFinite: what to say of weights that hold NaN or infinity.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "storage/strided.h"
#include "storage/weights.h"

namespace relight::storage {
namespace {

constexpr std::size_t kMaxShownTensors = 8;

std::string ShowIndex(std::uint64_t index, const std::vector<std::int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(PositionOf(index, shape), ", "), "]");
}

std::string Describe(const WeightTensor& tensor, const NonFinite& found, bool allow_infinite) {
  std::vector<std::string> parts;
  if (found.nans > 0) {
    parts.push_back(
        absl::StrCat(found.nans, " NaN, the first at ", ShowIndex(found.first_nan, tensor.shape)));
  }
  if (found.infinities > 0 && !allow_infinite) {
    parts.push_back(absl::StrCat(found.infinities, " infinite, the first at ",
                                 ShowIndex(found.first_infinity, tensor.shape)));
  }
  return absl::StrCat(Escape(tensor.original_key), ": ", absl::StrJoin(parts, "; "));
}

}  // namespace

absl::Status RefuseNonFinite(const WeightPlan& plan, absl::Span<const NonFinite> found,
                             const std::function<bool(const std::string& key)>& allow_infinite) {
  std::vector<std::string> shown;
  std::size_t bad = 0;
  for (const NonFinite& one : found) {
    const WeightTensor& tensor = plan.tensors[one.tensor];
    const bool infinite_is_fine =
        one.infinities == 0 || (allow_infinite && allow_infinite(tensor.key));
    if (one.nans == 0 && infinite_is_fine) continue;
    ++bad;
    if (shown.size() < kMaxShownTensors) shown.push_back(Describe(tensor, one, infinite_is_fine));
  }
  if (bad == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(bad, " tensors hold values that are not finite: ", absl::StrJoin(shown, "; "),
                   bad > shown.size() ? absl::StrCat("; and ", bad - shown.size(), " more") : ""));
}

}  // namespace relight::storage
