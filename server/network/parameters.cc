#include "server/network/parameters.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "server/network/nearest_name.h"
#include "server/network/tensor_spec.h"

namespace relight {
namespace {

constexpr std::size_t kMaxListed = 64;

// The floating point types that LibTorch converts between; the 8-bit ones need scales besides.
bool IsConvertibleFloat(DType dtype) {
  return dtype == DType::kFloat16 || dtype == DType::kBFloat16 || dtype == DType::kFloat32 ||
         dtype == DType::kFloat64;
}

bool TypeFits(DType needed, DType offered) {
  if (needed == DType::kFloat32) return IsConvertibleFloat(offered);
  return needed == offered;
}

std::string Needed(DType dtype) {
  if (dtype != DType::kFloat32) return std::string(Name(dtype));
  return "float32, float64, float16 or bfloat16";
}

// "2 missing: a, b and 1 more"
std::string Listed(const char* what, const std::vector<std::string>& entries, std::size_t total) {
  std::string text = absl::StrCat(total, " ", what, ": ", absl::StrJoin(entries, ", "));
  if (total > entries.size()) absl::StrAppend(&text, " and ", total - entries.size(), " more");
  return text;
}

std::vector<std::string> Head(const std::vector<std::string>& entries) {
  const std::size_t n = std::min(entries.size(), kMaxListed);
  return {entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(n)};
}

std::vector<std::string> EscapedHead(const std::vector<std::string>& names) {
  std::vector<std::string> head = Head(names);
  for (std::string& name : head) name = Escape(name);
  return head;
}

std::vector<std::string> MissingWithHints(const ParameterMismatch& mismatch) {
  std::vector<std::string> head = Head(mismatch.missing);
  for (std::string& name : head) {
    const auto nearest = network::NearestName(name, mismatch.unexpected);
    name = Escape(name);
    if (nearest.has_value()) absl::StrAppend(&name, " (is it ", Escape(*nearest), "?)");
  }
  return head;
}

}  // namespace

ParameterMismatch CompareParameters(absl::Span<const ParameterSpec> needed,
                                    absl::Span<const OfferedTensor> offered) {
  std::unordered_map<std::string_view, const OfferedTensor*> by_key;
  for (const OfferedTensor& tensor : offered) by_key.emplace(tensor.key, &tensor);

  ParameterMismatch mismatch;
  std::unordered_set<std::string_view> known;
  for (const ParameterSpec& spec : needed) {
    known.insert(spec.name);
    const auto found = by_key.find(spec.name);
    if (found == by_key.end()) {
      if (spec.required) mismatch.missing.push_back(spec.name);
      continue;
    }
    const OfferedTensor& tensor = *found->second;
    const std::string subject = absl::StrCat("parameter ", Escape(spec.name), ": checkpoint has ");
    if (tensor.shape != spec.shape) {
      mismatch.misshaped.push_back(absl::StrCat(subject, "shape ", ShapeText(tensor.shape),
                                                ", the graph needs ", ShapeText(spec.shape)));
    }
    if (!TypeFits(spec.dtype, tensor.dtype)) {
      mismatch.mistyped.push_back(absl::StrCat(subject, std::string(Name(tensor.dtype)),
                                               ", the graph needs ", Needed(spec.dtype)));
    }
  }
  for (const OfferedTensor& tensor : offered) {
    if (!known.contains(tensor.key)) mismatch.unexpected.push_back(tensor.key);
  }
  return mismatch;
}

absl::Status ToStatus(const ParameterMismatch& mismatch) {
  if (mismatch.empty()) return absl::OkStatus();
  std::vector<std::string> parts;
  if (!mismatch.missing.empty()) {
    parts.push_back(Listed("missing", MissingWithHints(mismatch), mismatch.missing.size()));
  }
  if (!mismatch.unexpected.empty()) {
    parts.push_back(
        Listed("unexpected", EscapedHead(mismatch.unexpected), mismatch.unexpected.size()));
  }
  if (!mismatch.misshaped.empty()) {
    parts.push_back(
        Listed("of another shape", Head(mismatch.misshaped), mismatch.misshaped.size()));
  }
  if (!mismatch.mistyped.empty()) {
    parts.push_back(Listed("of another type", Head(mismatch.mistyped), mismatch.mistyped.size()));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the checkpoint does not fit the graph: ", absl::StrJoin(parts, "; ")));
}

}  // namespace relight
