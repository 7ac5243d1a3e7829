#include "client/ctl/admin_json.h"

#include <nlohmann/json.hpp>

#include "client/ctl/output.h"

namespace relight::ctl {
namespace {

using Json = nlohmann::ordered_json;

Json OrNull(const std::optional<absl::Time>& time) {
  return time.has_value() ? Json(FormatTimeForJson(*time)) : Json(nullptr);
}

Json OrNull(const std::optional<std::int64_t>& value) {
  return value.has_value() ? Json(*value) : Json(nullptr);
}

Json LoadedToJson(const client::LoadedVersion& loaded) {
  return {{"version", loaded.version},
          {"generation", loaded.generation},
          {"state", std::string(Name(loaded.state))},
          {"weights_digest", loaded.weights_digest},
          {"file", loaded.file},
          {"file_sha256", loaded.file_sha256},
          {"loaded_at", OrNull(loaded.loaded_at)},
          {"training_state", loaded.training_state},
          {"training_state_reason", loaded.training_state_reason}};
}

Json CandidateToJson(const client::Candidate& candidate) {
  return {{"file", candidate.file},
          {"version", OrNull(candidate.version)},
          {"state", std::string(Name(candidate.state))},
          {"reason", candidate.reason},
          {"size_bytes", candidate.size_bytes},
          {"modified_at", OrNull(candidate.modified_at)}};
}

template <typename Value>
Json ToArray(const std::vector<Value>& values, Json (*to_json)(const Value&)) {
  Json array = Json::array();
  for (const Value& value : values) array.push_back(to_json(value));
  return array;
}

}  // namespace

Json ToJson(const client::ModelStatus& status) {
  const client::LoadedVersion* const serving = status.Serving();
  return {{"name", status.name},
          {"state", std::string(Name(status.state))},
          {"reason", status.reason},
          {"version", serving == nullptr ? Json(nullptr) : Json(serving->version)},
          {"generation", status.generation},
          {"weights_digest", serving == nullptr ? Json(nullptr) : Json(serving->weights_digest)},
          {"pinned_version", OrNull(status.pinned_version)},
          {"last_error", status.last_error},
          {"last_good_load", OrNull(status.last_good_load)},
          {"version_rule", status.version_rule},
          {"device", status.device},
          {"loaded", ToArray(status.loaded, LoadedToJson)},
          {"candidates", ToArray(status.candidates, CandidateToJson)}};
}

Json ToJson(const client::ServerStatus& status) {
  return {{"server_version", status.server_version},
          {"started_at", OrNull(status.started_at)},
          {"ready", status.ready},
          {"models", ToArray<client::ModelStatus>(status.models, ToJson)}};
}

Json ToJson(const client::HistoryEntry& entry) {
  Json phases = Json::object();
  for (const auto& [phase, duration] : entry.phases) {
    phases[phase] = absl::ToDoubleSeconds(duration);
  }
  return {{"time", OrNull(entry.time)},
          {"event", std::string(Name(entry.event))},
          {"version", entry.version},
          {"generation", entry.generation},
          {"file", entry.file},
          {"file_sha256", entry.file_sha256},
          {"weights_digest", entry.weights_digest},
          {"reason", entry.reason},
          {"phase_seconds", std::move(phases)}};
}

Json ToJson(const client::SnapshotResult& result) {
  return {{"path", result.path},
          {"size_bytes", result.size_bytes},
          {"file_sha256", result.file_sha256},
          {"version", result.version},
          {"generation", result.generation},
          {"weights_digest", result.weights_digest},
          {"training_state", result.training_state},
          {"format", std::string(Name(result.format))},
          {"left_out", result.left_out},
          {"converted", result.converted}};
}

Json ToJson(const client::PushResult& result) {
  return {{"file", result.file},
          {"size_bytes", result.size_bytes},
          {"file_sha256", result.file_sha256},
          {"weights_digest", result.weights_digest},
          {"serves", result.serves},
          {"state", std::string(Name(result.state))},
          {"reason", result.reason},
          {"version", OrNull(result.version)},
          {"generation", result.generation}};
}

}  // namespace relight::ctl
