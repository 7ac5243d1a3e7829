"""save_checkpoints.py WIDTH STATE_DICT bundle|weights LATER: saves as trainers do: the weights alone,
and, a step of training later, a bundle of weights and Adam's state, twice as large, or other weights
alone."""

import sys

import torch

import linear_net


def main():
    width, state_dict, what, later = int(sys.argv[1]), *sys.argv[2:]
    torch.manual_seed(1)
    net = linear_net.make_random(width)
    torch.save(net.state_dict(), state_dict)
    if what == "bundle":
        save_bundle(net, width, later)
    else:
        torch.nn.init.zeros_(net[0].bias)
        torch.save(net.state_dict(), later)


def save_bundle(net, width, bundle):
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, width)).sum().backward()
    optimizer.step()
    torch.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict(),
                "epoch": 1}, bundle)


if __name__ == "__main__":
    main()
