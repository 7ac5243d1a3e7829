"""P5: what requests notice of swaps.

An open loop asks for half of what the daemon can answer, and goes by the clock whatever the answers
do. In each round it runs without swaps and then with: a new checkpoint every second, or of the
largest net as soon as the one before serves; and, because that must not be noticed either, a file
every second that is read to its end and refused. A closed loop, which leaves the daemon nothing,
shows that checkpoints come to serve all the same, and when. The nets are linear, so nearly all of a
file is weights and every weight is part of every answer.
"""

import contextlib
import dataclasses
import os
import statistics
import sys
import typing

import numpy as np

import figures
import linear_net
import load
import nets
import publisher

# A run is so many times as long as others: there is a swap a second.
LONGER = 3
IN_FLIGHT = 32
MOST_P99, MOST_P99_9 = 1.15, 1.5
BIN_SECONDS = 0.05
HISTOGRAM_US = np.geomspace(50, 5e6, 101)


@dataclasses.dataclass(frozen=True)
class Case:
    what: str
    width: int  # Of the net.
    every: float = 1  # Seconds from one file to the next; 0: as soon as the one before serves.
    refused: bool = False
    saturated: bool = False  # A closed loop instead of the open one.
    goals: tuple = (MOST_P99, MOST_P99_9)

    @property
    def net(self):
        return linear(self.width)


CASES = [Case("1 MB every second", 256), Case("100 MB every second", 2560),
         Case("a bad file of 100 MB every second", 2560, refused=True, goals=(None, None)),
         Case("1 GB after 1 GB", 8192, every=0, goals=(None, None)),
         Case("100 MB every second at saturation", 2560, saturated=True, goals=(None, None))]
QUICK_CASES = [Case("1 MB every tenth of a second", 256, every=0.1, goals=(None, None)),
               Case("a bad file of 1 MB every tenth of a second", 256, every=0.1, refused=True,
                    goals=(None, None))]
PLOTTED = "100 MB every second"


def linear(width):
    return nets.Net(f"linear{width}", linear_net.config(width),
                    lambda: linear_net.make_random(width), (width,))


@dataclasses.dataclass
class Round:
    """Reports of the load generator, how many files came, how many of them were served, and how long
    the slowest of these took."""

    quiet: dict
    swapping: dict
    pushed: int
    served: int
    slowest_seconds: float


@dataclasses.dataclass
class Trace:
    """What the last round of one case looked like."""

    what: str
    rate: float  # Requests a second.
    seconds: list  # Since the first request: the middle of each bin of time, and in that bin
    p50_us: list
    p99_us: list
    served: list  # Since the first request: when a new version served.
    bounds_us: list  # Of the bins of both histograms.
    quiet: list
    swapping: list


@dataclasses.dataclass
class UnderSwaps:
    cases: list
    rates: dict  # Requests a second, by case; of closed loops those that were answered.
    rounds: dict  # By case.
    trace: typing.Optional[Trace]

    def figures(self):
        for case in self.cases:
            rounds = self.rounds[case.what]
            for name, key, goal in zip(["p99", "p99.9"], ["p99_us", "p99_9_us"], case.goals):
                yield figures.Figure("P5", f"{case.what}: {name} with over without",
                                     [figures.ratio(r.swapping[key], r.quiet[key]) for r in rounds],
                                     at_most=goal)
            if case.saturated:
                yield figures.Figure("P5", f"{case.what}: requests a second with over without",
                                     [figures.ratio(r.swapping["per_second"], r.quiet["per_second"])
                                      for r in rounds])
                yield figures.Figure("P5", f"{case.what}: seconds until the slowest one serves",
                                     [r.slowest_seconds for r in rounds])
            yield figures.Figure("P5", f"{case.what}: requests that failed",
                                 [r.swapping["failed"] for r in rounds], at_most=0)

    def notes(self):
        rows = []
        for case in self.cases:
            rounds = self.rounds[case.what]
            for side in ("quiet", "swapping"):
                reports = [getattr(r, side) for r in rounds]
                files = [f"{statistics.median(getattr(r, what) for r in rounds):.0f}"
                         if side == "swapping" else "" for what in ("pushed", "served")]
                rows.append([case.what, side, f"{self.rates[case.what]:.0f}", *files,
                             *(figures.median_text(reports, key, 0) for key in COLUMNS)])
        return figures.table(["files", "", "a second", "pushed", "served", *COLUMNS], rows, texts=2)


COLUMNS = ["p50_us", "p99_us", "p99_9_us", "max_us"]


def spoil(state):
    """What can only be seen once all else has been read."""
    state[max(state)].view(-1)[-1] = float("nan")


def trace(case, rate, quiet_path, swapping_path, served):
    due, seconds = load.read_samples(swapping_path)
    if len(due) == 0:
        return None
    begin = due[0]
    bins = ((due - begin) / BIN_SECONDS).astype(int)
    used = np.unique(bins)
    of = {quantile: [float(np.quantile(seconds[bins == b], quantile)) * 1e6 for b in used]
          for quantile in (0.5, 0.99)}
    histograms = [np.histogram(load.read_samples(path)[1] * 1e6, HISTOGRAM_US)[0].tolist()
                  for path in (quiet_path, swapping_path)]
    return Trace(case.what, rate, [(int(b) + 0.5) * BIN_SECONDS for b in used], of[0.5], of[0.99],
                 [at - begin for at in served if begin <= at <= due[-1]], HISTOGRAM_US.tolist(),
                 *histograms)


def measure_case(case, folder, generator, round_count):
    """The rate, the rounds, and a trace of the last one."""
    seconds = generator.seconds * LONGER
    samples = [os.path.join(folder, f"{side}.samples") for side in ("quiet", "swapping")]
    request = load.Request(folder, case.net)
    files = publisher.save_some(folder, case.net, spoil if case.refused else lambda state: None)
    rounds = []
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(load.relight([case.net]))
        for path in files:
            stack.callback(os.remove, path)
        rate = generator.half_of_capacity(daemon, request, IN_FLIGHT)
        asked = {"in_flight": IN_FLIGHT} if case.saturated else {"rate": rate}
        for number in range(round_count):
            print(f"{case.what}: round {number + 1} of {round_count}", file=sys.stderr)
            run = {**asked, "seconds": seconds, "seed": number}
            quiet = generator.run(daemon, request, samples=samples[0], **run)
            with publisher.Publisher(daemon, case.net.name, files, case.every) as files_in:
                swapping = generator.run(daemon, request, samples=samples[1], **run)
            if bool(files_in.served) == case.refused:
                raise AssertionError(f"{case.what}: {len(files_in.served)} of "
                                     f"{len(files_in.pushed)} files are served")
            took = [at - files_in.pushed[version] for version, at in files_in.served.items()]
            rounds.append(Round(quiet, swapping, len(files_in.pushed), len(took),
                                max(took, default=0)))
        if case.saturated:
            rate = statistics.median(r.quiet["per_second"] for r in rounds)
        return rate, rounds, trace(case, rate, *samples, files_in.served.values())


def measure(folder, generator, round_count, cases):
    measured = UnderSwaps(cases, {}, {}, None)
    for case in cases:
        rate, rounds, seen = measure_case(case, folder, generator, round_count)
        measured.rates[case.what] = rate
        measured.rounds[case.what] = rounds
        if measured.trace is None or case.what == PLOTTED:
            measured.trace = seen
    return measured
