#include "storage/write_report.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"

namespace relight::storage {
namespace {

constexpr std::size_t kMaxLines = 1000;
constexpr std::size_t kMaxListed = 32;

}  // namespace

void ReportLines::Add(std::string line) {
  if (++count_ <= kMaxLines) lines_.push_back(std::move(line));
}

std::vector<std::string> ReportLines::Take() && {
  if (count_ > kMaxLines) lines_.push_back(absl::StrCat("and ", count_ - kMaxLines, " more"));
  return std::move(lines_);
}

std::string FirstLines(const std::vector<std::string>& lines) {
  const std::size_t listed = std::min(lines.size(), kMaxListed);
  return absl::StrCat(absl::StrJoin(absl::MakeSpan(lines).first(listed), "; "),
                      listed < lines.size() ? "; ..." : "");
}

absl::Status CheckLossless(const std::vector<std::string>& left_out) {
  if (left_out.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(left_out.size(), " values cannot be carried (", FirstLines(left_out),
                   "): allow leaving them out, or save them otherwise"));
}

}  // namespace relight::storage
