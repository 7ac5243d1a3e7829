#!/usr/bin/python3
"""Writes tests/data/torchscript/: small archives, good ones and such as must be refused, and
cases.json with two sets of weights and the answers that PyTorch gives with each.

Run it with the oldest PyTorch that relight supports (1.13), whose archives every later one reads.
"""
import json
import os

import torch
import torch.nn as nn

torch.manual_seed(21)
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../data/torchscript")
CASES = []


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
            if tensor.is_floating_point():
                values = torch.round(torch.randn(tensor.shape) * 64) / 64
                tensor.copy_(values.abs() + 0.5 if "running_var" in key else values)


def save(name, archive):
    archive.save(os.path.join(FOLDER, name))


def answers(module, inputs):
    with torch.no_grad():
        results = module(*[value.clone() for value in inputs])
    return list(flat(results.values() if isinstance(results, dict) else results))


def flat(results):
    if isinstance(results, torch.Tensor):
        yield results
    else:
        for result in results:
            yield from flat(result)


def case(name, module, inputs, trace=True, output_names=None):
    module.eval()
    randomise(module)
    archive = torch.jit.trace(module, inputs) if trace else torch.jit.script(module)
    save(name, archive)
    versions = []
    for _ in range(2):
        randomise(module)
        state = {key: dump(value) for key, value in module.state_dict().items()}
        versions.append({"parameters": state,
                         "outputs": [dump(value) for value in answers(module, inputs)]})
    entry = {"name": name.removesuffix(".pt"), "file": name,
             "inputs": [dump(value) for value in inputs], "versions": versions}
    if output_names:
        entry["output_names"] = output_names
    CASES.append(entry)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(),
                                  nn.Dropout(0.5))
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.body(x).mean([2, 3]))


class Tied(nn.Module):
    """The decoder uses the encoder's weight."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(3, 3, bias=False)
        self.decoder = nn.Linear(3, 3)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(torch.tanh(self.encoder(x)))


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("offset", torch.zeros(2))

    def forward(self, a, b):
        y = self.fc(a) + self.offset
        return y, b * 2, a


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return [self.fc(x), x]


class Nested(nn.Module):
    """As an LSTM answers."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        y = self.fc(x)
        return y, (x * 2, y + 1)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        y = self.fc(x)
        return {"logits": y, "hidden": torch.tanh(x), "probabilities": torch.softmax(y, 1)}


class HasAFixedKernel(nn.Module):
    """A constant of its own beside what it learns."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.kernel = torch.tensor([[1.0, -1.0]])

    def forward(self, x):
        return nn.functional.linear(self.fc(x), self.kernel)


class WritesToItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        x.mul_(2)
        return self.fc(x)


class KeepsAConstantBuffer(nn.Module):
    """Its state dict lacks the buffer, the archive has it as any other."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("scale", torch.tensor([2.0, 3.0]), persistent=False)

    def forward(self, x):
        return self.fc(x) * self.scale


class ReturnsItsParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x * self.scale, self.scale


class ReturnsAString(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x), "label"


class TakesANumber(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x, times: int):
        return self.fc(x) * times


class DrawsNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x) * torch.rand(1)


class CountsItsCalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += 1
        return self.fc(x)


def case_of_archive(name, input_json):
    """An archive that was there before, with its own weights and with others."""
    module = torch.jit.load(os.path.join(FOLDER, name)).eval()
    with open(os.path.join(FOLDER, "../io", input_json), encoding="utf-8") as file:
        known = json.load(file)[name]
    inputs = (torch.tensor(known["input"]).reshape(known["input_shape"]),)
    versions = []
    for _ in range(2):
        state = {key: {"dtype": "float32", "shape": list(value.shape),
                       "data": value.flatten().tolist()}
                 for key, value in module.state_dict().items()}
        versions.append({"parameters": state,
                         "outputs": [dump(value) for value in answers(module, inputs)]})
        randomise(module)
    versions[0]["outputs"][0]["data"] = known["output"]
    CASES.append({"name": name.removesuffix(".pt"), "file": name,
                  "inputs": [{"dtype": "float32", "shape": known["input_shape"],
                              "data": known["input"]}], "versions": versions})


def main():
    os.makedirs(FOLDER, exist_ok=True)
    case("conv_traced.pt", ConvNet(), (torch.randn(2, 1, 4, 4),))
    case("conv_scripted.pt", ConvNet(), (torch.randn(2, 1, 4, 4),), trace=False)
    case("tied.pt", Tied(), (torch.randn(2, 3),))
    case("several.pt", Several(), (torch.randn(2, 3), torch.arange(4).reshape(2, 2)))
    case("listed.pt", Listed(), (torch.randn(2, 3),), trace=False)
    case("nested.pt", Nested(), (torch.randn(2, 3),))
    case("named.pt", Named(), (torch.randn(2, 3),), trace=False,
         output_names=["logits", "hidden", "probabilities"])
    case("has_a_fixed_kernel.pt", HasAFixedKernel(), (torch.randn(2, 3),))
    case("writes_to_its_input.pt", WritesToItsInput(), (torch.randn(2, 3),), trace=False)
    case("keeps_a_constant_buffer.pt", KeepsAConstantBuffer(), (torch.randn(2, 3),))
    case_of_archive("torchscript.pt", "torchscript.json")
    case("returns_its_parameter.pt", ReturnsItsParameter(), (torch.randn(2, 3),), trace=False)
    with open(os.path.join(FOLDER, "cases.json"), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(entry) for entry in CASES) + "\n]\n")

    x = torch.randn(2, 3)
    dropout = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5)).train()
    save("dropout_traced_in_training.pt", torch.jit.trace(dropout, x, check_trace=False))
    norm = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    save("batch_norm_traced_in_training.pt", torch.jit.trace(norm, x, check_trace=False))
    save("frozen.pt", torch.jit.freeze(torch.jit.script(nn.Linear(3, 2).eval())))
    several = torch.jit.script(Several().eval())
    save("frozen_but_for_a_buffer.pt", torch.jit.freeze(several, preserved_attrs=["offset"]))
    save("returns_a_string.pt", torch.jit.script(ReturnsAString()))
    save("takes_a_number.pt", torch.jit.script(TakesANumber()))
    save("draws_numbers.pt", torch.jit.script(DrawsNumbers()))
    save("counts_its_calls.pt", torch.jit.script(CountsItsCalls()))


main()
