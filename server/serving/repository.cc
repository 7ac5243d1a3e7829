#include "server/serving/repository.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/escape.h"

namespace relight::serving {
namespace {

constexpr absl::Duration kRemovalGrace = absl::Seconds(5);
constexpr char kConfigName[] = "model.textproto";

}  // namespace

absl::StatusOr<std::vector<std::string>> ListModels(const std::string& repository) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::directory_iterator entry(repository, error);
  if (error) {
    const std::string message =
        absl::StrCat("model repository ", Escape(repository, 1024), ": ", error.message());
    if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) {
      return absl::NotFoundError(
          absl::StrCat(message, "; name an existing folder with --model-repository"));
    }
    return absl::UnavailableError(message);
  }
  std::vector<std::string> models;
  for (; entry != fs::directory_iterator(); entry.increment(error)) {
    std::error_code ignored;
    const std::string name = entry->path().filename().string();
    if (name.starts_with(".")) continue;
    if (fs::is_regular_file(entry->path() / kConfigName, ignored)) models.push_back(name);
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("model repository ", Escape(repository, 1024), ": ", error.message()));
  }
  std::sort(models.begin(), models.end());
  return models;
}

std::vector<std::string> RemovalCounter::Count(const std::vector<std::string>& listed,
                                               const std::vector<std::string>& known,
                                               absl::Time now) {
  std::vector<std::string> removed;
  std::map<std::string, Missing> still_missing;
  for (const std::string& name : known) {
    if (std::binary_search(listed.begin(), listed.end(), name)) continue;
    const auto before = missing_.find(name);
    Missing missing = before == missing_.end() ? Missing{0, now} : before->second;
    ++missing.listings;
    if (missing.listings >= 2 && now - missing.since >= kRemovalGrace) {
      removed.push_back(name);
    } else {
      still_missing[name] = missing;
    }
  }
  missing_ = std::move(still_missing);
  return removed;
}

}  // namespace relight::serving
