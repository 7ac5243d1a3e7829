"""Trains SimpleNet a little and saves ordinary checkpoints as it goes.

    python3 train.py FOLDER [--steps 100000] [--every 4000] [--lr 1e-5] [--resume FILE]

The task is made up here: of ten numbers, is the sum of the first five larger than that of the last
five? Each checkpoint is written under a temporary name and renamed, which is all that relight asks
of a trainer (and not even that: slow copies and overwritten files are understood too).

By default it learns slowly, so that one can watch: a checkpoint every second or so, for half a
minute. At --lr 0.01, 200 steps are enough; so were the files in checkpoints/ made.
"""

import argparse
import os

import torch


class SimpleNet(torch.nn.Module):
    def __init__(self, inputs=10, hidden=5, outputs=2):
        super().__init__()
        self.fc1 = torch.nn.Linear(inputs, hidden)
        self.relu = torch.nn.ReLU()
        self.fc2 = torch.nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


def save(folder, step, model, optimizer, loss):
    path = os.path.join(folder, f"step-{step:06d}.pt")
    bundle = {
        "epoch": step,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": loss,
    }
    torch.save(bundle, path + ".tmp")
    os.replace(path + ".tmp", path)
    print(f"step {step}: loss {loss:.4f}, saved {path}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--steps", type=int, default=100000)
    parser.add_argument("--every", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=1e-5, help="of a first run: what is resumed has its own")
    parser.add_argument("--resume", help="a bundle, or a snapshot of the served model")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    model = SimpleNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.lr)
    start = 0
    if arguments.resume:
        bundle = torch.load(arguments.resume, map_location="cpu")
        model.load_state_dict(bundle["model_state_dict"])
        optimizer.load_state_dict(bundle["optimizer_state_dict"])
        start = bundle["epoch"]

    os.makedirs(arguments.folder, exist_ok=True)
    for step in range(start + 1, start + arguments.steps + 1):
        x = torch.randn(64, 10)
        wanted = (x[:, :5].sum(1) > x[:, 5:].sum(1)).long()
        loss = torch.nn.functional.cross_entropy(model(x), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % arguments.every == 0:
            save(arguments.folder, step, model, optimizer, loss.item())


if __name__ == "__main__":
    main()
