// What each kind of layer demands and produces: PyTorch's rules, one layer at a time.
#ifndef RELIGHT_SERVER_NETWORK_LAYER_RULES_H_
#define RELIGHT_SERVER_NETWORK_LAYER_RULES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "server/network/arguments.h"
#include "server/network/kinds.h"
#include "server/network/parameters.h"

namespace relight::network {

inline constexpr std::size_t kMaxRank = 16;

// Where the rows of a batch are in a value.
struct Rows {
  enum class State {
    kNone,   // It does not depend on the network's inputs, but perhaps on their sizes.
    kAlong,  // Along `dim`, where each row depends on the same row of the inputs alone.
    // Rows have met, or cannot be told apart any more: the net batches nothing, whatever follows.
    kMixed,
  };
  State state = State::kMixed;
  std::size_t dim = 0;

  static Rows None() { return {State::kNone}; }
  static Rows Along(std::size_t dim) { return {State::kAlong, dim}; }
  static Rows Mixed() { return {State::kMixed}; }
  bool along(std::size_t d) const { return state == State::kAlong && dim == d; }
};

// What flows between layers. -1 is a free dimension.
struct Value {
  DType dtype = DType::kFloat32;
  Sizes shape = {};
  Rows rows = {};
};

using Messages = std::vector<std::string>;

bool HasParameters(const LayerKind& kind);

// What a kind may be fed, by PyTorch's names and in its order.
struct TakenInputs {
  std::vector<std::string> names;  // The last one stands for as many as there are, if `any_number`.
  std::size_t least = 1;
  bool any_number = false;
};
TakenInputs InputsOf(const LayerKind& kind);

// Fills in what follows from other arguments (one size for all dimensions, a pool's stride) and
// adds what is wrong with the arguments alone.
void CompleteArguments(LayerKind& kind, Messages& errors);

// The inputs of a layer: each with its place among TakenInputs::names.
struct LayerInputs {
  absl::Span<const Value> values;
  absl::Span<const std::size_t> slots;

  // Null where it is not given.
  const Value* Find(std::size_t slot) const;
};

// The outputs for these inputs; empty where they are not known. Fills in the sizes of `kind` that
// follow from them. Adds to `errors` what does not fit.
//
// REQUIRES: CompleteArguments had nothing to say, and inputs as InputsOf has them.
std::vector<Value> InferOutputs(LayerKind& kind, const LayerInputs& inputs, Messages& errors);

// The state dict entries of a layer, in PyTorch's order.
//
// REQUIRES: InferOutputs returned something for `kind` and had no errors.
std::vector<ParameterSpec> ParametersOf(const std::string& name, const LayerKind& kind);

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_LAYER_RULES_H_
