"""Watches the served SimpleNet learn: of 256 rows that it was not trained on, how often does it
say rightly which five have the larger sum? examples/watch.py has the arguments."""

import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from watch import watch  # noqa: E402


def main():
    x = np.random.RandomState(1).normal(size=(256, 10)).astype(np.float32)
    wanted = x[:, :5].sum(1) > x[:, 5:].sum(1)
    watch("simplenet", "input", x, "accuracy", lambda output: np.mean(output.argmax(1) == wanted))


if __name__ == "__main__":
    main()
