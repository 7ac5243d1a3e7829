// An inspection for programs: everything, under names that stay.
#ifndef RELIGHT_CLIENT_CTL_INSPECTION_JSON_H_
#define RELIGHT_CLIENT_CTL_INSPECTION_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "client/ctl/inspection.h"

namespace relight::ctl {

// "path", "outcome" and "error" are always there; the rest is null where the file cannot be opened.
// Lists end after kMostListed entries, and "omitted_..." says how many are left out.
nlohmann::ordered_json ToJson(const Inspection& inspection, const std::string& config_name);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_INSPECTION_JSON_H_
