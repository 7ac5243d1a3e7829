"""Convolutions, pools, padding and resizing."""

import functools

from .operands import Computed
from .problems import Refusal
from .registry import converts, converts_modules, register_modules
from .steps import Varying


def collapsed(sizes):
    """One number for all dimensions where they are alike."""
    if sizes is None or isinstance(sizes, (int, float, Varying)):
        return sizes
    sizes = list(sizes)
    alike = len(sizes) > 0 and all(size == sizes[0] for size in sizes)
    return sizes[0] if alike else sizes or None


def of_images(dims):
    """For converters of what takes [N, C, ...]: a single image gets a batch of one."""
    def decorate(converter):
        @functools.wraps(converter)
        def convert(call, input, *args, **kwargs):
            if not isinstance(input, Computed) or input.rank != dims + 1:
                return converter(call, input, *args, **kwargs)
            batch = Computed(call.add("unsqueeze", input), tuple((1, *shape) for shape in input.shapes), input.dtype)
            return call.add("squeeze", converter(call, batch, *args, **kwargs), dim=0)
        return convert
    return decorate


# Convolutions.


def same_padding(dims, kernel_size, dilation):
    """What padding="same" pads before and after, the last dimension first, as F.pad takes it."""
    kernel_size, dilation = _for_each(kernel_size, dims), _for_each(dilation, dims)
    totals = [step * (size - 1) for size, step in zip(kernel_size, dilation)]
    return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]


def _for_each(sizes, dims):
    sizes = [sizes] if isinstance(sizes, int) else list(sizes)
    return sizes * dims if len(sizes) == 1 else sizes


def convolution(dims):
    @of_images(dims)
    def convert(call, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
        kernel_size = weight.shape[2:]
        padding = 0 if padding == "valid" else padding
        operand = input
        if padding == "same":
            sides = same_padding(dims, kernel_size, dilation)
            padding = sides[::-2]
            if sides[::2] != sides[1::2]:  # Which no layer but this one can do.
                mode = "constant" if padding_mode == "zeros" else padding_mode
                operand, padding, padding_mode = call.add("pad", input, padding=sides, mode=mode), 0, "zeros"
        return call.weighted(
            f"conv{dims}d", operand, state={"weight": weight, "bias": bias}, in_channels=weight.shape[1] * groups,
            out_channels=weight.shape[0], kernel_size=collapsed(kernel_size), stride=collapsed(stride),
            padding=collapsed(padding), dilation=collapsed(dilation), groups=groups, bias=bias is not None,
            padding_mode=padding_mode)
    return convert


def transposed_convolution(dims):
    @of_images(dims)
    def convert(call, input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
        return call.weighted(
            f"conv_transpose{dims}d", input, state={"weight": weight, "bias": bias},
            in_channels=weight.shape[0], out_channels=weight.shape[1] * groups,
            kernel_size=collapsed(weight.shape[2:]), stride=collapsed(stride), padding=collapsed(padding),
            dilation=collapsed(dilation), groups=groups, bias=bias is not None,
            output_padding=collapsed(output_padding))
    return convert


def _output_padding(module, input, wanted):
    """What makes a transposed convolution give sizes that forward asks for."""
    dims = len(module.kernel_size)
    found = set()
    for run, shape in enumerate(input.shapes):
        sizes = [size.values[run] if isinstance(size, Varying) else size for size in wanted[-dims:]]
        found.add(tuple(
            size - ((have - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
            for size, have, stride, padding, dilation, kernel in zip(
                sizes, shape[-dims:], module.stride, module.padding, module.dilation, module.kernel_size)))
    if len(found) > 1:
        raise Refusal("output_size follows from a size that is known only at run time")
    return found.pop()


def _convolution_module(convert):
    def convert_module(call, module, input):
        state = call.state()
        return convert(call, input, state["weight"], state.get("bias"), module.stride, module.padding,
                       module.dilation, module.groups, module.padding_mode)
    return convert_module


def _transposed_module(convert):
    def convert_module(call, module, input, output_size=None):
        state = call.state()
        padding = module.output_padding if output_size is None else _output_padding(module, input, output_size)
        return convert(call, input, state["weight"], state.get("bias"), module.stride, module.padding, padding,
                       module.groups, module.dilation)
    return convert_module


# Pools.


def pool(kind, dims, *more):
    """`more`: names and defaults of arguments beside those that all pools have."""
    defaults = dict(more)

    @of_images(dims)
    def convert(call, input, kernel_size, stride=None, padding=0, *args, return_indices=False, **kwargs):
        given = {**defaults, **dict(zip(defaults, args)), **kwargs}
        if len(args) > len(defaults) or len(given) > len(defaults):
            raise Refusal("has arguments that cannot be said")
        if _is_whole_image(input, kernel_size, dims) and not stride and padding == 0 and given == defaults:
            return call.add(f"adaptive_{kind}", input, output_size=1)
        stride = collapsed(stride) or None
        kernel_size = collapsed(kernel_size)
        if "dilation" in given:
            given["dilation"] = collapsed(given["dilation"])
        value = call.add(kind, input, kernel_size=kernel_size, stride=None if stride == kernel_size else stride,
                         padding=collapsed(padding), **given)
        return (value, None) if return_indices else value
    return convert


def _is_whole_image(input, kernel_size, dims):
    """Whether windows are as large as an image of any size, as in F.avg_pool2d(x, x.shape[2:])."""
    sizes = [kernel_size] * dims if isinstance(kernel_size, (int, Varying)) else list(kernel_size)
    return any(isinstance(size, Varying) for size in sizes) and [
        input.size(input.rank - dims + at) for at in range(dims)] == sizes


def adaptive_pool(kind, dims):
    @of_images(dims)
    def convert(call, input, output_size, return_indices=False):
        wanted = _for_each(output_size, dims) if output_size is not None else [None] * dims
        kept = [input.size(input.rank - dims + at) if size is None else size for at, size in enumerate(wanted)]
        value = call.add(kind, input, output_size=collapsed(kept))
        return (value, None) if return_indices else value
    return convert


for _dims in (1, 2, 3):
    _convert = convolution(_dims)
    converts(f"torch.conv{_dims}d", f"F.conv{_dims}d")(_convert)
    converts_modules(f"Conv{_dims}d")(_convolution_module(_convert))
    _convert = transposed_convolution(_dims)
    converts(f"torch.conv_transpose{_dims}d", f"F.conv_transpose{_dims}d")(_convert)
    converts_modules(f"ConvTranspose{_dims}d")(_transposed_module(_convert))

    _convert = pool(f"max_pool{_dims}d", _dims, ("dilation", 1), ("ceil_mode", False))
    converts(f"torch.max_pool{_dims}d", f"F.max_pool{_dims}d")(_convert)
    register_modules(_convert, {f"MaxPool{_dims}d": ["kernel_size", "stride", "padding", "dilation", "ceil_mode",
                                                     "return_indices"]})
    _more = [("ceil_mode", False), ("count_include_pad", True)]
    _more += [("divisor_override", None)] if _dims > 1 else []
    _convert = pool(f"avg_pool{_dims}d", _dims, *_more)
    converts(f"torch.avg_pool{_dims}d", f"F.avg_pool{_dims}d")(_convert)
    register_modules(_convert, {f"AvgPool{_dims}d": ["kernel_size", "stride", "padding"] + [_n for _n, _ in _more]})

    _convert = adaptive_pool(f"adaptive_avg_pool{_dims}d", _dims)
    converts(f"torch.adaptive_avg_pool{_dims}d", f"F.adaptive_avg_pool{_dims}d")(_convert)
    register_modules(_convert, {f"AdaptiveAvgPool{_dims}d": ["output_size"]})
    _convert = adaptive_pool(f"adaptive_max_pool{_dims}d", _dims)
    converts(f"torch.adaptive_max_pool{_dims}d", f"F.adaptive_max_pool{_dims}d")(_convert)
    register_modules(_convert, {f"AdaptiveMaxPool{_dims}d": ["output_size", "return_indices"]})


@converts("F.local_response_norm")
def local_response_norm(call, input, size, alpha=1e-4, beta=0.75, k=1.0):
    return call.add("local_response_norm", input, size=size, alpha=alpha, beta=beta, k=k)


register_modules(local_response_norm, {"LocalResponseNorm": ["size", "alpha", "beta", "k"]})


# Padding.


@converts("F.pad", "torch.constant_pad_nd")
def pad(call, input, pad, mode="constant", value=None):
    if all(size == 0 for size in pad):
        return input
    # Other modes look at images, of which there are batches.
    single = mode != "constant" and input.rank == len(pad) // 2 + 1
    operand = call.add("unsqueeze", input) if single else input
    padded = call.add("pad", operand, padding=list(pad), mode=mode, value=value or 0)
    return call.add("squeeze", padded, dim=0) if single else padded


def _padding_module(mode):
    def convert(call, module, input):
        return pad(call, input, module.padding, mode, getattr(module, "value", 0))
    return convert


for _dims in (1, 2, 3):
    for _name, _mode in {"ZeroPad": "constant", "ConstantPad": "constant", "ReflectionPad": "reflect",
                         "ReplicationPad": "replicate", "CircularPad": "circular"}.items():
        converts_modules(f"{_name}{_dims}d")(_padding_module(_mode))


# Resizing.

INTERPOLATIONS = ("nearest", "linear", "bilinear", "bicubic", "trilinear")


@converts("F.interpolate", "F.upsample")
def interpolate(call, input, size=None, scale_factor=None, mode="nearest", align_corners=None,
                recompute_scale_factor=None, antialias=False):
    if mode not in INTERPOLATIONS or antialias:
        raise Refusal(f'mode "{mode}"{" with antialias" if antialias else ""} cannot be said, it can be '
                      f'"{", ".join(INTERPOLATIONS)}"')
    dims = input.rank - 2
    if size is None and recompute_scale_factor:
        size, scale_factor = [_result_size(call, at) for at in range(2, 2 + dims)], None
    if size is not None:
        sizes = _for_each(size, dims) if not isinstance(size, Varying) else [size] * dims
        if any(isinstance(wanted, Varying) for wanted in sizes):
            scale_factor, size = [_factor(input, 2 + at, wanted) for at, wanted in enumerate(sizes)], None
        else:
            size = sizes
    return call.add("upsample", input, size=collapsed(size), scale_factor=collapsed(scale_factor), mode=mode,
                    align_corners=bool(align_corners))


def _result_size(call, dim):
    sizes = tuple(shape[dim] for shape in call.step.shapes)
    return sizes[0] if len(set(sizes)) == 1 else Varying(sizes)


def _factor(input, dim, wanted):
    """By what a size is multiplied to be the wanted one: exact only where it is a whole number."""
    sizes = wanted.values if isinstance(wanted, Varying) else (wanted,) * len(input.shapes)
    factors = {want / have for want, have in zip(sizes, input.sizes(dim))}
    if len(factors) > 1 or not next(iter(factors)).is_integer():
        raise Refusal("size follows from one that is known only at run time, and is no multiple of its input's: "
                      "if the inputs always have the same sizes, give them in --input instead of -1")
    return factors.pop()


@converts_modules("Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d")
def upsample(call, module, input):
    return interpolate(call, input, module.size, module.scale_factor, module.mode, module.align_corners,
                       getattr(module, "recompute_scale_factor", None))


@converts("torch.pixel_shuffle", "F.pixel_shuffle")
def pixel_shuffle(call, input, upscale_factor):
    return call.add("pixel_shuffle", input, upscale_factor=upscale_factor)


@converts("torch.pixel_unshuffle", "F.pixel_unshuffle")
def pixel_unshuffle(call, input, downscale_factor):
    return call.add("pixel_unshuffle", input, downscale_factor=downscale_factor)


@converts("torch.channel_shuffle", "F.channel_shuffle")
def channel_shuffle(call, input, groups):
    return call.add("channel_shuffle", input, groups=groups)


register_modules(pixel_shuffle, {"PixelShuffle": ["upscale_factor"]})
register_modules(pixel_unshuffle, {"PixelUnshuffle": ["downscale_factor"]})
register_modules(channel_shuffle, {"ChannelShuffle": ["groups"]})
