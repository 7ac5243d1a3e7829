// Layers as text format, the way a person would write them: defaults left out.
#ifndef RELIGHT_SERVER_CONFIG_DRAFT_LAYER_TEXT_H_
#define RELIGHT_SERVER_CONFIG_DRAFT_LAYER_TEXT_H_

#include <string>

#include "server/network/network.h"

namespace relight::config {

// "linear { in_features: 10 out_features: 5 }"
std::string LayerKindText(const network::LayerKind& kind);

// A string literal of text format; any bytes.
std::string QuotedText(const std::string& bytes);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_DRAFT_LAYER_TEXT_H_
