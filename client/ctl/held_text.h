// What a checkpoint holds beside its weights, for people.
#ifndef RELIGHT_CLIENT_CTL_HELD_TEXT_H_
#define RELIGHT_CLIENT_CTL_HELD_TEXT_H_

#include <string>

#include "client/ctl/inspection.h"
#include "client/ctl/inspection_lists.h"

namespace relight::ctl {

// Two columns: where it is, and what. Long values go on below themselves.
std::string HeldText(const Inspection& inspection, const InspectionStyle& style);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_HELD_TEXT_H_
