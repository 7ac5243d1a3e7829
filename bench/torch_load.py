"""torch_load.py WIDTH DEVICE PRECISION: what a Python server does for new weights. For each path on stdin, loads
the checkpoint into a net that exists, and prints the seconds that this took."""

import sys
import time

import torch

import linear_net
import target


def load_into(net, path):
    checkpoint = torch.load(path)
    net.load_state_dict(checkpoint.get("model_state_dict", checkpoint))
    if next(net.parameters()).is_cuda:
        torch.cuda.synchronize()


def main():
    net = linear_net.make(int(sys.argv[1])).to(sys.argv[2], target.TYPES[sys.argv[3]])
    for line in sys.stdin:
        begin = time.perf_counter()
        load_into(net, line.strip())
        print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
