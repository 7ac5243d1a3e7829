// The lists in an inspection for people, as tables. Each ends after a hundred rows, and says how
// many more there are, unless everything is asked for. Empty texts where there is nothing to list.
#ifndef RELIGHT_CLIENT_CTL_INSPECTION_LISTS_H_
#define RELIGHT_CLIENT_CTL_INSPECTION_LISTS_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "client/ctl/inspection.h"

namespace relight::ctl {

struct InspectionStyle {
  bool color = false;
  std::size_t width = 0;  // Of the terminal; 0: lines as long as they are.
  bool all = false;       // Every entry of every list.
  std::string config_name = {};
};

// The files of an index, with their digests.
std::string FilesList(const Inspection& inspection, const InspectionStyle& style);

// The records whose CRC-32 differs, and whose tensors they hold.
std::string DamagedList(const Inspection& inspection, const InspectionStyle& style);

// The tensors of the state dict. Where a row with its note is wider than the terminal, notes stand
// below their rows.
std::string WeightsList(const Inspection& inspection, const InspectionStyle& style);

// The tensors beside the weights.
std::string HeldTensorsList(const Inspection& inspection, const InspectionStyle& style);

// What the config objects to.
std::string ProblemsList(const Inspection& inspection, const InspectionStyle& style);

// Each line of `text` indented.
std::string Indented(std::string_view text, std::size_t columns = 2);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_INSPECTION_LISTS_H_
