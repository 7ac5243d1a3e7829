"""tools/describe_module: what it writes for modules, and what it refuses."""

import dataclasses
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import textwrap
import unittest
import unittest.mock

import torch
import torch.nn as nn
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOL = ROOT / "tools" / "describe_module"
sys.path.insert(0, str(ROOT / "tools"))

from describe_module import DescriptionError, Input, describe, further  # noqa: E402
from describe_module.inputs import plans  # noqa: E402
from describe_module.vocabulary import KINDS  # noqa: E402


class Of(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


# Modules.


class SimpleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 5)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(5, 2)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, padding="same")
        self.bn = nn.BatchNorm2d(8)
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.fc = nn.Linear(128, 4)

    def forward(self, x):
        x = self.pool(F.max_pool2d(F.relu(self.bn(self.conv(x)), inplace=True), 2))
        return F.log_softmax(self.fc(x.view(x.size(0), -1)), dim=1)


class Residual(nn.Module):
    """Whose ReLU writes to what the sum reads afterwards."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.fc(x)
        self.relu(y)
        z = y * 2
        z += y
        return z


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.act = nn.Tanh()

    def forward(self, x):
        y = self.act(self.norm(self.fc(x)))
        z = self.act(self.norm(self.fc(y)))
        return y + z


class Tied(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.how = how
        self.table = nn.Embedding(10, 6)
        if how in ("module", "bias"):
            self.head = nn.Linear(6, 10, bias=how == "bias")
            self.head.weight = self.table.weight

    def forward(self, tokens):
        x = self.table(tokens)
        if self.how == "function":
            return F.linear(x, self.table.weight)
        return x @ self.table.weight.t() if self.how == "product" else self.head(x)


class LanguageModel(nn.Module):
    """As nanoGPT has it."""

    def __init__(self, mask="function"):
        super().__init__()
        self.mask = mask
        self.wte, self.wpe = nn.Embedding(20, 8), nn.Embedding(16, 8)
        self.norm = nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.wte.weight
        if mask == "buffer":
            self.register_buffer("seen", torch.tril(torch.ones(16, 16)).view(1, 1, 16, 16))

    def forward(self, tokens, targets=None):
        b, t = tokens.size()
        assert t <= 16, f"{t} tokens are too many"
        x = self.wte(tokens) + self.wpe(torch.arange(0, t, device=tokens.device))
        q, k, v = (part.view(b, t, 2, 4).transpose(1, 2) for part in self.qkv(self.norm(x)).split(8, dim=2))
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
        seen = self.seen[:, :, :t, :t] if self.mask == "buffer" else torch.ones(t, t).tril()[None, None]
        scores = scores.masked_fill(seen == 0, float("-inf"))
        y = (F.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(b, t, 8)
        loss = None if targets is None else F.cross_entropy(y, targets)
        return self.head(x + self.proj(y)), loss


class VisionTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.position = nn.Parameter(torch.zeros(1, 5, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), enable_nested_tensor=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        return self.head(self.encoder(x)[:, 0])


class Encoder(nn.Module):
    def __init__(self, **arguments):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **arguments)
        self.head = nn.Linear(8, 3)

    def forward(self, x, mask=None):
        causal = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return self.head(self.layer(self.layer(x, src_mask=causal), src_key_padding_mask=mask))


class Padded(nn.Module):
    """An encoder of rows that are padded."""

    def __init__(self, heads=2, causal=False, enable_nested_tensor=True, **arguments):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, heads, 16, batch_first=True, **arguments)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=enable_nested_tensor)
        self.causal = causal

    def forward(self, x, mask):
        causal = nn.Transformer.generate_square_subsequent_mask(x.size(1)) if self.causal else None
        return self.encoder(x, causal, src_key_padding_mask=mask)


class Seq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)

    def forward(self, src, tgt, mask=None):
        causal = torch.full((tgt.size(1), tgt.size(1)), float("-inf")).triu(1)
        return self.transformer(src, tgt, tgt_mask=causal, src_key_padding_mask=mask)


class Attention(nn.Module):
    def __init__(self, **arguments):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **arguments)

    def forward(self, x, y, mask):
        z, _ = self.attention(x, y, y, key_padding_mask=mask)
        return self.attention(z, z, z)


class Recurrent(nn.Module):
    def __init__(self, kind, **arguments):
        super().__init__()
        self.rnn = getattr(nn, kind)(6, 4, batch_first=True, **arguments)

    def forward(self, x):
        zeros = torch.zeros(self.rnn.num_layers, x.size(0), 4)
        output, last = self.rnn(x, (zeros, zeros) if isinstance(self.rnn, nn.LSTM) else zeros)
        hidden = last[0] if isinstance(last, tuple) else last
        return output[:, -1], hidden.squeeze(0)


class UNet(nn.Module):
    def __init__(self, pads):
        super().__init__()
        self.pads = pads
        self.down, self.up = nn.Conv2d(3, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, 2)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = self.down(x)
        y = self.up(F.max_pool2d(skip, 2))
        if self.pads:
            rows, columns = skip.size(2) - y.size(2), skip.size(3) - y.size(3)
            y = F.pad(y, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.out(torch.cat([skip, y], dim=1))


class OwnNorm(nn.Module):
    """Layers written by hand, with the names that PyTorch's have, and without."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))
        self.bias = nn.Parameter(torch.zeros(6))
        self.kernel = nn.Parameter(torch.zeros(4, 6))

    def forward(self, x):
        return F.linear(F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-6), self.kernel)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("kept", torch.tensor([True, False, True, True, False, True]))
        self.rows = nn.ParameterList([nn.Parameter(torch.ones(6)) for _ in range(2)])

    def forward(self, x):
        x = (x - self.mean) * self.scale
        for row in self.rows:
            x = x + row
        return x.masked_fill(self.kept, 0.0)


class Bilinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.pair = nn.Bilinear(4, 3, 5)

    def forward(self, x, y):
        return self.pair(x, y)


class MyGRU(nn.GRU):
    """Only made otherwise."""

    def __init__(self):
        super().__init__(6, 4, batch_first=True)


@dataclasses.dataclass
class Result:
    logits: torch.Tensor
    hidden: object = None


class Heads(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.trunk, self.left, self.right = nn.Linear(6, 6), nn.Linear(6, 2), nn.Linear(6, 3)

    def forward(self, x):
        h = torch.tanh(self.trunk(x))
        return self.shape(self.left(h), self.right(h), h)


# What can be described: by name, the module and its inputs. Others may run these and compare.

IMAGE, SEQUENCE, ROWS, TOKENS = "x=FP32[-1,6,-1,-1]", "x=FP32[-1,-1,6]", "x=FP32[-1,6]", "tokens=INT64[-1,-1]"

PADDED = ["x=FP32[-1,-1,8]", "mask=BOOL[-1,-1]"]


def stack(*layers):
    return Wrapped(nn.Sequential(*layers))


def described():
    cases = {
        "simple": (SimpleNet(), ["x=FP32[-1,10]"]),
        "convolutions": (ConvNet(), ["x=FP32[-1,3,-1,-1]"]),
        "in place": (Residual(), [ROWS]),
        "shared": (Shared(), [ROWS]),
        "language model": (LanguageModel(), [TOKENS]),
        "language model of fixed length": (LanguageModel("buffer"), ["tokens=INT64[-1,16]"]),
        "vision transformer": (VisionTransformer(), ["x=FP32[-1,3,8,8]"]),
        "encoder": (Encoder(), ["x=FP32[-1,-1,8]", "mask=BOOL[-1,-1]"]),
        "encoder, norm first": (Encoder(norm_first=True, activation=nn.SiLU()), ["x=FP32[-1,-1,8]"]),
        **{f"encoder of padded rows, {name}": (Padded(**arguments), PADDED) for name, arguments in {
            "never nested": dict(enable_nested_tensor=False), "norm first": dict(norm_first=True),
            "one head": dict(heads=1), "other activation": dict(activation=F.silu),
            "causal": dict(causal=True)}.items()},
        "transformer": (Seq2Seq(), ["src=FP32[-1,-1,8]", "tgt=FP32[-1,-1,8]"]),
        "attention": (Attention(), ["x=FP32[-1,-1,8]", "y=FP32[-1,-1,8]", "mask=BOOL[-1,-1]"]),
        "lstm": (Recurrent("LSTM"), [SEQUENCE]),
        "gru": (Recurrent("GRU", bias=False), [SEQUENCE]),
        "rnn": (Recurrent("RNN", nonlinearity="relu"), [SEQUENCE]),
        "subclass": (Wrapped(MyGRU()), [SEQUENCE]),
        "u-net": (UNet(False), ["x=FP32[-1,3,-1,-1]"]),
        "u-net of fixed size": (UNet(True), ["x=FP32[-1,3,17,22]"]),
        "layers by hand": (Wrapped(OwnNorm()), [ROWS]),
        "buffers": (Buffers(), [ROWS]),
        "dict": (Heads(lambda a, b, h: {"left": a, "b": b.softmax(-1), "none": None, "h": [h]}), [ROWS]),
        "tuple": (Heads(lambda a, b, h: (a, b, h, a)), [ROWS]),
        "dataclass": (Heads(lambda a, b, h: Result(a, (b, h))), [ROWS]),
        "bilinear": (Bilinear(), ["x=FP32[-1,4]", "y=FP32[-1,3]"]),
        "lazy": (stack(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                       nn.LazyLinear(5)), [IMAGE]),
        "synchronised": (stack(nn.SyncBatchNorm(6)), [IMAGE]),
        "odd same": (stack(nn.Conv2d(6, 4, (4, 3), padding="same", padding_mode="reflect")), [IMAGE]),
        "images": (stack(
            nn.Conv2d(6, 8, 3, 2, 1, 1, 2), nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True), nn.PReLU(8),
            nn.MaxPool2d(3, 2, 1), nn.LocalResponseNorm(3), nn.ZeroPad2d((1, 2, 0, 1)), nn.ReflectionPad2d(1),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.PixelShuffle(2), nn.PixelUnshuffle(2),
            nn.ChannelShuffle(2), nn.AvgPool2d(2, ceil_mode=True), nn.Softmax2d(), nn.Dropout2d(),
            nn.ConvTranspose2d(8, 4, 3, 2, 1, 1), nn.AdaptiveMaxPool2d((2, 3)), nn.Flatten(),
            nn.Unflatten(1, (4, 6))), [IMAGE]),
        "one image": (stack(nn.Conv2d(6, 4, 3), nn.MaxPool2d(2)), ["x=FP32[6,8,8]"]),
        "table of means": (stack(nn.EmbeddingBag(10, 6), nn.Linear(6, 2)), ["x=INT64[-1,-1]"]),
    }
    for how in ("module", "bias", "function", "product"):
        cases[f"tied by {how}"] = (Tied(how), [TOKENS])
    for kind in ("ReLU ReLU6 Sigmoid Tanh SiLU Hardswish Hardsigmoid SELU Mish LogSigmoid Softsign Tanhshrink GELU "
                 "LeakyReLU ELU CELU Softplus Hardtanh Softshrink Hardshrink RReLU Identity Dropout AlphaDropout "
                 "PReLU Flatten").split():
        cases[f"nn.{kind}"] = (stack(getattr(nn, kind)()), [IMAGE])
    functions = {
        "scalars": lambda x: 1 + x - 2 * x / (4 - x) + 2 / x - x ** 2 + torch.add(x, 2, alpha=3) + torch.rsub(x, 1),
        "unary": lambda x: torch.exp(x).log() + x.abs().sqrt() + x.square().rsqrt() + (-x).erf() + x.sin() + x.cos(),
        "activations": lambda x: F.gelu(x, approximate="tanh") + F.leaky_relu(x, 0.2) + F.elu(x, 2.0) + F.hardtanh(
            x, -0.5, 0.5) + F.softplus(x, 2) + F.threshold(x, 0.1, 2.0) + F.relu6(x) + F.silu(x) + F.mish(x),
        "written": lambda x: torch.zeros_like(x).masked_fill_(x > 0, -5.0) + torch.ones_like(x).add_(x).mul_(2),
        "comparisons": lambda x: ((x > 0) & (x < 1) | ~(x >= 2)).float() * x,
        "masks": lambda x: torch.where(x > 0, x, torch.tensor(0.0)) + x.masked_fill(x > 1, float("-inf")),
        "bounds": lambda x: x.clamp(-1, 1) + torch.clamp(x, min=0.0) + x.clamp_max(2) + torch.maximum(x, -x),
        "reductions": lambda x: x.mean(-1) + x.sum(2) + x.amax(-1) + x.max(-1)[0] + x.norm(dim=-1) + x.var(
            2, unbiased=False),
        "norms": lambda x: torch.linalg.norm(x, 1, dim=1) + torch.linalg.vector_norm(x, 1, dim=(1, 2))[:, None] + (
            torch.linalg.norm(x, ord=2, dim=[1])) + torch.linalg.norm(x, dim=(1, 2))[:, None] + torch.norm(
            x, 2, dim=(1, 2), keepdim=True)[:, 0] + torch.linalg.norm(x, "fro", (1, 2), True)[:, 0],
        "places": lambda x: x.argmax(1) + x.max(dim=1).indices,
        "softmaxes": lambda x: F.softmax(x, dim=1) + x.log_softmax(-1) + F.normalize(x, dim=-1) + x.cumsum(2),
        "parts": lambda x: (x[:, 0], x[..., -1], x[:, 1:4:2], x[:, None, :, :-1], x[:, :, x.size(2) - 1],
                            x[:, [2, 0]]),
        "splits": lambda x: sum(x.split(2, 1)) + sum(x.chunk(3, dim=1)) + x.unbind(1)[3][:, None],
        "joined": lambda x: torch.cat([x, x], -1) + torch.stack([x, x], -1).flatten(2) + x.repeat(1, 1, 2),
        "repeated": lambda x: x.mean(1, keepdim=True).expand(-1, 6, -1) + x[:1].expand(x.size(0), -1, -1),
        "views": lambda x: x.transpose(1, 2).reshape(x.size(0), x.size(2), 2, 3).permute(0, 2, 1, 3).reshape(
            x.size(0) * 2, x.size(2), 3).view(x.size(0), 2, -1, 3),
        "positions": lambda x: x + torch.arange(x.size(2)) * 2 + torch.arange(1, 7).float()[:, None],
        "numbers": lambda x: (x - torch.tensor([1.0, 2.5, 4.0, 0.0, 1.0, 3.0])[:, None]) * torch.zeros_like(x),
        "zeros": lambda x: torch.cat([torch.zeros(x.size(0), 2, x.size(2)), x], dim=1),
        "products": lambda x: x.transpose(1, 2) @ x + torch.einsum("bcl,bcm->blm", x, x) + x.mT.bmm(x),
        "padding": lambda x: F.pad(x, (1, 2)) + F.pad(x, (2, 1), mode="replicate"),
        "types": lambda x: x.to(torch.int64) + x.long() + (x > 0).int(),
        "shifted": lambda x: torch.roll(x, 2, 2) + x.flip(1) + x.movedim(0, 1).movedim(1, 0),
        "itself": lambda x: x,
    }
    cases.update({name: (Of(function), ["x=FP32[-1,6,-1]"]) for name, function in functions.items()})
    if hasattr(F, "scaled_dot_product_attention"):
        cases["fused attention"] = (Of(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True)), [SEQUENCE])
    if hasattr(nn, "RMSNorm"):
        cases["newer norms"] = (stack(nn.RMSNorm(6), nn.LayerNorm(6, bias=False)), [ROWS])
    return cases


def layers_of(text):
    """What stands in each line of a layer."""
    return re.findall(r"^ +layer \{ (.*?)(?: \})?$", text, re.MULTILINE)


def kinds_of(text):
    """The same, without names."""
    return [re.sub(r'(name|input|parameters_of): "[^"]*" ', "", layer) for layer in layers_of(text)]


class DescribedTest(unittest.TestCase):
    maxDiff = None

    def assertLayers(self, module, inputs, *layers):
        self.assertEqual(layers_of(describe(module, inputs)), list(layers))

    def test_every_description_is_a_model_config(self):
        for name, (module, inputs) in described().items():
            with self.subTest(name):
                text = describe(module, inputs)
                protoc = subprocess.run(
                    ["protoc", "--encode=relight.v1.ModelConfig", "-I", ROOT / "proto",
                     "relight/v1/model_config.proto"], input=text.encode(), capture_output=True)
                self.assertEqual((protoc.returncode, protoc.stderr), (0, b""), text)

    def test_a_small_net_as_a_person_would_write_it(self):
        self.assertEqual(describe(SimpleNet()), textwrap.dedent("""\
            input { name: "x" datatype: "FP32" shape: [-1, 10] }
            output { name: "output" datatype: "FP32" shape: [-1, 2] }
            network {
              layer { name: "fc1" linear { in_features: 10 out_features: 5 } }
              layer { relu {} }
              layer { name: "fc2" linear { in_features: 5 out_features: 2 } }
            }
            """))

    def test_arguments_at_their_defaults_are_left_out(self):
        self.assertLayers(
            ConvNet(), ["x=FP32[-1,3,-1,-1]"],
            "pad { padding: [1, 2, 1, 2] }",
            'name: "conv" conv2d { in_channels: 3 out_channels: 8 kernel_size: 4 }',
            'name: "bn" batch_norm2d { num_features: 8 }',
            "relu {}",
            "max_pool2d { kernel_size: 2 }",
            "adaptive_avg_pool2d { output_size: 4 }",
            "reshape { shape: [0, -1] }",
            'name: "fc" linear { in_features: 128 out_features: 4 }',
            "log_softmax { dim: 1 }")

    def test_what_is_written_in_place_is_read_as_it_is_then(self):
        self.assertLayers(
            Residual(), [ROWS],
            'name: "fc" linear { in_features: 6 out_features: 6 }',
            'name: "relu" relu {}',
            'name: "mul" mul { value: 2 }',
            'input: "mul" input: "relu" add {}')

    def test_what_a_write_into_a_new_tensor_returns_may_be_read(self):
        self.assertLayers(
            Of(lambda x: torch.zeros_like(x).masked_fill_(x > 0, -5.0)), [ROWS],
            'name: "gt" gt { value: 0 }', 'input: "x" lt { value: -inf }', 'name: "to" to { datatype: "FP32" }',
            'input: "to" input: "gt" masked_fill { value: -5 }')

    def test_layers_that_run_twice_share_their_parameters(self):
        self.assertLayers(
            Shared(), [ROWS],
            'name: "fc" linear { in_features: 6 out_features: 6 }',
            'name: "norm" layer_norm { normalized_shape: 6 }',
            'name: "act" tanh {}',
            'name: "fc_1" parameters_of: "fc" linear { in_features: 6 out_features: 6 }',
            'name: "norm_1" parameters_of: "norm" layer_norm { normalized_shape: 6 }',
            'name: "act_1" tanh {}',
            'input: "act" input: "act_1" add {}')

    def test_tied_weights(self):
        table = 'name: "table" embedding { num_embeddings: 10 embedding_dim: 6 }'
        size = "in_features: 6 out_features: 10"
        for how, head in {
                "module": f'name: "head" parameters_of: "table" linear {{ {size} bias: false }}',
                "bias": f'name: "head" parameters_of: "table" linear {{ {size} }}',
                "function": f'name: "linear" parameters_of: "table" linear {{ {size} bias: false }}',
                "product": f'name: "matmul" parameters_of: "table" linear {{ {size} bias: false }}'}.items():
            with self.subTest(how):
                self.assertLayers(Tied(how), [TOKENS], table, head)

    def test_a_language_model_of_any_length(self):
        self.assertLayers(
            LanguageModel(), [TOKENS],
            'name: "wte" embedding { num_embeddings: 20 embedding_dim: 8 }',
            'name: "arange" input: "tokens" arange {}',
            'name: "wpe" embedding { num_embeddings: 16 embedding_dim: 8 }',
            'name: "add" input: "wte" input: "wpe" add {}',
            'name: "norm" layer_norm { normalized_shape: 8 }',
            'name: "qkv" linear { in_features: 8 out_features: 24 }',
            'name: "split" split { split_size: 8 dim: 2 }',
            "reshape { shape: [0, 0, 2, 4] }",
            'name: "transpose" transpose { dim0: 1 dim1: 2 }',
            'input: "split:1" reshape { shape: [0, 0, 2, 4] }',
            'name: "transpose_1" transpose { dim0: 1 dim1: 2 }',
            'input: "split:2" reshape { shape: [0, 0, 2, 4] }',
            'name: "transpose_2" transpose { dim0: 1 dim1: 2 }',
            'name: "transpose_3" input: "transpose_1" transpose { dim0: -2 dim1: -1 }',
            'input: "transpose" input: "transpose_3" matmul {}',
            'name: "truediv" div { value: 2 }',
            'name: "unsqueeze" input: "arange" unsqueeze { dim: 1 }',
            'input: "arange" input: "unsqueeze" gt {}',
            "unsqueeze {}",
            'name: "unsqueeze_1" unsqueeze {}',
            'input: "truediv" input: "unsqueeze_1" masked_fill { value: -inf }',
            'name: "softmax" softmax {}',
            'input: "softmax" input: "transpose_2" matmul {}',
            "transpose { dim0: 1 dim1: 2 }",
            "reshape { shape: [0, 0, 8] }",
            'name: "proj" linear { in_features: 8 out_features: 8 }',
            'input: "add" input: "proj" add {}',
            'name: "head" parameters_of: "wte" linear { in_features: 8 out_features: 20 bias: false }',
            'name: "output_0" identity {}')

    def test_an_encoder_layer_becomes_a_block(self):
        attention = "embed_dim: 8 num_heads: 2 batch_first: true"
        sizes = ["in_features: 8 out_features: 16", "in_features: 16 out_features: 8"]

        def inner(of=""):
            shared = [f'parameters_of: "{of}.{name}" ' if of else ""
                      for name in ("norm1", "linear1", "linear2", "norm2")]
            return ['input: "input" input: "self_attn" add {}',
                    f'name: "norm1" {shared[0]}layer_norm {{ normalized_shape: 8 }}',
                    f'name: "linear1" {shared[1]}linear {{ {sizes[0]} }}',
                    "relu {}",
                    f'name: "linear2" {shared[2]}linear {{ {sizes[1]} }}',
                    'input: "norm1" input: "linear2" add {}',
                    f'name: "norm2" {shared[3]}layer_norm {{ normalized_shape: 8 }}']
        self.assertLayers(
            Encoder(), ["x=FP32[-1,-1,8]", "mask=BOOL[-1,-1]"],
            'name: "layer" block {',
            f'name: "self_attn" input: "input" multihead_attention {{ {attention} is_causal: true }}',
            *inner(),
            'name: "layer_1" input: "layer" input: "mask" block {',
            'name: "self_attn" input: "input" input: "key_padding_mask=input:1" parameters_of: "layer.self_attn" '
            f"multihead_attention {{ {attention} }}",
            *inner("layer"),
            'name: "head" linear { in_features: 8 out_features: 3 }')

    def test_norm_first(self):
        module = Encoder(norm_first=True, activation=nn.SiLU())
        self.assertEqual(layers_of(describe(module, ["x=FP32[-1,-1,8]"]))[1:9], [
            'name: "norm1" input: "input" layer_norm { normalized_shape: 8 }',
            'name: "self_attn" multihead_attention { embed_dim: 8 num_heads: 2 batch_first: true is_causal: true }',
            'name: "sum1" input: "input" input: "self_attn" add {}',
            'name: "norm2" layer_norm { normalized_shape: 8 }',
            'name: "linear1" linear { in_features: 8 out_features: 16 }',
            "silu {}",
            'name: "linear2" linear { in_features: 16 out_features: 8 }',
            'input: "sum1" input: "linear2" add {}'])

    def test_recurrent_layers_begin_with_zeros_anyway(self):
        self.assertLayers(
            Recurrent("LSTM"), [SEQUENCE],
            'name: "rnn" lstm { input_size: 6 hidden_size: 4 batch_first: true }',
            'name: "output_0" select { dim: 1 index: -1 }',
            'name: "output_1" input: "rnn:1" squeeze { dim: 0 }')

    def test_attention_weights_only_where_they_are_used(self):
        self.assertLayers(
            Attention(add_zero_attn=True), ["x=FP32[-1,-1,8]", "y=FP32[-1,-1,8]", "mask=BOOL[-1,-1]"],
            'name: "attention" input: "x" input: "y" input: "y" input: "key_padding_mask=mask" multihead_attention '
            "{ embed_dim: 8 num_heads: 2 add_zero_attn: true batch_first: true }",
            'name: "attention_1" parameters_of: "attention" multihead_attention '
            "{ embed_dim: 8 num_heads: 2 add_zero_attn: true batch_first: true need_weights: true }",
            'name: "output_0" identity {}',
            'name: "output_1" input: "attention_1:1" identity {}')

    def test_layers_by_hand(self):
        self.assertLayers(
            Wrapped(OwnNorm()), [ROWS],
            'name: "inner" layer_norm { normalized_shape: 6 eps: 1e-06 }',
            'name: "inner.kernel" parameter { shape: [4, 6] }',
            'name: "transpose" transpose {}',
            'input: "inner" input: "transpose" matmul {}')

    def test_parameters_and_buffers_by_themselves(self):
        self.assertLayers(
            Buffers(), [ROWS],
            'name: "mean" parameter { shape: 6 buffer: true }',
            'name: "sub" input: "x" input: "mean" sub {}',
            'name: "scale" parameter {}',
            'name: "mul" input: "sub" input: "scale" mul {}',
            'name: "rows.0" parameter { shape: 6 }',
            'name: "add" input: "mul" input: "rows.0" add {}',
            'name: "rows.1" parameter { shape: 6 }',
            'name: "add_1" input: "add" input: "rows.1" add {}',
            'name: "kept" parameter { shape: 6 datatype: "BOOL" buffer: true }',
            'input: "add_1" input: "kept" masked_fill {}')

    def test_subclasses_that_are_only_made_otherwise(self):
        self.assertEqual(layers_of(describe(Wrapped(MyGRU()), [SEQUENCE]))[0],
                         'name: "inner" gru { input_size: 6 hidden_size: 4 batch_first: true }')

    def test_outputs_carry_the_names_of_what_forward_returns(self):
        for shape, names in {
                (lambda a, b, h: a): ["output"],
                (lambda a, b, h: [a]): ["output_0"],
                (lambda a, b, h: (a, None, b)): ["output_0", "output_2"],
                (lambda a, b, h: {"left": a, "right": b, "h": h}): ["left", "right", "h"],
                (lambda a, b, h: {"deep": {"er": a}, "x": b}): ["deep_er", "x_1"],
                (lambda a, b, h: Result(a, (b, h))): ["logits", "hidden_0", "hidden_1"]}.items():
            text = describe(Heads(shape), [ROWS], leave_aside=True)
            self.assertEqual(re.findall(r'^output { name: "(.*?)"', text, re.MULTILINE), names, text)
            for name in names if names != ["output"] else []:
                self.assertIn(f'  layer {{ name: "{name}" ', text)

    def test_one_output_is_the_last_layer(self):
        self.assertLayers(Of(lambda x: x.chunk(2, 1)[1]), [ROWS],
                          'name: "chunk" chunk { chunks: 2 dim: 1 }', 'input: "chunk:1" identity {}')
        self.assertLayers(Of(lambda x: x), [ROWS], "identity {}")

    def test_sizes_that_are_known_only_at_run_time(self):
        for expression, kinds in {
                "x.view(x.size(0), -1)": ["reshape { shape: [0, -1] }"],
                "x.view(-1, 6)": ["reshape { shape: [-1, 6] }"],
                "x.view(len(x), 2, 3, x.shape[2])": ["reshape { shape: [0, 2, 3, -1] }"],
                "(x.unsqueeze(3) + x.unsqueeze(2)).view(len(x), 2, 3, x.size(2), x.size(2))": [
                    "unsqueeze { dim: 3 }", "unsqueeze { dim: 2 }", "add {}", "reshape { shape: [0, 2, 3, 0, -1] }"],
                "x.reshape(x.size(0), 2, -1)": ["reshape { shape: [0, 2, -1] }"],
                "x.view(x.size(0) * 6, x.size(2))": ["flatten { start_dim: 0 end_dim: 1 }"],
                "x[:, :, :x.size(2) - 1]": ["slice { dim: 2 end: -1 }"],
                "x[:, :, x.size(2) - 1]": ["select { dim: 2 index: -1 }"],
                "-x[:, :x.size(1)]": ["neg {}"],
                "x[:1].expand(x.size(0), -1, -1)": ["slice { end: 1 }", "expand_as { dim: 0 }"],
                "x[:, :1].expand(-1, 6, -1)": ["slice { dim: 1 end: 1 }", "concat {}"],
                "x.mean((0, 1)).expand(x.size(0), 6, x.size(2))": [
                    "mean { dim: [0, 1] }", "unsqueeze {}", "unsqueeze {}", "concat {}", "expand_as { dim: 0 }"],
                "x + torch.arange(x.size(2))": ["arange { dim: 2 }", "add {}"],
                "torch.arange(x.size(0))[:, None, None] * x": [
                    "arange { dim: 0 }", "unsqueeze { dim: 1 }", "unsqueeze { dim: 2 }", "mul {}"],
                "F.interpolate(x, size=x.size(2) * 2)": ["upsample { scale_factor: 2 }"]}.items():
            with self.subTest(expression):
                module = Of(eval(f"lambda x: {expression}", globals()))
                self.assertEqual(kinds_of(describe(module, ["x=FP32[-1,6,-1]"])), kinds)

    def test_sizes_that_are_given_are_constants(self):
        module = Of(lambda x: x[:, :, :x.size(2) // 2] / x.size(2) if x.size(2) > 3 else x)
        self.assertEqual(kinds_of(describe(module, ["x=FP32[-1,6,8]"])),
                         ["slice { dim: 2 end: 4 }", "div { value: 8 }"])

    def test_sizes_that_forward_fails_on_decide_nothing(self):
        def function(x):
            if int(x.size(1)) > 700 or len(x) == 1:
                raise KeyError("unheard of")
            return torch.relu(x)
        self.assertLayers(Of(function), ["x=FP32[-1,-1]"], "relu {}")

    def test_large_sizes_are_tried_as_far_as_they_are_affordable(self):
        for limit, most, largest in (("MOST_BYTES", 2**29, 1100), ("MOST_BYTES", 2**15, 275), ("MOST_BYTES", 2, 3),
                                     ("MOST_PRODUCTS", 36 * 600, 550)):
            sizes = []
            module = stack(nn.Linear(6, 6, bias=False), Of(lambda x: [sizes.append(len(x)), x * 2][1]))
            with self.subTest(largest), unittest.mock.patch.object(further, limit, most):
                describe(module, [ROWS])
                self.assertEqual(max(sizes), largest)

    def test_numbers_drawn_but_not_used_are_no_chance(self):
        def function(x):
            return -x if torch.rand([]) < 2 else x
        self.assertLayers(Of(function), [ROWS], "neg {}")

    def test_a_module_is_left_as_it_was(self):
        module = SimpleNet().train()
        module.fc1.eval()
        keys = list(module.state_dict())
        describe(module)
        self.assertTrue(module.training and module.fc2.training and not module.fc1.training)
        self.assertEqual(list(module.state_dict()), keys)
        self.assertFalse([name for name in vars(module) if "constant" in name])

    def test_inputs_may_be_objects_and_come_in_any_order(self):
        text = describe(Bilinear(), [Input("y", "FP32", (-1, 3)), "x=FP32[-1,4]"])
        self.assertEqual(re.findall(r'^input { name: "(.*?)"', text, re.MULTILINE), ["x", "y"])


# Functions that are refused, and a part of what is said of each.

REFUSED_FUNCTIONS = {
    "torch.cumprod": (lambda x: torch.cumprod(x, 1), "torch.cumprod: there is no layer for it"),
    ".sort()": (lambda x: x.sort(1)[0], ".sort(): there is no layer for it"),
    "operator.floordiv": (lambda x: x // 2, "operator.floordiv: there is no layer for it"),
    "item": (lambda x: x * x.sum().item(), ".item() reads the numbers in a tensor"),
    "numbers decide": (lambda x: x if x.sum() > 0 else -x, "decides by the numbers in a tensor"),
    "sizes decide": (lambda x: x if x.size(2) > 10 else x + x.size(1), "decides by a size that is known only at run"),
    "quotients decide": (lambda x: x if x.size(2) / 2 > 5 else x + x.size(1), "decides by a size that is known only"),
    "powers decide": (lambda x: x if 1 < abs(-x.size(2)) ** 0.5 else -x, "decides by a size that is known only"),
    "remainders decide": (lambda x: x if divmod(x.size(2), 4.0)[1] or x.size(2) & 1 else -x, "decides by a size that"),
    "minimum of sizes": (lambda x: x[:, :, :min(x.size(2), 10)], "decides by a size that is known only at run time"),
    "loop": (lambda x: sum(x[:, :, at] for at in range(x.size(2))), "which operations run from here on"),
    "product with a size": (lambda x: x * x.size(2), "operator.mul: computes with a size that is known only at run"),
    "quotient": (lambda x: x / math.sqrt(x.size(2)), "operator.truediv: computes with a size that is known only"),
    "padding by a size": (lambda x: F.pad(x, (0, x.size(2))), "F.pad: padding follows from a size that is known"),
    "repeated": (lambda x: x.repeat(1, 1, x.size(2)), ".repeat(): repeats dimension 2 as often as is known only"),
    "two new sizes": (lambda x: x.view(x.size(0) * 6 * x.size(2)).view(x.size(0), 6, x.size(2)),
                      ".view(): takes a dimension apart into several sizes that are known only at run time"),
    "half": (lambda x: x.chunk(2, dim=2)[0], ".chunk(): halves or quarters a size"),
    "squeeze": (lambda x: x.squeeze(), ".squeeze(): would drop a dimension of the inputs' whenever it is 1"),
    "chance": (lambda x: x + torch.rand_like(x), "torch.rand_like: there is no layer for it"),
    "dropout": (lambda x: F.dropout(x, 0.5), "F.dropout: drops numbers in eval mode, too"),
    "boolean index": (lambda x: x[x > 0], "operator.getitem: takes parts by a tensor of indices"),
    "large constant": (lambda x: x.mT @ torch.arange(36.0).view(6, 6).sin(),
                       "operator.matmul: is given a tensor of shape [6, 6] that forward makes"),
    "view": (lambda x: torch.stack([x, x])[0].view(torch.int32), ".view(): takes the bits of numbers for others"),
    "not finite": (lambda x: x * float("nan"), "operator.mul: computes with NaN"),
    "area": (lambda x: F.interpolate(x, size=3, mode="area"), 'F.interpolate: mode "area"'),
    "fmax": (lambda x: torch.fmax(x, -x), "torch.fmax: passes over NaN, which no layer does: use torch.maximum"),
    "fmin": (lambda x: x.fmin(-x), ".fmin(): passes over NaN"),
    "spectral norm": (lambda x: torch.linalg.norm(x, 2, dim=(1, 2)), "torch.linalg.norm: is the norm of a matrix, of"),
    "matrix norm": (lambda x: torch.linalg.norm(x[0], ord=1), "torch.linalg.norm: is the norm of a matrix, of order 1"),
    "torch.fft.fft": (lambda x: torch.fft.fft(x).real, "torch.fft.fft: there is no layer for it"),
}


class Assigns(nn.Module):
    def forward(self, x):
        y = x * 2
        y[:, 0] = 1
        return y


class Buffering(nn.Module):
    """Does something with a buffer."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("kept", torch.zeros(6))
        self.unregistered = torch.zeros(6)

    def forward(self, x):
        return self.function(self, x)


class Counting(nn.Module):
    calls = 0

    def forward(self, x):
        self.calls += 1
        for _ in range(self.calls):
            x = -x
        return x


def statement(text):
    """A function of x that runs statements and returns the last expression."""
    *before, last = text.split("; ")
    lines = [f"    {line}\n" for line in (*before, f"return {last}")]
    exec("def function(x):\n" + "".join(lines), globals(), made := {})
    return made["function"]


class WritesToAView(nn.Module):
    def forward(self, x):
        y = x * 2
        y[:, 0].add_(1)
        return y


class NotPersistent(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(6), persistent=False)

    def forward(self, x):
        return x * self.scale


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.fc9 = nn.Linear(6, 6), nn.Linear(6, 6)
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x, mask=None, scale=None):
        self.fc9(x)
        return self.fc(x)


class Unregistered(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(6, 6)]

    def forward(self, x):
        return self.layers[0](x)


class NameOfAnInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Linear(6, 6)

    def forward(self, x):
        return self.x(x)


class PartlyShared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


class ReadByItself(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(x) * self.fc.weight.sum()


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x):
        return self.fc(x) + x


class ScaledConv(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight * 2, self.bias)


def hooked():
    module = stack(nn.Linear(6, 6))
    module.inner[0].register_forward_hook(lambda *_: None)
    return module


class RefusedTest(unittest.TestCase):
    def problems(self, module, inputs, **options):
        with self.assertRaises(DescriptionError) as caught:
            print(describe(module, inputs, **options))
        return caught.exception.problems

    def test_functions(self):
        for name, (function, expected) in REFUSED_FUNCTIONS.items():
            with self.subTest(name):
                problem = self.problems(Of(function), ["x=FP32[-1,6,-1]"])[0]
                self.assertIn(expected, problem)
                self.assertRegex(problem, r"test_describe_module\.py:\d+: ")

    def test_modules(self):
        for module, inputs, *expected in [
                (Assigns(), [ROWS], "assigns to a part of a tensor"),
                (WritesToAView(), [ROWS], "was changed in place through a view of it"),
                (NotPersistent(), [ROWS], "buffer scale is not in the state dict"),
                (Unregistered(), [ROWS], "a Linear is called that is no submodule"),
                (NameOfAnInput(), [ROWS], 'Linear in x: is called as argument "x" of forward is'),
                (PartlyShared(), [ROWS], "Linear in b: shares weight with layer a, but not bias"),
                (ReadByItself(), [ROWS], ".sum(): reads fc.weight, which is a part of layer fc"),
                (stack(ScaledConv(6, 4, 3)), [IMAGE], "torch.conv2d in inner.0: its weight is neither a parameter"),
                (hooked(), [ROWS], "Linear in inner.0: has forward hooks"),
                (stack(nn.utils.weight_norm(nn.Linear(6, 6))), [ROWS], "Linear in inner.0: has forward hooks"),
                (stack(nn.BatchNorm1d(6, track_running_stats=False)), [ROWS], "the statistics of a batch"),
                (stack(nn.Embedding(9, 6, max_norm=1.0)), ["x=INT64[-1,-1]"], "max_norm changes its table"),
                (Padded(), PADDED, "TransformerEncoder in encoder: gives zeros", "with enable_nested_tensor=False"),
                (Seq2Seq(), ["src=FP32[-1,-1,8]", "tgt=FP32[-1,-1,8]", "mask=BOOL[-1,-1]"],
                 "Transformer in transformer: gives zeros", "with enable_nested_tensor=False"),
                (stack(nn.Unfold(2)), [IMAGE], "Unfold in inner.0: there is no layer for it"),
                (stack(nn.Linear(7, 6)), [ROWS], "Linear fails on inputs of shape [2, 6]", "x of shape [2, 6]"),
                (UNet(True), ["x=FP32[-1,3,-1,-1]"], "F.pad: padding follows from a size"),
                (LanguageModel("buffer"), [TOKENS], "operator.getitem: takes a part up to a size that is known only"),
                (nn.Linear(6, 6), ["input=FP32[-1,6]"], "a Linear by itself has parameters without names"),
                (Of(lambda x: (x, x.size(0))), [ROWS], "forward returns output_1, which does not follow"),
                (Of(lambda x: None), [ROWS], "forward returns no tensor")]:
            with self.subTest(type(module).__name__):
                problem = self.problems(module, inputs)[0]
                for part in expected:
                    self.assertIn(part, problem)

    def test_writes_into_what_forward_made(self):
        made = "h = torch.zeros(1, 6)"
        for text, operation in {
                f"{made}; h.add_(x.mean(0, keepdim=True)); x + h": ".add_()",
                f"{made}; h[0].copy_(x[0]); x + h": ".copy_()",
                f"{made}; row = h[0]; h.copy_(x[:1]); x + row": ".copy_()",
                f"{made}; h.copy_(x[:1]); h = h[[0, 0]] * 2; x[:2] + h": ".copy_()",
                f"{made}; h.copy_(x[:1]); h = h * 2; x + h": ".copy_()",
                "h = torch.zeros_like(x); h.copy_(x * 2); h": ".copy_()",
                "h = torch.zeros(x.shape); torch.mul(x, 2, out=h); h + x": "torch.mul",
                "h = torch.zeros(len(x), 6); h.scatter_(1, x.argmax(1, keepdim=True), 1.0); h": ".scatter_()"}.items():
            with self.subTest(text):
                problem = self.problems(Of(statement(text)), [ROWS])[0]
                self.assertIn(f": reads a tensor that forward made and {operation} at ", problem)
                self.assertIn("wrote into: go on with what that returns instead", problem)
        problem = self.problems(Of(statement(f"{made}; h[:, 0] = x[0, 0]; x + h")), [ROWS])[0]
        self.assertIn("assigns to a part of a tensor", problem)

    def test_decisions_by_sizes_that_leave_no_note(self):
        parts = "which operations run from here on"
        for text, expected in {
                "x if int(x.size(1)) < 1000 else -x": parts,
                "x if float(x.size(1)) < 1000 else -x": parts,
                "x if 0.5 * x.size(1) < 500 else -x": parts,
                "x if math.sqrt(x.size(1)) < 30 else -x": parts,
                "x if torch.tensor(x.size(1)) < 1000 else -x": parts,
                "x if len(x) < 1000 else -x": parts,
                "x if len(x) > 1 else -x": parts,
                "x if len(x[0]) > 1 else -x": parts,
                "x * (2 if int(x.size(1)) < 1000 else 3)": "operator.mul: computes with a size that is known only at",
                "x * (2 if len(x) > 1 else 3)": "what operator.mul is given depends on a size that is known only at",
                "x[:, :min(int(x.size(1)), 1000)]": "operator.getitem: takes a part up to a size that is known only"
                }.items():
            with self.subTest(text):
                problem, = self.problems(Of(statement(text)), ["x=FP32[-1,-1]"])
                self.assertIn(expected, problem)
                self.assertIn("known only at run time: if it is always the same, give it in --input", problem)

    def test_chance(self):
        for text in ("x + torch.rand(6)", "x * random.random()", "x[:, :random.randrange(2, 9999)]"):
            for inputs in (["x=FP32[3,6]"], [ROWS]):
                with self.subTest(f"{text} of {inputs}"):
                    problem, = self.problems(Of(statement(text)), inputs)
                    self.assertIn("is not the same when forward runs again: it depends on chance, or on what", problem)
        problem, = self.problems(Counting(), [ROWS])
        self.assertIn("operator.neg is not the same when forward runs again", problem)

    def test_what_was_to_be_written_into_is_left_as_it_was(self):
        kept = torch.zeros(1, 6)
        self.problems(Of(lambda x: [kept.add_(x), x + kept]), [ROWS])
        self.assertIs(type(kept), torch.Tensor)
        self.assertEqual((kept + 1).sum(), 6)

    def test_writes_into_what_is_kept(self):
        for function, operation in {
                (lambda self, x: [self.kept.add_(x.mean(0)), x + self.kept][1]): ".add_() writes into kept: ",
                (lambda self, x: [self.kept[:3].add_(1), x + self.kept][1]): ".add_() writes into kept: ",
                (lambda self, x: [x + self.unregistered, self.unregistered.add_(x[0])][0]): "into unregistered: ",
                (lambda self, x: torch.add(self.kept, x[0], out=self.kept)): "torch.add writes into kept: ",
                (lambda self, x: setattr(self.kept, "data", x[0])): "assigns to the data of a tensor"}.items():
            self.assertIn(operation, self.problems(Buffering(function), [ROWS])[0])

    def test_all_at_once_each_with_its_place(self):
        module = stack(nn.Unfold(2), Of(lambda x: torch.cumprod(x, 1)), nn.BatchNorm1d(24, track_running_stats=False))
        unfold, product, norm = self.problems(module, [IMAGE])
        self.assertRegex(unfold, r"^[\w./]*test_describe_module.py:\d+: Unfold in inner.0: ")
        self.assertRegex(product, r"^[\w./]*test_describe_module.py:\d+: torch.cumprod in inner.1: ")
        self.assertIn(": BatchNorm1d in inner.2: ", norm)

    def test_inputs(self):
        for inputs, expected in [
                ([], 'argument "tokens" of forward: give its type and shape'),
                (["ids=INT64[-1,-1]"], "--input ids: forward has no such argument, it has tokens"),
                (["tokens=INT64[-1,-1]", "tokens=INT64[-1,-1]"], "--input tokens: is given 2 times"),
                (["tokens=int[-1]"], 'input "tokens" has type "int", it can be BOOL'),
                (["tokens=INT64[0]"], 'input "tokens" has a size of 0'),
                (["tokens=INT64[1,,2]"], 'input "tokens" has shape "[1,,2]"'),
                (["tokens"], 'input "tokens" is not like x=FP32[-1,3,224,224]')]:
            with self.subTest(inputs):
                self.assertIn(expected, self.problems(Tied("module"), inputs)[0])
        self.assertEqual(self.problems(Bilinear(), ["x=FP32[-1,4]"]), [
            'argument "y" of forward: give its type and shape, as in --input y=FP32[-1,3,224,224]'])

    def test_an_input_is_deduced_only_where_it_goes_to_that_layer_alone(self):
        self.assertEqual(self.problems(Around(), []), [
            'argument "x" of forward: give its type and shape, as in --input x=FP32[-1,3,224,224]'])

    def test_what_reaches_no_output(self):
        problems = self.problems(Unused(), [ROWS, "mask=BOOL[-1]"])
        self.assertEqual([problem.partition(",")[0] for problem in problems], [
            'argument "mask" of forward reaches no output: give it a default value',
            "buffer steps is in the state dict", "parameter fc9.weight is in the state dict",
            "parameter fc9.bias is in the state dict"])
        text = describe(Unused(), [ROWS], leave_aside=True)
        self.assertIn("\ncheckpoints { strict: false }\nnetwork {\n", text)
        self.assertEqual(layers_of(text), ['name: "fc" linear { in_features: 6 out_features: 6 }'])


class VocabularyTest(unittest.TestCase):
    def test_every_kind_and_argument_is_the_descriptions(self):
        from google.protobuf import descriptor_pb2
        with tempfile.NamedTemporaryFile() as compiled:
            subprocess.run(["protoc", "-o", compiled.name, "-I", ROOT / "proto", "relight/v1/model_config.proto"],
                           check=True)
            file, = descriptor_pb2.FileDescriptorSet.FromString(compiled.read()).file
        messages = {message.name: message for message in file.message_type}
        kinds = {field.name: [argument.name for argument in messages[field.type_name.rpartition(".")[2]].field]
                 for field in messages["Layer"].field if field.HasField("oneof_index")}
        self.assertLessEqual(set(KINDS), set(kinds))
        for kind, arguments in KINDS.items():
            self.assertLessEqual(set(arguments), set(kinds[kind]), kind)


class PlansTest(unittest.TestCase):
    def test_free_sizes_differ_from_each_other_and_between_runs(self):
        first, second = next(plans([Input("x", "FP32", (-1, 3, -1, -1))]))
        batch, rows, columns = zip(*((run["x"][0], run["x"][2], run["x"][3]) for run in (first, second)))
        self.assertEqual((first["x"][1], second["x"][1]), (3, 3))
        self.assertEqual(len({batch, rows, columns}), 3)
        for sizes in (batch, rows, columns):
            self.assertNotEqual(*sizes)
        self.assertGreater(max(rows[0], columns[0]), 1.5 * min(rows[0], columns[0]))

    def test_batches_are_alike_and_other_sizes_only_where_they_must_be(self):
        ways = plans([Input("a", "FP32", (-1, -1)), Input("b", "FP32", (-1, -1))])
        first, second = (next(ways)[0] for _ in range(2))
        self.assertEqual(first["a"][0], first["b"][0])
        self.assertNotEqual(first["a"][1], first["b"][1])
        self.assertEqual(second["a"], second["b"])

    def test_without_free_sizes_there_is_one_run(self):
        self.assertEqual(list(plans([Input("x", "FP32", (1, 3))])), [[{"x": (1, 3)}]])


class ToolTest(unittest.TestCase):
    MODULES = """
        import torch

        class Net(torch.nn.Module):
            def __init__(self, width=10, kind="relu"):
                super().__init__()
                self.fc = torch.nn.Linear(width, 2)
                self.kind = kind

            def forward(self, x):
                return getattr(torch, self.kind)(self.fc(x))

        def broken():
            return Net(kind="erfinv")

        net = Net(3)
        number = 3
        """

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "nets").mkdir()
        (self.folder / "nets" / "small.py").write_text(textwrap.dedent(self.MODULES))

    def run_tool(self, *arguments):
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, TOOL, *arguments], cwd=self.folder, env=environment,
                              capture_output=True, text=True)

    def test_writes_to_the_standard_output_or_a_file(self):
        said = self.run_tool("nets.small:Net", "--arg", "width=5", "--arg", "kind=tanh")
        self.assertEqual((said.returncode, said.stderr), (0, ""))
        self.assertEqual(layers_of(said.stdout),
                         ['name: "fc" linear { in_features: 5 out_features: 2 }', "tanh {}"])
        written = self.run_tool("nets.small:net", "--input", "x=FP32[-1,7,3]", "--output", "model.textproto")
        self.assertEqual((written.returncode, written.stdout, written.stderr), (0, "", ""))
        self.assertIn("shape: [-1, 7, 3]", (self.folder / "model.textproto").read_text())

    def test_problems_stand_on_the_standard_error_one_a_line(self):
        refused = self.run_tool("nets.small:broken", "--output", "model.textproto")
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertEqual(refused.stderr, "nets/small.py:11: torch.erfinv: there is no layer for it\n")
        self.assertFalse((self.folder / "model.textproto").exists())

    def test_modules_that_are_not_there(self):
        for name, expected in {
                "nets.small": "is not like package.module:factory",
                "nets.large:Net": "is not there: No module named",
                "nets.small:Nett": "is not there: module 'nets.small' has no attribute 'Nett'",
                "nets.small:number": "is neither a module nor something that gives one",
                "nets.small:torch.zeros": "cannot be called so, give what it takes by --arg"}.items():
            with self.subTest(name):
                refused = self.run_tool(name)
                self.assertEqual(refused.returncode, 1)
                self.assertIn(f'"{name}" {expected}', refused.stderr)

    def test_arguments_that_are_none(self):
        for arguments in (["--input", "x=[3]"], ["--arg", "width"], []):
            with self.subTest(arguments):
                refused = self.run_tool(*(["nets.small:Net"] if arguments else []), *arguments)
                self.assertEqual(refused.returncode, 2)
                self.assertIn("usage: describe_module", refused.stderr)


if __name__ == "__main__":
    unittest.main()
