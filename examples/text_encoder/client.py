"""Watches the served text encoder learn: for how many of 128 sentences that it was not trained on is
the nearest of 128 others the one that means the same? One in 128 by chance, and about half of them
where only the words count, not who does what to whom. examples/watch.py has the arguments."""

import os
import sys

import numpy as np

import sentences

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from watch import watch  # noqa: E402


def main():
    ones, others = sentences.draw_pairs(np.random.RandomState(1), 128, held_out=True)

    def nearest_neighbours(embeddings):
        similarities = embeddings[:len(ones)] @ embeddings[len(ones):].T
        return np.mean(similarities.argmax(1) == np.arange(len(ones)))

    # All in one request, so that one version has embedded both halves.
    watch("text_encoder", "words", np.concatenate([ones, others]), "neighbour score", nearest_neighbours)


if __name__ == "__main__":
    main()
