"""The layers of nn.Transformer, which fx does not look into, written out as blocks."""

import contextlib

import torch

from .network import Layer, Value
from .operands import Computed, Operand
from .problems import Refusal
from .registry import MODULES, converts_modules, function_converter, layer_class
from .sequences import attended, attention_arguments, is_causal_mask


class _Block:
    """A block under construction: layers that are called as the module's own modules are."""

    def __init__(self, call, path, module, inputs):
        self.call = call
        self.module = module
        fed = [operand for operand in inputs if operand is not None]
        taken = any(layer.name == path for layer in call.network.layers)
        self.layer = call.network.add_block(call.network.unique(call.step.name) if taken else path,
                                            [call.value(operand) for operand in fed])
        names = iter(["input"] + [f"input:{index}" for index in range(1, len(fed))])
        self.inputs = [None if operand is None else Value(Layer("input", name=next(names))) for operand in inputs]

    def add(self, kind, *values, **arguments):
        return self.call.add(kind, *values, block=self.layer, **arguments)

    def weighted(self, kind, name, *values, **arguments):
        tensors = dict(getattr(self.module, name).state_dict(keep_vars=True))
        return self.add(kind, *values, name=name, tensors=tensors, **arguments)

    def norm(self, name, value):
        norm = getattr(self.module, name)
        if layer_class(norm) is not torch.nn.LayerNorm:
            raise Refusal(f"has a {type(norm).__name__} for {name}: only LayerNorm can be said")
        return self.weighted("layer_norm", name, value, **norm_arguments(norm))

    def attention(self, name, query, memory, key_padding_mask, attn_mask):
        return self.weighted("multihead_attention", name, *attended(query, memory, memory),
                             **attention_arguments(getattr(self.module, name), key_padding_mask, attn_mask))

    def feed_forward(self, value):
        value = self.linear("linear1", value)
        return self.linear("linear2", self.activation(value))

    def linear(self, name, value):
        linear = getattr(self.module, name)
        return self.weighted("linear", name, value, in_features=linear.in_features, out_features=linear.out_features,
                             bias=linear.bias is not None)

    def activation(self, value):
        activation = self.module.activation
        operand = Computed(value, ((),), torch.float32)
        with self._inside():
            if isinstance(activation, torch.nn.Module) and layer_class(activation):
                return MODULES[layer_class(activation)](self.call, activation, operand)
            converter = function_converter(activation)
            if converter is None:
                raise Refusal(f"has the activation {getattr(activation, '__name__', activation)}, for which there "
                              "is no layer")
            return converter(self.call, operand)

    @contextlib.contextmanager
    def _inside(self):
        self.call.block = self.layer
        yield
        self.call.block = None


def norm_arguments(norm):
    return dict(normalized_shape=list(norm.normalized_shape), eps=norm.eps,
                elementwise_affine=norm.weight is not None, bias=norm.weight is None or norm.bias is not None)


def _residuals(block, parts):
    """x + part(x), one after the other. Each: the norm's name, before or behind; and the part."""
    value = block.inputs[0]
    for count, (norm, part) in enumerate(parts, 1):
        if block.module.norm_first:
            name = f"sum{count}" if count < len(parts) else ""  # The next sum needs it, too.
            value = block.add("add", value, part(block.norm(norm, value)), name=name)
        else:
            value = block.norm(norm, block.add("add", value, part(value)))
    return Value(block.layer)


def encoder_layer(call, path, module, src, src_mask=None, src_key_padding_mask=None):
    _require_batch(src)
    block = _Block(call, path, module, [src, src_key_padding_mask, _fed(src_mask)])
    _, padding, mask = block.inputs
    return _residuals(block, [
        ("norm1", lambda value: block.attention("self_attn", value, value, padding, mask or src_mask)),
        ("norm2", block.feed_forward)])


def decoder_layer(call, path, module, tgt, memory, tgt_mask=None, memory_mask=None, tgt_key_padding_mask=None,
                  memory_key_padding_mask=None):
    _require_batch(tgt)
    block = _Block(call, path, module, [tgt, memory, tgt_key_padding_mask, memory_key_padding_mask, _fed(tgt_mask),
                                        _fed(memory_mask)])
    _, seen, padding, seen_padding, mask, seen_mask = block.inputs
    return _residuals(block, [
        ("norm1", lambda value: block.attention("self_attn", value, value, padding, mask or tgt_mask)),
        ("norm2", lambda value: block.attention("multihead_attn", value, seen, seen_padding,
                                                seen_mask or memory_mask)),
        ("norm3", block.feed_forward)])


def _fed(mask):
    """What a block is fed of a mask: nothing where attention knows it by itself."""
    return None if is_causal_mask(mask) else mask


def _require_batch(operand):
    if isinstance(operand, Operand) and operand.rank != 3:
        raise Refusal("is given a sequence without a batch: add one with unsqueeze")


def _stack(call, path, module, layer, kind, value, *others):
    """A layer of `kind` after the other, and the norm at the end."""
    for index, one in enumerate(module.layers):
        if layer_class(one) is not kind:
            raise Refusal(f"has a {type(one).__name__} among its layers: only {kind.__name__} can be said")
        value = layer(call, f"{path}.layers.{index}", one, value, *others)
    if module.norm is None:
        return value
    if layer_class(module.norm) is not torch.nn.LayerNorm:
        raise Refusal(f"has a {type(module.norm).__name__} for norm: only LayerNorm can be said")
    name = f"{path}.norm"
    taken = any(layer.name == name for layer in call.network.layers)
    return call.add("layer_norm", value, name=call.network.unique(call.step.name) if taken else name,
                    tensors=dict(module.norm.state_dict(keep_vars=True)), **norm_arguments(module.norm))


def _nests(module, mask):
    """Whether a nn.TransformerEncoder leaves out padded positions, in eval mode and where all rows are padded
    behind what is in them. There are zeros for these then, and as many as the longest row of a batch needs."""
    first = module.layers[0]
    attention = first.self_attn
    return (mask is None and getattr(module, "use_nested_tensor", module.enable_nested_tensor)
            and not first.norm_first and attention.batch_first and attention._qkv_same_embed_dim
            and attention.in_proj_bias is not None and first.activation_relu_or_gelu
            and first.norm1.eps == first.norm2.eps and attention.num_heads % 2 == 0)


def _encoder(call, path, module, src, mask, src_key_padding_mask):
    if src_key_padding_mask is not None and _nests(module, mask):
        raise Refusal("gives zeros, or fewer positions, where src_key_padding_mask is set and depending on the other "
                      "rows of a batch: make the TransformerEncoder with enable_nested_tensor=False")
    return _stack(call, path, module, encoder_layer, torch.nn.TransformerEncoderLayer, src, mask,
                  src_key_padding_mask)


def _decoder(call, path, module, tgt, memory, *masks):
    return _stack(call, path, module, decoder_layer, torch.nn.TransformerDecoderLayer, tgt, memory, *masks)


# Newer releases take hints that a mask is causal. They change nothing: the mask itself is given as well.


@converts_modules("TransformerEncoderLayer")
def encoder_layer_module(call, module, src, src_mask=None, src_key_padding_mask=None, is_causal=False):
    return encoder_layer(call, call.path, module, src, src_mask, src_key_padding_mask)


@converts_modules("TransformerEncoder")
def encoder_module(call, module, src, mask=None, src_key_padding_mask=None, is_causal=None):
    return _encoder(call, call.path, module, src, mask, src_key_padding_mask)


@converts_modules("TransformerDecoderLayer")
def decoder_layer_module(call, module, tgt, memory, tgt_mask=None, memory_mask=None, tgt_key_padding_mask=None,
                         memory_key_padding_mask=None, tgt_is_causal=False, memory_is_causal=False):
    return decoder_layer(call, call.path, module, tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask,
                         memory_key_padding_mask)


@converts_modules("TransformerDecoder")
def decoder_module(call, module, tgt, memory, tgt_mask=None, memory_mask=None, tgt_key_padding_mask=None,
                   memory_key_padding_mask=None, tgt_is_causal=None, memory_is_causal=False):
    return _decoder(call, call.path, module, tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask,
                    memory_key_padding_mask)


@converts_modules("Transformer")
def transformer_module(call, module, src, tgt, src_mask=None, tgt_mask=None, memory_mask=None,
                       src_key_padding_mask=None, tgt_key_padding_mask=None, memory_key_padding_mask=None,
                       src_is_causal=None, tgt_is_causal=None, memory_is_causal=False):
    stacks = (module.encoder, torch.nn.TransformerEncoder), (module.decoder, torch.nn.TransformerDecoder)
    for stack, kind in stacks:
        if layer_class(stack) is not kind:
            raise Refusal(f"has a {type(stack).__name__} of its own: only {kind.__name__} can be said")
    memory = _encoder(call, f"{call.path}.encoder", module.encoder, src, src_mask, src_key_padding_mask)
    return _decoder(call, f"{call.path}.decoder", module.decoder, tgt, memory, tgt_mask, memory_mask,
                    tgt_key_padding_mask, memory_key_padding_mask)
