// GPT-2, as transformers/models/gpt2/modeling_gpt2.py has it.
#include <utility>

#include "server/network/families/expansion.h"

namespace relight::network {
namespace {

constexpr char kMask[] = "causal_attention_mask";

// transformers' Conv1D: a linear layer whose weight is [in, out].
Entries Conv1D(std::int64_t in, std::int64_t out) {
  return {Put("weight", Parameter{.shape = {in, out}}),
          Put("product", Matmul{}, {"input", "weight"}), Put("bias", Parameter{.shape = {out}}),
          Put("", Elementwise{}, {"product", "bias"})};
}

// Hides what comes later, and what pads: [N, 1, L, L].
Entries CausalMask() {
  Entries entries = PaddingMask("padding_mask", "attention_mask");
  Append({Put("positions", Arange{.dim = 1}, {"input_ids"}), Put("keys", Unsqueeze{.dim = 0}),
          Put("queries", Unsqueeze{.dim = 1}, {"positions"}),
          Put("", Compare{.op = CompareOp::kGt}, {"keys", "queries"}),
          Put("", Cast{.datatype = DType::kFloat32}),
          Put("later", Elementwise{.op = ElementwiseOp::kMul, .value = kHidden}),
          Put(kMask, Elementwise{}, {"padding_mask", "later"})},
         entries);
  return entries;
}

class Builder {
 public:
  Builder(const Gpt2& family, bool masked) : family_(family), masked_(masked) {}

  // Ends with the last hidden state.
  Entries Model() const {
    const std::int64_t width = family_.n_embd;
    Entries entries = {
        Put("wte", Embedding{.num_embeddings = family_.vocab_size, .embedding_dim = width},
            {"input_ids"}),
        Put("position_ids", Arange{.dim = 1}, {"input_ids"}),
        Put("wpe", Embedding{.num_embeddings = family_.n_positions, .embedding_dim = width}),
        Put("", Elementwise{}, {"wte", "wpe"})};
    AddRepeated("h", Layer(), family_.n_layer, 0, entries);
    entries.push_back(Put("ln_f", Norm()));
    return entries;
  }

 private:
  LayerNorm Norm() const {
    return {.normalized_shape = {family_.n_embd}, .eps = family_.layer_norm_epsilon};
  }

  Entries Layer() const {
    const std::int64_t width = family_.n_embd;
    const std::int64_t inner = family_.n_inner.value_or(4 * width);
    return {Put("ln_1", Norm()),
            PutBlock("attn", Attention()),
            Put("attended", Elementwise{}, {"attn", "input"}),
            Put("ln_2", Norm()),
            PutBlock("mlp", {PutBlock("c_fc", Conv1D(width, inner)),
                             Put("", ActivationNamed(family_.activation_function)),
                             PutBlock("c_proj", Conv1D(inner, width))}),
            Put("", Elementwise{}, {"attended", "mlp"})};
  }

  Entries Attention() const {
    const std::int64_t width = family_.n_embd;
    Entries entries = {PutBlock("c_attn", Conv1D(width, 3 * width)),
                       Put("parts", Split{.split_size = {width}, .dim = 2})};
    Append(SplitHeads("query", "parts", family_.n_head, width), entries);
    Append(SplitHeads("key", "parts:1", family_.n_head, width), entries);
    Append(SplitHeads("value", "parts:2", family_.n_head, width), entries);
    std::vector<std::string> inputs = {"query", "key", "value"};
    if (masked_) inputs.emplace_back(kMask);
    entries.push_back(Put("", ScaledDotProductAttention{.is_causal = !masked_}, std::move(inputs)));
    Append(MergeHeads(), entries);
    entries.push_back(PutBlock("c_proj", Conv1D(width, width)));
    return entries;
  }

  const Gpt2& family_;
  const bool masked_;
};

}  // namespace

std::vector<FamilyInput> InputsOf(const Gpt2&) {
  return {TokenInput("input_ids", false), TokenInput("attention_mask", true)};
}

void ExpandInto(const Gpt2& family, Expansion& out) {
  CheckDivides("n_embd", family.n_embd, "n_head", family.n_head, out.errors);
  if (!out.errors.empty()) return;
  const bool masked = out.Takes("attention_mask");
  Entries& entries = out.network.entries;
  if (masked) entries = CausalMask();
  Entries model = Builder(family, masked).Model();
  // A buffer that older releases saved.
  out.network.ignored_keys = {R"(^(transformer\.)?h\.\d+\.attn\.(masked_)?bias$)"};
  if (family.architecture == "GPT2Model") {
    Append(std::move(model), entries);
    out.network.outputs = {{.name = "last_hidden_state"}};
    return;
  }
  entries.push_back(PutBlock("transformer", std::move(model), {"input_ids"}));
  entries.push_back(
      Put("lm_head",
          Linear{.in_features = family.n_embd, .out_features = family.vocab_size, .bias = false},
          {}, family.tie_word_embeddings ? "transformer.wte" : ""));
  out.network.outputs = {{.name = "logits"}};
}

}  // namespace relight::network
