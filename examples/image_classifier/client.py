"""Watches the served image classifier learn: how many of 256 pictures that it was not trained on does
it tell the shape of? One in four by chance. examples/watch.py has the arguments."""

import os
import sys

import numpy as np

import shapes

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from watch import watch  # noqa: E402


def main():
    images, labels = shapes.draw(np.random.RandomState(1), 256)
    watch("image_classifier", "image", images, "accuracy",
          lambda output: np.mean(output.argmax(1) == labels))


if __name__ == "__main__":
    main()
