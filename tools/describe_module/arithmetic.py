"""Functions of single numbers, and of several tensors that are broadcast."""

import torch

from .inputs import NAMES
from .operands import ConstantTensor, Operand, is_number
from .problems import Refusal
from .registry import converts, converts_modules, register_modules
from .steps import WHY_FIXED, Varying

# Activations without arguments, by their names in torch, torch.nn.functional or as methods.
UNARY = {
    "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "tanh": "tanh", "silu": "silu",
    "hardswish": "hardswish", "hardsigmoid": "hardsigmoid", "selu": "selu", "mish": "mish",
    "logsigmoid": "log_sigmoid", "softsign": "softsign", "tanhshrink": "tanhshrink", "exp": "exp",
    "log": "log", "sqrt": "sqrt", "rsqrt": "rsqrt", "reciprocal": "reciprocal", "erf": "erf", "sin": "sin",
    "cos": "cos", "expit": "sigmoid"}
# Those that integers have, too.
OF_INTEGERS = {"abs": "abs", "absolute": "abs", "neg": "neg", "negative": "neg", "square": "square"}
UNARY_MODULES = {
    "ReLU": "relu", "ReLU6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh", "SiLU": "silu",
    "Hardswish": "hardswish", "Hardsigmoid": "hardsigmoid", "SELU": "selu", "Mish": "mish",
    "LogSigmoid": "log_sigmoid", "Softsign": "softsign", "Tanhshrink": "tanhshrink"}


def _unary(kind):
    def convert(call, input, inplace=False):
        if kind == "relu" and not input.dtype.is_floating_point:
            return call.add("clamp", input, min=0)
        return call.add(kind, input if kind in OF_INTEGERS.values() else call.as_float(input))
    return convert


for _name, _kind in {**UNARY, **OF_INTEGERS}.items():
    converts(f"torch.{_name}", f"F.{_name}", f"special.{_name}", f"operator.{_name}", f".{_name}")(_unary(_kind))
for _name, _kind in UNARY_MODULES.items():
    register_modules(_unary(_kind), {_name: []})


def _with_arguments(kind, **defaults):
    """A function that is a layer with arguments of the same names and defaults."""
    def convert(call, input, *args, inplace=False, **kwargs):
        if len(args) > len(defaults):  # In place, by position.
            args = args[:len(defaults)]
        return call.add(kind, call.as_float(input), **{**defaults, **dict(zip(defaults, args)), **kwargs})
    return convert


# By kind: the arguments, and the modules that have them for attributes.
ACTIVATIONS = {
    "gelu": ({"approximate": "none"}, ["GELU"]),
    "leaky_relu": ({"negative_slope": 0.01}, ["LeakyReLU"]),
    "elu": ({"alpha": 1.0}, ["ELU"]),
    "celu": ({"alpha": 1.0}, ["CELU"]),
    "softplus": ({"beta": 1, "threshold": 20}, ["Softplus"]),
    "hardtanh": ({"min_val": -1.0, "max_val": 1.0}, ["Hardtanh"]),
    "softshrink": ({"lambd": 0.5}, ["Softshrink"]),
    "hardshrink": ({"lambd": 0.5}, ["Hardshrink"]),
    "threshold": ({"threshold": 0, "value": 0}, ["Threshold"]),
}
for _kind, (_defaults, _modules) in ACTIVATIONS.items():
    _convert = _with_arguments(_kind, **_defaults)
    converts(f"torch.{_kind}", f"F.{_kind}", f".{_kind}")(_convert)
    register_modules(_convert, {_module: list(_defaults) for _module in _modules})


@converts("F.rrelu", "torch.rrelu")
def rrelu(call, input, lower=1 / 8, upper=1 / 3, training=False, inplace=False):
    if training:
        raise Refusal("draws numbers by chance")
    return call.add("leaky_relu", input, negative_slope=(lower + upper) / 2)


register_modules(rrelu, {"RReLU": ["lower", "upper"]})


@converts("F.dropout", "F.alpha_dropout", "F.feature_alpha_dropout", "F.dropout1d", "F.dropout2d", "F.dropout3d",
          "torch.dropout", "torch.alpha_dropout", "torch.feature_dropout", "torch.feature_alpha_dropout")
def dropout(call, input, p=0.5, training=True, inplace=False):
    if training and p > 0:
        raise Refusal("drops numbers in eval mode, too: pass training=self.training")
    return input


@converts_modules("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
def dropout_module(call, module, input):
    return call.add("dropout", input, p=module.p)


@converts_modules("Identity")
def identity_module(call, module, input, *others, **named):
    return call.add("identity", input)


@converts(".contiguous", ".clone", ".detach", "torch.clone", "torch.detach", ".requires_grad_", ".cpu", ".cuda",
          "torch.positive", ".positive", "operator.pos")
def same(call, input, *others, **named):
    return input


# Types.


@converts(".to")
def to(call, input, *others, **named):
    # Whatever the arguments were, the type is that of the result. Devices are the server's business.
    return call.cast(input, call.step.dtype)


@converts(".float", ".double", ".half", ".bfloat16", ".long", ".int", ".short", ".char", ".byte", ".bool",
          ".type", ".type_as")
def type_(call, input, *others, **named):
    return call.cast(input, call.step.dtype)


# Of two tensors, or a tensor and a number.


def number_of(argument):
    """The number that an argument is, or None."""
    if isinstance(argument, Varying):
        raise Refusal(f"computes with a size that is known only at run time: {WHY_FIXED}")
    if is_number(argument):
        return argument
    return argument.number if isinstance(argument, ConstantTensor) and argument.rank == 0 else None


def with_number(call, kind, operand, number):
    """In a description 2 and 2.0 are the same; on integers PyTorch makes a difference."""
    makes_float = isinstance(number, float) and not operand.dtype.is_floating_point
    return call.add(kind, call.as_float(operand) if makes_float else operand, value=_finite(number))


def _finite(number):
    if number != number:
        raise Refusal("computes with NaN")
    return int(number) if isinstance(number, bool) else number


def _alike(call, operands):
    """Integers of different types, which layers do not mix, as the type of the result."""
    types = {operand.dtype for operand in operands if not operand.dtype.is_floating_point}
    if len(types - {torch.bool}) < 2 or call.step.dtype.is_floating_point or call.step.dtype == torch.bool:
        return operands
    return [call.cast(operand, call.step.dtype) for operand in operands]


# By kind: what it is the other way round, number first.
TURNED = {"add": "add", "mul": "mul", "sub": "rsub", "maximum": "maximum", "minimum": "minimum",
          "eq": "eq", "ne": "ne", "lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


def binary(call, kind, input, other):
    number = number_of(other)
    if number is not None:
        return with_number(call, kind, input, number)
    number = number_of(input)
    if number is not None:
        return _number_first(call, kind, number, other)
    return _tensors(call, kind, input, other)


def _number_first(call, kind, number, operand):
    if kind in TURNED:
        return with_number(call, TURNED[kind], operand, number)
    if kind == "div":  # As PyTorch computes it.
        inverse = call.add("reciprocal", call.as_float(operand))
        return inverse if number == 1 else call.add("mul", inverse, value=number)
    return call.add(kind, call.full(operand, number, NAMES[call.step.dtype]), operand)


def _tensors(call, kind, input, other):
    # A constant of one number needs no tensor where it does not change the shape.
    for one, constant, turn in ((input, other, False), (other, input, True)):
        if isinstance(constant, ConstantTensor) and not isinstance(one, ConstantTensor):
            number = constant.number
            if number is not None and one.shapes == call.step.shapes and (not turn or kind in TURNED):
                return with_number(call, TURNED[kind] if turn else kind, one, number)
    return call.add(kind, *_alike(call, [input, other]))


def _scaled(call, operand, alpha):
    if alpha == 1:
        return operand
    return operand * alpha if is_number(operand) else with_number(call, "mul", operand, alpha)


@converts("operator.add", "torch.add", ".add")
def add(call, input, other, alpha=1):
    return _scaled_binary(call, "add", input, other, alpha)


@converts("operator.sub", "torch.sub", "torch.subtract", ".sub", ".subtract")
def sub(call, input, other, alpha=1):
    return _scaled_binary(call, "sub", input, other, alpha)


def _scaled_binary(call, kind, input, other, alpha):
    scaled = _scaled(call, other, alpha)
    if isinstance(scaled, Operand) or is_number(scaled):
        return binary(call, kind, input, scaled)
    return call.add(kind, input, scaled)


@converts("torch.rsub", ".rsub")
def rsub(call, input, other, alpha=1):
    return _scaled_binary(call, "sub", other, input, alpha)


@converts("operator.mul", "torch.mul", "torch.multiply", ".mul", ".multiply")
def mul(call, input, other):
    return binary(call, "mul", input, other)


@converts("operator.truediv", "torch.div", "torch.divide", "torch.true_divide", ".div", ".divide", ".true_divide")
def div(call, input, other, rounding_mode=None):
    if rounding_mode is not None:
        raise Refusal(f'rounding_mode "{rounding_mode}" cannot be said')
    return binary(call, "div", input, other)


@converts("operator.pow", "torch.pow", ".pow")
def pow_(call, input, exponent):
    return binary(call, "pow", input, exponent)


for _kind, _names in {
        "maximum": ["torch.maximum", ".maximum"], "minimum": ["torch.minimum", ".minimum"],
        "eq": ["operator.eq", "torch.eq", ".eq"], "ne": ["operator.ne", "torch.ne", ".ne", "torch.not_equal"],
        "lt": ["operator.lt", "torch.lt", ".lt", "torch.less"], "le": ["operator.le", "torch.le", ".le"],
        "gt": ["operator.gt", "torch.gt", ".gt", "torch.greater"], "ge": ["operator.ge", "torch.ge", ".ge"]}.items():
    def _convert(call, input, other, _kind=_kind):
        return binary(call, _kind, input, other)
    converts(*_names)(_convert)


@converts("torch.fmax", ".fmax", "torch.fmin", ".fmin")
def passes_over_nan(call, input, other):
    raise Refusal("passes over NaN, which no layer does: use torch.maximum or torch.minimum")


# Booleans.


@converts("torch.logical_not", ".logical_not")
def logical_not(call, input):
    return call.add("logical_not", input)


@converts("torch.logical_and", ".logical_and")
def logical_and(call, input, other):
    return call.add("logical_and", input, other)


@converts("torch.logical_or", ".logical_or")
def logical_or(call, input, other):
    return call.add("logical_or", input, other)


def _of_booleans(kind):
    def convert(call, *operands):
        if any(operand.dtype != torch.bool for operand in operands):
            raise Refusal("computes with the bits of integers")
        return call.add(kind, *operands)
    return convert


converts("operator.invert", "operator.inv", "torch.bitwise_not", ".bitwise_not")(_of_booleans("logical_not"))
converts("operator.and_", "torch.bitwise_and", ".bitwise_and")(_of_booleans("logical_and"))
converts("operator.or_", "torch.bitwise_or", ".bitwise_or")(_of_booleans("logical_or"))
converts("operator.xor", "torch.logical_xor", ".logical_xor")(_of_booleans("ne"))


@converts("torch.masked_fill", ".masked_fill")
def masked_fill(call, input, mask, value):
    number = number_of(value)
    if number is None:
        raise Refusal("fills in a tensor: use torch.where")
    return call.add("masked_fill", input, mask, value=_finite(number))


@converts(".where")
def where_method(call, input, condition, other):
    return where(call, condition, input, other)


@converts("torch.where")
def where(call, condition, input, other):
    if condition.dtype != torch.bool:
        condition = call.add("ne", condition, value=0)
    first, second = number_of(input), number_of(other)
    type_, shapes = call.step.dtype, call.step.shapes
    if first is not None and second is not None:
        return call.add("masked_fill", call.full(condition, second, NAMES[type_]), condition, value=_finite(first))
    if first is not None:
        if other.shapes == shapes:
            return call.add("masked_fill", call.cast(other, type_), condition, value=_finite(first))
        input = call.full(other, first, NAMES[type_])
    if second is not None:
        if input.shapes == shapes:
            opposite = call.add("logical_not", condition)
            return call.add("masked_fill", call.cast(input, type_), opposite, value=_finite(second))
        other = call.full(input, second, NAMES[type_])
    return call.add("where", condition, input, other)
