// What each kind of layer demands and produces: PyTorch's rules, one layer at a time.
#ifndef RELIGHT_SERVER_NETWORK_LAYER_RULES_H_
#define RELIGHT_SERVER_NETWORK_LAYER_RULES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "server/network/network.h"

namespace relight::network {

inline constexpr std::size_t kMaxRank = 16;
// No size in a description may be larger, so that products of two never wrap.
inline constexpr std::int64_t kMaxSize = (std::int64_t{1} << 31) - 1;

// What flows between layers. -1 is a free dimension.
struct Value {
  DType dtype = DType::kFloat32;
  std::vector<std::int64_t> shape = {};
  // The first dimension is free and no row has met another yet.
  bool batched = false;
};

using Messages = std::vector<std::string>;

// "linear", "batch_norm2d", ...: the field in model.textproto.
std::string KindName(const LayerKind& kind);

bool HasParameters(const LayerKind& kind);

// How many inputs it takes: exactly one, or two and more.
bool TakesSeveralInputs(const LayerKind& kind);

// What is wrong with the arguments alone.
void CheckArguments(const LayerKind& kind, Messages& errors);

// The output for these inputs. Fills in the sizes of `kind` that follow from them. Adds to `errors`
// what does not fit, and still returns the output where that is known.
//
// REQUIRES: CheckArguments had nothing to say, and as many inputs as the kind takes.
std::optional<Value> InferOutput(LayerKind& kind, absl::Span<const Value> inputs, Messages& errors);

// The state dict entries of a layer, in PyTorch's order.
//
// REQUIRES: InferOutput returned something for `kind` and had no errors.
std::vector<ParameterSpec> ParametersOf(const std::string& name, const LayerKind& kind);

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_LAYER_RULES_H_
