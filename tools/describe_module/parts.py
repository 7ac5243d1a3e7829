"""What takes parts of tensors, and puts tensors together."""

import torch

from .network import Value
from .operands import ConstantTensor, Operand, StateTensor
from .problems import Refusal
from .registry import converts
from .shapes import spread
from .steps import WHY_FIXED, Varying
from .weighted import embedding

MOST_PLACES = 256  # That are picked one by one.

# Parts.


@converts("operator.getitem")
def getitem(call, input, index):
    if isinstance(input, tuple):
        return _part(input, index)
    indices = index if isinstance(index, tuple) else (index,)
    indices = tuple(_written_down(one) for one in indices)
    if any(isinstance(one, Operand) for one in indices) or sum(isinstance(one, list) for one in indices) > 1:
        return _looked_up(call, input, indices)
    whole = value = call.value(input)
    dim = 0
    for one, source in _places(indices, input.rank):
        if one is None:
            value = call.add("unsqueeze", value, dim=dim)
            dim += 1
        elif isinstance(one, list):
            value = _picked(call, value, dim, one)
            dim += 1
        elif isinstance(one, slice):
            value = _sliced(call, value, input, source, dim, one)
            dim += 1
        else:
            value = call.add("select", value, dim=dim, index=_from_end(one, input.sizes(source)))
    return input if value is whole else value


def _written_down(index):
    """Places that forward lists, as a list or as a tensor that is always the same."""
    if isinstance(index, ConstantTensor) and index.rank == 1 and index.dtype == torch.int64 and index.is_fixed:
        first, *others = index.tensors
        if all(torch.equal(first, other) for other in others):
            return first.tolist()
    plain = isinstance(index, list) and all(isinstance(place, int) and not isinstance(place, bool) for place in index)
    return list(map(int, index)) if plain else index


def _picked(call, value, dim, places):
    """Some places of a dimension, in any order: runs of neighbours, put together."""
    if len(places) > MOST_PLACES:
        raise Refusal(f"takes {len(places)} places of a dimension, the most is {MOST_PLACES}")
    runs = []
    for place in places:
        if runs and place == runs[-1][1] and place != 0:
            runs[-1][1] += 1
        else:
            runs.append([place, place + 1])
    parts = [call.add("slice", value, dim=dim, start=start or None, end=end or None) for start, end in runs]
    return call.add("concat", *parts, dim=dim) if len(parts) > 1 else parts[0]


@converts("torch.index_select", ".index_select")
def index_select(call, input, dim, index):
    places = _written_down(index)
    if not isinstance(places, list):
        raise Refusal("takes parts by a tensor of indices that are not always the same")
    return _picked(call, call.value(input), dim, places)


@converts("torch.flip", ".flip")
def flip(call, input, *places, dims=()):
    value = call.value(input)
    for dim in spread(places) or dims:
        size = input.size(dim)
        if isinstance(size, Varying):
            raise Refusal(f"turns round a dimension whose size is known only at run time: {WHY_FIXED}")
        value = _picked(call, value, dim, list(reversed(range(size))))
    return value


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
