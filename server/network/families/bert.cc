// BERT, as transformers/models/bert/modeling_bert.py has it.
#include <utility>

#include "server/network/families/expansion.h"

namespace relight::network {
namespace {

constexpr char kMask[] = "extended_attention_mask";

// Which head stands on the encoder.
struct Head {
  explicit Head(const std::string& architecture)
      : masked_lm(architecture == "BertForMaskedLM"),
        sequence(architecture == "BertForSequenceClassification"),
        tokens(architecture == "BertForTokenClassification"),
        questions(architecture == "BertForQuestionAnswering") {}
  bool none() const { return !masked_lm && !sequence && !tokens && !questions; }

  bool masked_lm;
  bool sequence;
  bool tokens;
  bool questions;
};

class Builder {
 public:
  Builder(const Bert& family, Expansion& out) : family_(family), out_(out) {}

  void Build() {
    const Head head(family_.architecture);
    Entries& entries = out_.network.entries;
    if (masked()) entries = PaddingMask(kMask, "attention_mask");
    const bool pooled = head.sequence || (head.none() && family_.add_pooling_layer);
    if (head.none()) {
      Append(Model(pooled), entries);
      out_.network.outputs = {{.name = "last_hidden_state"}};
      if (pooled) out_.network.outputs.push_back({.name = "pooler_output"});
    } else {
      entries.push_back(PutBlock("bert", Model(pooled), {"input_ids"}));
    }
    if (head.sequence || head.tokens) Labels("classifier", family_.num_labels);
    if (head.masked_lm) MaskedLm();
    if (head.questions) QuestionAnswering();
    // A buffer that older releases saved.
    out_.network.ignored_keys = {R"(^(bert\.)?embeddings\.position_ids$)"};
  }

 private:
  bool masked() const { return out_.Takes("attention_mask"); }
  LayerNorm Norm() const {
    return {.normalized_shape = {family_.hidden_size}, .eps = family_.layer_norm_eps};
  }
  static Linear Dense(std::int64_t in, std::int64_t out) {
    return {.in_features = in, .out_features = out};
  }

  // Ends with the last hidden state, or what is pooled from it.
  Entries Model(bool pooled) const {
    Entries model = {PutBlock("embeddings", Embeddings(), {"input_ids"})};
    Entries layers;
    AddRepeated("layer", Layer(), family_.num_hidden_layers, 0, layers);
    model.push_back(PutBlock("encoder", std::move(layers)));
    model.push_back(Put("last_hidden_state", Identity{}));
    if (!pooled) return model;
    model.push_back(Put("", Select{.dim = 1, .index = 0}));
    model.push_back(Put("pooler.dense", Dense(family_.hidden_size, family_.hidden_size)));
    model.push_back(Put("pooler_output", Activation{.op = ActivationOp::kTanh}));
    return model;
  }

  Entries Embeddings() const {
    const std::int64_t width = family_.hidden_size;
    Entries entries = {Put("word_embeddings", Embedding{.num_embeddings = family_.vocab_size,
                                                        .embedding_dim = width})};
    std::string types = "token_type_ids";
    if (!out_.Takes(types)) {
      types = "zeros";
      entries.push_back(
          Put(types, Elementwise{.op = ElementwiseOp::kMul, .value = 0}, {"input_ids"}));
    }
    entries.push_back(
        Put("token_type_embeddings",
            Embedding{.num_embeddings = family_.type_vocab_size, .embedding_dim = width}, {types}));
    entries.push_back(Put("position_ids", Arange{.dim = 1}, {"input_ids"}));
    entries.push_back(
        Put("position_embeddings",
            Embedding{.num_embeddings = family_.max_position_embeddings, .embedding_dim = width}));
    entries.push_back(Put("", Elementwise{},
                          {"word_embeddings", "token_type_embeddings", "position_embeddings"}));
    entries.push_back(Put("LayerNorm", Norm()));
    return entries;
  }

  Entries Layer() const {
    return {
        PutBlock("attention", {PutBlock("self", SelfAttention()),
                               PutBlock("output", Output(family_.hidden_size), {"self", "input"})}),
        PutBlock("intermediate",
                 {Put("dense", Dense(family_.hidden_size, family_.intermediate_size)),
                  Put("", ActivationNamed(family_.hidden_act))}),
        PutBlock("output", Output(family_.intermediate_size), {"intermediate", "attention"})};
  }

  Entries SelfAttention() const {
    Entries entries;
    for (const char* const part : {"query", "key", "value"}) {
      entries.push_back(Put(part, Dense(family_.hidden_size, family_.hidden_size), {"input"}));
      Append(SplitHeads(std::string(part) + "_layer", part, family_.num_attention_heads,
                        family_.hidden_size),
             entries);
    }
    std::vector<std::string> inputs = {"query_layer", "key_layer", "value_layer"};
    if (masked()) inputs.emplace_back(kMask);
    entries.push_back(Put("context_layer", ScaledDotProductAttention{}, std::move(inputs)));
    Append(MergeHeads(), entries);
    return entries;
  }

  // Back to the hidden size, and onto what was there before: the second input.
  Entries Output(std::int64_t in) const {
    return {Put("dense", Dense(in, family_.hidden_size)),
            Put("", Elementwise{}, {"dense", "input:1"}), Put("LayerNorm", Norm())};
  }

  void Labels(const char* name, std::int64_t count) {
    out_.network.entries.push_back(Put(name, Dense(family_.hidden_size, count)));
    out_.network.outputs = {{.name = "logits"}};
  }

  void QuestionAnswering() {
    Labels("qa_outputs", 2);
    Entries& entries = out_.network.entries;
    entries.push_back(Put("start_logits", Select{.dim = -1, .index = 0}, {"qa_outputs"}));
    entries.push_back(Put("end_logits", Select{.dim = -1, .index = 1}, {"qa_outputs"}));
    out_.network.outputs = {{.name = "start_logits"}, {.name = "end_logits"}};
  }

  // The bias has two keys: the decoder's own, and that of what the decoder is in.
  void MaskedLm() {
    const std::int64_t words = family_.vocab_size;
    Entries transform = {Put("dense", Dense(family_.hidden_size, family_.hidden_size)),
                         Put("", ActivationNamed(family_.hidden_act)), Put("LayerNorm", Norm())};
    Linear decoder = Dense(family_.hidden_size, words);
    decoder.bias = false;
    Entries predictions = {
        PutBlock("transform", std::move(transform)),
        Put("decoder", std::move(decoder), {},
            family_.tie_word_embeddings ? "bert.embeddings.word_embeddings" : ""),
        Put("bias", Parameter{.shape = {words}}),
        Put("decoder.bias", Parameter{.shape = {words}}, {}, "bias"),
        Put("", Elementwise{}, {"decoder", "decoder.bias"})};
    out_.network.entries.push_back(PutBlock("cls.predictions", std::move(predictions)));
    out_.network.outputs = {{.name = "logits"}};
  }

  const Bert& family_;
  Expansion& out_;
};

}  // namespace

std::vector<FamilyInput> InputsOf(const Bert&) {
  return {TokenInput("input_ids", false), TokenInput("attention_mask", true),
          TokenInput("token_type_ids", true)};
}

void ExpandInto(const Bert& family, Expansion& out) {
  CheckDivides("hidden_size", family.hidden_size, "num_attention_heads", family.num_attention_heads,
               out.errors);
  if (out.errors.empty()) Builder(family, out).Build();
}

}  // namespace relight::network
