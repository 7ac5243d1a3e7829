// Layers, blocks and families as text format, the way a person would write them: defaults left out.
#ifndef RELIGHT_SERVER_CONFIG_LAYER_TEXT_H_
#define RELIGHT_SERVER_CONFIG_LAYER_TEXT_H_

#include <string>
#include <vector>

#include "server/network/blocks.h"
#include "server/network/families/families.h"
#include "server/network/network.h"

namespace relight::config {

// "linear { in_features: 10 out_features: 5 }"
std::string LayerKindText(const network::LayerKind& kind);

// "resnet { depth: 50 num_classes: 10 }"
std::string FamilyText(const network::Family& family);

// The entries of a network, each on lines of its own that `indent` stands before.
std::string EntriesText(const std::vector<network::BlockEntry>& entries, const std::string& indent);

// A string literal of text format; any bytes.
std::string QuotedText(const std::string& bytes);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_LAYER_TEXT_H_
