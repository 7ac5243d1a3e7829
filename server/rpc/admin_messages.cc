#include "server/rpc/admin_messages.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/rpc/status_text.h"

namespace relight::rpc {
namespace {

v1::ModelState ToMessage(serving::ModelState state) {
  switch (state) {
    case serving::ModelState::kWaiting:
      return v1::MODEL_WAITING;
    case serving::ModelState::kServing:
      return v1::MODEL_SERVING;
    case serving::ModelState::kFailed:
      return v1::MODEL_FAILED;
    case serving::ModelState::kUnloaded:
      return v1::MODEL_UNLOADED;
  }
  return v1::MODEL_STATE_UNSPECIFIED;
}

v1::VersionState ToMessage(serving::VersionState state) {
  switch (state) {
    case serving::VersionState::kFound:
      return v1::VERSION_FOUND;
    case serving::VersionState::kWaiting:
      return v1::VERSION_WAITING;
    case serving::VersionState::kLoading:
      return v1::VERSION_LOADING;
    case serving::VersionState::kServing:
      return v1::VERSION_SERVING;
    case serving::VersionState::kLoaded:
      return v1::VERSION_LOADED;
    case serving::VersionState::kRetired:
      return v1::VERSION_RETIRED;
    case serving::VersionState::kRefused:
      return v1::VERSION_REFUSED;
    case serving::VersionState::kRetrying:
      return v1::VERSION_RETRYING;
    case serving::VersionState::kPassedOver:
      return v1::VERSION_PASSED_OVER;
  }
  return v1::VERSION_STATE_UNSPECIFIED;
}

v1::HistoryEntry::Event ToMessage(serving::HistoryEvent event) {
  switch (event) {
    case serving::HistoryEvent::kServed:
      return v1::HistoryEntry::SERVED;
    case serving::HistoryEvent::kRefused:
      return v1::HistoryEntry::REFUSED;
    case serving::HistoryEvent::kRetrying:
      return v1::HistoryEntry::RETRYING;
    case serving::HistoryEvent::kUnchanged:
      return v1::HistoryEntry::UNCHANGED;
    case serving::HistoryEvent::kRetired:
      return v1::HistoryEntry::RETIRED;
    case serving::HistoryEvent::kPinned:
      return v1::HistoryEntry::PINNED;
    case serving::HistoryEvent::kUnpinned:
      return v1::HistoryEntry::UNPINNED;
    case serving::HistoryEvent::kRolledBack:
      return v1::HistoryEntry::ROLLED_BACK;
    case serving::HistoryEvent::kUnloaded:
      return v1::HistoryEntry::UNLOADED;
    case serving::HistoryEvent::kSnapshot:
      return v1::HistoryEntry::SNAPSHOT;
    case serving::HistoryEvent::kConfigChanged:
      return v1::HistoryEntry::CONFIG_CHANGED;
    case serving::HistoryEvent::kConfigRefused:
      return v1::HistoryEntry::CONFIG_REFUSED;
    case serving::HistoryEvent::kPushed:
      return v1::HistoryEntry::PUSHED;
  }
  return v1::HistoryEntry::EVENT_UNSPECIFIED;
}

constexpr std::int64_t kNanosPerSecond = 1'000'000'000;

void SetDuration(absl::Duration duration, google::protobuf::Duration& out) {
  const std::int64_t nanos = absl::ToInt64Nanoseconds(duration);
  out.set_seconds(nanos / kNanosPerSecond);
  out.set_nanos(static_cast<std::int32_t>(nanos % kNanosPerSecond));
}

void Fill(const serving::LoadedVersion& version, v1::LoadedVersion& out) {
  out.set_version(version.version);
  out.set_generation(version.generation);
  out.set_weights_digest(Utf8(version.weights_digest));
  out.set_file(EscapeWhole(version.file));
  out.set_file_sha256(Utf8(version.file_sha256));
  out.set_state(ToMessage(version.state));
  SetTimestamp(version.loaded_at, *out.mutable_loaded_at());
  out.set_training_state(version.training_state);
  out.set_training_state_reason(Utf8(version.training_state_reason));
}

void Fill(const serving::CandidateStatus& candidate, v1::Candidate& out) {
  out.set_file(EscapeWhole(candidate.file));
  if (candidate.version) out.set_version(*candidate.version);
  out.set_state(ToMessage(candidate.state));
  out.set_reason(Utf8(candidate.reason));
  out.set_size_bytes(candidate.size_bytes);
  SetTimestamp(candidate.modified, *out.mutable_modified_at());
}

v1::SnapshotFormat ToMessage(serving::SnapshotFormat format) {
  switch (format) {
    case serving::SnapshotFormat::kAsSource:
      return v1::SNAPSHOT_FORMAT_UNSPECIFIED;
    case serving::SnapshotFormat::kBundle:
      return v1::SNAPSHOT_BUNDLE;
    case serving::SnapshotFormat::kStateDict:
      return v1::SNAPSHOT_STATE_DICT;
    case serving::SnapshotFormat::kSafetensors:
      return v1::SNAPSHOT_SAFETENSORS;
  }
  return v1::SNAPSHOT_FORMAT_UNSPECIFIED;
}

absl::StatusOr<serving::SnapshotFormat> FromMessage(v1::SnapshotFormat format) {
  switch (format) {
    case v1::SNAPSHOT_FORMAT_UNSPECIFIED:
      return serving::SnapshotFormat::kAsSource;
    case v1::SNAPSHOT_BUNDLE:
      return serving::SnapshotFormat::kBundle;
    case v1::SNAPSHOT_STATE_DICT:
      return serving::SnapshotFormat::kStateDict;
    case v1::SNAPSHOT_SAFETENSORS:
      return serving::SnapshotFormat::kSafetensors;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "snapshot format ", static_cast<int>(format),
          " is unknown to this server, which knows bundle, state-dict and safetensors"));
  }
}

}  // namespace

void SetTimestamp(absl::Time time, google::protobuf::Timestamp& out) {
  const std::int64_t seconds = absl::ToUnixSeconds(time);
  out.set_seconds(seconds);
  out.set_nanos(
      static_cast<std::int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

v1::ModelStatus ToMessage(const serving::ModelStatus& status) {
  v1::ModelStatus out;
  out.set_name(EscapeWhole(status.name));
  out.set_state(ToMessage(status.state));
  out.set_reason(Utf8(status.reason));
  for (const serving::LoadedVersion& version : status.loaded) Fill(version, *out.add_loaded());
  for (const serving::CandidateStatus& candidate : status.candidates) {
    Fill(candidate, *out.add_candidates());
  }
  out.set_version_rule(Utf8(status.version_rule));
  if (status.pinned_version) out.set_pinned_version(*status.pinned_version);
  out.set_last_error(Utf8(status.last_error));
  if (status.last_good_load) SetTimestamp(*status.last_good_load, *out.mutable_last_good_load());
  out.set_generation(status.generation);
  out.set_device(Utf8(status.device));
  return out;
}

v1::HistoryEntry ToMessage(const serving::HistoryEntry& entry) {
  v1::HistoryEntry out;
  SetTimestamp(entry.time, *out.mutable_time());
  out.set_event(ToMessage(entry.event));
  out.set_version(entry.version);
  out.set_generation(entry.generation);
  out.set_file(EscapeWhole(entry.file));
  out.set_file_sha256(Utf8(entry.file_sha256));
  out.set_weights_digest(Utf8(entry.weights_digest));
  out.set_reason(Utf8(entry.reason));
  for (const auto& [phase, duration] : entry.phases) {
    SetDuration(duration, (*out.mutable_phases())[Utf8(phase)]);
  }
  return out;
}

v1::SnapshotResult ToMessage(const serving::SnapshotResult& result) {
  v1::SnapshotResult out;
  out.set_path(EscapeWhole(result.path));
  out.set_size_bytes(result.size_bytes);
  out.set_file_sha256(Utf8(result.file_sha256));
  out.set_version(result.version);
  out.set_generation(result.generation);
  out.set_weights_digest(Utf8(result.weights_digest));
  out.set_training_state(result.training_state);
  for (const std::string& path : result.left_out) out.add_left_out(Utf8(path));
  for (const std::string& path : result.converted) out.add_converted(Utf8(path));
  out.set_format(ToMessage(result.format));
  return out;
}

absl::StatusOr<serving::SnapshotRequest> FromMessage(const v1::SnapshotRequest& request) {
  serving::SnapshotRequest out;
  out.model = request.model();
  out.path = request.path();
  if (request.has_version()) out.version = request.version();
  out.overwrite = request.overwrite();
  out.weights_only = request.weights_only();
  out.lossless = request.lossless();
  RELIGHT_ASSIGN_OR_RETURN(out.format, FromMessage(request.format()));
  return out;
}

absl::StatusOr<serving::SnapshotRequest> FromMessage(const v1::DownloadRequest& request) {
  serving::SnapshotRequest out;
  out.model = request.model();
  out.path = request.file();
  if (request.has_version()) out.version = request.version();
  out.weights_only = request.weights_only();
  out.lossless = request.lossless();
  RELIGHT_ASSIGN_OR_RETURN(out.format, FromMessage(request.format()));
  return out;
}

serving::PushRequest FromMessage(const v1::PushHeader& header) {
  serving::PushRequest out;
  out.model = header.model();
  out.file = header.file();
  out.size_bytes = header.size_bytes();
  out.overwrite = header.overwrite();
  out.wait = !header.no_wait();
  return out;
}

v1::PushResponse ToMessage(const serving::PushResult& result) {
  v1::PushResponse out;
  out.set_file(EscapeWhole(result.file));
  out.set_size_bytes(result.size_bytes);
  out.set_file_sha256(Utf8(result.file_sha256));
  out.set_weights_digest(Utf8(result.weights_digest));
  out.set_serves(result.serves);
  out.set_reason(Utf8(result.reason));
  out.set_state(ToMessage(result.state));
  if (result.version) out.set_version(*result.version);
  out.set_generation(result.generation);
  return out;
}

}  // namespace relight::rpc
