"""BERT and GPT-2 in plain torch, written from their papers with the key names and arithmetic of
Hugging Face's transformers (models/bert/modeling_bert.py, models/gpt2/modeling_gpt2.py)."""
import math

import torch
import torch.nn.functional as F
from torch import nn

LEAST = torch.finfo(torch.float32).min


def gelu_new(x):
    """As GPT-2 was trained: "Gaussian Error Linear Units" (arXiv:1606.08415) by a tanh."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


ACTIVATIONS = {"gelu": F.gelu, "gelu_new": gelu_new, "relu": F.relu, "silu": F.silu, "tanh": torch.tanh}


def children(**modules):
    """A module that only gives its children a place in the state dict."""
    module = nn.Module()
    for name, child in modules.items():
        module.add_module(name, child)
    return module


def heads_of(x, count):
    """[N, L, E] as [N, heads, L, E / heads]."""
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


def attend(query, key, value, count, mask):
    """softmax(q k^T / sqrt(d) + mask) v over `count` heads, put together again."""
    query, key, value = (heads_of(x, count) for x in (query, key, value))
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + mask
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def padding_mask(attention_mask):
    return (1 - attention_mask[:, None, None, :].float()) * LEAST


class BertOutput(nn.Module):
    def __init__(self, size, hidden, eps):
        super().__init__()
        self.dense = nn.Linear(size, hidden)
        self.LayerNorm = nn.LayerNorm(hidden, eps=eps)

    def forward(self, x, residual):
        return self.LayerNorm(self.dense(x) + residual)


class BertLayer(nn.Module):
    def __init__(self, hidden, heads, inner, act, eps):
        super().__init__()
        projections = {name: nn.Linear(hidden, hidden) for name in ("query", "key", "value")}
        self.attention = children(self=children(**projections), output=BertOutput(hidden, hidden, eps))
        self.intermediate = children(dense=nn.Linear(hidden, inner))
        self.output = BertOutput(inner, hidden, eps)
        self.heads, self.act = heads, ACTIVATIONS[act]

    def forward(self, x, mask):
        attention = getattr(self.attention, "self")
        context = attend(attention.query(x), attention.key(x), attention.value(x), self.heads, mask)
        x = self.attention.output(context, x)
        return self.output(self.act(self.intermediate.dense(x)), x)


class BertModel(nn.Module):
    """Gives the last hidden state and, with a pooling layer, what is pooled from it."""

    def __init__(self, vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size,
                 max_position_embeddings, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12,
                 add_pooling_layer=True):
        super().__init__()
        self.embeddings = children(
            word_embeddings=nn.Embedding(vocab_size, hidden_size, padding_idx=0),
            position_embeddings=nn.Embedding(max_position_embeddings, hidden_size),
            token_type_embeddings=nn.Embedding(type_vocab_size, hidden_size),
            LayerNorm=nn.LayerNorm(hidden_size, eps=layer_norm_eps))
        self.encoder = children(layer=nn.ModuleList(
            BertLayer(hidden_size, num_attention_heads, intermediate_size, hidden_act, layer_norm_eps)
            for _ in range(num_hidden_layers)))
        self.pooler = children(dense=nn.Linear(hidden_size, hidden_size)) if add_pooling_layer else None

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        embeddings = self.embeddings
        x = (embeddings.word_embeddings(input_ids) + embeddings.token_type_embeddings(token_type_ids)
             + embeddings.position_embeddings(torch.arange(input_ids.shape[1])))
        x = embeddings.LayerNorm(x)
        mask = padding_mask(attention_mask)
        for layer in self.encoder.layer:
            x = layer(x, mask)
        return (x, self.pooler.dense(x[:, 0]).tanh()) if self.pooler is not None else (x,)


class BertForSequenceClassification(nn.Module):
    def __init__(self, num_labels=2, **config):
        super().__init__()
        self.bert = BertModel(**config)
        self.classifier = nn.Linear(config["hidden_size"], num_labels)

    def forward(self, *inputs):
        return (self.classifier(self.bert(*inputs)[1]),)


class BertForTokenClassification(nn.Module):
    def __init__(self, num_labels=2, **config):
        super().__init__()
        self.bert = BertModel(add_pooling_layer=False, **config)
        self.classifier = nn.Linear(config["hidden_size"], num_labels)

    def forward(self, *inputs):
        return (self.classifier(self.bert(*inputs)[0]),)


class BertForQuestionAnswering(nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.bert = BertModel(add_pooling_layer=False, **config)
        self.qa_outputs = nn.Linear(config["hidden_size"], 2)

    def forward(self, *inputs):
        start, end = self.qa_outputs(self.bert(*inputs)[0]).split(1, dim=-1)
        return start.squeeze(-1), end.squeeze(-1)


class BertForMaskedLM(nn.Module):
    def __init__(self, tie_word_embeddings=True, **config):
        super().__init__()
        hidden, words = config["hidden_size"], config["vocab_size"]
        self.bert = BertModel(add_pooling_layer=False, **config)
        transform = children(dense=nn.Linear(hidden, hidden),
                             LayerNorm=nn.LayerNorm(hidden, eps=config.get("layer_norm_eps", 1e-12)))
        self.cls = children(predictions=children(transform=transform, decoder=nn.Linear(hidden, words)))
        predictions = self.cls.predictions
        predictions.bias = nn.Parameter(torch.randn(words))
        predictions.decoder.bias = predictions.bias
        if tie_word_embeddings:
            predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        self.act = ACTIVATIONS[config.get("hidden_act", "gelu")]

    def forward(self, *inputs):
        predictions = self.cls.predictions
        x = self.act(predictions.transform.dense(self.bert(*inputs)[0]))
        return (predictions.decoder(predictions.transform.LayerNorm(x)),)


class Conv1D(nn.Module):
    """A linear layer whose weight lies the other way round."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / math.sqrt(inputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return torch.addmm(self.bias, x.flatten(0, -2), self.weight).view(*x.shape[:-1], -1)


class Gpt2Block(nn.Module):
    def __init__(self, width, heads, inner, act, eps):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = children(c_attn=Conv1D(width, 3 * width), c_proj=Conv1D(width, width))
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = children(c_fc=Conv1D(width, inner), c_proj=Conv1D(inner, width))
        self.width, self.heads, self.act = width, heads, ACTIVATIONS[act]

    def forward(self, x, mask):
        query, key, value = self.attn.c_attn(self.ln_1(x)).split(self.width, dim=2)
        x = x + self.attn.c_proj(attend(query, key, value, self.heads, mask))
        return x + self.mlp.c_proj(self.act(self.mlp.c_fc(self.ln_2(x))))


class GPT2Model(nn.Module):
    def __init__(self, vocab_size, n_positions, n_embd, n_layer, n_head, n_inner=None,
                 activation_function="gelu_new", layer_norm_epsilon=1e-5):
        super().__init__()
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(n_positions, n_embd)
        self.h = nn.ModuleList(Gpt2Block(n_embd, n_head, n_inner or 4 * n_embd, activation_function,
                                         layer_norm_epsilon) for _ in range(n_layer))
        self.ln_f = nn.LayerNorm(n_embd, eps=layer_norm_epsilon)

    def forward(self, input_ids, attention_mask=None):
        length = input_ids.shape[1]
        x = self.wte(input_ids) + self.wpe(torch.arange(length))
        mask = torch.full((length, length), LEAST).triu(1)
        if attention_mask is not None:
            mask = mask + padding_mask(attention_mask)
        for block in self.h:
            x = block(x, mask)
        return (self.ln_f(x),)


class GPT2LMHeadModel(nn.Module):
    def __init__(self, tie_word_embeddings=True, **config):
        super().__init__()
        self.transformer = GPT2Model(**config)
        self.lm_head = nn.Linear(config["n_embd"], config["vocab_size"], bias=False)
        if tie_word_embeddings:
            self.lm_head.weight = self.transformer.wte.weight

    def forward(self, *inputs):
        return (self.lm_head(self.transformer(*inputs)[0]),)
