"""P6 and P7: how long it takes to swap 1 GiB of weights, and in how much memory.

Each round has, for a state dict and then for a bundle with twice as much optimizer state, or for
another state dict, one after the other: the floor (load_floor.cc, of the state dict, which is nothing but weights), the swap, and
PyTorch's own load. Each finds its file in the page cache.

P6 is the time from the rename into the watched folder to the first answer by the new version. So the
watcher, all checks, the warm-up and the answer's own forward are part of it. Both blocks for weights
are there when the first round begins; the swap that makes the second one is told apart.

P7 is the peak of the daemon's resident memory from the rename until nothing is left to do for the
version (its training state is spooled, the file's SHA-256 taken), less the same peak of a daemon with
a tiny net, over the weights' size.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys

import figures
import linear_net
import swaps
import target

HERE = pathlib.Path(__file__).resolve().parent
WIDTH, QUICK_WIDTH, TINY_WIDTH = 8192, 2048, 16
STATE_DICT, BUNDLE, OTHER = "state dict", "bundle", "other state dict"
FLOOR_STEPS = ["read", "checksum", "copy"]
PHASES = ["open", "read", "bind", "warm_up", "publish"]


@dataclasses.dataclass
class Round:
    """Seconds of one kind of checkpoint."""

    floor: dict
    swap: swaps.Swap
    torch_load: float


@dataclasses.dataclass
class Loading:
    """All that was measured."""

    width: int
    tiny_peak_bytes: int
    second_block: swaps.Swap  # The swap that makes it.
    rounds: dict  # By kind of checkpoint.

    def figures(self):
        for kind, rounds in self.rounds.items():
            yield figures.Figure("P6", f"{kind}: swap over floor",
                                 [r.swap.seconds / r.floor["seconds"] for r in rounds], at_most=1.3)
            yield figures.Figure("P6", f"{kind}: swap over torch.load + load_state_dict",
                                 [r.swap.seconds / r.torch_load for r in rounds], at_most=0.5)
            yield figures.Figure("P7", f"{kind}: peak memory over weights",
                                 [self._memory(r.swap) for r in rounds], at_most=2.1)

    def _memory(self, swap):
        return (swap.peak_bytes - self.tiny_peak_bytes) / linear_net.weight_bytes(self.width)

    def notes(self):
        """Where the time goes: medians over the rounds."""
        columns = [list(median_seconds(rounds)) for rounds in self.rounds.values()]
        rows = [[cells[0][0], *(f"{seconds:.3f}" for _, seconds in cells)]
                for cells in zip(*columns)]
        rows.append(["swap that makes the second block", "", f"{self.second_block.seconds:.3f}"])
        return figures.table(["seconds", *self.rounds], rows)


def median_seconds(rounds):
    """Name and median of each part of a round."""
    def median(of):
        return statistics.median(of(r) for r in rounds)
    yield "floor", median(lambda r: r.floor["seconds"])
    for step in FLOOR_STEPS:
        yield f"  {step}", median(lambda r: r.floor[step])
    yield "swap", median(lambda r: r.swap.seconds)
    for phase in PHASES:
        yield f"  {phase}", median(lambda r: r.swap.phases[phase])
    yield "  first answer", median(lambda r: r.swap.answer)
    yield "  noticing", median(
        lambda r: r.swap.seconds - r.swap.answer - sum(r.swap.phases.values()))
    yield "torch.load + load_state_dict", median(lambda r: r.torch_load)


class TorchLoader:
    """A Python process that loads checkpoints into a net that it has."""

    def __init__(self, width):
        self.process = subprocess.Popen([sys.executable, HERE / "torch_load.py", str(width),
                                         target.device, target.precision],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, path):
        swaps.read_into_page_cache(path)
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def save_checkpoints(folder, width, bundle=True):
    """By their kinds. The same weights twice would be no swap."""
    state_dict = os.path.join(folder, f"state_dict-{width}.pt")
    later = os.path.join(folder, f"later-{width}.pt")
    subprocess.run([sys.executable, HERE / "save_checkpoints.py", str(width), state_dict,
                    "bundle" if bundle else "weights", later], check=True)
    return {STATE_DICT: state_dict, BUNDLE if bundle else OTHER: later}


def largest_width():
    """So that two blocks of weights, PyTorch's and what computing takes find room on the card, and on
    the host two more, the two files and two copies of PyTorch's."""
    host_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    weight_bytes = min(target.memory_bytes() // 4, host_bytes // 8)
    return math.isqrt(weight_bytes // (4 * linear_net.LAYERS)) // 256 * 256


def tiny_peak_bytes(folder):
    paths = save_checkpoints(folder, TINY_WIDTH)
    with swaps.SwappingDaemon(TINY_WIDTH) as daemon:
        return [daemon.swap(path) for path in [*paths.values(), *paths.values()]][-1].peak_bytes


def floor(load_floor, path):
    swaps.read_into_page_cache(path)
    return json.loads(subprocess.run([load_floor, path], check=True, capture_output=True).stdout)


def measure(load_floor, folder, width, round_count, bundle=True):
    """`folder` is where the checkpoints are made and swapped from: some 8 weights' sizes, without the
    bundle 2."""
    progress = functools.partial(print, "loading:", file=sys.stderr)
    tiny = tiny_peak_bytes(folder)
    progress(f"saves {linear_net.weight_bytes(width)} bytes of weights")
    paths = save_checkpoints(folder, width, bundle)
    with swaps.SwappingDaemon(width) as daemon, TorchLoader(width) as torch_loader:
        # What is measured below finds its memory touched.
        torch_loader.seconds(paths[STATE_DICT])
        daemon.swap(paths[STATE_DICT])
        second_block = daemon.swap(list(paths.values())[-1])
        progress(f"the second block was made by a swap of {second_block.seconds:.3f} s")
        rounds = {kind: [] for kind in paths}
        for number in range(round_count):
            progress(f"round {number + 1} of {round_count}")
            for kind, path in paths.items():
                rounds[kind].append(Round(floor(load_floor, paths[STATE_DICT]), daemon.swap(path),
                                          torch_loader.seconds(path)))
        return Loading(width, tiny, second_block, rounds)
