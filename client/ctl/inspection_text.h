// An inspection for people.
#ifndef RELIGHT_CLIENT_CTL_INSPECTION_TEXT_H_
#define RELIGHT_CLIENT_CTL_INSPECTION_TEXT_H_

#include <string>

#include "client/ctl/inspection.h"
#include "client/ctl/inspection_lists.h"

namespace relight::ctl {

// REQUIRES: inspection.checkpoint. Ends in a newline. Names from the file are escaped.
std::string InspectionText(const Inspection& inspection, const InspectionStyle& style);

// What is wrong, in a line: "3 missing, 1 of another shape".
std::string MismatchSummary(const ParameterMismatch& mismatch);

// The same parts for programs: "PyTorch 2.7 or newer"; empty where the format does not tell.
std::string VersionText(const storage::Summary& summary);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_INSPECTION_TEXT_H_
