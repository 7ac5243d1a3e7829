#include "server/config/config_errors.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"

namespace relight::config {
namespace {

constexpr std::size_t kMaxErrors = 100;

}  // namespace

absl::Status ConfigErrors::ToStatus(std::string_view file_name) const {
  if (errors_.empty()) return absl::OkStatus();
  std::vector<Error> sorted = errors_;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const Error& a, const Error& b) { return a.line < b.line; });
  std::string message;
  for (std::size_t i = 0; i < sorted.size() && i < kMaxErrors; ++i) {
    const Error& error = sorted[i];
    absl::StrAppend(&message, i > 0 ? "\n" : "", std::string(file_name), ":");
    if (error.line > 0) absl::StrAppend(&message, error.line, ":");
    if (error.column > 0) absl::StrAppend(&message, error.column, ":");
    absl::StrAppend(&message, " ", error.text);
  }
  if (sorted.size() > kMaxErrors) {
    absl::StrAppend(&message, "\nand ", sorted.size() - kMaxErrors, " more");
  }
  return absl::InvalidArgumentError(message);
}

}  // namespace relight::config
