"""Cases for run_networks and what it leaves behind, and how far two tensors may be apart."""
import json
import os

import torch

from layer_grid import DATATYPES

TYPES = {name: dtype for dtype, name in DATATYPES.items()}


def write_case(folder, text, inputs):
    """Makes the folder of a case; its weights.pt is the caller's."""
    os.mkdir(folder)
    with open(os.path.join(folder, "model.textproto"), "w") as file:
        file.write(text)
    with open(os.path.join(folder, "inputs.json"), "w") as file:
        json.dump([{"datatype": DATATYPES[tensor.dtype], "shape": list(tensor.shape)} for tensor in inputs], file)
    for i, tensor in enumerate(inputs):
        with open(os.path.join(folder, f"input_{i}.bin"), "wb") as file:
            file.write(bytes_of(tensor))


def error_of(folder):
    path = os.path.join(folder, "error.txt")
    if not os.path.exists(path):
        return None
    with open(path) as file:
        return file.read()


class Answers:
    """The outputs of a case that had no error. `signature` has (name, datatype, shape) of each."""

    def __init__(self, folder):
        self.folder = folder
        with open(os.path.join(folder, "outputs.json")) as file:
            self.signature = [(one["name"], one["datatype"], one["shape"]) for one in json.load(file)]

    def tensor(self, i):
        _, datatype, shape = self.signature[i]
        with open(os.path.join(self.folder, f"output_{i}.bin"), "rb") as file:
            return tensor_of(file.read(), TYPES[datatype], shape)


def parameters_of(folder):
    """Shapes by key, of what the graph of a case knows."""
    with open(os.path.join(folder, "parameters.json")) as file:
        return {key: tuple(shape) for key, shape in json.load(file).items()}


def bytes_of(tensor):
    tensor = tensor.contiguous()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy().tobytes()


def tensor_of(content, dtype, shape):
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


def difference(actual, expected, tolerance):
    """The largest error where it is too large; None where it is not."""
    actual, expected = actual.double(), expected.double()
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    if same.all():
        return None
    errors = (actual - expected).abs().masked_fill(same, 0).nan_to_num(nan=float("inf"))
    largest = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 0
    worst = errors.max().item()
    if worst <= tolerance * largest:
        return None
    at = errors.flatten().argmax().item()
    return (f"the largest error is {worst:g}, of a largest number of {largest:g} ({tolerance:g} of it is allowed): "
            f"{actual.flatten()[at]:g} in place of {expected.flatten()[at]:g} at element {at}; "
            f"{(~same).sum()} of {same.numel()} differ")
