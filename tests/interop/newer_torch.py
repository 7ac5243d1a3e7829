"""The newer PyTorch's part of newer_torch_test.py; runs where that PyTorch is, and knows nothing of
relight.

  newer_torch.py save FOLDER    saves checkpoints in every way, and what they answer (cases.json)
  newer_torch.py check FOLDER   loads the snapshots that were taken of them, and trains on
"""
import copy
import json
import os
import sys

import safetensors.torch
import torch

OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
}


class SimpleNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(10, 5)
        self.relu = torch.nn.ReLU()
        self.fc2 = torch.nn.Linear(5, 2)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


def train(model, optimizer, steps):
    """The loss, parameters and optimizer state of each step."""
    history = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 10, generator=generator), torch.randn(8, 2, generator=generator)
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((loss.item(), copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())))
    return history


def trained(seed, make_optimizer):
    torch.manual_seed(seed)
    model = SimpleNet()
    optimizer = make_optimizer(model.parameters())
    train(model, optimizer, 3)
    return model, optimizer


def save_all(folder):
    """Every way of saving: name of the file, model, and the key of its bundle's optimizer if any."""
    cases = []

    def add(name, model, save, bundle=None):
        save(os.path.join(folder, name))
        x = torch.linspace(-2, 2, 40).reshape(4, 10)
        with torch.no_grad():
            y = model(x)
        cases.append({"file": name, "optimizer": bundle, "input": x.tolist(), "output": y.tolist()})

    for seed, (kind, make_optimizer) in enumerate(OPTIMIZERS.items()):
        model, optimizer = trained(seed, make_optimizer)
        bundle = {"epoch": 3, "loss": 0.5, "model_state_dict": model.state_dict(),
                  "optimizer_state_dict": optimizer.state_dict()}
        add(f"bundle-{kind}.pt", model, lambda path, b=bundle: torch.save(b, path), kind)
    for seed, (name, save) in enumerate({
            "state.pt": lambda model, path: torch.save(model.state_dict(), path),
            "legacy.pt": lambda model, path: torch.save(
                model.state_dict(), path, _use_new_zipfile_serialization=False),
            "protocol-5.pt": lambda model, path: torch.save(model.state_dict(), path, pickle_protocol=5),
            "module.pt": lambda model, path: torch.save(model, path),
            "compiled.pt": lambda model, path: torch.save(
                {"_orig_mod." + key: value for key, value in model.state_dict().items()}, path),
            "module.safetensors": lambda model, path: safetensors.torch.save_file(model.state_dict(), path),
    }.items(), 10):
        model, _ = trained(seed, OPTIMIZERS["adam"])
        add(name, model, lambda path, m=model, s=save: s(m, path))
    # As newer versions can be told.
    model, _ = trained(20, OPTIMIZERS["adam"])
    torch.serialization.set_crc32_options(False)
    add("without-checksums.pt", model, lambda path: torch.save(model.state_dict(), path))
    torch.serialization.set_crc32_options(True)
    with open(os.path.join(folder, "cases.json"), "w") as file:
        json.dump({"torch": torch.__version__, "cases": cases}, file)


def check(condition, what):
    if not condition:
        raise SystemExit(f"newer_torch: {what}")


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


def resumed(bundle, kind):
    model = SimpleNet()
    model.load_state_dict(bundle["model_state_dict"], strict=True)
    optimizer = OPTIMIZERS[kind](model.parameters())
    optimizer.load_state_dict(bundle["optimizer_state_dict"])
    return train(model, optimizer, 2)


def state_of(path):
    """The state dict of an original, by its usual names."""
    if path.endswith(".safetensors"):
        return safetensors.torch.load_file(path)
    value = torch.load(path, weights_only=False)
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    return value.get("model_state_dict", value)


def check_all(folder):
    with open(os.path.join(folder, "cases.json")) as file:
        cases = json.load(file)["cases"]
    for case in cases:
        name, kind = case["file"], case["optimizer"]
        original = os.path.join(folder, name)
        for mmap in (False, True):
            # weights_only is left at its default, which is True here.
            snapshot = torch.load(os.path.join(folder, "snapshots", name + ".own.pt"), mmap=mmap)
            if kind is None:
                check(equal(dict(snapshot), dict(state_of(original))), f"{name}: another state dict, mmap={mmap}")
                SimpleNet().load_state_dict(
                    {key.removeprefix("_orig_mod."): value for key, value in snapshot.items()}, strict=True)
                continue
            whole = torch.load(original, weights_only=False)
            check(equal(whole, snapshot), f"{name}: another bundle, mmap={mmap}")
            check(equal(resumed(whole, kind), resumed(snapshot, kind)), f"{name}: training goes on otherwise")
        weights = torch.load(os.path.join(folder, "snapshots", name + ".weights.pt"), mmap=True)
        check(equal(dict(weights), dict(state_of(original))), f"{name}: other weights")
        tensors = safetensors.torch.load_file(os.path.join(folder, "snapshots", name + ".safetensors"))
        check(equal(dict(sorted(tensors.items())), dict(sorted(state_of(original).items()))),
              f"{name}: other tensors as safetensors")
    print(f"PyTorch {torch.__version__} loads the snapshots of {len(cases)} checkpoints")


if __name__ == "__main__":
    {"save": save_all, "check": check_all}[sys.argv[1]](sys.argv[2])
