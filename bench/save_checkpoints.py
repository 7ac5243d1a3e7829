"""save_checkpoints.py WIDTH STATE_DICT [BUNDLE]: saves as trainers do: the weights alone, and, a step
of training later, a bundle of weights and Adam's state, twice as large."""

import sys

import torch

import linear_net


def main():
    width, state_dict, bundles = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    torch.manual_seed(1)
    net = linear_net.make_random(width)
    torch.save(net.state_dict(), state_dict)
    if bundles:
        save_bundle(net, width, bundles[0])


def save_bundle(net, width, bundle):
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, width)).sum().backward()
    optimizer.step()
    torch.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict(),
                "epoch": 1}, bundle)


if __name__ == "__main__":
    main()
