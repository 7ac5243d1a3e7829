// Outputs of layers with parameters that look at each position by itself, and of norms.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/network/inference.h"
#include "server/network/tensor_spec.h"

namespace relight::network {
namespace {

// Where the last `count` dimensions are computed with together.
Rows RowsBefore(const Value& value, std::size_t count) {
  const bool apart =
      value.rows.state != Rows::State::kAlong || value.rows.dim + count < value.shape.size();
  return apart ? value.rows : Rows::Mixed();
}

// The last dimensions of the input as `shape` has them.
Values OverLastDimensions(const Sizes& shape, Inference& inference) {
  if (!inference.RequireFloat()) return {};
  Value out = inference.in();
  const std::size_t count = shape.size();
  if (out.shape.size() < count) {
    return inference.Refuse(absl::StrCat("normalized_shape has ", count,
                                         " dimensions, its input is ", ShapeText(out.shape)));
  }
  for (std::size_t i = 0; i < count; ++i) {
    std::int64_t& size = out.shape[out.shape.size() - count + i];
    if (size >= 0 && size != shape[i]) {
      return inference.Refuse(absl::StrCat("normalized_shape is ", ShapeText(shape),
                                           ", but its input is ", ShapeText(out.shape)));
    }
    size = shape[i];
  }
  out.rows = RowsBefore(out, count);
  return {out};
}

// Per channel of [N, C, ...].
Values PerChannel(const char* argument, Inferred& channels, Inference& inference) {
  Value out = inference.in();
  if (inference.Settle(argument, out.shape[1], channels)) out.shape[1] = *channels;
  if (out.rows.state == Rows::State::kAlong && out.rows.dim != 0) out.rows = Rows::Mixed();
  return {out};
}

}  // namespace

Values Infer(Linear& layer, Inference& inference) {
  if (!inference.RequireFloat()) return {};
  Value out = inference.in();
  if (out.shape.empty()) return inference.Refuse("needs an input of at least one dimension");
  out.rows = RowsBefore(out, 1);
  inference.Settle("in_features", out.shape.back(), layer.in_features);
  out.shape.back() = layer.out_features;
  if (layer.in_features) inference.CheckElements({*layer.in_features, layer.out_features});
  return {out};
}

Values Infer(Bilinear& layer, Inference& inference) {
  if (!inference.RequireFloat(0) || !inference.RequireFloat(1)) return {};
  std::vector<Value> parts(inference.all().begin(), inference.all().end());
  Inferred* const features[] = {&layer.in1_features, &layer.in2_features};
  static constexpr const char* kArguments[] = {"in1_features", "in2_features"};
  if (parts[0].shape.size() != parts[1].shape.size() || parts[0].shape.empty()) {
    return inference.RefuseShapes("must have as many dimensions as each other");
  }
  for (std::size_t i = 0; i < 2; ++i) {
    parts[i].rows = RowsBefore(parts[i], 1);
    inference.Settle(kArguments[i], parts[i].shape.back(), *features[i], i);
    parts[i].shape.back() = layer.out_features;
  }
  if (layer.in1_features && layer.in2_features) {
    inference.CheckElements({*layer.in1_features, *layer.in2_features, layer.out_features});
  }
  std::optional<Value> out = inference.Broadcast(parts);
  return out ? Values{*std::move(out)} : Values{};
}

Values Infer(BatchNorm& layer, Inference& inference) {
  if (!inference.RequireFloat()) return {};
  const bool fits = layer.spatial_dims == 1 ? inference.RequireRank(2, 3, "[N, C] or [N, C, L]")
                                            : inference.RequireImage(layer.spatial_dims);
  return fits ? PerChannel("num_features", layer.num_features, inference) : Values{};
}

Values Infer(InstanceNorm& layer, Inference& inference) {
  if (!inference.RequireFloat() || !inference.RequireImage(layer.spatial_dims)) return {};
  return PerChannel("num_features", layer.num_features, inference);
}

Values Infer(LayerNorm& layer, Inference& inference) {
  return OverLastDimensions(layer.normalized_shape, inference);
}

Values Infer(RmsNorm& layer, Inference& inference) {
  return OverLastDimensions(layer.normalized_shape, inference);
}

Values Infer(GroupNorm& layer, Inference& inference) {
  if (!inference.RequireFloat() || !inference.RequireRank(2, kMaxRank, "[N, C, ...]")) return {};
  Values out = PerChannel("num_channels", layer.num_channels, inference);
  if (layer.num_channels && *layer.num_channels % layer.num_groups != 0) {
    return inference.Refuse(absl::StrCat("its input has ", *layer.num_channels,
                                         " channels, which num_groups ", layer.num_groups,
                                         " does not divide"));
  }
  return out;
}

Values Infer(Embedding& layer, Inference& inference) {
  Value out = inference.in();
  if (out.dtype != DType::kInt32 && out.dtype != DType::kInt64) {
    return inference.Refuse(absl::StrCat("needs indices of type INT32 or INT64, got ",
                                         std::string(ProtocolName(out.dtype))));
  }
  inference.CheckElements({layer.num_embeddings, layer.embedding_dim});
  if (out.shape.size() >= kMaxRank) return inference.Refuse("its output has too many dimensions");
  out.dtype = DType::kFloat32;
  out.shape.push_back(layer.embedding_dim);
  return {out};
}

Values Infer(Prelu& layer, Inference& inference) {
  if (!inference.RequireFloat()) return {};
  Value out = inference.in();
  if (layer.num_parameters == 1) return {out};
  if (out.shape.size() < 2) {
    return inference.Refuse(absl::StrCat("num_parameters is ", layer.num_parameters,
                                         ", which needs an input of shape [N, C, ...], got ",
                                         ShapeText(out.shape)));
  }
  Inferred channels = layer.num_parameters;
  return PerChannel("num_parameters", channels, inference);
}

Values Infer(Parameter& layer, Inference& inference) {
  if (layer.shape.size() > kMaxRank) {
    return inference.Refuse(
        absl::StrCat("shape has ", layer.shape.size(), " dimensions, the most is ", kMaxRank));
  }
  if (!Product(layer.shape)) {
    return inference.Refuse(
        absl::StrCat("shape ", ShapeText(layer.shape), " has more than ", kMaxSize, " elements"));
  }
  return {{.dtype = layer.datatype, .shape = layer.shape, .rows = Rows::None()}};
}

}  // namespace relight::network
