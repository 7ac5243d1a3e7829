"""Trains a small convolutional net with residual blocks on pictures of shapes, and saves its state
dict as it goes.

    python3 train.py FOLDER [--steps 600] [--every 20]
"""

import argparse
import os

import numpy as np
import torch
from torch import nn

import shapes


class Halve(nn.Module):
    """Half the height and width."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


class ResidualBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + x)


class ImageClassifier(nn.Module):
    """From images [N, 1, 32, 32] to logits [N, 4]."""

    def __init__(self):
        super().__init__()
        self.stem = Halve(1, 16)
        self.stage1 = nn.Sequential(ResidualBlock(16), ResidualBlock(16))
        self.halve = Halve(16, 32)
        self.stage2 = nn.Sequential(ResidualBlock(32), ResidualBlock(32))
        self.head = nn.Linear(32, len(shapes.SHAPES))

    def forward(self, image):
        x = self.stage2(self.halve(self.stage1(self.stem(image))))
        return self.head(x.mean((2, 3)))


def save(folder, step, model, loss):
    path = os.path.join(folder, f"step-{step:06d}.pt")
    torch.save(model.state_dict(), path + ".tmp")
    os.replace(path + ".tmp", path)
    print(f"step {step}: loss {loss:.4f}, saved {path}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=20)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    random = np.random.RandomState(0)
    model = ImageClassifier()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    # Slower and slower, so that batch norm's averages catch up with the weights.
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps)

    os.makedirs(arguments.folder, exist_ok=True)
    for step in range(1, arguments.steps + 1):
        images, labels = (torch.from_numpy(array) for array in shapes.draw(random, 32))
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % arguments.every == 0:
            save(arguments.folder, step, model, loss.item())


if __name__ == "__main__":
    main()
