#include "server/serving/pin_store.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "storage/bytes.h"
#include "storage/writer.h"

namespace relight::serving {
namespace {

using Json = nlohmann::json;

// A model's name may be any bytes, JSON text may not. What the escape gives for others begins with
// a backslash of its own, so that no other name looks like it.
std::string EncodeName(const std::string& name) {
  return IsUtf8(name) ? name : absl::StrCat("\\", Escape(name, name.size() * 4 + 4));
}

absl::StatusOr<std::map<std::string, std::int64_t>> Parse(const std::string& text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("it is no JSON object");
  std::map<std::string, std::int64_t> pins;
  for (const auto& [name, version] : json.items()) {
    if (!version.is_number_integer()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the version of ", Escape(name), " is no integer"));
    }
    pins[name] = version.get<std::int64_t>();
  }
  return pins;
}

}  // namespace

absl::StatusOr<PinStore> PinStore::Open(const std::string& state_dir) {
  PinStore store(state_dir);
  if (state_dir.empty()) return store;
  const std::string path = absl::StrCat(state_dir, "/", kFileName);
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) {
    if (errno == ENOENT) return store;
    return absl::FailedPreconditionError(
        absl::StrCat("cannot read ", Escape(path), ": ", std::strerror(errno)));
  }
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  absl::StatusOr<std::map<std::string, std::int64_t>> pins = Parse(text);
  if (!pins.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Escape(path), " holds no pins: ", std::string(pins.status().message()),
                     "; mend it, or delete it to unpin all models"));
  }
  store.pins_ = *std::move(pins);
  return store;
}

std::optional<std::int64_t> PinStore::Get(const std::string& model) const {
  const auto found = pins_.find(EncodeName(model));
  if (found == pins_.end()) return std::nullopt;
  return found->second;
}

absl::Status PinStore::Set(const std::string& model, std::optional<std::int64_t> version) {
  std::map<std::string, std::int64_t> pins = pins_;
  if (version.has_value()) {
    pins[EncodeName(model)] = *version;
  } else {
    pins.erase(EncodeName(model));
  }
  if (pins == pins_ && !unsure_) return absl::OkStatus();
  if (!state_dir_.empty()) {
    const absl::Status saved = Save(pins);
    // It may have failed with the new ones in place.
    unsure_ = !saved.ok() && !Save(pins_).ok();
    RELIGHT_RETURN_IF_ERROR(saved);
  }
  pins_ = std::move(pins);
  return absl::OkStatus();
}

absl::Status PinStore::Save(const std::map<std::string, std::int64_t>& pins) const {
  const UniqueFd folder(::open(state_dir_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot keep the pin in --state-dir ", Escape(state_dir_), ": ", std::strerror(errno)));
  }
  const std::string text = Json(pins).dump(2) + "\n";
  RELIGHT_ASSIGN_OR_RETURN(
      storage::AtomicFile file,
      storage::AtomicFile::Create(folder.get(), kFileName, /*overwrite=*/true));
  RELIGHT_RETURN_IF_ERROR(file.Write(storage::AsBytes(text)));
  RELIGHT_RETURN_IF_ERROR(file.Sync());
  return file.Commit(0600);
}

}  // namespace relight::serving
