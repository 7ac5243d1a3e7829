// What the inference of outputs has in common over all kinds of layers: looking at inputs, refusing
// what does not fit, following the rows of a batch.
#ifndef RELIGHT_SERVER_NETWORK_INFERENCE_H_
#define RELIGHT_SERVER_NETWORK_INFERENCE_H_

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "server/network/layer_rules.h"

namespace relight::network {

using Values = std::vector<Value>;

// One layer's inference. Whatever refuses adds to the errors and returns nothing.
class Inference {
 public:
  Inference(const LayerInputs& inputs, Messages& errors) : inputs_(inputs), errors_(errors) {}

  const Value& in(std::size_t i = 0) const { return inputs_.values[i]; }
  absl::Span<const Value> all() const { return inputs_.values; }
  const Value* Find(std::size_t slot) const { return inputs_.Find(slot); }
  std::size_t rank(std::size_t i = 0) const { return in(i).shape.size(); }

  Values Refuse(std::string message);
  // "its inputs WHAT: [..] and [..]"
  Values RefuseShapes(const std::string& what);
  bool RequireFloat(std::size_t i = 0);
  // `names` are what the shape is called in messages: "[N, C, H, W]".
  bool RequireRank(std::size_t least, std::size_t most, const char* names);
  // [N, C, spatial dimensions...].
  bool RequireImage(int spatial_dims);

  // `dim` as an index into input `i`'s shape, from the end where it is negative.
  std::optional<std::size_t> Dimension(const char* argument, std::int64_t dim, std::size_t i = 0);
  // An index among `rank`.
  std::optional<std::size_t> DimensionOf(const char* argument, std::int64_t dim, std::size_t rank);

  // Brings together a declared size and the one that an input has. False where it stays unknown.
  bool Settle(const char* argument, std::int64_t actual, Inferred& declared, std::size_t i = 0);
  // A weight of these sizes may not be absurd.
  void CheckElements(std::initializer_list<std::int64_t> sizes);

  // As PyTorch promotes: floats among themselves and over integers and booleans. False, refused,
  // where integers of two types meet.
  bool MergeTypes(DType& type, DType other);
  // Of all inputs, as PyTorch broadcasts them.
  std::optional<Value> Broadcast(absl::Span<const Value> values);

 private:
  const LayerInputs& inputs_;
  Messages& errors_;
};

// The product of sizes; -1 where one is free, nullopt where it is more than kMaxSize.
std::optional<std::int64_t> Product(absl::Span<const std::int64_t> sizes);

// What the kinds infer, by the file in which it is. Fill in sizes of the kind.

// infer_weighted.cc
Values Infer(Linear&, Inference&);
Values Infer(Bilinear&, Inference&);
Values Infer(BatchNorm&, Inference&);
Values Infer(InstanceNorm&, Inference&);
Values Infer(LayerNorm&, Inference&);
Values Infer(RmsNorm&, Inference&);
Values Infer(GroupNorm&, Inference&);
Values Infer(Embedding&, Inference&);
Values Infer(Prelu&, Inference&);
Values Infer(Parameter&, Inference&);

// infer_windows.cc
Values Infer(Conv&, Inference&);
Values Infer(MaxPool&, Inference&);
Values Infer(AvgPool&, Inference&);
Values Infer(AdaptivePool&, Inference&);
Values Infer(LocalResponseNorm&, Inference&);
Values Infer(Pad&, Inference&);
Values Infer(Upsample&, Inference&);
Values Infer(PixelShuffle&, Inference&);
Values Infer(ChannelShuffle&, Inference&);

// infer_sequences.cc
Values Infer(Recurrent&, Inference&);
Values Infer(MultiheadAttention&, Inference&);
Values Infer(ScaledDotProductAttention&, Inference&);

// infer_functions.cc
Values Infer(Activation&, Inference&);
Values Infer(Gelu&, Inference&);
Values Infer(LeakyRelu&, Inference&);
Values Infer(Elu&, Inference&);
Values Infer(Softplus&, Inference&);
Values Infer(Hardtanh&, Inference&);
Values Infer(Clamp&, Inference&);
Values Infer(Shrink&, Inference&);
Values Infer(Threshold&, Inference&);
Values Infer(LogicalNot&, Inference&);
Values Infer(Cast&, Inference&);
Values Infer(Identity&, Inference&);
Values Infer(Softmax&, Inference&);
Values Infer(Glu&, Inference&);
Values Infer(Normalize&, Inference&);
Values Infer(Reduce&, Inference&);
Values Infer(ArgReduce&, Inference&);
Values Infer(Cumsum&, Inference&);
Values Infer(Elementwise&, Inference&);
Values Infer(Compare&, Inference&);
Values Infer(Where&, Inference&);
Values Infer(MaskedFill&, Inference&);
Values Infer(Matmul&, Inference&);

// infer_shapes.cc
Values Infer(Concat&, Inference&);
Values Infer(Stack&, Inference&);
Values Infer(Flatten&, Inference&);
Values Infer(Unflatten&, Inference&);
Values Infer(Reshape&, Inference&);
Values Infer(Permute&, Inference&);
Values Infer(Transpose&, Inference&);
Values Infer(Squeeze&, Inference&);
Values Infer(Unsqueeze&, Inference&);
Values Infer(Select&, Inference&);
Values Infer(Slice&, Inference&);
Values Infer(Split&, Inference&);
Values Infer(Chunk&, Inference&);
Values Infer(ExpandAs&, Inference&);
Values Infer(Arange&, Inference&);

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_INFERENCE_H_
