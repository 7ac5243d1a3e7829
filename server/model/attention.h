// Attention, as torch.nn.functional computes it.
#ifndef RELIGHT_SERVER_MODEL_ATTENTION_H_
#define RELIGHT_SERVER_MODEL_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "server/model/operations.h"
#include "server/network/kinds.h"

namespace relight::model {

// Undefined where the layer has none.
struct AttentionWeights {
  at::Tensor query;     // [embed_dim, embed_dim].
  at::Tensor key;       // [embed_dim, kdim].
  at::Tensor value;     // [embed_dim, vdim].
  at::Tensor bias;      // [3 * embed_dim]: of the three.
  at::Tensor key_bias;  // [1, 1, embed_dim]: one more position.
  at::Tensor value_bias;
  at::Tensor out;  // [embed_dim, embed_dim].
  at::Tensor out_bias;
};

// Gives the output, and the weights averaged over the heads where `kind` needs them. Argument i is
// what `slots`[i] says: 0 query, 1 key, 2 value, 3 key_padding_mask, 4 attn_mask.
SeveralOperation MakeMultiheadAttention(const network::MultiheadAttention& kind,
                                        AttentionWeights weights, std::vector<std::size_t> slots);

// Of query, key, value and, where given, attn_mask: booleans are true where attention is paid.
Operation MakeFunction(const network::ScaledDotProductAttention& kind);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_ATTENTION_H_
