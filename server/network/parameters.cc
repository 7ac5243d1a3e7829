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

// "2 missing: a, b and 1 more"
std::string Listed(const char* what, const std::vector<std::string>& entries, std::size_t total) {
  std::string text = absl::StrCat(total, " ", what, ": ", absl::StrJoin(entries, ", "));
  if (total > entries.size()) absl::StrAppend(&text, " and ", total - entries.size(), " more");
  return text;
}

// The first few of `entries` as text.
template <typename Entry, typename ToText>
std::vector<std::string> Head(const std::vector<Entry>& entries, ToText to_text) {
  std::vector<std::string> head;
  const std::size_t n = std::min(entries.size(), kMaxListed);
  for (std::size_t i = 0; i < n; ++i) head.push_back(to_text(entries[i]));
  return head;
}

std::string Subject(const std::string& name) {
  return absl::StrCat("parameter ", Escape(name), ": checkpoint has ");
}

}  // namespace

std::string AcceptedTypes(DType needed) {
  if (needed != DType::kFloat32) return std::string(Name(needed));
  return "float32, float64, float16 or bfloat16";
}

std::string Describe(const ShapeMismatch& mismatch) {
  return absl::StrCat(Subject(mismatch.name), "shape ", ShapeText(mismatch.offered),
                      ", the graph needs ", ShapeText(mismatch.needed));
}

std::string Describe(const TypeMismatch& mismatch) {
  return absl::StrCat(Subject(mismatch.name), std::string(Name(mismatch.offered)),
                      ", the graph needs ", AcceptedTypes(mismatch.needed));
}

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
    if (tensor.shape != spec.shape) {
      mismatch.misshaped.push_back({spec.name, tensor.shape, spec.shape});
    }
    if (!TypeFits(spec.dtype, tensor.dtype)) {
      mismatch.mistyped.push_back({spec.name, tensor.dtype, spec.dtype});
    }
  }
  for (const OfferedTensor& tensor : offered) {
    if (!known.contains(tensor.key)) mismatch.unexpected.push_back(tensor.key);
  }
  return mismatch;
}

absl::Status ToStatus(const ParameterMismatch& mismatch) {
  if (mismatch.empty()) return absl::OkStatus();
  const auto missing = [&](const std::string& name) {
    const auto nearest = network::NearestName(name, mismatch.unexpected);
    if (!nearest.has_value()) return Escape(name);
    return absl::StrCat(Escape(name), " (is it ", Escape(*nearest), "?)");
  };
  const auto escaped = [](const std::string& name) { return Escape(name); };
  const auto described = [](const auto& difference) { return Describe(difference); };
  std::vector<std::string> parts;
  const auto add = [&](const char* what, const auto& entries, const auto& to_text) {
    if (!entries.empty()) parts.push_back(Listed(what, Head(entries, to_text), entries.size()));
  };
  add("missing", mismatch.missing, missing);
  add("unexpected", mismatch.unexpected, escaped);
  add("of another shape", mismatch.misshaped, described);
  add("of another type", mismatch.mistyped, described);
  return absl::InvalidArgumentError(
      absl::StrCat("the checkpoint does not fit the graph: ", absl::StrJoin(parts, "; ")));
}

}  // namespace relight
