// Outputs of what looks along sequences: recurrent layers and attention.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/network/inference.h"
#include "server/network/tensor_spec.h"

namespace relight::network {
namespace {

bool Agree(std::int64_t a, std::int64_t b) { return a < 0 || b < 0 || a == b; }

// The rows of what several inputs become, where rows are in dimension `dims[i]` of input i and in
// `out` of the output.
Rows RowsOf(absl::Span<const Value* const> values, absl::Span<const std::size_t> dims,
            std::size_t out) {
  Rows rows = Rows::None();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i] == nullptr || values[i]->rows.state == Rows::State::kNone) continue;
    if (!values[i]->rows.along(dims[i])) return Rows::Mixed();
    rows = Rows::Along(out);
  }
  if (rows.state == Rows::State::kNone) return rows;
  for (std::size_t i = 0; i < values.size(); ++i) {
    // One that does not depend on the batch is the same for each row only where it is stretched.
    if (values[i] == nullptr || values[i]->rows.state != Rows::State::kNone) continue;
    if (values[i]->shape.size() > dims[i] && values[i]->shape[dims[i]] != 1) return Rows::Mixed();
  }
  return rows;
}

bool IsMask(DType dtype) { return dtype == DType::kBool || IsFloatingPoint(dtype); }

}  // namespace

Values Infer(Recurrent& layer, Inference& inference) {
  if (!inference.RequireFloat() ||
      !inference.RequireRank(3, 3, layer.batch_first ? "[N, L, C]" : "[L, N, C]")) {
    return {};
  }
  const Value& in = inference.in();
  inference.Settle("input_size", in.shape[2], layer.input_size);
  if (layer.input_size) inference.CheckElements({*layer.input_size, 4 * layer.hidden_size});
  inference.CheckElements({layer.hidden_size, 4 * layer.hidden_size});
  const std::size_t batch = layer.batch_first ? 0 : 1;
  const std::int64_t directions = layer.bidirectional ? 2 : 1;
  const std::int64_t width = layer.proj_size > 0 ? layer.proj_size : layer.hidden_size;
  const bool lstm = layer.op == RecurrentOp::kLstm;
  const Value* const hidden = inference.Find(1);
  const Value* const cell = inference.Find(2);
  if (lstm && (hidden == nullptr) != (cell == nullptr)) {
    return inference.Refuse("takes h_0 and c_0 together, or neither");
  }
  const Sizes hidden_shape = {directions * layer.num_layers, in.shape[batch], width};
  const Sizes cell_shape = {hidden_shape[0], in.shape[batch], layer.hidden_size};
  const auto fits = [](const Value* state, const Sizes& shape) {
    if (state == nullptr) return true;
    return state->shape.size() == 3 && Agree(state->shape[0], shape[0]) &&
           Agree(state->shape[1], shape[1]) && Agree(state->shape[2], shape[2]) &&
           IsFloatingPoint(state->dtype);
  };
  if (!fits(hidden, hidden_shape)) {
    return inference.RefuseShapes(absl::StrCat("need h_0 of shape ", ShapeText(hidden_shape)));
  }
  if (!fits(cell, cell_shape)) {
    return inference.RefuseShapes(absl::StrCat("need c_0 of shape ", ShapeText(cell_shape)));
  }
  const Value* const fed[] = {&in, hidden, cell};
  const std::size_t dims[] = {batch, 1, 1};
  // States are stretched over the sequence's rows, not the other way round.
  for (const Value* const state : {hidden, cell}) {
    const bool has_rows = state != nullptr && state->rows.state == Rows::State::kAlong;
    if (!has_rows || in.rows.state != Rows::State::kNone) continue;
    return inference.RefuseShapes("need a sequence for each row of the state");
  }
  Values out(lstm ? 3 : 2);
  out[0] = {in.dtype, in.shape, RowsOf(fed, dims, batch)};
  out[0].shape[2] = directions * width;
  out[1] = {in.dtype, hidden_shape, RowsOf(fed, dims, 1)};
  if (lstm) out[2] = {in.dtype, cell_shape, RowsOf(fed, dims, 1)};
  return out;
}

Values Infer(MultiheadAttention& layer, Inference& inference) {
  const char* const shape_names = layer.batch_first ? "[N, L, E]" : "[L, N, E]";
  if (!inference.RequireFloat() || !inference.RequireRank(3, 3, shape_names)) return {};
  const Value& query = inference.in();
  const Value* key = inference.Find(1);
  const Value* value = inference.Find(2);
  if ((key == nullptr) != (value == nullptr)) {
    return inference.Refuse("takes one input for query, key and value, or three");
  }
  if (key == nullptr) key = value = &query;
  if (key->shape.size() != 3 || value->shape.size() != 3 || !IsFloatingPoint(key->dtype) ||
      !IsFloatingPoint(value->dtype)) {
    return inference.RefuseShapes(absl::StrCat("must be floats of shape ", shape_names));
  }
  const std::size_t batch = layer.batch_first ? 0 : 1;
  const std::size_t length = 1 - batch;
  if (!Agree(key->shape[batch], value->shape[batch]) ||
      !Agree(key->shape[batch], query.shape[batch]) ||
      !Agree(key->shape[length], value->shape[length])) {
    return inference.RefuseShapes("do not belong together");
  }
  if (!inference.Settle("embed_dim", query.shape[2], layer.embed_dim)) {
    if (!layer.embed_dim) return {};
  }
  const std::int64_t width = *layer.embed_dim;
  if (width % layer.num_heads != 0) {
    return inference.Refuse(absl::StrCat("embed_dim is ", width, ", which num_heads ",
                                         layer.num_heads, " does not divide"));
  }
  if (!layer.kdim) layer.kdim = width;
  if (!layer.vdim) layer.vdim = width;
  inference.Settle("kdim", key->shape[2], layer.kdim, key == &query ? 0 : 1);
  inference.Settle("vdim", value->shape[2], layer.vdim, value == &query ? 0 : 2);
  inference.CheckElements({3, width, std::max(width, std::max(*layer.kdim, *layer.vdim))});

  std::int64_t rows = query.shape[batch];
  for (const Value* const part : {key, value}) {
    if (rows == 1) rows = part->shape[batch];
  }
  const std::int64_t targets = query.shape[length];
  const std::int64_t sources = key->shape[length];
  const Value* const padding = inference.Find(3);
  if (padding != nullptr && (padding->shape.size() != 2 || !Agree(padding->shape[0], rows) ||
                             !Agree(padding->shape[1], sources) || !IsMask(padding->dtype))) {
    return inference.RefuseShapes(absl::StrCat("need a key_padding_mask of shape ",
                                               ShapeText({rows, sources}),
                                               ", of booleans or floats"));
  }
  if (rows == 1 && padding != nullptr) rows = padding->shape[0];
  const Value* const mask = inference.Find(4);
  if (mask != nullptr) {
    const std::size_t rank = mask->shape.size();
    if ((rank != 2 && rank != 3) || !Agree(mask->shape[rank - 2], targets) ||
        !Agree(mask->shape[rank - 1], sources) || !IsMask(mask->dtype)) {
      return inference.RefuseShapes(
          absl::StrCat("need an attn_mask of shape ", ShapeText({targets, sources}), " or [N * ",
                       layer.num_heads, ", ", targets, ", ", sources, "], of booleans or floats"));
    }
  }
  const Value* const fed[] = {&query, key, value, padding};
  const std::size_t dims[] = {batch, batch, batch, 0};
  Value out = query;
  out.shape[batch] = rows;
  out.rows = RowsOf(fed, dims, batch);
  // A mask that depends on the batch has the rows of all heads in one dimension.
  const bool mask_mixes =
      mask != nullptr && (mask->rows.state != Rows::State::kNone || mask->shape.size() == 3);
  if (mask_mixes) out.rows = Rows::Mixed();
  if (!layer.need_weights) return {out};
  std::int64_t attended = sources;
  if (sources >= 0) attended += (layer.add_bias_kv ? 1 : 0) + (layer.add_zero_attn ? 1 : 0);
  return {out,
          {.dtype = query.dtype,
           .shape = {rows, targets, attended},
           .rows = mask_mixes ? Rows::Mixed() : RowsOf(fed, dims, 0)}};
}

Values Infer(ScaledDotProductAttention& layer, Inference& inference) {
  const Value& query = inference.in(0);
  const Value& key = inference.in(1);
  const Value& value = inference.in(2);
  const Value* const mask = inference.Find(3);
  const std::size_t rank = query.shape.size();
  for (std::size_t i = 0; i < 3; ++i) {
    if (!inference.RequireFloat(i)) return {};
  }
  if (rank < 2 || key.shape.size() != rank || value.shape.size() != rank) {
    return inference.RefuseShapes("must have as many dimensions as each other, two or more");
  }
  if (!Agree(query.shape[rank - 1], key.shape[rank - 1]) ||
      !Agree(key.shape[rank - 2], value.shape[rank - 2])) {
    return inference.RefuseShapes("do not belong together");
  }
  if (mask != nullptr && layer.is_causal) {
    return inference.Refuse("takes attn_mask or is_causal, not both");
  }
  if (mask != nullptr && !IsMask(mask->dtype)) {
    return inference.Refuse("needs an attn_mask of booleans or floats");
  }
  // What is broadcast: everything but the last two dimensions, and those of the scores.
  Values scores = {query, key, value};
  for (Value& part : scores) {
    if (part.rows.state == Rows::State::kAlong && part.rows.dim + 2 >= rank) {
      part.rows = Rows::Mixed();
    }
    part.shape[rank - 2] = query.shape[rank - 2];
    part.shape[rank - 1] = key.shape[rank - 2];
  }
  if (mask != nullptr) {
    Value& part = scores.emplace_back(*mask);
    if (part.rows.state == Rows::State::kAlong && part.rows.dim + 2 >= part.shape.size()) {
      part.rows = Rows::Mixed();
    }
  }
  std::optional<Value> out = inference.Broadcast(scores);
  if (!out) return {};
  out->dtype = query.dtype;
  out->shape[out->shape.size() - 2] = query.shape[rank - 2];
  out->shape.back() = value.shape[rank - 1];
  return {*std::move(out)};
}

}  // namespace relight::network
