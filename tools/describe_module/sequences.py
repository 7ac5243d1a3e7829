"""Recurrent layers and attention."""

from . import constants
from .network import Value
from .operands import ConstantTensor
from .problems import Refusal
from .registry import converts, converts_modules


@converts_modules("LSTM", "GRU", "RNN")
def recurrent(call, module, input, hx=None):
    if input.rank != 3:
        raise Refusal("is given a sequence without a batch: add one with unsqueeze")
    kind = module.mode.partition("_")[0].lower()
    states = _first_states(hx)
    named = dict(zip(("h_0", "c_0"), states))
    arguments = {"proj_size": module.proj_size} if kind == "lstm" else {}
    arguments.update({"nonlinearity": module.nonlinearity} if kind == "rnn" else {})
    output = call.weighted(
        kind, input, state=call.state(), named=named, input_size=module.input_size, hidden_size=module.hidden_size,
        num_layers=module.num_layers, bias=module.bias, batch_first=module.batch_first,
        bidirectional=module.bidirectional, **arguments)
    hidden, cell = (Value(output.layer, index) for index in (1, 2))
    return output, (hidden, cell) if kind == "lstm" else hidden


def _first_states(hx):
    """None where they are zeros, as they are anyway."""
    states = [] if hx is None else list(hx) if isinstance(hx, (tuple, list)) else [hx]
    zeros = all(isinstance(state, ConstantTensor) and state.number == 0 for state in states)
    return [] if zeros else states


@converts_modules("MultiheadAttention")
def multihead_attention(call, module, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
                        average_attn_weights=True, is_causal=False):
    if query.rank != 3:
        raise Refusal("is given a sequence without a batch: add one with unsqueeze")
    need_weights = need_weights and call.uses_part(1)
    if need_weights and not average_attn_weights:
        raise Refusal("gives the attention of each head: average_attn_weights=False cannot be said")
    output = call.weighted(
        "multihead_attention", *attended(query, key, value), state=call.state(),
        **attention_arguments(module, key_padding_mask, attn_mask), need_weights=need_weights)
    return output, Value(output.layer, 1) if need_weights else None


def attended(query, key, value):
    """One input stands for all three."""
    return [query] if key is query and value is query else [query, key, value]


def is_causal_mask(mask):
    """Whether nn.MultiheadAttention makes a mask itself when it is told is_causal."""
    return isinstance(mask, ConstantTensor) and constants.is_causal(mask, masks_out=True)


def attention_arguments(module, key_padding_mask, attn_mask):
    """Of a nn.MultiheadAttention, with its masks."""
    is_causal = is_causal_mask(attn_mask)
    return dict(
        named={"key_padding_mask": key_padding_mask, "attn_mask": None if is_causal else attn_mask},
        embed_dim=module.embed_dim, num_heads=module.num_heads, bias=module.in_proj_bias is not None,
        add_bias_kv=module.bias_k is not None, add_zero_attn=module.add_zero_attn,
        kdim=None if module.kdim == module.embed_dim else module.kdim,
        vdim=None if module.vdim == module.embed_dim else module.vdim,
        batch_first=module.batch_first, is_causal=is_causal)


@converts("F.scaled_dot_product_attention")
def scaled_dot_product_attention(call, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None,
                                 enable_gqa=False):
    if dropout_p:
        raise Refusal("drops numbers in eval mode, too: pass dropout_p only if self.training")
    if enable_gqa and key.sizes(-3) != query.sizes(-3):
        raise Refusal("enable_gqa cannot be said: repeat key and value")
    if isinstance(attn_mask, ConstantTensor) and constants.is_causal(attn_mask, masks_out=False):
        is_causal, attn_mask = True, None
    masks = [] if attn_mask is None else [attn_mask]
    return call.add("scaled_dot_product_attention", query, key, value, *masks, is_causal=is_causal, scale=scale)
