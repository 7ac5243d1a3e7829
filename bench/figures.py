"""Figures of a benchmark: what was measured in each round, beside its goal, as a table and as JSON."""

import dataclasses
import math
import os
import platform
import re
import statistics

import target


@dataclasses.dataclass
class Figure:
    """A ratio of two things that were measured in turn, once a round."""

    row: str  # Of the list of goals: "P6".
    what: str
    rounds: list
    at_most: float = None  # The goal; or
    at_least: float = None  # ; neither where it is only reported.

    @property
    def median(self):
        return statistics.median(self.rounds)

    @property
    def met(self):
        return ((self.at_least is None or self.median >= self.at_least) and
                (self.at_most is None or self.median <= self.at_most))

    def cells(self):
        goal, verdict = "", "reported"
        if self.at_least is not None or self.at_most is not None:
            goal = f"<= {self.at_most:g}" if self.at_least is None else f">= {self.at_least:g}"
            verdict = "met" if self.met else "missed"
        spread = f"{min(self.rounds):.2f} to {max(self.rounds):.2f}"
        return [self.row, self.what, goal, f"{self.median:.2f}", spread, verdict]

    def as_json(self):
        return {**dataclasses.asdict(self), "median": self.median, "met": self.met}


MOST_MARGIN = 15


@dataclasses.dataclass
class Slope:
    """How something changes over a run, in percent, as a straight line through it, with the interval in
    which the line's slope lies with a probability of 95 %. The goal is that it does not change."""

    row: str
    what: str
    slope: float
    margin: float  # Half of the interval.

    @property
    def decided(self):
        """What is known no better could hide a slope that matters."""
        return self.margin <= MOST_MARGIN

    @property
    def met(self):
        return self.decided and abs(self.slope) <= self.margin

    @classmethod
    def through(cls, row, what, values):
        """Of values at equal distances, in percent of their mean from the first to the last."""
        count = len(values)
        mean, middle = statistics.fmean(values), (count - 1) / 2
        spread = sum((i - middle) ** 2 for i in range(count))
        slope = sum((i - middle) * value for i, value in enumerate(values)) / spread
        residuals = [value - mean - slope * (i - middle) for i, value in enumerate(values)]
        # Neighbours that err alike count for fewer (Santer et al., J. Geophys. Res. 105, 2000: the
        # residuals as an autoregressive process of the first order).
        squares = sum(r ** 2 for r in residuals)
        alike = sum(a * b for a, b in zip(residuals, residuals[1:])) / squares if squares else 0
        alike = min(max(alike, 0), 0.9)
        freedom = max(count * (1 - alike) / (1 + alike) - 2, 3)
        error = (squares / freedom / spread) ** 0.5
        percent = 100 * (count - 1) / mean
        return cls(row, what, slope * percent, quantile_of_t(freedom) * error * percent)

    def cells(self):
        interval = f"{self.slope - self.margin:.2f} to {self.slope + self.margin:.2f}"
        verdict = "met" if self.met else "missed" if self.decided else "undecided"
        return [self.row, self.what, "has 0", f"{self.slope:.2f}", interval, verdict]

    def as_json(self):
        return {**dataclasses.asdict(self), "met": self.met}


def quantile_of_t(freedom):
    """The 97.5 % quantile of Student's t, by its expansion in 1 / freedom (Abramowitz and Stegun,
    26.7.5)."""
    z = statistics.NormalDist().inv_cdf(0.975)
    return (z + (z ** 3 + z) / (4 * freedom) +
            (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * freedom ** 2))


def ratio(a, b):
    """a over b; a run that was too short for an answer is worth nothing."""
    return a / b if b else math.nan


def median_text(reports, key, digits):
    """The median of what reports have under a key."""
    return f"{statistics.median(report[key] for report in reports):.{digits}f}"


def table(header, rows, texts=1):
    """Lines with aligned columns: the first `texts` to the left, the others, numbers, to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) if i < texts else cell.rjust(width)
                  for i, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in lines)


def figure_table(figures):
    return table(["row", "figure", "goal", "median", "spread", ""], [f.cells() for f in figures],
                 texts=2)


def machine():
    """What the figures were measured on."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    return {"cpu": model.group(1) if model else platform.machine(),
            "cores": len(os.sched_getaffinity(0)), "kernel": platform.release(), **target.names()}
