"""What forward has written into tensors that it made itself.

Such tensors are no part of the trace: an operation is given a copy of one. What it writes into the copy goes
on in what it returns, but not in the tensor itself, which forward must not read any more.
"""

import torch
from torch.overrides import TorchFunctionMode

from .problems import Untraceable
from .sizes import location


class Writes:
    """From the first write on, whatever reads such a tensor raises Untraceable."""

    def __init__(self):
        self._by_storage = {}  # By its address, which views share: what wrote there.
        self._written = []  # Of (tensor, its class); keeps the addresses from being taken again.
        self._watch = _Watch(self.check)
        self._unreadable = _unreadable(self.check)

    def add(self, tensor, what):
        """That `what` was to write into a tensor, and did into its copy."""
        if tensor.numel() == 0 or type(tensor) is self._unreadable:
            return
        if not self._written:
            self._watch.__enter__()
        self._by_storage[_storage(tensor)] = what
        self._written.append((tensor, type(tensor)))
        tensor.__class__ = self._unreadable

    def check(self, value):
        """Raises Untraceable where a value is, or has, what was written into."""
        if isinstance(value, (tuple, list)):
            for item in value:
                self.check(item)
        elif isinstance(value, torch.Tensor) and self._written:
            what = self._by_storage.get(_storage(value))
            if what is not None:
                raise Untraceable(f"{location()}: reads a tensor that forward made and {what} wrote into: go on with "
                                  "what that returns instead")

    def close(self):
        """Leaves the tensors as they were."""
        for tensor, kind in self._written:
            tensor.__class__ = kind
        if self._written:
            self._watch.__exit__(None, None, None)


class _Watch(TorchFunctionMode):
    """Checks what operations are given that are no part of the trace."""

    def __init__(self, check):
        super().__init__()
        self._check = check

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        self._check((*args, *kwargs.values()))
        return func(*args, **kwargs)


def _unreadable(check):
    """A class that does the same: older releases do not show tensor[...] to a mode."""
    class Unreadable(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            check(args)
            with torch._C.DisableTorchFunction():
                return func(*args, **(kwargs or {}))
    return Unreadable


def _storage(tensor):
    with torch._C.DisableTorchFunction():
        return (tensor.untyped_storage() if hasattr(torch.Tensor, "untyped_storage") else tensor.storage()).data_ptr()
