"""Sizes of tensors while a module is traced: numbers like any other, so that forward can compute with
them, that leave a note where forward decides something by them."""

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
    """A tensor's size. What is computed of it is one, too."""

    comparisons = []  # Of the trace under way.

    __hash__ = int.__hash__


def _computes(name):
    compute = getattr(int, name)

    def method(self, *others):
        result = compute(self, *others)
        return Size(result) if type(result) is int else result
    return method


def _compares(name):
    compare = getattr(int, name)

    def method(self, *others):
        frame = user_frame()
        operands = tuple(int(value) if isinstance(value, int) else value for value in (self, *others))
        Size.comparisons.append(Comparison(operands, location(), _only_checks(frame)))
        return compare(self, *others)
    return method


for _operation in ["add", "sub", "mul", "floordiv", "mod"]:
    for _name in (f"__{_operation}__", f"__r{_operation}__"):
        setattr(Size, _name, _computes(_name))
setattr(Size, "__neg__", _computes("__neg__"))
for _operation in ["eq", "ne", "lt", "le", "gt", "ge", "bool"]:
    setattr(Size, f"__{_operation}__", _compares(f"__{_operation}__"))


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
