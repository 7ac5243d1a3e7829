"""Layers with parameters that compute position by position: matrices, norms, tables."""

import torch

from .operands import Computed, StateTensor
from .problems import Refusal, Unnamed
from .registry import converts, converts_modules, layer_class

# Matrices.


@converts("F.linear")
def linear(call, input, weight, bias=None):
    owned = isinstance(weight, StateTensor) and call.network.owner(weight.tensor)
    if isinstance(weight, StateTensor) and not weight.is_transposed and not (owned and owned[0].kind == "parameter"):
        try:
            return call.weighted("linear", input, state={"weight": weight, "bias": bias},
                                 in_features=weight.shape[1], out_features=weight.shape[0], bias=bias is not None)
        except Unnamed:
            if weight.key.endswith(".weight") and bias is not None:  # A bias of another name.
                return call.add("add", linear(call, input, weight), bias)
    product = matmul(call, input, _transposed(call, weight))
    return product if bias is None else call.add("add", product, bias)


@converts_modules("Linear", "NonDynamicallyQuantizableLinear")
def linear_module(call, module, input):
    state = call.state()
    return linear(call, input, state["weight"], state.get("bias"))


def _transposed(call, operand):
    if isinstance(operand, StateTensor):
        return operand.transposed()
    shapes = tuple(shape[::-1] for shape in operand.shapes)
    return Computed(call.add("transpose", operand), shapes, operand.dtype)


@converts("F.bilinear", "torch.bilinear")
def bilinear(call, input1, input2, weight, bias=None):
    return call.weighted("bilinear", input1, input2, state={"weight": weight, "bias": bias},
                         in1_features=weight.shape[1], in2_features=weight.shape[2], out_features=weight.shape[0],
                         bias=bias is not None)


@converts_modules("Bilinear")
def bilinear_module(call, module, input1, input2):
    state = call.state()
    return bilinear(call, input1, input2, state["weight"], state.get("bias"))


@converts("operator.matmul", "torch.matmul", "torch.mm", "torch.bmm", ".matmul", ".mm", ".bmm", "torch.mv", ".mv",
          "torch.dot", ".dot")
def matmul(call, input, other):
    if not (input.dtype.is_floating_point and other.dtype.is_floating_point):
        raise Refusal("multiplies matrices of integers")
    # x @ table.weight.t(), as what shares its table with an embedding has it.
    is_linear = isinstance(other, StateTensor) and other.is_transposed and input.rank > 1
    if is_linear and other.key.endswith(".weight"):
        owner = call.network.owner(other.tensor)
        if owner and owner[0].kind != "parameter":
            return linear(call, input, other.transposed())
    left = call.add("unsqueeze", input) if input.rank == 1 else input
    right = call.add("unsqueeze", other, dim=-1) if other.rank == 1 else other
    product = call.add("matmul", left, right)
    product = call.add("squeeze", product) if other.rank == 1 else product
    if input.rank == 1:
        product = call.add("squeeze", product, dim=-1 if other.rank == 1 else -2)
    return product


@converts("torch.addmm", ".addmm", "torch.baddbmm", ".baddbmm")
def addmm(call, input, mat1, mat2, beta=1, alpha=1):
    if (alpha, beta) != (1, 1):
        raise Refusal("alpha and beta cannot be said")
    return call.add("add", matmul(call, mat1, mat2), input)


# Norms.


@converts("F.layer_norm", "torch.layer_norm")
def layer_norm(call, input, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True):
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    if weight is not None:
        try:
            return call.weighted("layer_norm", input, state={"weight": weight, "bias": bias}, normalized_shape=shape,
                                 eps=eps, bias=bias is not None)
        except Unnamed:
            pass  # Said as what it comes to.
    value = call.add("layer_norm", input, normalized_shape=shape, eps=eps, elementwise_affine=False)
    return _affine(call, value, weight, bias)


def _affine(call, value, weight, bias):
    value = value if weight is None else call.add("mul", value, weight)
    return value if bias is None else call.add("add", value, bias)


@converts_modules("LayerNorm")
def layer_norm_module(call, module, input):
    state = call.state()
    return layer_norm(call, input, module.normalized_shape, state.get("weight"), state.get("bias"), module.eps)


@converts("F.rms_norm", "torch.rms_norm")
def rms_norm(call, input, normalized_shape, weight=None, eps=None):
    shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
    if weight is not None:
        try:
            return call.weighted("rms_norm", input, state={"weight": weight}, normalized_shape=shape, eps=eps)
        except Unnamed:
            pass  # Said as what it comes to.
    value = call.add("rms_norm", input, normalized_shape=shape, eps=eps, elementwise_affine=False)
    return _affine(call, value, weight, None)


@converts_modules("RMSNorm")
def rms_norm_module(call, module, input):
    return rms_norm(call, input, module.normalized_shape, call.state().get("weight"), module.eps)


@converts("F.group_norm", "torch.group_norm")
def group_norm(call, input, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    return _normed(call, "group_norm", input, weight, bias, num_groups=num_groups, num_channels=input.size(1),
                   eps=eps)


@converts_modules("GroupNorm")
def group_norm_module(call, module, input):
    state = call.state()
    return _normed(call, "group_norm", input, state.get("weight"), state.get("bias"), num_groups=module.num_groups,
                   num_channels=module.num_channels, eps=module.eps)


def _normed(call, kind, input, weight, bias, statistics=(), **arguments):
    """A norm that has either both weight and bias, or none of them."""
    if (weight is None) != (bias is None):
        raise Refusal("has only one of weight and bias")
    state = {"weight": weight, "bias": bias, **dict(statistics)}
    if all(tensor is None for tensor in state.values()):
        return call.add(kind, input, affine=False, **arguments)
    return call.weighted(kind, input, state=state, affine=weight is not None, **arguments)


def _batch_norm_kind(call, input):
    if input.rank not in (2, 3, 4, 5):
        raise Refusal(f"there is no layer for it with {input.rank} dimensions")
    return f"batch_norm{max(input.rank - 2, 1)}d"


@converts("F.batch_norm")
def batch_norm(call, input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1,
               eps=1e-5):
    if training or running_mean is None:
        raise Refusal("computes with the statistics of a batch, in which requests would meet")
    return _normed(call, _batch_norm_kind(call, input), input, weight, bias,
                   {"running_mean": running_mean, "running_var": running_var}, num_features=input.size(1), eps=eps)


@converts_modules("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")
def batch_norm_module(call, module, input):
    state = call.state()
    if "running_mean" not in state:
        raise Refusal("computes with the statistics of a batch, in which requests would meet: it has "
                      "track_running_stats=False")
    statistics = {key: state[key] for key in ("running_mean", "running_var", "num_batches_tracked")}
    return _normed(call, _batch_norm_kind(call, input), input, state.get("weight"), state.get("bias"), statistics,
                   num_features=module.num_features, eps=module.eps)


@converts("F.instance_norm")
def instance_norm(call, input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True,
                  momentum=0.1, eps=1e-5):
    statistics = {} if use_input_stats else {"running_mean": running_mean, "running_var": running_var}
    return _instance_norm(call, input, weight, bias, statistics, input.size(1), eps)


@converts_modules("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
def instance_norm_module(call, module, input):
    state = call.state()
    statistics = {key: tensor for key, tensor in state.items() if key not in ("weight", "bias")}
    return _instance_norm(call, input, state.get("weight"), state.get("bias"), statistics, module.num_features,
                          module.eps, spatial_dims=int(layer_class(module).__name__[-2]))


def _instance_norm(call, input, weight, bias, statistics, num_features, eps, spatial_dims=None):
    spatial_dims = spatial_dims or input.rank - 2
    if input.rank != spatial_dims + 2:
        raise Refusal("is given what has no batch: add one with unsqueeze(0)")
    return _normed(call, f"instance_norm{spatial_dims}d", input, weight, bias, statistics,
                   num_features=num_features, eps=eps, track_running_stats=bool(statistics))


# Tables.


@converts("F.embedding")
def embedding(call, input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False,
              sparse=False):
    if max_norm is not None:
        raise Refusal("max_norm changes its table while it is read")
    operand = input if input.dtype in (torch.int32, torch.int64) else call.add("to", input, datatype="INT64")
    return call.weighted("embedding", operand, state={"weight": weight}, num_embeddings=weight.shape[0],
                         embedding_dim=weight.shape[1])


@converts_modules("Embedding")
def embedding_module(call, module, input):
    return embedding(call, input, call.state()["weight"], max_norm=module.max_norm)


@converts_modules("EmbeddingBag")
def embedding_bag(call, module, input, offsets=None, per_sample_weights=None):
    if offsets is not None or per_sample_weights is not None or input.rank != 2 or module.padding_idx is not None:
        raise Refusal("only bags of the same length, [N, L], without weights or padding_idx can be said")
    kind = {"mean": "mean", "sum": "sum", "max": "amax"}[module.mode]
    table = embedding(call, input, call.state()["weight"], max_norm=module.max_norm)
    return call.add(kind, table, dim=[1])


@converts("F.prelu", "torch.prelu", ".prelu")
def prelu(call, input, weight):
    return call.weighted("prelu", input, state={"weight": weight}, num_parameters=weight.shape[0])


@converts_modules("PReLU")
def prelu_module(call, module, input):
    return prelu(call, input, call.state()["weight"])
