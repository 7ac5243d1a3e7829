#include "server/model/attention.h"

#include <ATen/Functions.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "server/model/layer_tensors.h"

namespace relight::model {
namespace {

constexpr double kNothing = -std::numeric_limits<double>::infinity();

// Zero where a position is seen, minus infinity where it is not.
at::Tensor AdditiveMask(const at::Tensor& hidden, at::ScalarType type) {
  return at::masked_fill(at::zeros(hidden.sizes(), at::TensorOptions(type).device(hidden.device())),
                         hidden, kNothing);
}

// A mask of floats in the type of the scores. What hides a position is often the least number of
// another type: it must not become infinite in this one, nor when another mask and a score are
// added to it, or a row of which all is hidden would be NaN.
at::Tensor FloatMask(const at::Tensor& mask, at::ScalarType type) {
  const bool same = mask.scalar_type() == type && type != at::kHalf;
  if (same || type == at::kDouble) return mask.to(type);
  const double large = type == at::kHalf ? 65504.0 / 4 : 8e37;  // A quarter of what it can say.
  return at::where(at::isinf(mask), mask, at::clamp(mask, -large, large)).to(type);
}

// What is added to the scores, of a mask whose booleans are true where a position is hidden.
at::Tensor ToAdd(const at::Tensor& mask, at::ScalarType type) {
  return mask.scalar_type() == at::kBool ? AdditiveMask(mask, type) : FloatMask(mask, type);
}

// True above the diagonal: [targets, sources].
at::Tensor Future(std::int64_t targets, std::int64_t sources, const at::Device& device) {
  return at::triu(at::ones({targets, sources}, at::TensorOptions(at::kBool).device(device)), 1);
}

// The arguments by what they are.
class AttentionInputs {
 public:
  AttentionInputs(const std::vector<at::Tensor>& in, const std::vector<std::size_t>& slots) {
    for (std::size_t i = 0; i < slots.size(); ++i) by_slot_[slots[i]] = in[i];
  }
  const at::Tensor& query() const { return by_slot_[0]; }
  const at::Tensor& key() const { return by_slot_[1].defined() ? by_slot_[1] : query(); }
  const at::Tensor& value() const { return by_slot_[2].defined() ? by_slot_[2] : query(); }
  const at::Tensor& key_padding_mask() const { return by_slot_[3]; }
  const at::Tensor& attn_mask() const { return by_slot_[4]; }

 private:
  at::Tensor by_slot_[5];
};

class MultiheadAttention {
 public:
  MultiheadAttention(const network::MultiheadAttention& kind, AttentionWeights weights,
                     std::vector<std::size_t> slots)
      : kind_(kind),
        width_(*kind.embed_dim),
        head_width_(width_ / kind.num_heads),
        weights_(std::move(weights)),
        slots_(std::move(slots)) {}

  std::vector<at::Tensor> operator()(std::vector<at::Tensor>& arguments) const {
    const AttentionInputs in(arguments, slots_);
    const at::Tensor query = Project(in.query(), weights_.query, 0);
    at::Tensor key = Project(in.key(), weights_.key, 1);
    at::Tensor value = Project(in.value(), weights_.value, 2);
    std::int64_t more = 0;
    if (weights_.key_bias.defined()) {
      key = Append(key, weights_.key_bias.expand({key.size(0), 1, width_}));
      value = Append(value, weights_.value_bias.expand({value.size(0), 1, width_}));
      ++more;
    }
    if (kind_.add_zero_attn) {
      key = Append(key, at::zeros({key.size(0), 1, width_}, key.options()));
      value = Append(value, at::zeros({value.size(0), 1, width_}, value.options()));
      ++more;
    }
    const at::Tensor scaled =
        at::mul(Heads(query), 1 / std::sqrt(static_cast<double>(head_width_)));
    at::Tensor scores = at::matmul(scaled, Heads(key).transpose(-2, -1));  // [N, heads, L, S].
    AddMasks(in, more, scores);
    const at::Tensor attention = at::softmax(scores, -1);
    const at::Tensor heads = at::matmul(attention, Heads(value));  // [N, heads, L, head width].
    at::Tensor out = at::linear(heads.transpose(1, 2).flatten(2), weights_.out, weights_.out_bias);
    if (!kind_.batch_first) out = out.transpose(0, 1);
    if (!kind_.need_weights) return {out};
    return {out, at::mean(attention, at::IntArrayRef{1})};
  }

 private:
  // [N, L, width], from the layer's own order.
  at::Tensor Project(const at::Tensor& in, const at::Tensor& weight, std::int64_t part) const {
    const at::Tensor rows = kind_.batch_first ? in : in.transpose(0, 1);
    const at::Tensor bias = weights_.bias.defined()
                                ? at::narrow(weights_.bias, 0, part * width_, width_)
                                : at::Tensor();
    return at::linear(InTypeOf(rows, weight), weight, bias);
  }

  // [N, heads, L, head width].
  at::Tensor Heads(const at::Tensor& rows) const {
    return rows.reshape({rows.size(0), rows.size(1), kind_.num_heads, head_width_}).transpose(1, 2);
  }

  static at::Tensor Append(const at::Tensor& rows, const at::Tensor& last) {
    return at::cat({rows, last}, 1);
  }

  // Positions that were appended, `more` of them, are never hidden.
  static at::Tensor WithMore(const at::Tensor& mask, std::int64_t more) {
    return more == 0 ? mask : at::constant_pad_nd(mask, {0, more});
  }

  void AddMasks(const AttentionInputs& in, std::int64_t more, at::Tensor& scores) const {
    const at::ScalarType type = scores.scalar_type();
    if (in.key_padding_mask().defined()) {
      const at::Tensor mask = WithMore(ToAdd(in.key_padding_mask(), type), more);
      scores = at::add(scores, mask.reshape({mask.size(0), 1, 1, mask.size(1)}));
    }
    if (in.attn_mask().defined()) {
      at::Tensor mask = WithMore(ToAdd(in.attn_mask(), type), more);
      if (mask.dim() == 3) {
        mask = mask.reshape({-1, kind_.num_heads, mask.size(1), mask.size(2)});
      }
      scores = at::add(scores, mask);
    }
    if (kind_.is_causal) {
      const at::Tensor future = Future(scores.size(-2), scores.size(-1) - more, scores.device());
      scores = at::add(scores, WithMore(AdditiveMask(future, type), more));
    }
  }

  const network::MultiheadAttention kind_;
  const std::int64_t width_;
  const std::int64_t head_width_;
  const AttentionWeights weights_;
  const std::vector<std::size_t> slots_;
};

}  // namespace

SeveralOperation MakeMultiheadAttention(const network::MultiheadAttention& kind,
                                        AttentionWeights weights, std::vector<std::size_t> slots) {
  return MultiheadAttention(kind, std::move(weights), std::move(slots));
}

Operation MakeFunction(const network::ScaledDotProductAttention& kind) {
  return [kind](auto& in) {
    const at::ScalarType type = in[0].scalar_type();
    const double scale = kind.scale.value_or(1 / std::sqrt(static_cast<double>(in[0].size(-1))));
    at::Tensor scores = at::matmul(at::mul(in[0], scale), in[1].to(type).transpose(-2, -1));
    if (in.size() > 3) {
      const at::Tensor& mask = in[3];
      scores = at::add(scores, mask.scalar_type() == at::kBool
                                   ? AdditiveMask(at::logical_not(mask), type)
                                   : FloatMask(mask, type));
    }
    if (kind.is_causal) {
      const at::Tensor future = Future(scores.size(-2), scores.size(-1), scores.device());
      scores = at::masked_fill(scores, future, kNothing);
    }
    return at::matmul(at::softmax(scores, -1), in[2].to(type));
  };
}

}  // namespace relight::model
