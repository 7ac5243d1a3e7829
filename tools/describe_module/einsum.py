"""torch.einsum of two tensors, as a product of matrices."""

from .problems import Refusal
from .registry import converts
from .shapes import flattened, unflattened

WHY = "only products of two tensors that come to one of matrices can be said"


@converts("torch.einsum")
def einsum(call, equation, *operands):
    operands = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    labels = inputs.split(",")
    repeats = any(len(set(one)) != len(one) for one in (*labels, output))
    if len(operands) != 2 or not arrow or "." in equation or repeats:
        raise Refusal(f'"{equation}": {WHY}')
    left, right = labels
    shared = set(left) & set(right)
    batch = [label for label in output if label in shared]
    inner = [label for label in left if label in shared and label not in output]
    rows = [label for label in left if label not in shared]
    columns = [label for label in right if label not in shared]
    if not set(rows + columns) <= set(output):
        raise Refusal(f'"{equation}": {WHY}')
    # Where there is no batch, any number of rows multiply one matrix.
    together = 1 if batch or not rows else len(rows)
    matrices = [_matrices(call, operands[0], left, batch, rows, inner, keep_rows=together > 1),
                _matrices(call, operands[1], right, batch, inner, columns)]
    product = call.add("matmul", *matrices)
    # [batch, rows, columns], the last two of which may stand for several dimensions, or for none.
    sizes = {label: operand.sizes(at) for operand, one in zip(operands, labels) for at, label in enumerate(one)}
    product = unflattened(call, product, len(batch) + together, [sizes[label] for label in columns])
    if together == 1:
        product = unflattened(call, product, len(batch), [sizes[label] for label in rows])
    return _ordered(call, product, batch + rows + columns, output)


def _matrices(call, operand, labels, batch, rows, columns, keep_rows=False):
    """An operand as [batch, rows, columns]."""
    value = _ordered(call, call.value(operand), labels, batch + rows + columns)
    value = flattened(call, value, len(batch) + len(rows), len(columns))
    return value if keep_rows else flattened(call, value, len(batch), len(rows))


def _ordered(call, value, labels, wanted):
    order = [list(labels).index(label) for label in wanted]
    moved = [at for at, place in enumerate(order) if at != place]
    if not moved:
        return value
    return call.add("transpose", value, dim0=moved[0], dim1=moved[1]) if len(moved) == 2 \
        else call.add("permute", value, dims=order)
