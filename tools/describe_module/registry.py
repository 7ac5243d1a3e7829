"""Which converter says what. A converter takes the Call and what the operation is given, by PyTorch's
names and with its defaults, and returns what the layers that it adds give.
"""

import inspect
import operator

import torch

from .problems import Refusal

FUNCTIONS = {}
METHODS = {}
MODULES = {}

_NAMESPACES = {"torch": torch, "F": torch.nn.functional, "operator": operator, "linalg": torch.linalg,
               "special": torch.special}


def converts(*names):
    """Registers a converter for "torch.flatten", "F.relu", "operator.add" and methods, as ".view"; what
    this PyTorch does not have is passed over."""
    def register(converter):
        for name in names:
            namespace, _, attribute = name.rpartition(".")
            if not namespace:
                METHODS[attribute] = converter
                continue
            function = getattr(_NAMESPACES[namespace], attribute, None)
            if function is not None:
                FUNCTIONS[function] = converter
        return converter
    return register


def converts_modules(*names):
    """Registers a converter for layers of torch.nn, which it is given before the arguments of forward."""
    def register(converter):
        MODULES.update({getattr(torch.nn, name): converter for name in names if hasattr(torch.nn, name)})
        return converter
    return register


# What subclasses may have of their own and still compute the same.
_HOW_IT_IS_MADE = {"__init__", "__doc__", "__module__", "__annotations__", "__constants__", "__repr__", "extra_repr",
                   "reset_parameters", "_reset_parameters", "_init_weights", "__firstlineno__",
                   "__static_attributes__"}


def layer_class(module):
    """The class of torch.nn that a module computes like: its own, or one that it only makes otherwise. None
    where there is no converter for that."""
    classes = type(module).__mro__
    for depth, known in enumerate(classes):
        if known in MODULES:
            changed = {name for own in classes[:depth] for name in vars(own) if hasattr(known, name)}
            return known if changed <= _HOW_IT_IS_MADE else None
    return None


def register_modules(converter, modules):
    """Layers that are what `converter` says with their attributes for arguments: by name, the attributes."""
    for name, attributes in modules.items():
        def convert(call, module, *args, _attributes=tuple(attributes)):
            return apply(converter, call, args, {name: getattr(module, name) for name in _attributes})
        converts_modules(name)(convert)


def apply(converter, call, args, kwargs):
    """What a converter returns; refuses arguments that it does not have."""
    try:
        bound = inspect.signature(converter).bind(call, *args, **kwargs)
    except TypeError as error:
        raise Refusal(f"its arguments cannot be said: {error}") from None
    return converter(*bound.args, **bound.kwargs)


def function_converter(function):
    """None where there is none."""
    return FUNCTIONS.get(function) or FUNCTIONS.get(_out_of_place(function))


def method_converter(name):
    if name not in METHODS and name.endswith("_") and not name.startswith("__"):
        name = name[:-1]  # In place: tracing sees to it that what was there before is not asked for.
    return METHODS.get(name)


def _out_of_place(function):
    """torch.relu for torch.relu_, operator.add for operator.iadd; None for anything else."""
    name = getattr(function, "__name__", "")
    if name.startswith("i") and getattr(operator, name, None) is function:
        return getattr(operator, name[1:], None) or getattr(operator, name[1:] + "_", None)
    if name.endswith("_") and not name.startswith("_"):
        return getattr(torch, name[:-1], None) or getattr(torch.nn.functional, name[:-1], None)
    return None
