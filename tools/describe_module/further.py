"""Runs beside the two that a description is made of, for what those do not show: decisions by sizes that
forward had from int() or len(), which leave no note, and chance.

One run has the least sizes and only has to do the same. In the others one size is large, and the description
must hold for them, too. Sizes that forward fails on are passed over, and so are large ones that would take
too much: a decision at a size beyond those is not seen.
"""

import math

import torch

from .problems import DoesNotRun
from .steps import by_chance, unlike
from .tracing import trace

LARGEST = 1100
MOST_BYTES = 2**29  # Of the tensors of a run.
MOST_PRODUCTS = 2**36  # Of numbers with weights.


def chance(module, specs, runs, traces):
    """Problems: what a run like the last one does otherwise. `runs`: the shapes by name that `traces` are of."""
    return by_chance(traces[-1], _run(module, specs, runs[-1]))


def other_sizes(module, specs, runs, traces):
    """Problems, and traces of large sizes."""
    least = _first_that_runs(module, specs, _least(runs))
    problems = unlike(traces, least) if least else []
    if problems:
        return problems, []
    large = [_first_that_runs(module, specs, _large(module, runs, traces, pair)) for pair in _free(runs)]
    return [], [one for one in large if one]


def _run(module, specs, shapes):
    return trace(module, {spec.name: spec.example(shapes[spec.name]) for spec in specs})


def _first_that_runs(module, specs, choices):
    """A trace, or None."""
    for shapes in choices:
        try:
            traced = _run(module, specs, shapes)
        except DoesNotRun:
            continue
        if not traced.mistaken:
            return traced
    return None


def _free(runs):
    """The free sizes, each as it is in both runs; what is always equal is one."""
    return list(dict.fromkeys(pair for name in runs[0] for pair in zip(*(run[name] for run in runs))
                              if len(set(pair)) > 1))


def _with_sizes(runs, sizes):
    """Shapes with these free sizes, and the lesser of both runs' for others."""
    return {name: tuple(sizes.get(pair, min(pair)) for pair in zip(*(run[name] for run in runs))) for name in runs[0]}


def _least(runs):
    for count in (1, 2) if _free(runs) else ():
        yield _with_sizes(runs, {pair: count * math.gcd(*pair) for pair in _free(runs)})


def _large(module, runs, traces, pair):
    """With one size large, the largest first."""
    multiple = math.gcd(*pair)  # Of which it must be one, where forward halves it.
    count = LARGEST // multiple
    while count * multiple > 2 * max(pair):
        if _is_affordable(module, _free(runs), traces, pair, count * multiple):
            yield _with_sizes(runs, {pair: count * multiple})
        count //= 2


def _is_affordable(module, free, traces, pair, size):
    """Whether the second run would be, about, if one of its sizes were another one."""
    def follows(one, another):
        """Whether it is that size that another one follows from, if any."""
        apart = {known: abs(math.log(one / another) - math.log(known[0] / known[1])) for known in free}
        return one != another and min(apart, key=apart.get) == pair

    bytes_, products = 0, 0
    for nodes in zip(*(one.nodes for one in traces)):
        weights = 0
        if nodes[0].op == "call_module":
            weights = sum(one.numel() for one in module.get_submodule(nodes[0].target).parameters())
        for first, second in zip(*(_tensors(one.examples[node]) for one, node in zip(traces, nodes))):
            sizes = [known for known in zip(first.shape, second.shape) if 0 not in known]
            scale = (size / pair[1]) ** sum(follows(*known) for known in sizes)
            bytes_ += second.numel() * second.element_size() * scale
            products += weights * math.prod(known[1] for known in sizes if known[0] != known[1]) * scale
    return bytes_ <= MOST_BYTES and products <= MOST_PRODUCTS


def _tensors(example):
    if isinstance(example, torch.Tensor):
        return [example]
    return [tensor for item in example for tensor in _tensors(item)] if isinstance(example, (tuple, list)) else []
