"""What forward is given: types, shapes, and the sizes to trace with."""

import itertools
import math
import re
import typing

import torch

from .problems import DescriptionError

# As relight.v1.Tensor.datatype has them. A PyTorch that lacks a type cannot trace it either.
DATATYPES = {name: getattr(torch, type_name) for name, type_name in {
    "BOOL": "bool", "UINT8": "uint8", "INT8": "int8", "INT16": "int16", "INT32": "int32",
    "INT64": "int64", "FP16": "float16", "BF16": "bfloat16", "FP32": "float32", "FP64": "float64",
    "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
}.items() if hasattr(torch, type_name)}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}

ASK = 'argument "{0}" of forward: give its type and shape, as in --input {0}=FP32[-1,3,224,224]'


class Input(typing.NamedTuple):
    name: str
    datatype: str
    shape: tuple  # -1 for a free dimension.

    def example(self, shape):
        dtype = DATATYPES[self.datatype]
        # Zero is an index of any table, and keeps nothing out where it is a mask.
        if not dtype.is_floating_point:
            return torch.zeros(shape, dtype=dtype)
        # Whatever floats the clients send, the module computes in its own.
        return torch.ones(shape, dtype=dtype if dtype == torch.float64 else torch.float32)


def parse_input(text):
    """An Input from "x=FP32[-1,3,224,224]"."""
    match = re.fullmatch(r"\s*(\w+)\s*=\s*(\w+)\s*\[([-\d,\s]+)\]\s*", text)
    if not match:
        raise ValueError(f'input "{text}" is not like x=FP32[-1,3,224,224]')
    name, datatype, sizes = match.groups()
    if datatype not in DATATYPES:
        raise ValueError(f'input "{name}" has type "{datatype}", it can be {", ".join(DATATYPES)}')
    try:
        shape = tuple(int(size) for size in sizes.split(","))
    except ValueError:
        raise ValueError(f'input "{name}" has shape "[{sizes}]", which is no list of sizes') from None
    for size in shape:
        if size != -1 and size < 1:
            raise ValueError(f'input "{name}" has a size of {size}: it can be -1 (free) or from 1 on')
    return Input(name, datatype, shape)


def deduce_input(module, names):
    """The Input that the first layer with parameters asks for, and the layer's path."""
    spatial_dims = {torch.nn.Conv1d: 1, torch.nn.Conv2d: 2, torch.nn.Conv3d: 3}
    if len(names) == 1:
        for path, layer in module.named_modules():
            if isinstance(layer, torch.nn.Linear) and layer.in_features:
                return Input(names[0], "FP32", (-1, layer.in_features)), path
            if type(layer) in spatial_dims:
                free = (-1,) * spatial_dims[type(layer)]
                return Input(names[0], "FP32", (-1, layer.in_channels, *free)), path
            if any(True for _ in layer.parameters(recurse=False)):
                break
    raise DescriptionError([ASK.format(name) for name in names])


# The sizes to trace with. A size that follows from the inputs must be told from a constant, and from
# another one: so there are two runs, of different sizes, and multiples of some number for modules that
# halve sizes over and over. Those of a run are far apart, so that they stay different when they are
# halved; those of the first run are longer, so that what is cut off at some length shows; and by no
# small number do both leave the same remainder, so that what is made up for where something does not
# divide them shows, too.

SMALL_PRIMES = 2 * 3 * 5 * 7 * 11 * 13
# The least size in each run; smaller ones for what has a maximum, larger ones for long windows.
LEAST = [(64, 5), (64, 64), (5, 5), (512, 512), (2048, 2048)]
MULTIPLES = [1, 2, 4, 8, 16, 32, 64, 128]
MOST_PIXELS = 2**18


def plans(inputs):
    """Ways to choose sizes, the likeliest first. Each is a list of runs, with a shape by name."""
    free = [(spec.name, dim) for spec in inputs for dim, size in enumerate(spec.shape) if size < 0]
    if not free:
        yield [{spec.name: spec.shape for spec in inputs}]
        return
    for sizes in _sizes(free):
        yield [{spec.name: tuple(sizes[spec.name, dim][run] if size < 0 else size
                                 for dim, size in enumerate(spec.shape)) for spec in inputs}
               for run in range(2)]


def _sizes(free):
    """By free dimension, its size in each run."""
    scales = list(itertools.product(MULTIPLES, LEAST))
    if all(dim == 0 for _, dim in free):
        scales = scales[:1]
    usual, unusual = _groupings(free)
    for groupings, most in ((usual, 400), (unusual, 100)):
        choices = (_sizes_of(grouping, *scale) for scale in scales for grouping in groupings)
        yield from itertools.islice(filter(_is_affordable, choices), most)


def _is_affordable(sizes):
    """Whether no input has so many pixels that networks of images take long."""
    names = {name for name, _ in sizes}
    shapes = [[pair[0] for (owner, _), pair in sizes.items() if owner == name] for name in names]
    return all(len(shape) < 3 or math.prod(shape) <= MOST_PIXELS for shape in shapes)


def _sizes_of(grouping, multiple, least):
    # What is probably the batch is small, for that is what tracing costs.
    batches = [group for group in grouping if all(dim == 0 for _, dim in group)]
    others = [group for group in grouping if group not in batches]
    sizes = {place: (2 + index, 3 + index) for index, group in enumerate(batches) for place in group}
    taken = set()
    for index, group in enumerate(others):
        first = _next(least[0] * (index + 1), multiple, taken, lambda count: all(
            count % divisor for divisor in range(2, int(count**0.5) + 1)))
        second = _next(least[1] * (len(others) - index), multiple, taken | {first}, lambda count: math.gcd(
            first // multiple - count, SMALL_PRIMES) == 1)
        taken |= {first, second}
        sizes.update(dict.fromkeys(group, (first, second)))
    return sizes


def _next(least, multiple, taken, fits):
    """The first multiple from `least` on, and not of 1, whose count fits."""
    counts = itertools.count(max(2, -(-least // multiple)))
    return next(multiple * count for count in counts if multiple * count not in taken and fits(count))


def _groupings(free):
    """Which free dimensions are to be equal, the fewest first: where the first of each input are, as
    those of a batch, and then other ways."""
    batch = [place for place in free if place[1] == 0]
    others = [place for place in free if place[1] != 0]
    usual = [([batch] if batch else []) + partition for partition in _finest_first(others)]
    if len({name for name, _ in free}) == 1:
        return usual, []
    return usual, [partition for partition in _finest_first(free) if partition not in usual]


def _finest_first(places):
    if len(places) <= 6:
        return sorted(_partitions(places), key=len, reverse=True)
    by_dim = {}
    for place in places:
        by_dim.setdefault(place[1], []).append(place)
    return [[[place] for place in places], list(by_dim.values()), [places]]


def _partitions(items):
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for partition in _partitions(rest):
        yield [[first], *partition]
        for index, group in enumerate(partition):
            yield [*partition[:index], [first, *group], *partition[index + 1:]]
