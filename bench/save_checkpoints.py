"""save_checkpoints.py WIDTH STATE_DICT BUNDLE: trains a step and saves as trainers do: the weights
alone, and, with other weights, a bundle of weights and Adam's state, twice as large."""

import sys

import torch

import linear_net


def main():
    width, state_dict, bundle = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.manual_seed(1)
    net = linear_net.make(width)
    for parameter in net.parameters():
        torch.nn.init.uniform_(parameter, -width ** -0.5, width ** -0.5)
    torch.save(net.state_dict(), state_dict)

    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, width)).sum().backward()
    optimizer.step()
    torch.save({"model_state_dict": net.state_dict(), "optimizer_state_dict": optimizer.state_dict(),
                "epoch": 1}, bundle)


if __name__ == "__main__":
    main()
