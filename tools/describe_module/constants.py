"""Layers for tensors that forward makes itself, where they follow from sizes: positions, masks that keep
each position from seeing later ones, and tensors of one number."""

import itertools

import torch

from .inputs import NAMES
from .problems import Refusal

# Where a mask's diagonal can be.
DIAGONALS = (0, 1, -1)


def build(call, constant):
    """The value of a ConstantTensor."""
    built = _positions(call, constant) or _triangle(call, constant) or _alike(call, constant)
    if built is None:
        shape = list(constant.shapes[0])
        raise Refusal(f"is given a tensor of shape {shape} that forward makes, and that no layer can: register it "
                      "as a buffer, so that checkpoints have it")
    return built


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


def _positions(call, constant):
    """first, first + step, first + 2 * step, ... along one dimension."""
    dims = _changing_dims(constant)
    if len(dims) != 1 or constant.dtype == torch.bool or min(constant.sizes(dims[0])) < 2:
        return None
    dim, = dims
    rows = [tensor.movedim(dim, -1).reshape(-1, tensor.shape[dim])[0] for tensor in constant.tensors]
    first = rows[0][0].item()
    step = (rows[0][1] - rows[0][0]).item()
    for row in rows:
        if not torch.equal(row, first + step * torch.arange(len(row)).to(row.dtype)):
            return None
    value = _arange(call, constant.sizes(dim))
    if constant.dtype != torch.int64:
        value = call.add("to", value, datatype=NAMES[constant.dtype])
    if step != 1:
        value = call.add("mul", value, value=step)
    if first != 0:
        value = call.add("add", value, value=first)
    for at in range(constant.rank):
        if at != dim:
            value = call.add("unsqueeze", value, dim=at)
    ones = tuple(tuple(size if at == dim else 1 for at, size in enumerate(shape)) for shape in constant.shapes)
    return call.expand(value, ones, constant.shapes)


def _triangle(call, constant):
    """One number on and below a diagonal of the last two dimensions, another one above it."""
    dims = _changing_dims(constant)
    if dims != [constant.rank - 2, constant.rank - 1] or any(constant.sizes(dim) != (1,) * len(constant.tensors)
                                                             for dim in range(constant.rank - 2)):
        return None
    matrices = [tensor.reshape(tensor.shape[-2:]) for tensor in constant.tensors]
    for diagonal in DIAGONALS:
        pairs = {_two_numbers(matrix, diagonal) for matrix in matrices}
        if len(pairs) == 1 and None not in pairs:
            break
    else:
        return None
    (below, above), = pairs
    rows = call.add("unsqueeze", _arange(call, constant.sizes(-2)), dim=1)
    rows = call.add("add", rows, value=diagonal) if diagonal else rows
    columns = _arange(call, constant.sizes(-1))
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


def _alike(call, constant):
    """A number everywhere: in the shape of something that there is."""
    number = constant.number
    like = call.find_shape(constant.shapes) if number is not None else None
    return call.full(like.value, number, NAMES[constant.dtype]) if like else None


def _arange(call, sizes):
    found = call.find_size(sizes)
    if found is None:
        size = sizes[0] if len(set(sizes)) == 1 else "of a size that is computed"
        raise Refusal(f"is given positions ({size}) of which there are as many as no tensor has in any dimension")
    operand, dim = found
    return call.network.find("arange", operand.value, dim=dim) or call.add("arange", operand, dim=dim)


def _changing_dims(constant):
    """The dimensions along which it is not the same all over, in any run."""
    return [dim for dim in range(constant.rank)
            if any(tensor.shape[dim] > 1 and not torch.equal(tensor, tensor.narrow(dim, 0, 1).expand_as(tensor))
                   for tensor in constant.tensors)]


