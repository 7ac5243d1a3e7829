// The admin service's answers as JSON, one form for every command that prints them.
#ifndef RELIGHT_CLIENT_CTL_ADMIN_JSON_H_
#define RELIGHT_CLIENT_CTL_ADMIN_JSON_H_

#include <nlohmann/json_fwd.hpp>

#include "relight/admin.h"

namespace relight::ctl {

nlohmann::ordered_json ToJson(const client::ModelStatus& status);
nlohmann::ordered_json ToJson(const client::ServerStatus& status);
nlohmann::ordered_json ToJson(const client::HistoryEntry& entry);
nlohmann::ordered_json ToJson(const client::SnapshotResult& result);
nlohmann::ordered_json ToJson(const client::PushResult& result);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_ADMIN_JSON_H_
