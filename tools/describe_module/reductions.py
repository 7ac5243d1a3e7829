"""What computes along dimensions: softmax, sums, maxima."""

import math

from .operands import Operand
from .problems import Refusal
from .registry import converts, converts_modules, register_modules
from .steps import Varying


def along(kind):
    """softmax and its like; where no dimension is given, PyTorch has a rule for older programs."""
    def convert(call, input, dim=None, _stacklevel=3, dtype=None):
        if dim is None:
            dim = 0 if input.rank in (0, 1, 3) else 1
        operand = call.cast(input, dtype) if dtype else input
        return call.add(kind, operand, dim=dim)
    return convert


for _kind in ["softmax", "log_softmax", "softmin"]:
    converts(f"torch.{_kind}", f"F.{_kind}", f"special.{_kind}", f".{_kind}")(along(_kind))
register_modules(along("softmax"), {"Softmax": ["dim"]})
register_modules(along("log_softmax"), {"LogSoftmax": ["dim"]})
register_modules(along("softmin"), {"Softmin": ["dim"]})


@converts_modules("Softmax2d")
def softmax2d(call, module, input):
    return call.add("softmax", input, dim=-3)


@converts("F.glu")
def glu(call, input, dim=-1):
    return call.add("glu", input, dim=dim)


register_modules(glu, {"GLU": ["dim"]})


@converts("F.normalize")
def normalize(call, input, p=2.0, dim=1, eps=1e-12, out=None):
    if not isinstance(dim, int):
        raise Refusal("normalizes over several dimensions")
    return call.add("normalize", input, p=p, dim=dim, eps=eps)


@converts("torch.cumsum", ".cumsum")
def cumsum(call, input, dim, dtype=None):
    return call.add("cumsum", call.cast(input, dtype) if dtype else input, dim=dim)


def _listed(dim):
    return None if dim is None else [dim] if isinstance(dim, int) else list(dim)


def _reduction(kind):
    def convert(call, input, dim=None, keepdim=False, dtype=None):
        return reduce(call, kind, call.cast(input, dtype) if dtype else input, dim, keepdim)
    return convert


def reduce(call, kind, operand, dim=None, keepdim=False):
    return call.add(kind, operand, dim=_listed(dim) or None, keepdim=keepdim)


converts("torch.mean", ".mean")(_reduction("mean"))
converts("torch.sum", ".sum")(_reduction("sum"))
converts("torch.amax", ".amax")(_reduction("amax"))
converts("torch.amin", ".amin")(_reduction("amin"))


def _extremum(name):
    """torch.max and torch.min, which are three functions each."""
    def convert(call, input, dim=None, keepdim=False, other=None):
        if isinstance(dim, Operand) or other is not None:
            return call.add(f"{name}imum", input, dim if other is None else other)
        values = reduce(call, f"a{name}", input, dim, keepdim)
        if dim is None:
            return values
        indices = call.add(f"arg{name}", input, dim=dim, keepdim=keepdim) if call.uses_part(1) else None
        return values, indices
    return convert


converts("torch.max", ".max")(_extremum("max"))
converts("torch.min", ".min")(_extremum("min"))


def _arg_extremum(kind):
    def convert(call, input, dim=None, keepdim=False):
        if dim is not None:
            return call.add(kind, input, dim=dim, keepdim=keepdim)
        if keepdim:
            raise Refusal("keeps dimensions without naming one")
        return call.add(kind, call.add("flatten", input, start_dim=0), dim=0)
    return convert


converts("torch.argmax", ".argmax")(_arg_extremum("argmax"))
converts("torch.argmin", ".argmin")(_arg_extremum("argmin"))


@converts("linalg.norm")
def matrix_or_vector_norm(call, input, ord=None, dim=None, keepdim=False, dtype=None):
    dims = input.rank if dim is None else len(_listed(dim))
    if ord not in (None, "fro") and dims != 1:
        raise Refusal(f"is the norm of a matrix, of order {ord}, which cannot be said; torch.linalg.vector_norm is "
                      "that of its numbers")
    return norm(call, input, "fro" if ord is None else ord, dim, keepdim, dtype=dtype)


@converts("torch.norm", ".norm", "linalg.vector_norm")
def norm(call, input, p="fro", dim=None, keepdim=False, out=None, dtype=None, ord=None):
    p = p if ord is None else ord
    if p not in ("fro", None, 1, 2) or dtype is not None:
        raise Refusal(f"norms of order {p} cannot be said, only 1 and 2")
    if p == 1:
        return reduce(call, "sum", call.add("abs", input), dim, keepdim)
    return call.add("sqrt", reduce(call, "sum", call.add("square", input), dim, keepdim))


def _variance(call, input, dim, keepdim, correction):
    dims = range(input.rank) if dim is None else [at % input.rank for at in _listed(dim)]
    sizes = [input.size(at) for at in dims]
    centred = call.add("sub", input, reduce(call, "mean", input, dim, True))
    squared = call.add("square", centred)
    if correction == 0:
        return reduce(call, "mean", squared, dim, keepdim)
    if any(isinstance(size, Varying) for size in sizes):
        raise Refusal("divides by a size that is known only at run time, less 1: unbiased=False does not")
    return call.add("div", reduce(call, "sum", squared, dim, keepdim), value=math.prod(sizes) - correction)


def _spread(is_root):
    def convert(call, input, dim=None, unbiased=None, keepdim=False, correction=None):
        if isinstance(dim, bool):  # torch.var(x, False)
            dim, unbiased = None, dim
        if isinstance(unbiased, bool):
            correction = int(unbiased)
        variance = _variance(call, input, dim, keepdim, 1 if correction is None else correction)
        return call.add("sqrt", variance) if is_root else variance
    return convert


converts("torch.var", ".var")(_spread(False))
converts("torch.std", ".std")(_spread(True))


def _clamped(call, operand, low, high):
    """Between numbers or tensors."""
    for kind, bound in (("maximum", low), ("minimum", high)):
        if isinstance(bound, Operand):
            operand = call.add(kind, operand, bound)
    numbers = {name: bound for name, bound in (("min", low), ("max", high))
               if bound is not None and not isinstance(bound, Operand)}
    if not numbers:
        return operand
    return call.add("clamp", operand, **numbers)


@converts("torch.clamp", "torch.clip", ".clamp", ".clip")
def clamp(call, input, min=None, max=None):
    floats = [bound for bound in (min, max) if isinstance(bound, float)]
    return _clamped(call, call.as_float(input) if floats else input, min, max)


@converts("torch.clamp_min", ".clamp_min")
def clamp_min(call, input, min):
    return clamp(call, input, min=min)


@converts("torch.clamp_max", ".clamp_max")
def clamp_max(call, input, max):
    return clamp(call, input, max=max)
