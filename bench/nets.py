"""The nets that are measured: what PyTorch trains, and how relight is told of it."""

import dataclasses
import typing

import torch

import linear_net


@dataclasses.dataclass(frozen=True)
class Net:
    name: str  # Also eager_loop's.
    config: str  # model.textproto.
    module: typing.Callable[[], torch.nn.Module]
    row: tuple  # The shape of one row of its input.


SIMPLENET = Net("simplenet", """
network {
  layer { name: "0" linear { in_features: 10 out_features: 5 } }
  layer { relu {} }
  layer { name: "2" linear { out_features: 2 } }
}
""", lambda: torch.nn.Sequential(torch.nn.Linear(10, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)),
                (10,))

MLP = Net("mlp", """
network {
  layer { name: "0" linear { in_features: 1024 out_features: 1024 } }
  layer { relu {} }
  layer { name: "2" linear { out_features: 1024 } }
  layer { relu {} }
  layer { name: "4" linear { out_features: 1024 } }
}
""", lambda: torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.ReLU(),
                                 torch.nn.Linear(1024, 1024), torch.nn.ReLU(),
                                 torch.nn.Linear(1024, 1024)), (1024,))

# A gigabyte of weights in float32, all of which each batch reads.
WIDE = Net("wide", linear_net.config(8192), lambda: linear_net.make_random(8192), (8192,))

# Takes 600 KB and computes next to nothing of it, for 4 KB: every twelfth pixel.
PIXELS = Net("pixels", """
input { name: "input" datatype: "FP32" shape: [-1, 3, 224, 224] }
network {
  layer { max_pool2d { kernel_size: 1 stride: 12 } }
  layer { name: "1" conv2d { in_channels: 3 out_channels: 3 kernel_size: 1 } }
}
""", lambda: torch.nn.Sequential(torch.nn.MaxPool2d(1, 12), torch.nn.Conv2d(3, 3, 1)),
             (3, 224, 224))


class Block(torch.nn.Module):
    """ResNet-18's, with torchvision's names."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(outputs)
        self.conv2 = torch.nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1:
            self.downsample = torch.nn.Sequential(
                torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                torch.nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(64)
        self.maxpool = torch.nn.MaxPool2d(3, 2, 1)
        for number, (inputs, outputs) in enumerate(STAGES, 1):
            self.add_module(f"layer{number}", torch.nn.Sequential(
                Block(inputs, outputs, 1 if inputs == outputs else 2), Block(outputs, outputs, 1)))
        self.fc = torch.nn.Linear(512, 1000)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(torch.flatten(torch.nn.functional.adaptive_avg_pool2d(x, 1), 1))


STAGES = [(64, 64), (64, 128), (128, 256), (256, 512)]


def _convolution(name, before, inputs, outputs, kernel, stride):
    return (f'  layer {{ name: "{name}" input: "{before}" conv2d {{ in_channels: {inputs} '
            f"out_channels: {outputs} kernel_size: {kernel} stride: {stride} "
            f"padding: {kernel // 2} bias: false }} }}")


def _block(name, before, inputs, outputs, stride):
    yield _convolution(f"{name}.conv1", before, inputs, outputs, 3, stride)
    yield f'  layer {{ name: "{name}.bn1" batch_norm2d {{}} }}'
    yield f'  layer {{ name: "{name}.relu1" relu {{}} }}'
    yield _convolution(f"{name}.conv2", f"{name}.relu1", outputs, outputs, 3, 1)
    yield f'  layer {{ name: "{name}.bn2" batch_norm2d {{}} }}'
    beside = before
    if stride != 1:
        yield _convolution(f"{name}.downsample.0", before, inputs, outputs, 1, stride)
        yield f'  layer {{ name: "{name}.downsample.1" batch_norm2d {{}} }}'
        beside = f"{name}.downsample.1"
    yield f'  layer {{ name: "{name}.add" input: ["{name}.bn2", "{beside}"] add {{}} }}'
    yield f'  layer {{ name: "{name}.relu2" relu {{}} }}'


def _resnet18_config():
    lines = ['input { name: "input" datatype: "FP32" shape: [-1, 3, 224, 224] }', "network {",
             _convolution("conv1", "input", 3, 64, 7, 2),
             '  layer { name: "bn1" batch_norm2d {} }',
             "  layer { relu {} }",
             '  layer { name: "maxpool" max_pool2d { kernel_size: 3 stride: 2 padding: 1 } }']
    before = "maxpool"
    for number, (inputs, outputs) in enumerate(STAGES, 1):
        for part in range(2):
            name = f"layer{number}.{part}"
            lines += _block(name, before, inputs if part == 0 else outputs, outputs,
                            2 if part == 0 and inputs != outputs else 1)
            before = f"{name}.relu2"
    return "\n".join([*lines, "  layer { adaptive_avg_pool2d { output_size: 1 } }",
                      "  layer { flatten {} }",
                      '  layer { name: "fc" linear { in_features: 512 out_features: 1000 } }', "}", ""])


RESNET18 = Net("resnet18", _resnet18_config(), ResNet18, (3, 224, 224))

BY_NAME = {net.name: net for net in [SIMPLENET, MLP, WIDE, PIXELS, RESNET18]}
