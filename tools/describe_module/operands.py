"""What operations are given and give, as converters see it."""

import torch

from .network import Value
from .steps import Varying


class Operand:
    """A tensor. A size that differs between runs follows from the inputs."""

    def __init__(self, shapes, dtype):
        self.shapes = shapes  # One for each run.
        self.dtype = dtype

    @property
    def rank(self):
        return len(self.shapes[0])

    def sizes(self, dim):
        """In each run."""
        return tuple(shape[dim] for shape in self.shapes)

    def size(self, dim):
        """A number, or Varying."""
        sizes = self.sizes(dim)
        return sizes[0] if len(set(sizes)) == 1 else Varying(sizes)

    @property
    def shape(self):
        return tuple(self.size(dim) for dim in range(self.rank))

    @property
    def is_fixed(self):
        return len(set(self.shapes)) == 1


class Computed(Operand):
    """What a layer gives, or an input."""

    def __init__(self, value: Value, shapes, dtype):
        super().__init__(shapes, dtype)
        self.value = value


class StateTensor(Operand):
    """A parameter or buffer. It becomes a layer of its own only where no layer reads it as its own."""

    def __init__(self, key, tensor, runs, is_transposed=False):
        shape = tuple(tensor.t().shape if is_transposed else tensor.shape)
        super().__init__((shape,) * runs, tensor.dtype)
        self.key = key
        self.tensor = tensor
        self.is_transposed = is_transposed  # A matrix, the other way round.

    @property
    def is_buffer(self):
        return not isinstance(self.tensor, torch.nn.Parameter)

    def transposed(self):
        return StateTensor(self.key, self.tensor, len(self.shapes), not self.is_transposed)


class ConstantTensor(Operand):
    """What forward makes of nothing but sizes."""

    def __init__(self, tensors):
        super().__init__(tuple(tuple(tensor.shape) for tensor in tensors), tensors[0].dtype)
        self.tensors = tensors

    @property
    def number(self):
        """The number that it consists of, or None."""
        numbers = {tensor.flatten()[0].item() for tensor in self.tensors if tensor.numel() > 0}
        if len(numbers) != 1:
            return None
        number, = numbers
        alike = all(torch.equal(tensor, torch.full_like(tensor, number)) for tensor in self.tensors)
        return number if alike else None

    def is_same(self, other):
        return (self.shapes, self.dtype) == (other.shapes, other.dtype) and all(
            map(torch.equal, self.tensors, other.tensors))


class Refused(Computed):
    """What an operation that was refused would have given."""


def is_number(value) -> bool:
    return isinstance(value, (bool, int, float))
