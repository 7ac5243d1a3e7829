"""Trains a small transformer to embed sentences so that those which mean the same are near each
other, and saves its state dict as it goes.

    python3 train.py FOLDER [--steps 400] [--every 20]

Each batch has 64 pairs. Of all second sentences, a first one should be nearest to its own (InfoNCE,
as in contrastive learning at large).
"""

import argparse
import os

import numpy as np
import torch
from torch import nn

import sentences

TEMPERATURE = 0.1


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x, padding):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, key_padding_mask=padding, need_weights=False)[0]
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class TextEncoder(nn.Module):
    """From word numbers [N, 12], padded with 0, to embeddings [N, 64] of length 1."""

    def __init__(self, width=64, heads=4, depth=2):
        super().__init__()
        self.embed = nn.Embedding(len(sentences.WORDS), width)
        self.positions = nn.Parameter(torch.randn(sentences.LENGTH, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, words):
        padding = words == sentences.PADDING
        x = self.embed(words) + self.positions
        for block in self.blocks:
            x = block(x, padding)
        # The mean of the words' vectors points where their sum does.
        total = self.norm(x).masked_fill(padding.unsqueeze(-1), 0).sum(1)
        return nn.functional.normalize(total)


def save(folder, step, model, loss):
    path = os.path.join(folder, f"step-{step:06d}.pt")
    torch.save(model.state_dict(), path + ".tmp")
    os.replace(path + ".tmp", path)
    print(f"step {step}: loss {loss:.4f}, saved {path}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=20)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    random = np.random.RandomState(0)
    model = TextEncoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)

    os.makedirs(arguments.folder, exist_ok=True)
    for step in range(1, arguments.steps + 1):
        ones, others = (model(torch.from_numpy(words)) for words in sentences.draw_pairs(random, 64))
        similarities = ones @ others.T / TEMPERATURE
        own = torch.arange(len(ones))
        loss = nn.functional.cross_entropy(similarities, own) + nn.functional.cross_entropy(similarities.T, own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % arguments.every == 0:
            save(arguments.folder, step, model, loss.item())


if __name__ == "__main__":
    main()
