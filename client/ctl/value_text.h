// The values in a checkpoint for people and for programs, each bounded whatever the file holds.
#ifndef RELIGHT_CLIENT_CTL_VALUE_TEXT_H_
#define RELIGHT_CLIENT_CTL_VALUE_TEXT_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "storage/checkpoint.h"
#include "storage/tree.h"

namespace relight::ctl {

// None, a bool, a number or a string; a numpy scalar or a tensor of one element counts as its
// value.
bool IsPlainValue(const storage::Tree& tree, storage::NodeId node);

// One line, escaped: "0.71", "\"resnet18\"", "(0.9, 0.999)", "float32 [5, 10]",
// "argparse.Namespace", "dict of 3: lr, gamma, ...". Reads the elements of tensors of one element.
std::string ValueText(const storage::Checkpoint& checkpoint, storage::NodeId node);

// Plain values as JSON's own (floats that JSON has no numbers for as "NaN", "Infinity" and
// "-Infinity"), short lists of them as arrays, everything else as its text.
nlohmann::ordered_json ValueJson(const storage::Checkpoint& checkpoint, storage::NodeId node);

// A dict's key as it stands in a JSON pointer's component before escaping: any bytes.
std::string KeyText(const storage::Tree& tree, storage::NodeId key);

// The fewest digits that read back the same, as Python prints them: "1.0", "1e-08", "nan".
std::string FloatText(double value);

// "1,234,567"
std::string Grouped(std::uint64_t number);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_VALUE_TEXT_H_
