"""P3, P4 and P8: what serving leaves of the computation, and of the alternative.

P3 compares the rows that are served in a second with those that eager_loop.cc computes in a process
of its own: as many batches at a time as there are cores, of as many rows, each by one thread;
requests are not put together. On a card a few threads have a stream each. P4 compares single rows
from concurrent clients with dynamic batching and without. P8 compares the daemon with the server that
one would write in Python (python_server.py), which may batch where that makes it faster.
"""

import contextlib
import dataclasses
import os
import sys

import torch

import figures
import load
import nets
import target
import transport

SINGLE_ROWS = 32
# Of a net with few answers a second, how much longer a run is.
LONGER = {nets.RESNET18: 3}


def alone(net):
    """The net as a model whose requests are never put together."""
    return dataclasses.replace(net, name=f"{net.name}-alone",
                               config=net.config + "batching { max_batch_size: 0 }\n")


BATCHES = {nets.MLP: [1, 8, 32], nets.RESNET18: [1, 8]}
BATCHES_ON_CARD = {nets.MLP: [1, 32], nets.WIDE: [1, 32], nets.RESNET18: [1, 8, 32]}
THREADS_ON_CARD = 4  # More of them compute no more.
BATCHING_GAINS = {nets.MLP: 2, nets.RESNET18: 1}


@dataclasses.dataclass
class Compute:
    served: dict  # P3: pairs of rows a second, served and eager, by net and batch, as text.
    batching: dict  # P4: pairs of requests a second, with and without, by net.
    python: list  # P8: pairs of reports, relight's and the better of Python's.

    def figures(self):
        for what, pairs in self.served.items():
            yield figures.Figure("P3", f"{what}: rows a second over eager LibTorch's",
                                 [figures.ratio(served, eager) for served, eager in pairs],
                                 at_least=0.97)
        for net, least in BATCHING_GAINS.items():
            yield figures.Figure("P4", f"{net.name}, {SINGLE_ROWS} single rows in flight: with "
                                 "batching over without",
                                 [figures.ratio(a, b) for a, b in self.batching[net.name]],
                                 at_least=least)
        yield figures.Figure("P8",
                             "simplenet, 32 in flight: requests a second over a Python server's",
                             [figures.ratio(a["per_second"], b["per_second"])
                              for a, b in self.python], at_least=10)
        yield figures.Figure("P8", "simplenet, 32 in flight: p99 over a Python server's",
                             [figures.ratio(a["p99_us"], b["p99_us"]) for a, b in self.python],
                             at_most=0.1)

    def notes(self):
        rows = [[what, *(figures.median_text([{"": pair[side]} for pair in pairs], "", 1)
                         for side in range(2))]
                for what, pairs in [*self.served.items(),
                                    *((f"{net}, single rows", pairs)
                                      for net, pairs in self.batching.items())]]
        table = figures.table(["rows a second", "served", "eager or unbatched"], rows)
        python = figures.median_text([pair[1] for pair in self.python], "per_second", 0)
        return f"{table}\n\nthe Python server: {python} requests a second"


def python_servers(build, folder, stack):
    """One that computes each request on its own, and one that batches."""
    checkpoint = os.path.join(folder, "simplenet.pt")
    torch.manual_seed(1)
    torch.save(nets.SIMPLENET.module().state_dict(), checkpoint)
    command = [sys.executable, load.HERE / "python_server.py", "simplenet", checkpoint,
               "--device", target.device, "--precision", target.precision]
    env = {"PYTHONPATH": os.pathsep.join([str(build / "proto" / "python"), str(load.HERE)])}
    return [stack.enter_context(load.Child([*command, *more], env)) for more in ([], ["--batch", 32])]


def measure(build, folder, generator, round_count):
    all_batches = BATCHES_ON_CARD if target.on_card() else BATCHES
    served = {net: alone(net) for net in all_batches}
    measured = Compute({f"{net.name}, {batch} at a time": []
                        for net, batches in all_batches.items() for batch in batches},
                       {net.name: [] for net in BATCHING_GAINS}, [])
    with contextlib.ExitStack() as stack:
        threads = len(os.sched_getaffinity(0))
        eager_threads = THREADS_ON_CARD if target.on_card() else threads
        daemon = stack.enter_context(load.relight(
            [nets.SIMPLENET, *BATCHING_GAINS, *served.values()],
            f"--compute-threads={threads}", "--intra-op-threads=1"))
        pythons = python_servers(build, folder, stack)

        def requests_per_second(net, target, rows, in_flight):
            request = load.Request(folder, target, rows)
            report = generator.run(daemon, request, in_flight=in_flight, seconds=seconds(net))
            return report["per_second"]

        def seconds(net):
            return generator.seconds * (1 if target.on_card() else LONGER.get(net, 1))

        for number in range(round_count):
            print(f"compute: round {number + 1} of {round_count}", file=sys.stderr)
            for net, batches in all_batches.items():
                for batch in batches:
                    eager = transport.eager(build, net, seconds(net), batch=batch,
                                            threads=eager_threads)
                    # Two clients for each thread: while one is answered the other's is computed.
                    rows = batch * requests_per_second(net, served[net], batch, 2 * eager_threads)
                    measured.served[f"{net.name}, {batch} at a time"].append(
                        (rows, eager["rows_per_second"]))
            for net in BATCHING_GAINS:
                measured.batching[net.name].append(
                    tuple(requests_per_second(net, target, 1, SINGLE_ROWS)
                          for target in (net, served[net])))
            request = load.Request(folder, nets.SIMPLENET)
            runs = [generator.run(server, request, in_flight=32) for server in [*pythons, daemon]]
            measured.python.append((runs.pop(), max(runs, key=lambda run: run["per_second"])))
    return measured
