"""The net that loading is measured with: linear layers, so that nearly all of it is weights."""

import torch

LAYERS = 4


def make(width):
    """The net in PyTorch, its values still to come."""
    layers = {f"fc{i}": torch.nn.utils.skip_init(torch.nn.Linear, width, width)
              for i in range(1, LAYERS + 1)}
    net = torch.nn.Sequential()
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


def make_random(width):
    """Random in the first layer, which the others are like: random numbers take longer than all else."""
    net = make(width)
    for parameter in net[0].parameters():
        torch.nn.init.uniform_(parameter, -width ** -0.5, width ** -0.5)
    for layer in net[1:]:
        layer.load_state_dict(net[0].state_dict())
    return net


def config(width):
    """The same as model.textproto."""
    layers = [f'  layer {{ name: "fc{i}" linear {{ in_features: {width} out_features: {width} }} }}'
              for i in range(1, LAYERS + 1)]
    return "\n".join(["network {", *layers, "}", ""])


def weight_bytes(width):
    return LAYERS * (width + 1) * width * 4
