"""P1, P1b and P2: what a request costs beside what its transport costs.

The transport is a bare gRPC server (echo_server.cc) that answers each request with the bytes that
relight answers it with. In each round it and the daemon are driven in turn by the same generator.

P1 compares how many small requests each answers in a second, with many in flight. P1b does so for
large requests to a net that computes next to nothing, against a server that does not even parse
them. P2 is what the daemon adds to the median latency of a lone request, less the time of the
forward itself as eager_loop.cc has it.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys

import figures
import load
import nets
import target


@dataclasses.dataclass(frozen=True)
class Case:
    row: str
    net: nets.Net
    in_flight: int
    raw: bool = False

    def __str__(self):
        return f"{self.net.name}, {self.in_flight} in flight"


CASES = [Case("P1", nets.SIMPLENET, 32), Case("P1", nets.SIMPLENET, 256),
         Case("P1b", nets.PIXELS, 8, raw=True), Case("P2", nets.SIMPLENET, 1)]
LEAST = {"P1": 0.90, "P1b": 0.85}
MOST_ADDED_US = 15


@dataclasses.dataclass
class Round:
    """Reports of the load generator."""

    echo: dict
    relight: dict


@dataclasses.dataclass
class Transport:
    rounds: dict  # By case, as text.
    forward_us: list  # P2: of the forward alone.

    def figures(self):
        for case in CASES:
            rounds = self.rounds[str(case)]
            if case.row == "P2":
                added = [r.relight["p50_us"] - r.echo["p50_us"] - forward
                         for r, forward in zip(rounds, self.forward_us)]
                yield figures.Figure(case.row, f"{case}: added to the p50 of the echo, us", added,
                                     at_most=MOST_ADDED_US)
            else:
                ratios = [figures.ratio(r.relight["per_second"], r.echo["per_second"])
                          for r in rounds]
                kind = "raw echo" if case.raw else "echo"
                yield figures.Figure(case.row, f"{case}: requests a second over the {kind}", ratios,
                                     at_least=LEAST[case.row])
                # Where something else than the server is the bound, its own cost says more.
                yield figures.Figure(case.row, f"{case}: the {kind}'s processor time over ours",
                                     [figures.ratio(cpu_a_request(r.echo), cpu_a_request(r.relight))
                                      for r in rounds])

    def notes(self):
        rows = []
        for case in CASES:
            for side in ("echo", "relight"):
                reports = [getattr(r, side) for r in self.rounds[str(case)]]
                rows.append([str(case), side, *(figures.median_text(reports, key, digits)
                                                for key, digits in COLUMNS.items())])
        forward = figures.median_text([{"us": us} for us in self.forward_us], "us", 1)
        return (f"{figures.table(['requests', 'server', *COLUMNS], rows, texts=2)}\n\n"
                f"the forward of simplenet alone: {forward} us")


def cpu_a_request(report):
    """Processor seconds of both sides."""
    return figures.ratio(report["server_cpu_seconds"] + report["client_cpu_seconds"],
                         report["answered"])


COLUMNS = {"per_second": 0, "p50_us": 0, "p99_us": 0, "p99_9_us": 0, "server_cpu_seconds": 2,
           "client_cpu_seconds": 2}


def eager(build, net, seconds, **flags):
    """The report of eager_loop."""
    flags = {"net": net.name, "seconds": seconds, "device": target.device,
             "precision": target.precision, **flags}
    done = subprocess.run([build / "bench" / "eager_loop",
                           *(f"--{name}={value}" for name, value in flags.items())],
                          check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(build, folder, generator, round_count):
    measured = Transport({str(case): [] for case in CASES}, [])
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(load.relight([nets.SIMPLENET, nets.PIXELS]))
        requests, echos = {}, {}
        for net, raw in ((nets.SIMPLENET, False), (nets.PIXELS, True)):
            requests[net] = load.Request(folder, net)
            answer = f"{folder}/{net.name}.answer"
            generator.run(daemon, requests[net], in_flight=1, seconds=0.1, answer=answer)
            echos[net] = stack.enter_context(load.Child(
                [build / "bench" / "echo_server", f"--answer={answer}", f"--raw={raw}".lower()]))
        for number in range(round_count):
            print(f"transport: round {number + 1} of {round_count}", file=sys.stderr)
            for case in CASES:
                servers = [echos[case.net], daemon]
                run = {server: generator.run(server, requests[case.net], in_flight=case.in_flight)
                       for server in (servers if number % 2 == 0 else reversed(servers))}
                measured.rounds[str(case)].append(Round(run[echos[case.net]], run[daemon]))
            measured.forward_us.append(eager(build, nets.SIMPLENET, generator.seconds)["p50_us"])
    return measured
