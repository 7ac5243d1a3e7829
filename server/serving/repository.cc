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

absl::StatusOr<ModelListing> ListModels(const std::string& repository) {
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
  ModelListing listing;
  for (; entry != fs::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with(".")) continue;
    std::error_code looking;
    const fs::file_status config = fs::status(entry->path() / kConfigName, looking);
    if (fs::is_regular_file(config)) {
      listing.models.push_back(name);
    } else if (looking && config.type() != fs::file_type::not_found) {
      listing.unseen.push_back(name);
    }
  }
  if (error) {
    return absl::UnavailableError(
        absl::StrCat("model repository ", Escape(repository, 1024), ": ", error.message()));
  }
  std::sort(listing.models.begin(), listing.models.end());
  std::sort(listing.unseen.begin(), listing.unseen.end());
  return listing;
}

std::vector<std::string> RemovalCounter::Count(const ModelListing& listing,
                                               const std::vector<std::string>& known,
                                               absl::Time now) {
  const auto has = [](const std::vector<std::string>& names, const std::string& name) {
    return std::binary_search(names.begin(), names.end(), name);
  };
  std::vector<std::string> removed;
  std::map<std::string, Missing> still_missing;
  for (const std::string& name : known) {
    if (listing.models.empty() || has(listing.models, name) || has(listing.unseen, name)) continue;
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
