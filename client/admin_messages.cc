#include "client/admin_messages.h"

#include <array>

namespace relight::client {
namespace {

constexpr std::array<std::string_view, 5> kModelStates = {"unknown", "waiting", "serving", "failed",
                                                          "unloaded"};
constexpr std::array<std::string_view, 10> kVersionStates = {
    "unknown", "found",   "waiting", "loading",  "serving",
    "loaded",  "retired", "refused", "retrying", "passed over"};
constexpr std::array<std::string_view, 4> kFormats = {"", "bundle", "state-dict", "safetensors"};
constexpr std::array<std::string_view, 14> kEvents = {
    "unknown",  "served",         "refused",        "retrying",    "unchanged",
    "retired",  "pinned",         "unpinned",       "rolled back", "unloaded",
    "snapshot", "config changed", "config refused", "pushed"};

// The messages' enums and ours have the same values; a newer server may know more.
template <typename Enum, std::size_t kCount>
Enum FromNumber(int number, const std::array<std::string_view, kCount>&) {
  if (number < 0 || number >= static_cast<int>(kCount)) return static_cast<Enum>(0);
  return static_cast<Enum>(number);
}

std::optional<absl::Time> FromMessage(bool present, const google::protobuf::Timestamp& message) {
  if (!present) return std::nullopt;
  return absl::FromUnixSeconds(message.seconds()) + absl::Nanoseconds(message.nanos());
}

LoadedVersion FromMessage(const v1::LoadedVersion& message) {
  LoadedVersion loaded;
  loaded.version = message.version();
  loaded.generation = message.generation();
  loaded.weights_digest = message.weights_digest();
  loaded.file = message.file();
  loaded.file_sha256 = message.file_sha256();
  loaded.state = FromNumber<VersionState>(message.state(), kVersionStates);
  loaded.loaded_at = FromMessage(message.has_loaded_at(), message.loaded_at());
  loaded.training_state = message.training_state();
  loaded.training_state_reason = message.training_state_reason();
  return loaded;
}

Candidate FromMessage(const v1::Candidate& message) {
  Candidate candidate;
  candidate.file = message.file();
  if (message.has_version()) candidate.version = message.version();
  candidate.state = FromNumber<VersionState>(message.state(), kVersionStates);
  candidate.reason = message.reason();
  candidate.size_bytes = message.size_bytes();
  candidate.modified_at = FromMessage(message.has_modified_at(), message.modified_at());
  return candidate;
}

}  // namespace

std::string_view Name(ModelState state) { return kModelStates[static_cast<std::size_t>(state)]; }
std::string_view Name(VersionState state) {
  return kVersionStates[static_cast<std::size_t>(state)];
}
std::string_view Name(HistoryEvent event) { return kEvents[static_cast<std::size_t>(event)]; }
std::string_view Name(SnapshotFormat format) { return kFormats[static_cast<std::size_t>(format)]; }

ModelStatus FromMessage(const v1::ModelStatus& message) {
  ModelStatus status;
  status.name = message.name();
  status.state = FromNumber<ModelState>(message.state(), kModelStates);
  status.reason = message.reason();
  for (const v1::LoadedVersion& loaded : message.loaded()) {
    status.loaded.push_back(FromMessage(loaded));
  }
  for (const v1::Candidate& candidate : message.candidates()) {
    status.candidates.push_back(FromMessage(candidate));
  }
  status.version_rule = message.version_rule();
  if (message.has_pinned_version()) status.pinned_version = message.pinned_version();
  status.last_error = message.last_error();
  status.last_good_load = FromMessage(message.has_last_good_load(), message.last_good_load());
  status.generation = message.generation();
  status.device = message.device();
  return status;
}

ServerStatus FromMessage(const v1::GetStatusResponse& message) {
  ServerStatus status;
  for (const v1::ModelStatus& model : message.models()) status.models.push_back(FromMessage(model));
  status.server_version = message.server_version();
  status.started_at = FromMessage(message.has_started_at(), message.started_at());
  status.ready = message.ready();
  return status;
}

HistoryEntry FromMessage(const v1::HistoryEntry& message) {
  HistoryEntry entry;
  entry.time = FromMessage(message.has_time(), message.time());
  entry.event = FromNumber<HistoryEvent>(message.event(), kEvents);
  entry.version = message.version();
  entry.generation = message.generation();
  entry.file = message.file();
  entry.file_sha256 = message.file_sha256();
  entry.weights_digest = message.weights_digest();
  entry.reason = message.reason();
  for (const auto& [phase, duration] : message.phases()) {
    entry.phases[phase] = absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
  }
  return entry;
}

SnapshotResult FromMessage(const v1::SnapshotResult& message) {
  SnapshotResult result;
  result.path = message.path();
  result.size_bytes = message.size_bytes();
  result.file_sha256 = message.file_sha256();
  result.version = message.version();
  result.generation = message.generation();
  result.weights_digest = message.weights_digest();
  result.training_state = message.training_state();
  result.left_out.assign(message.left_out().begin(), message.left_out().end());
  result.converted.assign(message.converted().begin(), message.converted().end());
  result.format = FromNumber<SnapshotFormat>(message.format(), kFormats);
  return result;
}

PushResult FromMessage(const v1::PushResponse& message) {
  PushResult result;
  result.file = message.file();
  result.size_bytes = message.size_bytes();
  result.file_sha256 = message.file_sha256();
  result.weights_digest = message.weights_digest();
  result.serves = message.serves();
  result.generation = message.generation();
  if (message.has_version()) result.version = message.version();
  result.state = FromNumber<VersionState>(message.state(), kVersionStates);
  result.reason = message.reason();
  return result;
}

}  // namespace relight::client
