#!/usr/bin/python3
"""Writes tests/data/layers.json: every kind of layer over a few arguments, with the answers that
PyTorch gives. Run it again only to add cases; the file is checked in.

Each case: a network as model.textproto says it, its parameters, inputs and outputs. Values are
multiples of 1/64, so that the file is short and exact.
"""
import json
import os
import sys

import torch
import torch.nn as nn

torch.manual_seed(20)
CASES = []


def rounded(tensor):
    return torch.round(tensor * 64) / 64


def dump(tensor):
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "data": [round(float(v), 7) if tensor.is_floating_point() else int(v)
                 for v in tensor.detach().flatten()],
    }


def randomise(module):
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            values = rounded(torch.randn(tensor.shape))
            tensor.copy_(values.abs() + 0.5 if "running_var" in key else values)


def tensor_text(kind, name, tensor, free_batch=True):
    names = {torch.float32: "FP32", torch.int64: "INT64"}
    shape = list(tensor.shape)
    if free_batch:
        shape[0] = -1
    text = " ".join(f"shape: {size}" for size in shape)
    return f'{kind} {{ name: "{name}" datatype: "{names[tensor.dtype]}" {text} }}\n'


def add(name, layers, compute, inputs, modules=None, outputs=None):
    """`layers`: the text of the network. `compute(*inputs)` gives the outputs."""
    parameters = {}
    for prefix, module in (modules or {}).items():
        randomise(module)
        module.eval()
        for key, tensor in module.state_dict().items():
            parameters[f"{prefix}.{key}"] = dump(tensor)
    with torch.no_grad():
        results = compute(*inputs.values())
    results = results if isinstance(results, tuple) else (results,)
    text = "".join(tensor_text("input", key, value) for key, value in inputs.items())
    for key in outputs or []:
        text += f'output {{ name: "{key}" datatype: "FP32" '
        text += " ".join(f"shape: {s}" for s in [-1] + list(results[outputs.index(key)].shape)[1:])
        text += " }\n"
    text += "network {\n" + "".join(f"  layer {{ {line} }}\n" for line in layers) + "}\n"
    CASES.append({
        "name": name,
        "textproto": text,
        "parameters": parameters,
        "inputs": [dump(value) for value in inputs.values()],
        "outputs": [dump(value) for value in results],
    })


def one(name, layer, module, shape, has_parameters=True):
    add(name, [f'name: "layer" {layer}'], module.eval(), {"x": rounded(torch.randn(shape) * 2)},
        {"layer": module} if has_parameters else None)


def layers():
    one("Linear", "linear { out_features: 3 }", nn.Linear(5, 3), (2, 5))
    one("LinearWithoutBias", "linear { out_features: 3 bias: false }",
        nn.Linear(5, 3, bias=False), (2, 5))
    one("LinearOnThreeDimensions", "linear { out_features: 3 }", nn.Linear(5, 3), (2, 4, 5))
    one("Conv2d", "conv2d { out_channels: 3 kernel_size: 3 }", nn.Conv2d(2, 3, 3), (2, 2, 5, 6))
    one("Conv2dWithEverything",
        "conv2d { out_channels: 4 kernel_size: 3 kernel_size: 2 stride: 2 stride: 1 "
        "padding: 1 padding: 2 dilation: 1 dilation: 2 groups: 2 bias: false }",
        nn.Conv2d(4, 4, (3, 2), (2, 1), (1, 2), (1, 2), groups=2, bias=False), (1, 4, 6, 7))
    one("BatchNorm1dOfRows", "batch_norm1d { }", nn.BatchNorm1d(4), (3, 4))
    one("BatchNorm1dOfSequences", "batch_norm1d { eps: 0.1 }", nn.BatchNorm1d(4, eps=0.1),
        (2, 4, 3))
    one("BatchNorm2d", "batch_norm2d { }", nn.BatchNorm2d(3), (2, 3, 2, 2))
    one("BatchNorm2dWithoutAffine", "batch_norm2d { affine: false }",
        nn.BatchNorm2d(3, affine=False), (2, 3, 2, 2))
    plain = [
        ("MaxPool2d", "max_pool2d { kernel_size: 2 }", nn.MaxPool2d(2), (1, 2, 5, 4)),
        ("MaxPool2dWithEverything",
         "max_pool2d { kernel_size: 3 kernel_size: 2 stride: 2 padding: 1 dilation: 1 dilation: 2 "
         "ceil_mode: true }",
         nn.MaxPool2d((3, 2), 2, 1, (1, 2), ceil_mode=True), (1, 1, 6, 7)),
        ("AvgPool2d", "avg_pool2d { kernel_size: 2 }", nn.AvgPool2d(2), (1, 2, 5, 4)),
        ("AvgPool2dWithEverything",
         "avg_pool2d { kernel_size: 3 kernel_size: 2 stride: 2 stride: 1 padding: 1 "
         "ceil_mode: true count_include_pad: false }",
         nn.AvgPool2d((3, 2), (2, 1), 1, ceil_mode=True, count_include_pad=False), (1, 1, 6, 5)),
        ("AdaptiveAvgPool2d", "adaptive_avg_pool2d { output_size: 2 output_size: 3 }",
         nn.AdaptiveAvgPool2d((2, 3)), (1, 2, 5, 7)),
        ("Flatten", "flatten { }", nn.Flatten(), (2, 3, 2, 2)),
        ("FlattenSomeDimensions", "flatten { start_dim: 2 end_dim: 3 }", nn.Flatten(2, 3),
         (2, 3, 2, 2)),
        ("Dropout", "dropout { p: 0.9 }", nn.Dropout(0.9), (2, 3)),
        ("Softmax", "softmax { }", nn.Softmax(-1), (2, 3)),
        ("SoftmaxOverDimensionOne", "softmax { dim: 1 }", nn.Softmax(1), (2, 3, 2)),
        ("LogSoftmax", "log_softmax { }", nn.LogSoftmax(-1), (2, 3)),
        ("Identity", "identity { }", nn.Identity(), (2, 3)),
        ("Relu", "relu { }", nn.ReLU(), (2, 7)),
        ("Relu6", "relu6 { }", nn.ReLU6(), (4, 7)),
        ("Sigmoid", "sigmoid { }", nn.Sigmoid(), (2, 7)),
        ("Tanh", "tanh { }", nn.Tanh(), (2, 7)),
        ("Silu", "silu { }", nn.SiLU(), (2, 7)),
        ("Hardswish", "hardswish { }", nn.Hardswish(), (4, 7)),
        ("Hardsigmoid", "hardsigmoid { }", nn.Hardsigmoid(), (4, 7)),
        ("Gelu", "gelu { }", nn.GELU(), (2, 7)),
        ("GeluByTanh", 'gelu { approximate: "tanh" }', nn.GELU("tanh"), (2, 7)),
        ("LeakyRelu", "leaky_relu { }", nn.LeakyReLU(), (2, 7)),
        ("LeakyReluWithSlope", "leaky_relu { negative_slope: 0.25 }", nn.LeakyReLU(0.25), (2, 7)),
        ("Elu", "elu { }", nn.ELU(), (2, 7)),
        ("EluWithAlpha", "elu { alpha: 2.5 }", nn.ELU(2.5), (2, 7)),
        ("Softplus", "softplus { }", nn.Softplus(), (2, 7)),
        ("SoftplusWithEverything", "softplus { beta: 2 threshold: 1 }", nn.Softplus(2, 1), (2, 7)),
        ("Hardtanh", "hardtanh { }", nn.Hardtanh(), (2, 7)),
        ("HardtanhWithLimits", "hardtanh { min_val: -0.5 max_val: 2 }", nn.Hardtanh(-0.5, 2),
         (2, 7)),
    ]
    for name, text, module, shape in plain:
        one(name, text, module, shape, has_parameters=False)


def nets():
    x = {"x": rounded(torch.randn(2, 4))}
    two = {"a": rounded(torch.randn(2, 3)), "b": rounded(torch.randn(2, 3))}
    add("AddOfThree", ['name: "sum" input: "a" input: "b" input: "a" add { }'],
        lambda a, b: a + b + a, two)
    add("Mul", ['name: "product" input: "a" input: "b" mul { }'], lambda a, b: a * b, two)
    add("Concat", ['name: "joined" input: "b" input: "a" concat { }'],
        lambda a, b: torch.cat([b, a], 1), two)
    fc = nn.Linear(4, 4)
    add("ResidualBlock",
        ['name: "fc" linear { out_features: 4 }', 'name: "act" relu { }',
         'name: "sum" input: "act" input: "x" add { }', 'relu { }'],
        lambda v: torch.relu(torch.relu(fc(v)) + v), x, {"fc": fc})
    one_, other = nn.Linear(4, 2), nn.Linear(4, 3)
    add("TwoHeadsAndTheirTrunk",
        ['name: "trunk" tanh { }', 'name: "left" linear { out_features: 2 }',
         'name: "right" input: "trunk" linear { out_features: 3 }'],
        lambda v: (other(torch.tanh(v)), one_(torch.tanh(v)), torch.tanh(v)), x,
        {"left": one_, "right": other}, outputs=["right", "left", "trunk"])
    kept = nn.Linear(4, 4)
    add("ReluDoesNotWriteToWhatIsStillNeeded",
        ['name: "fc" linear { out_features: 4 }', 'name: "act" relu { }',
         'name: "sum" input: "fc" input: "act" add { }'],
        lambda v: (kept(v) + torch.relu(kept(v)), kept(v)), x, {"fc": kept},
        outputs=["sum", "fc"])
    conv, norm, last = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)
    pool = nn.AdaptiveAvgPool2d(1)
    add("SmallConvNet",
        ['name: "conv" conv2d { out_channels: 4 kernel_size: 3 padding: 1 }',
         'name: "bn" batch_norm2d { }', 'relu { }', 'adaptive_avg_pool2d { output_size: 1 }',
         'flatten { }', 'name: "fc" linear { out_features: 2 }'],
        lambda v: last(pool(torch.relu(norm(conv(v)))).flatten(1)),
        {"x": rounded(torch.randn(2, 3, 6, 6))}, {"conv": conv, "bn": norm, "fc": last})


layers()
nets()
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/layers.json")
with open(sys.argv[1] if len(sys.argv) > 1 else path, "w", encoding="utf-8") as file:
    file.write("[\n" + ",\n".join(json.dumps(case) for case in CASES) + "\n]\n")
