"""One list of operations from the traces of several runs: what differs between them is a size that is
known only at run time."""

import typing

import torch
import torch.fx

from .problems import DescriptionError
from .sizes import plain

WHY_FIXED = "if it is always the same, give it in --input instead of -1"

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

    def inputs(self):
        found = []
        collect = lambda value: found.append(value) if isinstance(value, Step) else None  # noqa: E731
        _each((self.args, self.kwargs), collect)
        return found


def merge(traces):
    """Steps, what forward returned with Steps for tensors (UNKNOWN where it did not come to that), and
    problems."""
    problems = _branches(traces)
    steps = {}  # By the first trace's nodes.
    count = min(len(trace.nodes) for trace in traces)
    for nodes in zip(*(trace.nodes for trace in traces)):
        first = nodes[0]
        step = Step(nodes, tuple(trace.examples[node] for trace, node in zip(traces, nodes)))
        try:
            if any((node.op, node.target) != (first.op, first.target) for node in nodes):
                raise _Differ()
            step.args = _merge([node.args for node in nodes], steps)
            step.kwargs = _merge([node.kwargs for node in nodes], steps)
        except _Differ:
            count = len(steps)
            break
        steps[first] = step
    lengths = {len(trace.nodes) for trace in traces}
    if lengths != {count}:
        longest = max(traces, key=lambda trace: len(trace.nodes)).nodes
        at = longest[min(count, len(longest) - 1)]
        problems.append(f"{at.meta['where']}: which operations run from here on ({at.meta['operation']}) depends "
                        f"on a size that is known only at run time: {WHY_FIXED}")
        raise DescriptionError(problems)
    if traces[0].end:
        return list(steps.values()), UNKNOWN, problems + [traces[0].end]
    try:
        result = _merge([trace.result for trace in traces], steps)
    except _Differ:
        raise DescriptionError(
            problems + ["what forward returns depends on a size that is known only at run time"]) from None
    return list(steps.values()), result, problems


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
