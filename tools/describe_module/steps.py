"""One list of operations from the traces of several runs: what differs between them is a size that is
known only at run time."""

import typing

import torch
import torch.fx

from .problems import DescriptionError
from .sizes import plain

WHY_FIXED = "if it is always the same, give it in --input instead of -1"
BY_SIZE = f"depends on a size that is known only at run time: {WHY_FIXED}"

UNKNOWN = object()


class Varying(typing.NamedTuple):
    """A number that follows from the sizes of the inputs: its value in each run."""

    values: tuple


class Constant(typing.NamedTuple):
    """A tensor that forward makes of nothing but sizes: as it is in each run."""

    tensors: tuple


class Step:
    """An operation. `args` and `kwargs` have Steps for tensors, Varying for what follows from sizes."""

    def __init__(self, nodes, examples):
        node = nodes[0]
        self.nodes = nodes  # In each trace.
        self.op = node.op
        self.target = node.target
        self.name = node.name
        self.where = node.meta["where"]
        self.path = node.meta["path"]
        self.operation = node.meta["operation"]
        self.args = ()
        self.kwargs = {}
        # In each run, one for each tensor it gives.
        self.examples = examples

    @property
    def is_tensor(self):
        return isinstance(self.examples[0], torch.Tensor)

    @property
    def shapes(self):
        return tuple(tuple(example.shape) for example in self.examples)

    @property
    def dtype(self):
        return self.examples[0].dtype

    def leaves(self):
        """What it is given, without the lists and the like that it is given it in."""
        found = []
        _each((self.args, self.kwargs), found.append)
        return found

    def inputs(self):
        return [value for value in self.leaves() if isinstance(value, Step)]


def merge(traces):
    """Steps, what forward returned with Steps for tensors (UNKNOWN where it did not come to that), and
    problems."""
    problems = _branches(traces)
    steps = _common(traces)
    if len(steps) < max(len(trace.nodes) for trace in traces):
        raise DescriptionError(problems + [_parting(traces, steps)])
    if traces[0].end:
        return list(steps.values()), UNKNOWN, problems + [traces[0].end]
    try:
        result = _merge([trace.result for trace in traces], steps)
    except _Differ:
        raise DescriptionError(
            problems + ["what forward returns depends on a size that is known only at run time"]) from None
    return list(steps.values()), result, problems


def unlike(traces, other):
    """Problems: what `traces` have alike, and a trace of other sizes has not."""
    known, steps = _common(traces), _common([*traces, other])
    if len(steps) < len(known) or len(steps) < len(other.nodes):
        return [_parting([*traces, other], steps)]
    decided = [step for step, before in zip(steps.values(), known.values())
               if any(isinstance(value, Varying) and not isinstance(fixed, Varying)
                      for value, fixed in zip(step.leaves(), before.leaves()))]
    return [f"{step.where}: what {step.operation} is given {BY_SIZE}" for step in decided]


def by_chance(trace, again):
    """Problems: what a trace and another one of the same sizes have not alike."""
    steps = _common([trace, again])
    places = [(step.where, step.operation) for step in steps.values() if not all(map(_is_fixed, step.leaves()))]
    longest = max(trace.nodes, again.nodes, key=len)
    if not places and len(steps) < len(longest):
        meta = longest[len(steps)].meta
        places = [(meta["where"], meta["operation"])]
    return [f"{where}: {operation} is not the same when forward runs again: it depends on chance, or on what forward "
            "keeps from one request to the next" for where, operation in places]


def _common(traces):
    """The steps up to where traces part, by the first one's nodes."""
    steps = {}
    for nodes in zip(*(trace.nodes for trace in traces)):
        first = nodes[0]
        step = Step(nodes, tuple(trace.examples[node] for trace, node in zip(traces, nodes)))
        try:
            if any((node.op, node.target) != (first.op, first.target) for node in nodes):
                raise _Differ()
            step.args = _merge([node.args for node in nodes], steps)
            step.kwargs = _merge([node.kwargs for node in nodes], steps)
        except _Differ:
            break
        steps[first] = step
    return steps


def _parting(traces, steps):
    longest = max(traces, key=lambda trace: len(trace.nodes)).nodes
    at = longest[min(len(steps), len(longest) - 1)]
    return (f"{at.meta['where']}: which operations run from here on ({at.meta['operation']}) {BY_SIZE}")


def _is_fixed(value):
    if isinstance(value, Constant):
        first, *others = value.tensors
        return all(first.shape == other.shape and bool(((first == other) | (first != first) & (other != other)).all())
                   for other in others)
    return not isinstance(value, Varying)


class _Differ(Exception):
    pass


def _branches(traces):
    """What forward decides by a size that is known only at run time."""
    problems = []
    for comparisons in zip(*(trace.comparisons for trace in traces)):
        first = comparisons[0]
        if not first.checked and len({comparison.operands for comparison in comparisons}) > 1:
            problems.append(f"{first.where}: decides by a size that is known only at run time: {WHY_FIXED}")
    return list(dict.fromkeys(problems))


def _merge(values, steps):
    first = values[0]
    if isinstance(first, torch.fx.Node):
        if first not in steps or steps[first].nodes != tuple(values):
            raise _Differ()
        return steps[first]
    if isinstance(first, torch.Tensor):
        return Constant(tuple(values))
    if isinstance(first, (tuple, list)):
        if any(len(value) != len(first) for value in values):
            raise _Differ()
        return (list if isinstance(first, list) else tuple)(_merge(items, steps) for items in zip(*values))
    if isinstance(first, dict):
        return {key: _merge([value[key] for value in values], steps) for key in first}
    if isinstance(first, slice):
        return slice(*(_merge([getattr(value, part) for value in values], steps)
                       for part in ("start", "stop", "step")))
    if isinstance(first, range):
        return _merge([tuple(value) for value in values], steps)
    # Plainly compared: to compare a Size leaves a note.
    numbers = list(map(plain, values))
    if any(type(number) is not type(numbers[0]) for number in numbers):
        raise _Differ()
    if all(number == numbers[0] or number != number and numbers[0] != numbers[0] for number in numbers):  # NaN, too.
        return first
    if type(numbers[0]) in (int, float):
        return Varying(tuple(numbers))
    raise _Differ()


def _each(value, visit):
    if isinstance(value, (tuple, list)) and not isinstance(value, (Varying, Constant)):
        for item in value:
            _each(item, visit)
    elif isinstance(value, dict):
        _each(tuple(value.values()), visit)
    elif isinstance(value, slice):
        _each((value.start, value.stop, value.step), visit)
    else:
        visit(value)
