"""Layers for tensors that forward makes itself: positions, masks that keep each position from seeing
later ones, and tensors of one number or of a few."""

import torch

from .inputs import NAMES
from .operands import Computed, ConstantTensor
from .problems import Refusal

# Where a mask's diagonal can be.
DIAGONALS = (0, 1, -1)
MOST_NUMBERS = 16  # That are made one by one.


def build(call, constant):
    """The value of a ConstantTensor."""
    number = constant.number
    like = call.find_shape(constant.shapes) if number is not None else None
    if like is not None:
        return call.full(like.value, number, NAMES[constant.dtype])
    core = _core(constant)
    for convert in (_positions, _triangle, _few):
        built = convert(call, core)
        if built is not None:
            return call.expand(built, core.shapes, constant.shapes)
    shape = list(constant.shapes[0])
    raise Refusal(f"is given a tensor of shape {shape} that forward makes, and that no layer can: register it as "
                  "a buffer, so that checkpoints have it")


def _core(constant):
    """With a size of 1 in dimensions along which it is the same all over, in each run."""
    tensors = constant.tensors
    for dim in range(constant.rank):
        alike = all(tensor.shape[dim] > 0 and torch.equal(tensor, tensor.narrow(dim, 0, 1).expand_as(tensor))
                    for tensor in tensors)
        tensors = [tensor.narrow(dim, 0, 1) for tensor in tensors] if alike else tensors
    return ConstantTensor(tensors)


def is_causal(constant, masks_out):
    """Whether it keeps each position from those after its own. `masks_out`: what True means."""
    if constant.rank != 2:
        return False
    for tensor in constant.tensors:
        later = torch.ones(tensor.shape).triu(1).bool()
        if tensor.dtype == torch.bool:
            expected = later if masks_out else ~later
        else:
            expected = torch.zeros_like(tensor).masked_fill(later, float("-inf"))
        if not torch.equal(tensor, expected):
            return False
    return True


def _long_dims(constant):
    return [dim for dim in range(constant.rank) if min(constant.sizes(dim)) > 1]


def _positions(call, constant):
    """first, first + step, first + 2 * step, ... along one dimension."""
    dims = _long_dims(constant)
    if len(dims) != 1 or constant.dtype == torch.bool:
        return None
    dim, = dims
    rows = [tensor.flatten() for tensor in constant.tensors]
    first = rows[0][0].item()
    step = (rows[0][1] - rows[0][0]).item()
    if not all(torch.equal(row, first + step * torch.arange(len(row)).to(row.dtype)) for row in rows):
        return None
    value = _arange(call, constant.sizes(dim))
    if value is None:
        return None
    if constant.dtype != torch.int64:
        value = call.add("to", value, datatype=NAMES[constant.dtype])
    if step != 1:
        value = call.add("mul", value, value=step)
    if first != 0:
        value = call.add("add", value, value=first)
    for at in range(constant.rank):
        if at != dim:
            value = call.add("unsqueeze", value, dim=at)
    return value


def _triangle(call, constant):
    """One number on and below a diagonal of the last two dimensions, another one above it."""
    if constant.rank < 2 or _long_dims(constant) != [constant.rank - 2, constant.rank - 1]:
        return None
    matrices = [tensor.reshape(tensor.shape[-2:]) for tensor in constant.tensors]
    for diagonal in DIAGONALS:
        pairs = {_two_numbers(matrix, diagonal) for matrix in matrices}
        if len(pairs) == 1 and None not in pairs:
            break
    else:
        return None
    (below, above), = pairs
    rows, columns = _arange(call, constant.sizes(-2)), _arange(call, constant.sizes(-1))
    if rows is None or columns is None:
        return None
    rows = call.add("unsqueeze", rows, dim=1)
    rows = call.add("add", rows, value=diagonal) if diagonal else rows
    value = call.add("le" if below is True or constant.dtype != torch.bool else "gt", columns, rows)
    if constant.dtype != torch.bool:
        value = _choose(call, value, below, above, NAMES[constant.dtype])
    for _ in range(constant.rank - 2):
        value = call.add("unsqueeze", value)
    return value


def _two_numbers(matrix, diagonal):
    """What is below and above, or None where that is not all."""
    low = torch.ones(matrix.shape).tril(diagonal).bool()
    if low.all() or not low.any():
        return None
    below, above = matrix[low][0].item(), matrix[~low][0].item()
    expected = torch.full_like(matrix, above).masked_fill(low, below)
    return (below, above) if torch.equal(matrix, expected) else None


def _choose(call, mask, where_true, where_false, datatype):
    """Two numbers by a mask."""
    if (where_true, where_false) == (1, 0):
        return call.add("to", mask, datatype=datatype)
    return call.add("masked_fill", call.full(mask, where_false, datatype), mask, value=where_true)


def _few(call, constant):
    """Numbers that are always the same, and few: one by one."""
    first, *others = constant.tensors
    always_same = constant.is_fixed and all(torch.equal(first, other) for other in others)
    if not always_same or first.numel() > MOST_NUMBERS:
        return None
    value = _row(call, first.flatten().tolist(), constant.dtype)
    if constant.rank == 0:
        return call.add("select", value)
    return value if constant.rank == 1 else call.add("reshape", value, shape=list(first.shape))


def _row(call, numbers, dtype):
    """A vector. There is always a tensor to count the dimensions of, and the first count is 0."""
    like, dim = call.find_anything()
    zero = call.add("slice", call.add("arange", like, dim=dim), end=1)
    if dtype == torch.bool:
        parts = [call.add("eq" if number else "ne", zero, value=0) for number in numbers]
    else:
        zero = call.cast(Computed(zero, ((1,),), torch.int64), dtype)
        parts = [call.add("add", zero, value=number) if number else zero for number in numbers]
    return call.add("concat", *map(call.value, parts), dim=0) if len(parts) > 1 else call.value(parts[0])


def _arange(call, sizes):
    """0, 1, 2, ...; None where no tensor has as many in any dimension."""
    found = call.find_size(sizes)
    if found is None:
        return None
    operand, dim = found
    return call.network.find("arange", operand.value, dim=dim) or call.add("arange", operand, dim=dim)
