#!/usr/bin/python3
"""Writes tests/data/fixture_nets.json: SimpleNet and the conv + batch norm net of tests/data/io as
described networks, with the weights of the checkpoints that tests/data/io was computed from.

usage: make_fixture_cases.py FOLDER   (holds model_state.pth and conv_bn_state.pth)
"""
import json
import os
import sys

import torch

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data")

SIMPLE_NET = """input { name: "x" datatype: "FP32" shape: -1 shape: 10 }
network {
  layer { name: "fc1" linear { out_features: 5 } }
  layer { relu { } }
  layer { name: "fc2" linear { out_features: 2 } }
}
"""
CONV_BN = """input { name: "x" datatype: "FP32" shape: -1 shape: 3 shape: 4 shape: 4 }
network {
  layer { name: "features.0" conv2d { out_channels: 4 kernel_size: 3 padding: 1 bias: false } }
  layer { name: "features.1" batch_norm2d { } }
  layer { relu { } }
  layer { flatten { } }
  layer { name: "head" linear { out_features: 3 } }
}
"""


def dump(tensor):
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape),
            "data": tensor.flatten().tolist()}


def case(name, text, state, io_file, io_key):
    with open(os.path.join(DATA, "io", io_file), encoding="utf-8") as file:
        answers = json.load(file)[io_key]
    return {
        "name": name,
        "textproto": text,
        "parameters": {key: dump(value) for key, value in state.items()},
        "inputs": [{"dtype": "float32", "shape": answers["input_shape"], "data": answers["input"]}],
        "outputs": [{"dtype": "float32", "shape": answers["output_shape"],
                     "data": answers["output"]}],
    }


simple = torch.load(os.path.join(sys.argv[1], "model_state.pth"))
conv = torch.load(os.path.join(sys.argv[1], "conv_bn_state.pth"))
# The net multiplies by a buffer before its head, which no layer does; 0.5 folds in exactly.
conv["head.weight"] *= conv.pop("scale")
cases = [case("SimpleNet", SIMPLE_NET, simple, "simplenet.json", "model_state.pth"),
         case("ConvBnNet", CONV_BN, conv, "conv_bn.json", "conv_bn_state.pth")]
with open(os.path.join(DATA, "fixture_nets.json"), "w", encoding="utf-8") as out:
    out.write("[\n" + ",\n".join(json.dumps(entry) for entry in cases) + "\n]\n")
