"""Figures of a benchmark: what was measured in each round, beside its goal, as a table and as JSON."""

import dataclasses
import os
import platform
import re
import statistics


@dataclasses.dataclass
class Figure:
    """A ratio of two things that were measured in turn, once a round."""

    row: str  # Of the list of goals: "P6".
    what: str
    at_most: float
    rounds: list

    @property
    def median(self):
        return statistics.median(self.rounds)

    @property
    def met(self):
        return self.median <= self.at_most

    def cells(self):
        spread = f"{min(self.rounds):.2f} to {max(self.rounds):.2f}"
        return [self.row, self.what, f"<= {self.at_most:g}", f"{self.median:.2f}", spread,
                "met" if self.met else "missed"]

    def as_json(self):
        return {**dataclasses.asdict(self), "median": self.median, "met": self.met}


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
            "cores": len(os.sched_getaffinity(0)), "kernel": platform.release()}
