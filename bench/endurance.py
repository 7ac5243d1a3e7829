"""P9: whether thousands of swaps leave anything behind.

Checkpoints of a small net are swapped in as fast as the daemon takes them, while an open loop asks for
half of what it can answer. The swaps are cut into parts of equal length; of each part there is the
median of the resident memory, looked at after each swap, and that of the latencies, over the one of a
bare server (echo_server.cc) that is asked now and then meanwhile: how fast the machine itself is at
that moment. A straight line is put through either, and must lie level. The first tenth of the swaps,
and what comes within ten seconds, is left out: until then memory that is used again and again is
being asked for, and what the daemon remembers for a while (of files that went, say) is not all there
yet.
"""

import contextlib
import dataclasses
import math
import os
import re
import statistics

import numpy as np

import figures
import load
import nets
import publisher

SWAPS, QUICK_SWAPS = 10_000, 200
PARTS, QUICK_PARTS = 45, 6
LEFT_OUT, LEFT_OUT_SECONDS = 0.1, 10
MOST_MEMORY = 1.01
IN_FLIGHT = 32
ECHO_RATE = 200  # Requests a second.


@dataclasses.dataclass
class Endurance:
    swaps: int
    rate: float  # Requests a second.
    swap_ms: float  # The median from the move to the folder until it was heard that it serves.
    resident_bytes: list  # The median of each part.
    p50_us: list
    echo_p50_us: list
    failed: int  # Requests.

    def figures(self):
        yield figures.Slope.through("P9", f"resident memory over {self.swaps} swaps, %",
                                    self.resident_bytes)
        yield figures.Slope.through("P9", f"p50 over a bare server's, over {self.swaps} swaps, %",
                                    [figures.ratio(ours, echo)
                                     for ours, echo in zip(self.p50_us, self.echo_p50_us)])
        tenth = max(len(self.resident_bytes) // 10, 1)
        first, last = (statistics.fmean(part) for part in
                       (self.resident_bytes[:tenth], self.resident_bytes[-tenth:]))
        yield figures.Figure("P9", f"resident memory after {self.swaps} swaps over before",
                             [last / first], at_most=MOST_MEMORY)
        yield figures.Figure("P9", f"requests that failed over {self.swaps} swaps", [self.failed],
                             at_most=0)

    def notes(self):
        resident = statistics.median(self.resident_bytes) / 1e6
        drift = [figures.Slope.through("", "", p50) for p50 in (self.p50_us, self.echo_p50_us)]
        return (f"{self.swaps} swaps, {self.swap_ms:.1f} ms each, at {self.rate:.0f} requests a "
                f"second: resident {resident:.1f} MB, p50 {statistics.median(self.p50_us):.0f} us "
                f"(its slope {drift[0].slope:.1f} %), a bare server's "
                f"{statistics.median(self.echo_p50_us):.0f} us ({drift[1].slope:.1f} %)")


class CountingPublisher(publisher.Publisher):
    """Looks at the daemon's resident memory after each swap."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.resident_bytes = []

    def on_served(self):
        with open(f"/proc/{self.daemon.pid}/status") as file:
            kilobytes = re.search(r"VmRSS:\s*(\d+) kB", file.read()).group(1)
        self.resident_bytes.append(int(kilobytes) * 1024)


def first_that_counts(served_at):
    """Its index; in a run too short for that, the one after the first tenth."""
    by_number = int(len(served_at) * LEFT_OUT)
    by_time = int(np.searchsorted(served_at, served_at[0] + LEFT_OUT_SECONDS))
    return max(by_number, by_time) if by_time < len(served_at) / 2 else by_number


def latencies_in_parts(samples_path, served_at, parts):
    due, seconds = load.read_samples(samples_path)
    edges = [part[0] for part in np.array_split(served_at, parts)] + [served_at[-1]]
    cuts = np.searchsorted(due, edges)
    return [float(np.median(seconds[begin:end])) * 1e6 if begin < end else math.nan
            for begin, end in zip(cuts, cuts[1:])]


def measure(folder, generator, swaps, parts):
    net = nets.SIMPLENET
    samples, echo_samples, answer = (os.path.join(folder, f"endurance.{what}")
                                     for what in ("samples", "echo-samples", "answer"))
    request = load.Request(folder, net)
    files = publisher.save_some(folder, net)
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(load.relight([net]))
        rate = generator.half_of_capacity(daemon, request, in_flight=IN_FLIGHT)
        generator.run(daemon, request, in_flight=1, seconds=0.1, answer=answer)
        echo = stack.enter_context(load.Child([generator.binary.parent / "echo_server",
                                               f"--answer={answer}"]))
        run = stack.enter_context(
            generator.start(daemon, request, rate=rate, warm_up=0, samples=samples))
        echo_run = stack.enter_context(
            generator.start(echo, request, rate=min(rate, ECHO_RATE), warm_up=0,
                            samples=echo_samples))
        with CountingPublisher(daemon, net.name, files, every=0) as swapped:
            swapped.wait_for(swaps)
        failed = run.end()["failed"]
        echo_run.end()
    served_at = np.array(list(swapped.served.values()))
    first = first_that_counts(served_at)
    took = [at - swapped.pushed[version] for version, at in swapped.served.items()]
    return Endurance(len(served_at), rate, statistics.median(took) * 1e3,
                     [float(np.median(part))
                      for part in np.array_split(swapped.resident_bytes[first:], parts)],
                     *(latencies_in_parts(path, served_at[first:], parts)
                       for path in (samples, echo_samples)), failed)
