"""What arranges numbers otherwise: views, parts, and what is put together."""

import math

import torch

from .network import Value
from .operands import Operand, StateTensor
from .problems import Refusal
from .registry import FUNCTIONS, converts, converts_modules, register_modules
from .sizes import Size
from .steps import WHY_FIXED, Varying


def _spread(sizes):
    """(2, 3) from both x.view(2, 3) and x.view((2, 3))."""
    return tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) \
        and not isinstance(sizes[0], Varying) else sizes


# Views.


@converts(".view", ".reshape")
def view(call, input, *shape):
    if len(shape) == 1 and isinstance(shape[0], torch.dtype):
        raise Refusal("takes the bits of numbers for others")
    return reshape(call, input, _spread(shape))


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
            value = unflattened(call, value, have[0], [_sizes(wanted, dim) for dim in want])
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


def _sizes(shapes, dim):
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
                    sizes=_parts([_sizes(call.step.shapes, start + at) for at in range(len(sizes))]))


@converts_modules("Unflatten")
def unflatten_module(call, module, input):
    return unflatten(call, input, module.dim, module.unflattened_size)


@converts(".permute")
def permute_method(call, input, *dims):
    return permute(call, input, _spread(dims))


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
    dims = _spread(dims) or (() if dim is None else _spread((dim,)))
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
    counts = _spread(repeats)
    counts = (1,) * (input.rank - len(counts)) + tuple(counts)
    value = call.value(input)
    for _ in range(len(counts) - input.rank):
        value = call.add("unsqueeze", value)
    shapes = [(1,) * (len(counts) - input.rank) + shape for shape in input.shapes]
    for dim, count in enumerate(counts):
        if _sizes(shapes, dim) != (1,) * len(shapes) and count != 1:
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


# Parts.


@converts("operator.getitem")
def getitem(call, input, index):
    if isinstance(input, tuple):
        return _part(input, index)
    indices = index if isinstance(index, tuple) else (index,)
    if any(isinstance(one, (Operand, list)) for one in indices):
        return _looked_up(call, input, indices)
    whole = value = call.value(input)
    dim = 0
    for one, source in _places(indices, input.rank):
        if one is None:
            value = call.add("unsqueeze", value, dim=dim)
            dim += 1
        elif isinstance(one, slice):
            value = _sliced(call, value, input, source, dim, one)
            dim += 1
        else:
            value = call.add("select", value, dim=dim, index=_from_end(one, input.sizes(source)))
    return input if value is whole else value


def _part(parts, index):
    if parts[index] is None:
        raise Refusal(f"there is no layer for result {index} of it")
    return parts[index]


def _places(indices, rank):
    """Each index, and the dimension that it is about (None: a new one)."""
    if not any(one is Ellipsis for one in indices):
        indices = (*indices, Ellipsis)
    named = sum(one is not None and one is not Ellipsis for one in indices)
    places, dim = [], 0
    for one in indices:
        if one is Ellipsis:
            places += [(slice(None), dim + skipped) for skipped in range(rank - named)]
            dim += rank - named
        elif one is None:
            places.append((None, None))
        else:
            places.append((one, dim))
            dim += 1
    return places


def _from_end(index, sizes):
    """A place in a dimension: counted from the end where it follows from the dimension's size."""
    if not isinstance(index, Varying):
        return index
    offsets = {place - size for place, size in zip(index.values, sizes)}
    if len(offsets) > 1 or next(iter(offsets)) > 0:
        raise Refusal(f"takes a part up to a size that is known only at run time: {WHY_FIXED}")
    return offsets.pop()


def _sliced(call, value, input, source, dim, part):
    sizes = input.sizes(source)
    start = 0 if part.start is None else _from_end(part.start, sizes)
    end = None if part.stop is None else _from_end(part.stop, sizes)
    if isinstance(part.stop, Varying) and end == 0:
        end = None  # All of them.
    step = 1 if part.step is None else part.step
    # What is written down may cut longer inputs off; nothing is cut off what is always shorter.
    if end is not None and len(set(sizes)) == 1 and end >= sizes[0]:
        end = None
    if (start, end, step) == (0, None, 1):
        return value
    return call.add("slice", value, dim=dim, start=start or None, end=end, step=step)


def _looked_up(call, input, indices):
    """table[indices]: an embedding."""
    from .weighted import embedding
    is_table = len(indices) == 1 and isinstance(input, StateTensor) and input.rank == 2
    if is_table and isinstance(indices[0], Operand) and indices[0].dtype in (torch.int32, torch.int64):
        return embedding(call, indices[0], input)
    raise Refusal("takes parts by a tensor of indices, of which only rows of a matrix of parameters can be said")


@converts("torch.select", ".select")
def select(call, input, dim, index):
    return call.add("select", input, dim=dim, index=_from_end(index, input.sizes(dim)))


@converts("torch.narrow", ".narrow")
def narrow(call, input, dim, start, length):
    if isinstance(start, Varying) or isinstance(length, Varying):
        raise Refusal(f"takes a part of a size that is known only at run time: {WHY_FIXED}")
    return _sliced(call, call.value(input), input, dim, dim, slice(start, start + length))


@converts("torch.split", ".split")
def split(call, input, split_size=None, dim=0, split_size_or_sections=None):
    sizes = split_size if split_size_or_sections is None else split_size_or_sections
    sizes = [sizes] if isinstance(sizes, (int, Varying)) else list(sizes)
    return _outputs(call, call.add("split", input, split_size=sizes, dim=dim))


@converts("torch.split_with_sizes", ".split_with_sizes")
def split_with_sizes(call, input, split_sizes, dim=0):
    return split(call, input, split_sizes, dim)


@converts("torch.chunk", ".chunk")
def chunk(call, input, chunks, dim=0):
    if isinstance(input.size(dim), Varying):
        raise Refusal(f"halves or quarters a size that is known only at run time: {WHY_FIXED}")
    return _outputs(call, call.add("chunk", input, chunks=chunks, dim=dim))


def _outputs(call, value):
    return tuple(Value(value.layer, index) for index in range(len(call.step.examples[0])))


@converts("torch.unbind", ".unbind")
def unbind(call, input, dim=0):
    return tuple(call.add("select", input, dim=dim, index=index) if call.uses_part(index) else None
                 for index in range(len(call.step.examples[0])))


# Put together.


@converts("torch.cat", "torch.concat", "torch.concatenate")
def cat(call, tensors, dim=0):
    return call.add("concat", *tensors, dim=dim) if len(tensors) > 1 else tensors[0]


@converts("torch.stack")
def stack(call, tensors, dim=0):
    if len(tensors) == 1:
        return call.add("unsqueeze", tensors[0], dim=dim)
    return call.add("stack", *tensors, dim=dim)


@converts("torch.hstack")
def hstack(call, tensors):
    return cat(call, tensors, 0 if tensors[0].rank == 1 else 1)


@converts("torch.vstack")
def vstack(call, tensors):
    return stack(call, tensors) if tensors[0].rank == 1 else cat(call, tensors)


@converts("torch.roll", ".roll")
def roll(call, input, shifts, dims=None):
    shifts, dims = ([one] if isinstance(one, int) else one for one in (shifts, dims))
    if dims is None or any(isinstance(shift, Varying) for shift in shifts):
        raise Refusal("only shifts by numbers along named dimensions can be said")
    value = call.value(input)
    for shift, dim in zip(shifts, dims):
        size = input.size(dim)
        shift = shift if isinstance(size, Varying) else shift % size
        if shift:
            last = call.add("slice", value, dim=dim, start=-shift)
            value = call.add("concat", last, call.add("slice", value, dim=dim, end=-shift), dim=dim)
    return value


@converts("torch.outer", ".outer")
def outer(call, input, vec2):
    return call.add("mul", call.add("unsqueeze", input, dim=1), vec2)
