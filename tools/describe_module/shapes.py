"""What arranges numbers otherwise, or repeats them."""

import math

import torch

from .operands import StateTensor
from .problems import Refusal
from .registry import FUNCTIONS, converts, converts_modules, register_modules
from .sizes import Size
from .steps import WHY_FIXED, Varying


def spread(sizes):
    """(2, 3) from both x.view(2, 3) and x.view((2, 3))."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) \
        and not isinstance(sizes[0], Varying) else sizes


# Views.


@converts(".view", ".reshape")
def view(call, input, *shape):
    if len(shape) == 1 and isinstance(shape[0], torch.dtype):
        raise Refusal("takes the bits of numbers for others")
    return reshape(call, input, spread(shape))


@converts("torch.reshape")
def reshape_function(call, input, shape):
    return reshape(call, input, shape)


@converts(".view_as", ".reshape_as")
def view_as(call, input, other):
    return reshape(call, input, other.shape)


def reshape(call, input, shape):
    """`shape`: as forward has it. What it comes to, the example says."""
    wanted = call.step.shapes
    if wanted == input.shapes:
        return input
    entries = [_entry(dim, asked, input, wanted) for dim, asked in enumerate(shape)]
    if entries.count(-1) <= 1:
        return call.add("reshape", input, shape=entries)
    return _regroup(call, input, wanted)


def _entry(dim, asked, input, wanted):
    """What a description says for one dimension: 0 where it stays, -1 for what is left."""
    sizes = tuple(shape[dim] for shape in wanted)
    fixed = len(set(sizes)) == 1
    stays = dim < input.rank and input.sizes(dim) == sizes
    # A size that was asked of a tensor may be a constant by chance; one that is written down is none.
    if stays and (not fixed or isinstance(asked, Size)):
        return 0
    return sizes[0] if fixed and asked != -1 else -1


def _regroup(call, input, wanted):
    """Neighbouring dimensions are put together, and taken apart again."""
    groups = _groups(input.shapes, wanted)
    value = input
    # From the last on, so that those before keep their numbers.
    for have, want in reversed(groups):
        if have[0] >= input.rank:
            value = call.add("unsqueeze", value, dim=-1)
        elif want[0] >= len(wanted[0]):
            value = call.add("squeeze", value, dim=have[0])
        if len(have) > 1:
            value = call.add("flatten", value, start_dim=have[0], end_dim=have[-1])
        if len(want) > 1:
            value = unflattened(call, value, have[0], [sizes_of(wanted, dim) for dim in want])
    return value


def flattened(call, value, start, count):
    """With `count` dimensions put together, none of them making one of size 1."""
    if count == 0:
        return call.add("unsqueeze", value, dim=start)
    return value if count == 1 else call.add("flatten", value, start_dim=start, end_dim=start + count - 1)


def unflattened(call, value, dim, sizes):
    """With a dimension taken apart again: `sizes` of each part, in each run."""
    if not sizes:
        return call.add("squeeze", value, dim=dim)
    return value if len(sizes) == 1 else call.add("unflatten", value, dim=dim, sizes=_parts(sizes))


def _parts(sizes):
    """What a dimension is taken apart into: -1 for what is left."""
    parts = [one[0] if len(set(one)) == 1 else -1 for one in sizes]
    if parts.count(-1) > 1:
        raise Refusal(f"takes a dimension apart into several sizes that are known only at run time: {WHY_FIXED}")
    return parts


def sizes_of(shapes, dim):
    return tuple(shape[dim] for shape in shapes)


def _groups(have, want):
    """The smallest runs of dimensions, of both, that have as many elements as each other."""
    groups, i, j = [], 0, 0
    while i < len(have[0]) or j < len(want[0]):
        left, right = [i], [j]
        while _products(have, left) != _products(want, right):
            grows_left = _products(have, left)[0] < _products(want, right)[0]
            shapes, dims = (have, left) if grows_left else (want, right)
            dims.append(dims[-1] + 1)
            if dims[-1] >= len(shapes[0]):
                raise Refusal(f"arranges sizes that are known only at run time anew: {WHY_FIXED}")
        i, j = left[-1] + 1, right[-1] + 1
        groups.append((left, right))
    return groups


def _products(shapes, dims):
    return tuple(math.prod(shape[dim] for dim in dims if dim < len(shape)) for shape in shapes)


@converts("torch.flatten", ".flatten", "torch.ravel", ".ravel")
def flatten(call, input, start_dim=0, end_dim=-1):
    if call.step.shapes == input.shapes:
        return input
    if input.rank == 0:
        return call.add("reshape", input, shape=[1])
    return call.add("flatten", input, start_dim=start_dim, end_dim=end_dim)


register_modules(flatten, {"Flatten": ["start_dim", "end_dim"]})


@converts("torch.unflatten", ".unflatten")
def unflatten(call, input, dim, sizes):
    start = dim % input.rank
    return call.add("unflatten", input, dim=dim,
                    sizes=_parts([sizes_of(call.step.shapes, start + at) for at in range(len(sizes))]))


@converts_modules("Unflatten")
def unflatten_module(call, module, input):
    return unflatten(call, input, module.dim, module.unflattened_size)


@converts(".permute")
def permute_method(call, input, *dims):
    return permute(call, input, spread(dims))


@converts("torch.permute")
def permute(call, input, dims):
    order = [dim % input.rank for dim in dims]
    moved = [dim for dim, place in enumerate(order) if dim != place]
    if not moved:
        return input
    if len(moved) == 2:
        return _transpose(call, input, *moved)
    return call.add("permute", input, dims=order)


@converts("torch.transpose", ".transpose", "torch.swapaxes", "torch.swapdims", ".swapaxes", ".swapdims")
def transpose(call, input, dim0, dim1):
    return _transpose(call, input, dim0, dim1)


def _transpose(call, input, dim0, dim1):
    if isinstance(input, StateTensor) and input.rank == 2:
        return input.transposed()
    return call.add("transpose", input, dim0=dim0, dim1=dim1)


@converts("torch.t", ".t")
def t(call, input):
    return _transpose(call, input, 0, 1) if input.rank == 2 else input


@converts("torch.movedim", ".movedim", "torch.moveaxis", ".moveaxis")
def movedim(call, input, source, destination):
    pairs = zip(*([[dim] if isinstance(dim, int) else dim for dim in (source, destination)]))
    places = {end % input.rank: start % input.rank for start, end in pairs}
    others = iter(dim for dim in range(input.rank) if dim not in places.values())
    return permute(call, input, [places[dim] if dim in places else next(others) for dim in range(input.rank)])


def _all_reversed(call, input):
    return permute(call, input, list(reversed(range(input.rank))))


ATTRIBUTES = {"T": _all_reversed, "mT": lambda call, input: _transpose(call, input, -2, -1),
              "data": lambda call, input: input, "real": lambda call, input: input}


def attribute(call, input, name):
    """x.T and its like, which tracing has as getattr(x, "T")."""
    if name not in ATTRIBUTES:
        raise Refusal(f"there is no layer for .{name}")
    return ATTRIBUTES[name](call, input)


FUNCTIONS[getattr] = attribute


@converts("torch.unsqueeze", ".unsqueeze")
def unsqueeze(call, input, dim):
    return call.add("unsqueeze", input, dim=dim)


@converts("torch.squeeze", ".squeeze")
def squeeze(call, input, *dims, dim=None):
    dims = spread(dims) or (() if dim is None else spread((dim,)))
    if not dims and not input.is_fixed:
        raise Refusal("would drop a dimension of the inputs' whenever it is 1: say which, as in squeeze(-1)")
    value = input
    for at in sorted((at % input.rank for at in dims or range(input.rank)), reverse=True):
        size = input.size(at)
        if isinstance(size, Varying):
            raise Refusal(f"would drop dimension {at} only where it is 1, and its size is known only at run time")
        if size == 1:
            value = call.add("squeeze", value, dim=at - input.rank if at == input.rank - 1 else at)
    return value


# Repeated.


@converts(".expand")
def expand(call, input, *sizes, implicit=False):
    return call.expand(call.value(input), input.shapes, call.step.shapes)


@converts(".expand_as", "torch.broadcast_to", ".broadcast_to")
def expand_as(call, input, other):
    return call.expand(call.value(input), input.shapes, call.step.shapes)


@converts(".repeat", "torch.tile", ".tile")
def repeat(call, input, *repeats):
    counts = spread(repeats)
    counts = (1,) * (input.rank - len(counts)) + tuple(counts)
    value = call.value(input)
    for _ in range(len(counts) - input.rank):
        value = call.add("unsqueeze", value)
    shapes = [(1,) * (len(counts) - input.rank) + shape for shape in input.shapes]
    for dim, count in enumerate(counts):
        if sizes_of(shapes, dim) != (1,) * len(shapes) and count != 1:
            if isinstance(count, Varying):
                raise Refusal(f"repeats dimension {dim} as often as is known only at run time")
            value = call.add("concat", *[value] * count, dim=dim)
            shapes = [shape[:dim] + (shape[dim] * count,) + shape[dim + 1:] for shape in shapes]
    return call.expand(value, tuple(shapes), call.step.shapes)


@converts("torch.repeat_interleave", ".repeat_interleave")
def repeat_interleave(call, input, repeats, dim=None, output_size=None):
    if not isinstance(repeats, int) or dim is None:
        raise Refusal("only the same number of repeats of a named dimension can be said")
    if repeats == 1:
        return input
    at = dim % input.rank
    value = call.add("unsqueeze", input, dim=at + 1)
    value = call.add("concat", *[value] * repeats, dim=at + 1)
    return call.add("flatten", value, start_dim=at, end_dim=at + 1)
