"""Sizes of tensors while a module is traced: numbers like any other, so that forward can compute with
them, that leave a note where forward decides something by them. int(), float(), len(), range(), math.sqrt
and 0.5 * size give numbers that do not: what is decided by those shows only where runs of different sizes
differ."""

import ast
import functools
import linecache
import os
import sys
import typing

import torch

# Whose frames are neither of forward's.
_LIBRARIES = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(__file__) + os.sep)


outermost = None  # The code that calls forward: what called that is none of forward's.


class Comparison(typing.NamedTuple):
    """A decision by a size. Harmless where `checked`, in an assert or an `if` that only raises."""

    operands: tuple
    where: str
    checked: bool


def is_users(frame):
    """Whether it runs what is neither PyTorch's nor ours."""
    name = frame.f_code.co_filename
    return not name.startswith(_LIBRARIES) and not name.startswith("<")


def user_frame():
    """The innermost frame of forward, or None between its calls."""
    frame = sys._getframe(1)
    while frame is not None and not is_users(frame):
        if frame.f_code is outermost:
            return None
        frame = frame.f_back
    return frame


def location():
    """Where the user's code is: "model.py:12"."""
    frame = user_frame()
    return place(frame.f_code.co_filename, frame.f_lineno) if frame else "forward"


def place(filename, line):
    return f"{os.path.relpath(filename)}:{line}"


class Size(int):
    """A tensor's size. What is computed of it is one, too, or a Quotient."""

    comparisons = []  # Of the trace under way.

    __hash__ = int.__hash__


class Quotient(float):
    """What is computed of sizes and need not be whole."""

    __hash__ = float.__hash__


def sized(value):
    """The same, leaving notes: for the sizes that forward is given."""
    if type(value) is int:
        return Size(value)
    if type(value) is float:
        return Quotient(value)
    if type(value) in (tuple, list, torch.Size):
        return (list if type(value) is list else tuple)(map(sized, value))
    return value


def plain(value):
    """The same number, leaving no notes."""
    if isinstance(value, Size):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, Quotient) else value


def _computes(name, compute):
    def method(self, *others):
        if isinstance(self, int) and any(isinstance(other, float) for other in others):
            return getattr(Quotient(self), name)(*others)
        return sized(compute(self, *others))
    return method


def _compares(_, compare):
    def method(self, *others):
        frame = user_frame()
        Size.comparisons.append(Comparison(tuple(map(plain, (self, *others))), location(), _only_checks(frame)))
        return compare(self, *others)
    return method


_BINARY = ["add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "and", "or", "xor", "lshift", "rshift"]
_COMPUTING = [*_BINARY, *(f"r{name}" for name in _BINARY),
              "neg", "pos", "abs", "invert", "round", "floor", "ceil", "trunc"]
for _type in (Size, Quotient):
    for _names, _noting in ((_COMPUTING, _computes), (["eq", "ne", "lt", "le", "gt", "ge", "bool"], _compares)):
        for _name in (f"__{name}__" for name in _names):
            if hasattr(_type, _name):
                setattr(_type, _name, _noting(_name, getattr(_type.__base__, _name)))


def _only_checks(frame):
    return frame is not None and frame.f_lineno in _checking_lines(frame.f_code.co_filename)


@functools.lru_cache(maxsize=None)
def _checking_lines(filename):
    """The lines of conditions that forward either fulfils or ends at."""
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return frozenset()
    conditions = [node.test for node in ast.walk(tree)
                  if isinstance(node, ast.Assert) or isinstance(node, ast.If)
                  and all(isinstance(statement, ast.Raise) for statement in node.body)]
    return frozenset(line for condition in conditions
                     for line in range(condition.lineno, condition.end_lineno + 1))
