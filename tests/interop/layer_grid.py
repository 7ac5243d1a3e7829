"""The cases of layer_grid_test.py: networks as model.textproto says them, and what PyTorch has in
their place.

Every kind of layer over combinations of its arguments. A function per family of kinds adds its
cases; all_cases() has them in order.
"""
import collections
import functools
import itertools
import json
import random

import torch
import torch.nn.functional as F
from torch import nn

DATATYPES = {
    torch.bool: "BOOL", torch.uint8: "UINT8", torch.int8: "INT8", torch.int16: "INT16",
    torch.int32: "INT32", torch.int64: "INT64", torch.float16: "FP16", torch.bfloat16: "BF16",
    torch.float32: "FP32", torch.float64: "FP64",
}

# Which dimensions of the inputs are declared free: the cases take turns.
DECLARATIONS = ("first", "all", "first", "none")

EVERY = range(8)  # Every dimension that there may be.


class Input:
    """A tensor that is fed in. `free` are the dimensions that can do with being free, beside the
    first one unless `first` is false."""

    def __init__(self, tensor, free=(), first=True):
        self.tensor, self.free, self.first = tensor, free, first

    def declared_shape(self, declaration):
        def is_free(dim):
            if declaration == "none":
                return False
            return (dim == 0 and self.first) or (declaration == "all" and dim in self.free)

        return [-1 if is_free(dim) else size for dim, size in enumerate(self.tensor.shape)]


class Case:
    """A network and what computes the same.

    kind            The kind of layer that it is about.
    layers          The network's text, a layer each.
    compute         Takes the inputs' tensors and gives the outputs'.
    inputs          By name.
    modules         What holds the parameters that `compute` uses, by their prefix in the state dict.
    outputs         The layers whose outputs are asked for; empty where it is the last one's alone.
    change_state    Has the last word on the state dict.
    refused         Whether the server must not take it.
    """

    def __init__(self, kind, layers, compute, inputs, modules, outputs, change_state, refused, declaration):
        self.kind, self.layers, self.compute, self.inputs = kind, layers, compute, inputs
        self.modules, self.outputs, self.change_state = modules, outputs, change_state
        self.refused, self.declaration = refused, declaration

    def state_dict(self):
        state = collections.OrderedDict()
        for prefix, module in self.modules.items():
            for key, tensor in module.state_dict().items():
                state[f"{prefix}.{key}" if prefix else key] = tensor
        return self.change_state(state)

    def text(self, output_types):
        inputs = [tensor_text("input", name, given.tensor.dtype, given.declared_shape(self.declaration))
                  for name, given in self.inputs.items()]
        outputs = [tensor_text("output", name, dtype) for name, dtype in zip(self.outputs, output_types)]
        return "\n".join([*inputs, *outputs, "network {", *("  " + line for line in self.layers), "}", ""])


# Making text.

def value_text(value):
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(value_text(part) for part in value) + "]"
    if isinstance(value, (bool, str)):
        return json.dumps(value)
    return repr(value)


def fields_text(fields):
    return "".join(f"{name}: {value_text(value)} " for name, value in fields.items())


def tensor_text(field, name, dtype, shape=()):
    fields = {"name": name, "datatype": DATATYPES[dtype], **({"shape": shape} if shape else {})}
    return f"{field} {{ {fields_text(fields)}}}"


def wiring_text(name, inputs, parameters_of=""):
    fields = {"name": name, "input": list(inputs), "parameters_of": parameters_of}
    return fields_text({field: value for field, value in fields.items() if value})


def layer(kind, name="", inputs=(), parameters_of="", **arguments):
    return f"layer {{ {wiring_text(name, inputs, parameters_of)}{kind} {{ {fields_text(arguments)}}} }}"


def block(name, layers, inputs=(), **arguments):
    inside = fields_text(arguments) + " ".join(layers)
    return f"layer {{ {wiring_text(name, inputs)}block {{ {inside} }} }}"


# Making cases.

CASES = []


def randomise(module):
    """Fresh modules have zeros and ones among their parameters and buffers, which hide mistakes."""
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape) * 0.5
                tensor.copy_(values.abs() + 0.5 if key.endswith("running_var") else values)


def as_it_is(state):
    return state


def add(kind, layers, compute, inputs, modules=None, outputs=(), change_state=as_it_is, refused=False,
        random_parameters=True):
    modules = modules or {}
    for module in modules.values():
        module.eval()
        if random_parameters:
            randomise(module)
    inputs = {name: given if isinstance(given, Input) else Input(given) for name, given in inputs.items()}
    declaration = DECLARATIONS[len(CASES) % len(DECLARATIONS)]
    CASES.append(Case(kind, layers, compute, inputs, modules, outputs, change_state, refused, declaration))


def one(kind, compute, *inputs, free=(), parts=1, **arguments):
    """A network of one layer, in whose place PyTorch has `compute`: a module or a function.

    `free` is that of inputs which are given as mere tensors. `parts`: how many outputs the layer has;
    identities carry all but the first.
    """
    inputs = {f"x{i}": given if isinstance(given, Input) else Input(given, free)
              for i, given in enumerate(inputs)}
    layers = [layer(kind, "layer", inputs if len(inputs) > 1 else (), **arguments)]
    modules = {"layer": compute} if isinstance(compute, nn.Module) else {}
    outputs = with_parts(layers, parts) if parts > 1 else ()
    add(kind, layers, compute, inputs, modules, outputs)


def with_parts(layers, count):
    """Adds a layer for each further output of layer "layer", and names the outputs."""
    layers += [layer("identity", f"part{i}", [f"layer:{i}"]) for i in range(1, count)]
    return ["layer", *(f"part{i}" for i in range(1, count))]


def flat(results):
    """The tensors of nested tuples."""
    if isinstance(results, torch.Tensor):
        return [results]
    return [tensor for part in results for tensor in flat(part)]


def present(**arguments):
    return {name: value for name, value in arguments.items() if value is not None}


# Arguments without a default.
REQUIRED = {"kernel_size", "normalized_shape", "num_groups", "size"}


class Choice(dict):
    """A value for each option. `given` are those that differ from PyTorch's defaults."""

    def __init__(self, values, defaults):
        super().__init__(values)
        self.given = {name: value for name, value in values.items()
                      if name in REQUIRED or value != defaults[name]}

    def but(self, *names):
        return {name: value for name, value in self.items() if name not in names}

    def given_but(self, *names):
        return {name: value for name, value in self.given.items() if name not in names}


def combinations(strength=None, fits=lambda choice: True, **options):
    """Choices of one value for each option, whose first value is the default.

    Without `strength` all that there are; with it, so many that any values of that many options come
    together in one of them.
    """
    defaults = {name: values[0] for name, values in options.items()}
    every = [dict(zip(options, values)) for values in itertools.product(*options.values())]
    every = [Choice(values, defaults) for values in every if fits(values)]
    if strength is None:
        return every
    random.Random(1).shuffle(every)
    seen, chosen = set(), []
    for choice in every:
        met = set(itertools.combinations(((name, repr(value)) for name, value in choice.items()), strength))
        if not met <= seen:
            seen |= met
            chosen.append(choice)
    return chosen


class Holder(nn.Module):
    """Parameters without a module of their own; `compute` gets them by name."""

    def __init__(self, compute=None, **tensors):
        super().__init__()
        self.compute = compute
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))

    def forward(self, *inputs):
        return self.compute(*inputs, **dict(self.named_parameters()))


# Values.

def distinct(*shape):
    """Of which no two are the same, not even in bfloat16."""
    count = torch.Size(shape).numel()
    return (torch.randperm(count).float() - count // 2).reshape(shape) / 8


def few(*shape):
    """Which are often the same."""
    return torch.randint(-2, 3, shape).float() / 2


def normal(*shape):
    return torch.randn(shape)


def small(*shape):
    """Beside which a norm's eps is not nothing."""
    return torch.randn(shape) * 0.05


def positive(*shape):
    return torch.rand(shape) * 3 + 0.25


def wide(*shape):
    return torch.randn(shape, dtype=torch.float64)


def booleans(*shape):
    return torch.rand(shape) < 0.5


def integers(*shape, dtype=torch.int64):
    return torch.randint(-5, 6, shape).to(dtype)


# Layers with parameters.

def linear():
    shapes = [(2, 5), (1, 5), (2, 3, 5), (2, 3, 2, 5)]
    options = combinations(in_features=(None, 5), bias=(True, False))
    for shape, choice in itertools.product(shapes, options):
        free = EVERY if choice["in_features"] else range(len(shape) - 1)
        one("linear", nn.Linear(5, 3, choice["bias"]), normal(*shape), free=free, out_features=3, **choice.given)
    one("linear", nn.Linear(5, 3), Input(normal(5), first=False), out_features=3)

    options = combinations(2, in1_features=(None, 4), in2_features=(None, 5), bias=(True, False))
    for shape, choice in itertools.product([(2,), (2, 3)], options):
        module = nn.Bilinear(4, 5, 3, choice["bias"])
        one("bilinear", module, normal(*shape, 4), normal(*shape, 5), free=range(len(shape)), out_features=3,
            **choice.given)


# Sizes of images by their number of dimensions.
IMAGES = {1: (9,), 2: (7, 8), 3: (5, 6, 7)}


def one_each(dims, *values):
    """One value for each of `dims` dimensions. Of one dimension, the largest."""
    return values[-dims:] if dims > 1 else max(values)


def but_channels(known):
    """The dimensions that may be free: channels only where the layer says how many there are."""
    return [dim for dim in EVERY if dim != 1 or known]


def convolutions():
    for dims, image in IMAGES.items():
        module = getattr(nn, f"Conv{dims}d")
        options = combinations(
            3 if dims == 2 else 2, in_channels=(None, 4), kernel_size=(3, one_each(dims, 1, 3, 2)),
            stride=(1, one_each(dims, 1, 2, 1)), padding=(0, one_each(dims, 1, 0, 2)), dilation=(1, 2),
            groups=(1, 2, 4), bias=(True, False), padding_mode=("zeros", "reflect", "replicate", "circular"))
        for choice in options:
            one(f"conv{dims}d", module(4, 8, **choice.but("in_channels")), normal(2, 4, *image),
                free=but_channels(choice["in_channels"]), out_channels=8, **choice.given)


def transposed_convolutions():
    def fits(choice):
        # PyTorch wants output_padding smaller than the stride or the dilation.
        return choice["output_padding"] == 0 or choice["stride"] == 2 or choice["dilation"] == 2

    for dims, image in IMAGES.items():
        module = getattr(nn, f"ConvTranspose{dims}d")
        options = combinations(
            2, fits, in_channels=(None, 4), kernel_size=(3, 1, one_each(dims, 1, 3, 2)), stride=(1, 2),
            padding=(0, one_each(dims, 1, 0, 1)), output_padding=(0, one_each(dims, 0, 1, 0)),
            dilation=(1, 2), groups=(1, 2), bias=(True, False))
        for choice in options:
            small = [size // 2 + 1 for size in image]
            one(f"conv_transpose{dims}d", module(4, 6, **choice.but("in_channels")), normal(2, 4, *small),
                free=but_channels(choice["in_channels"]), out_channels=6, **choice.given)


def batch_and_instance_norms():
    images = {1: [(3, 4), (3, 4, 5)], 2: [(2, 4, 3, 5)], 3: [(2, 4, 2, 3, 2)]}
    for dims, shapes in images.items():
        module = getattr(nn, f"BatchNorm{dims}d")
        options = combinations(num_features=(None, 4), eps=(1e-5, 0.1), affine=(True, False))
        for shape, choice in itertools.product(shapes, options):
            one(f"batch_norm{dims}d", module(4, **choice.but("num_features")), normal(*shape),
                free=but_channels(choice["num_features"]), **choice.given)
        module = getattr(nn, f"InstanceNorm{dims}d")
        options = combinations(None if dims == 1 else 2, num_features=(None, 4), eps=(1e-5, 0.1),
                               affine=(False, True), track_running_stats=(False, True))
        for choice in options:
            one(f"instance_norm{dims}d", module(4, **choice.but("num_features")), small(*shapes[-1]),
                free=but_channels(choice["num_features"]), **choice.given)


def layer_norm(x, weight, shape, eps):
    return F.layer_norm(x, shape, weight, None, eps)


def rms_norm(x, weight=None, *, shape, eps):
    """torch.nn.functional.rms_norm, which came with PyTorch 2.4."""
    dims = [-1 - i for i in range(len(shape))]
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    normalized = x * torch.rsqrt(x.square().mean(dims, keepdim=True) + eps)
    return normalized if weight is None else normalized * weight


def other_norms():
    options = combinations(None, lambda choice: choice["elementwise_affine"] or choice["bias"],
                           normalized_shape=((5,), (3, 5), (2, 3, 5)), eps=(1e-5, 0.1),
                           elementwise_affine=(True, False), bias=(True, False))
    for choice in options:
        shape, eps = choice["normalized_shape"], choice["eps"]
        compute = nn.LayerNorm(shape, eps, choice["elementwise_affine"])
        if not choice["bias"]:  # An argument of PyTorch 2.1's.
            compute = Holder(functools.partial(layer_norm, shape=shape, eps=eps), weight=torch.empty(shape))
        one("layer_norm", compute, small(4, 2, 3, 5), free=EVERY, **choice.given)

    options = combinations(normalized_shape=((5,), (3, 5)), eps=(None, 1e-6, 0.1),
                           elementwise_affine=(True, False))
    for values, choice in itertools.product((normal, small), options):
        compute = functools.partial(rms_norm, shape=choice["normalized_shape"], eps=choice["eps"])
        if choice["elementwise_affine"]:
            compute = Holder(compute, weight=torch.empty(choice["normalized_shape"]))
        one("rms_norm", compute, values(4, 3, 5), free=EVERY, **choice.given)

    options = combinations(2, num_groups=(1, 2, 6), num_channels=(None, 6), eps=(1e-5, 0.1), affine=(True, False))
    for shape, choice in itertools.product([(2, 6), (2, 6, 5), (2, 6, 3, 4)], options):
        if choice["num_groups"] == 6 and len(shape) == 2:
            continue  # In a group of one number there is nothing but rounding errors.
        module = nn.GroupNorm(choice["num_groups"], 6, choice["eps"], choice["affine"])
        one("group_norm", module, small(*shape), free=but_channels(choice["num_channels"]), **choice.given)


def embeddings():
    for dtype, shape in itertools.product((torch.int64, torch.int32), [(4,), (2, 3), (2, 3, 2)]):
        one("embedding", nn.Embedding(7, 3), torch.randint(0, 7, shape, dtype=dtype), free=EVERY,
            num_embeddings=7, embedding_dim=3)


def prelu():
    shapes = [((5,), 1), ((2, 4), 1), ((2, 4), 4), ((2, 4, 3), 4), ((2, 4, 3, 3), 1), ((2, 4, 3, 3), 4)]
    for shape, count in shapes:
        given = {"num_parameters": count} if count > 1 else {}
        one("prelu", nn.PReLU(count), normal(*shape), free=but_channels(False), **given)


def parameters():
    # Under a name of one part and of several, in a block, of fewer and as many dimensions as the input.
    for shape, buffer in itertools.product([(), (4,), (1, 3, 4), (2, 3, 4)], (False, True)):
        given = present(shape=shape or None, buffer=buffer or None)
        holder = Holder(lambda x, token: x + token, token=torch.empty(shape))
        layers = [layer("parameter", "token", **given), layer("add", "", ["x", "token"])]
        add("parameter", layers, holder, {"x": Input(normal(2, 3, 4), EVERY)}, {"": holder})
        holder = Holder(lambda x, token: x * token, token=torch.empty(shape))
        layers = [layer("parameter", "inner.token", **given), layer("mul", "", ["x", "inner.token"])]
        add("parameter", [block("part", layers)], holder, {"x": Input(normal(2, 3, 4), EVERY)},
            {"part.inner": holder})

    # Buffers may be infinite: a causal mask.
    holder = Holder(lambda x, mask: (x + mask).softmax(-1), mask=torch.full((4, 4), float("-inf")).triu(1))
    layers = [layer("parameter", "mask", shape=(4, 4), buffer=True), layer("add", "", ["x", "mask"]),
              layer("softmax")]
    add("parameter", layers, holder, {"x": Input(normal(2, 4, 4), EVERY)}, {"": holder}, random_parameters=False)

    # Numbers that are no floats.
    holder = Holder(lambda x, table: x + table, table=torch.tensor([3, 1, 2]))
    layers = [layer("parameter", "table", shape=(3,), datatype="INT64", buffer=True),
              layer("add", "", ["x", "table"])]
    add("parameter", layers, holder, {"x": integers(2, 3)}, {"": holder})

    # Saved in another type than it is computed in.
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        def converted(state, dtype=dtype):
            return {key: tensor.to(dtype) for key, tensor in state.items()}

        holder = Holder(lambda x, token: x + token, token=few(4))
        layers = [layer("parameter", "token", shape=(4,)), layer("add", "", ["x", "token"])]
        add("parameter", layers, holder, {"x": few(2, 4)}, {"": holder}, change_state=converted,
            random_parameters=False)


# Sequences.

def recurrent():
    kinds = {
        "lstm": (nn.LSTM, {"proj_size": (0, 2)}),
        "gru": (nn.GRU, {}),
        "rnn": (nn.RNN, {"nonlinearity": ("tanh", "relu")}),
    }
    for kind, (make, more) in kinds.items():
        options = combinations(
            3 if kind == "lstm" else 2, input_size=(None, 4), num_layers=(1, 2, 3), bias=(True, False),
            batch_first=(False, True), bidirectional=(False, True), states=("none", "in order", "by name"), **more)
        for choice in options:
            module = make(4, 3, **choice.but("input_size", "states"))
            x = normal(2, 5, 4) if choice["batch_first"] else normal(5, 2, 4)
            inputs = {"x": Input(x, (0, 1, 2) if choice["input_size"] else (0, 1))}
            wires = []
            if choice["states"] != "none":
                rows = choice["num_layers"] * (2 if choice["bidirectional"] else 1)
                inputs["h"] = Input(normal(rows, 2, choice.get("proj_size") or 3), (1,), first=False)
                if kind == "lstm":
                    inputs["c"] = Input(normal(rows, 2, 3), (1,), first=False)
                wires = list(inputs)
                if choice["states"] == "by name":
                    wires = ["input=x", *(f"{name}_0={name}" for name in wires[1:])][::-1]

            def compute(x, *states, module=module):
                return flat(module(x, *(states if len(states) < 2 else [states])))

            layers = [layer(kind, "layer", wires, hidden_size=3, **choice.given_but("states"))]
            outputs = with_parts(layers, 3 if kind == "lstm" else 2)
            add(kind, layers, compute, inputs, {"layer": module}, outputs)


def additive(mask, dtype=torch.float32):
    """A mask that keeps out where it is true, as what is added to the scores."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(mask, float("-inf"))


def later(targets, sources):
    """Which positions come after a position's own."""
    return torch.ones(targets, sources, dtype=torch.bool).triu(1)


def random_mask(dtype, *shape):
    """Leaves the first position in: where a mask leaves nothing, PyTorch answers NaN."""
    if dtype != torch.bool:
        return normal(*shape)
    mask = booleans(*shape)
    mask[..., 0] = False
    return mask


class AttentionCase:
    """One case of multihead_attention."""

    BATCH, HEADS, TARGETS, SOURCES = 2, 2, 3, 5

    def __init__(self, choice):
        self.choice = choice
        self.alone = choice["fed"] == "itself"
        self.length = self.TARGETS if self.alone else self.SOURCES
        self.widths = {"kdim": 6, "vdim": 2} if choice["fed"] == "others of other sizes" else {}
        self.module = nn.MultiheadAttention(
            4, self.HEADS, bias=choice["bias"], add_bias_kv=choice["add_bias_kv"],
            add_zero_attn=choice["add_zero_attn"], batch_first=choice["batch_first"], **self.widths)

    def sequence(self, length, width):
        batch_first = self.choice["batch_first"]
        shape = (self.BATCH, length, width) if batch_first else (length, self.BATCH, width)
        return Input(normal(*shape), (0, 1, 2) if self.choice["embed_dim"] else (0, 1))

    def inputs(self):
        inputs = {"query": self.sequence(self.TARGETS, 4)}
        if not self.alone:
            inputs["key"] = self.sequence(self.length, self.widths.get("kdim", 4))
            inputs["value"] = self.sequence(self.length, self.widths.get("vdim", 4))
        if self.choice["key_padding_mask"]:
            mask = random_mask(self.choice["key_padding_mask"], self.BATCH, self.length)
            inputs["key_padding_mask"] = Input(mask, EVERY)
        if self.choice["attn_mask"]:
            dtype, rank = self.choice["attn_mask"]
            shape = (self.BATCH * self.HEADS, self.TARGETS, self.length)[-rank:]
            inputs["attn_mask"] = Input(random_mask(dtype, *shape), EVERY)
        return inputs

    def compute(self, query, key=None, value=None, key_padding_mask=None, attn_mask=None):
        if self.choice["is_causal"]:
            attn_mask = additive(later(self.TARGETS, self.length), query.dtype)
        if key_padding_mask is not None and key_padding_mask.is_floating_point():
            # PyTorch 1.13 adds them only where there is no other mask.
            shape = (self.BATCH, self.HEADS, self.TARGETS, self.length)
            padding = key_padding_mask[:, None, None].expand(shape).flatten(0, 1)
            attn_mask = padding if attn_mask is None else attn_mask + padding
            key_padding_mask = None
        answer, weights = self.module(query, query if key is None else key, query if value is None else value,
                                      key_padding_mask=key_padding_mask, attn_mask=attn_mask)
        return [answer, weights] if self.choice["need_weights"] else answer

    def add(self):
        inputs = self.inputs()
        names = {"query": "q", "key": "k", "value": "v", "key_padding_mask": "padding", "attn_mask": "mask"}
        masks = ("key_padding_mask", "attn_mask")
        wires = [f"{slot}={names[slot]}" if slot in masks else names[slot] for slot in inputs]
        given = self.choice.given_but("fed", *masks)
        layers = [layer("multihead_attention", "layer", wires if len(wires) > 1 else (), num_heads=self.HEADS,
                        **self.widths, **given)]
        outputs = with_parts(layers, 2) if self.choice["need_weights"] else ()

        def compute(*tensors):
            return self.compute(**dict(zip(inputs, tensors)))

        add("multihead_attention", layers, compute, {names[slot]: given for slot, given in inputs.items()},
            {"layer": self.module}, outputs)


def multihead_attention():
    def fits(choice):
        # What is_causal means beside an attn_mask, PyTorch does not say.
        if choice["is_causal"] and choice["attn_mask"]:
            return False
        # One of booleans and one of floats, PyTorch 1.13 does not put together.
        return not choice["attn_mask"] or choice["key_padding_mask"] != torch.float32 or \
            choice["attn_mask"][0] == torch.float32

    options = combinations(
        3, fits, fed=("itself", "others", "others of other sizes"), embed_dim=(None, 4), bias=(True, False),
        add_bias_kv=(False, True), add_zero_attn=(False, True), batch_first=(False, True),
        need_weights=(False, True), is_causal=(False, True), key_padding_mask=(None, torch.bool, torch.float32),
        attn_mask=(None, (torch.bool, 2), (torch.bool, 3), (torch.float32, 2), (torch.float32, 3)))
    for choice in options:
        AttentionCase(choice).add()


def attend(query, key, value, mask=None, is_causal=False, scale=None):
    """torch.nn.functional.scaled_dot_product_attention, which came with PyTorch 2.0. Where its mask
    is of booleans, true is what takes part: the other way round than in multihead_attention."""
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        mask = ~later(*scores.shape[-2:])
    if mask is not None:
        scores = scores + (additive(~mask, scores.dtype) if mask.dtype == torch.bool else mask)
    return scores.softmax(-1) @ value


def scaled_dot_product_attention():
    # Of [L, S], [N, 1, L, S] and [N, H, L, S].
    masks = itertools.product((torch.bool, torch.float32), [(), (2, 1), (2, 3)])
    options = combinations(None, lambda choice: not (choice["is_causal"] and choice["mask"]),
                           is_causal=(False, True), scale=(None, 0.3), sources=(4, 6), mask=(None, *masks))
    for i, choice in enumerate(options):
        sources = choice["sources"]
        shapes = {"q": (2, 3, 4, 5), "k": (2, 3, sources, 5), "v": (2, 3, sources, 3)}
        inputs = {name: Input(normal(*shape), EVERY) for name, shape in shapes.items()}
        wires = list(inputs)
        if choice["mask"]:
            dtype, rows = choice["mask"]
            mask = random_mask(dtype, *rows, 4, sources)
            inputs["mask"] = Input(~mask if dtype == torch.bool else mask, EVERY)
            wires.append("attn_mask=mask" if i % 2 else "mask")
        given = choice.given_but("sources", "mask")
        add("scaled_dot_product_attention", [layer("scaled_dot_product_attention", "", wires, **given)],
            functools.partial(attend, **given), inputs)
    for shape, given in itertools.product([(2, 4, 5), (4, 5)], ({}, {"is_causal": True})):
        one("scaled_dot_product_attention", functools.partial(attend, **given), normal(*shape), normal(*shape),
            normal(*shape), free=EVERY, **given)


# Windows and images.

def pools():
    def fits(choice):
        # PyTorch pads by half a kernel at most.
        kernel, padding = choice["kernel_size"], choice["padding"]
        return padding == 0 or kernel == 3 or isinstance(kernel, tuple) and isinstance(padding, tuple)

    for dims, image in IMAGES.items():
        x = normal(2, 3, *image)
        windows = {
            "kernel_size": (2, 3, one_each(dims, 1, 2, 3)), "stride": (None, 1, 2, one_each(dims, 1, 2, 3)),
            "padding": (0, 1, one_each(dims, 0, 0, 1))[:dims + 1],
        }
        module = getattr(nn, f"MaxPool{dims}d")
        options = combinations(2, fits, **windows, dilation=(1, 2, one_each(dims, 1, 2, 1)),
                               ceil_mode=(False, True))
        for choice in options:
            one(f"max_pool{dims}d", module(**choice), x, free=EVERY, **choice.given)

        module = getattr(nn, f"AvgPool{dims}d")
        more = {"divisor_override": (None, 5)} if dims > 1 else {}
        options = combinations(2, fits, **windows, ceil_mode=(False, True), count_include_pad=(True, False), **more)
        for choice in options:
            one(f"avg_pool{dims}d", module(**choice), x, free=EVERY, **choice.given)

        for name, size in itertools.product(("Avg", "Max"), (1, 3, 4, one_each(dims, 2, 1, 5))):
            module = getattr(nn, f"Adaptive{name}Pool{dims}d")
            one(f"adaptive_{name.lower()}_pool{dims}d", module(size), x, free=EVERY, output_size=size)


def images():
    options = combinations(2, size=(1, 2, 3), alpha=(1e-4, 0.5), beta=(0.75, 0.5), k=(1.0, 2.0))
    shapes = itertools.cycle([(2, 5, 4), (2, 5, 3, 3), (2, 5, 2, 2, 3)])
    for shape, choice in zip(shapes, options):
        one("local_response_norm", nn.LocalResponseNorm(**choice), normal(*shape) * 2, free=EVERY, **choice.given)

    for factor, shape in [(2, (2, 8, 3, 2)), (3, (1, 9, 2, 2)), (2, (4, 3, 2)), (2, (2, 2, 4, 3, 2)),
                          (1, (2, 3, 2, 2))]:
        one("pixel_shuffle", nn.PixelShuffle(factor), normal(*shape), free=EVERY, upscale_factor=factor)
    for factor, shape in [(2, (2, 3, 4, 6)), (3, (1, 2, 6, 3)), (2, (3, 4, 2)), (2, (2, 2, 1, 4, 2)),
                          (1, (2, 3, 2, 2))]:
        one("pixel_unshuffle", nn.PixelUnshuffle(factor), normal(*shape), free=EVERY, downscale_factor=factor)
    for groups, shape in itertools.product((1, 2, 3), [(2, 6, 4), (2, 6, 3, 2), (2, 6, 2, 1, 3)]):
        one("channel_shuffle", nn.ChannelShuffle(groups), normal(*shape), free=EVERY, groups=groups)


def padding():
    pads_of_images = [(1, 2), (2, 2), (0, 1, 2, 0), (1, 0, 0, 1), (1, 1, 2, 1, 0, 2), (0, 0, 1, 1, 2, 1)]
    for mode, pads in itertools.product(("reflect", "replicate", "circular"), pads_of_images):
        one("pad", functools.partial(F.pad, pad=pads, mode=mode), normal(2, 3, *IMAGES[len(pads) // 2]),
            free=EVERY, padding=pads, mode=mode)
    for pads in [(1, 2), (-1, 2), (0, -2), (1, 0, 2, 1), (-1, 1, 1, -1), (1, 1, 0, 0, 2, 1),
                 (0, 0, 1, 2, 0, 0, 1, 1)]:
        for given in ({}, {"value": 1.5}):
            one("pad", functools.partial(F.pad, pad=pads, **given), normal(2, 3, 4, 5), free=EVERY, padding=pads,
                **given)
    one("pad", functools.partial(F.pad, pad=(1, 1), value=3), integers(2, 3), free=EVERY, padding=(1, 1),
        mode="constant", value=3)


def upsampling():
    modes = {"nearest": (1, 2, 3), "linear": (1,), "bilinear": (2,), "bicubic": (2,), "trilinear": (3,)}
    for mode, dims in [(mode, dims) for mode, several in modes.items() for dims in several]:
        sizes = [{"size": 6}, {"size": one_each(dims, 4, 9, 5)}, {"scale_factor": 2.0}, {"scale_factor": 0.6},
                 {"scale_factor": one_each(dims, 0.7, 1.4, 1.8)}]
        for size, align in itertools.product(sizes, (False,) if mode == "nearest" else (False, True)):
            given = {**size, **({"align_corners": True} if align else {})}
            module = nn.Upsample(mode=mode, **given)
            given.update({} if mode == "nearest" else {"mode": mode})
            one("upsample", module, normal(2, 3, *IMAGES[dims]), free=EVERY, **given)


# Functions of single numbers.

def unchanged(x, p=None):
    return x.clone()


def activations():
    of_any_number = {
        "relu": F.relu, "relu6": F.relu6, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "silu": F.silu,
        "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "selu": F.selu, "mish": F.mish,
        "log_sigmoid": F.logsigmoid, "softsign": F.softsign, "tanhshrink": F.tanhshrink, "exp": torch.exp,
        "erf": torch.erf, "sin": torch.sin, "cos": torch.cos, "abs": torch.abs, "neg": torch.neg,
        "square": torch.square, "gelu": F.gelu, "leaky_relu": F.leaky_relu, "elu": F.elu, "celu": F.celu,
        "softplus": F.softplus, "hardtanh": F.hardtanh, "softshrink": F.softshrink,
        "hardshrink": F.hardshrink, "identity": unchanged, "dropout": unchanged,
    }
    for (kind, function), shape in itertools.product(of_any_number.items(), [(40,), (2, 3, 4, 5)]):
        one(kind, function, normal(*shape) * 3, free=EVERY)
    of_positive_numbers = {
        "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal,
    }
    for (kind, function), shape in itertools.product(of_positive_numbers.items(), [(40,), (2, 3, 4)]):
        one(kind, function, positive(*shape), free=EVERY)

    with_arguments = [
        ("gelu", F.gelu, {"approximate": "tanh"}),
        ("dropout", unchanged, {"p": 0.9}),
        ("leaky_relu", F.leaky_relu, {"negative_slope": 0.3}),
        ("elu", F.elu, {"alpha": 0.5}),
        ("celu", F.celu, {"alpha": 0.5}),
        ("softplus", F.softplus, {"beta": 2.0}),
        ("softplus", F.softplus, {"beta": 0.5, "threshold": 1.0}),
        ("hardtanh", F.hardtanh, {"min_val": -2.0}),
        ("hardtanh", F.hardtanh, {"max_val": 0.5}),
        ("hardtanh", F.hardtanh, {"min_val": -0.25, "max_val": 3.0}),
        ("clamp", torch.clamp, {"min": -1.0}),
        ("clamp", torch.clamp, {"max": 0.75}),
        ("clamp", torch.clamp, {"min": 0.5, "max": 2.0}),
        ("softshrink", F.softshrink, {"lambd": 1.5}),
        ("hardshrink", F.hardshrink, {"lambd": 1.5}),
        ("threshold", F.threshold, {"threshold": 0.5, "value": -3.0}),
        ("threshold", F.threshold, {"threshold": -1.0, "value": 20.0}),
    ]
    for (kind, function, given), shape in itertools.product(with_arguments, [(40,), (2, 3, 4)]):
        one(kind, functools.partial(function, **given), normal(*shape) * 3, free=EVERY, **given)
    # PyTorch's has no defaults.
    one("threshold", functools.partial(F.threshold, threshold=0, value=0), normal(2, 9), free=EVERY)

    # What takes integers, too.
    of_integers = {"abs": torch.abs, "neg": torch.neg, "square": torch.square, "identity": unchanged}
    for kind, function in of_integers.items():
        for values in (integers(2, 9), integers(2, 9, dtype=torch.int32), wide(2, 9)):
            one(kind, function, values, free=EVERY)
    one("clamp", functools.partial(torch.clamp, min=-2, max=3), integers(2, 9), free=EVERY, min=-2, max=3)


def conversions():
    values = torch.tensor([[0.0, 1, 2.5, 3.75, 100], [1, 0, 0, 7.25, 64]])
    sources = (torch.bool, torch.int64, torch.float16, torch.float32)
    for source, target in itertools.product(sources, DATATYPES):
        one("to", lambda x, target=target: x.to(target), values.to(source), free=EVERY,
            datatype=DATATYPES[target])
    negative = torch.tensor([[-1.5, -0.25, -3, 0]])
    for target in (torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.bfloat16):
        one("to", lambda x, target=target: x.to(target), negative, free=EVERY, datatype=DATATYPES[target])


# Along dimensions.

def along_dimensions():
    functions = {"softmax": torch.softmax, "log_softmax": torch.log_softmax, "softmin": F.softmin}
    for (kind, function), shape in itertools.product(functions.items(), [(4,), (2, 3, 4), (2, 3, 2, 4)]):
        for dim in (None, *range(len(shape))):
            one(kind, functools.partial(function, dim=-1 if dim is None else dim), normal(*shape) * 2, free=EVERY,
                **present(dim=dim))
    for dim in (None, 0, 1, -2):
        along = -1 if dim is None else dim
        one("glu", functools.partial(F.glu, dim=along), normal(4, 2, 6), free=EVERY, **present(dim=dim))
        one("cumsum", functools.partial(torch.cumsum, dim=along), normal(4, 2, 6), free=EVERY, **present(dim=dim))
    for dtype in (torch.int64, torch.int32, torch.bool):
        one("cumsum", functools.partial(torch.cumsum, dim=-1), integers(2, 5, dtype=dtype), free=EVERY)

    options = combinations(2, p=(2, 1, 3, 0.5), dim=(1, 0, -1), eps=(1e-12, 2.0))
    for choice in options:
        one("normalize", functools.partial(F.normalize, **choice), normal(3, 4, 5), free=EVERY, **choice.given)


def reductions():
    functions = {"mean": torch.mean, "sum": torch.sum, "amax": torch.amax, "amin": torch.amin}
    options = combinations(dim=((), (0,), (-1,), (1, -1), (2, 0), (0, 1, 2)), keepdim=(False, True))
    for (kind, function), choice in itertools.product(functions.items(), options):
        reduce = functools.partial(function, dim=choice["dim"] or (0, 1, 2), keepdim=choice["keepdim"])
        one(kind, reduce, normal(3, 4, 5), free=EVERY, **choice.given)
    for dtype in (torch.int64, torch.int32):
        for kind in ("sum", "amax", "amin"):
            one(kind, functools.partial(functions[kind], dim=1), integers(2, 5, dtype=dtype), free=EVERY, dim=1)
            one(kind, functools.partial(functions[kind], dim=(0, 1)), integers(2, 5, dtype=dtype), free=EVERY)
    one("sum", functools.partial(torch.sum, dim=1), booleans(2, 5), free=EVERY, dim=1)

    for kind, function in {"argmax": torch.argmax, "argmin": torch.argmin}.items():
        for choice in combinations(dim=(-1, 0, 1, -2), keepdim=(False, True)):
            one(kind, functools.partial(function, **choice), distinct(3, 4, 5), free=EVERY, **choice.given)
        one(kind, functools.partial(function, dim=-1), torch.randperm(12).reshape(3, 4), free=EVERY)


# Of several inputs.

# Shapes that broadcast.
PAIRS = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 4)), ((2, 3, 4), (4,)), ((2, 3, 4), (1,)),
         ((2, 1, 4), (1, 3, 1)), ((4,), (2, 3, 4)), ((3, 1), (2, 1, 4)), ((2, 1), (2, 5))]


def broadcast_inputs(make, *shapes):
    """The first dimension is a batch only of those that have as many dimensions as any, and not of one."""
    rank = max(map(len, shapes))
    return [Input(make(*shape), EVERY, first=len(shape) == rank and shape[0] > 1) for shape in shapes]


def with_value(function, x, value):
    """maximum and minimum are of tensors alone."""
    of_tensors = function in (torch.maximum, torch.minimum)
    return function(x, torch.tensor(value, dtype=x.dtype) if of_tensors else value)


def of_many(function, *tensors):
    return functools.reduce(function, tensors)


def elementwise():
    functions = {
        "add": torch.add, "mul": torch.mul, "sub": torch.sub, "rsub": torch.rsub, "div": torch.div,
        "pow": torch.pow, "maximum": torch.maximum, "minimum": torch.minimum,
    }
    for kind, function in functions.items():
        make = positive if kind in ("div", "pow") else normal
        for pair in PAIRS:
            one(kind, function, *broadcast_inputs(make, *pair))
        for value in (2.0, -1.5, 0.5, 3.0):
            one(kind, functools.partial(with_value, function, value=value), make(2, 3, 4), free=EVERY, value=value)
        # Other types, and what becomes of two of them. Positive: for pow, and div.
        some = integers(2, 3).abs() + 1
        one(kind, function, wide(2, 3).abs(), positive(2, 3), free=EVERY)
        one(kind, function, integers(2, 3), some, free=EVERY)
        one(kind, function, integers(2, 3, dtype=torch.int32), some.int(), free=EVERY)
        one(kind, function, some, positive(2, 3), free=EVERY)
        one(kind, function, positive(2, 3), some, free=EVERY)
        if kind in ("maximum", "minimum"):
            for of in (some, some.int(), wide(2, 3)):
                value = 0.1 if of.is_floating_point() else 2
                one(kind, functools.partial(with_value, function, value=value), of, free=EVERY, value=value)
        else:
            one(kind, functools.partial(with_value, function, value=2), some, free=EVERY, value=2)
            one(kind, functools.partial(with_value, function, value=2.5), some, free=EVERY, value=2.5)
    for value in (2, 3):
        one("pow", functools.partial(with_value, torch.pow, value=value), normal(2, 5), free=EVERY, value=value)
    one("pow", functools.partial(with_value, torch.pow, value=-1), positive(2, 5), free=EVERY, value=-1)
    one("mul", torch.mul, booleans(2, 3), booleans(2, 3), free=EVERY)
    one("mul", torch.mul, booleans(2, 3), integers(2, 3), free=EVERY)
    one("mul", torch.mul, normal(2, 3), booleans(2, 3), free=EVERY)

    # Of three and more, and of one thing twice.
    for kind in ("add", "mul", "maximum", "minimum"):
        for shapes in ([(2, 3)] * 3, [(2, 3), (3,), (2, 1)], [(4,), (2, 1, 4), (3, 1), (2, 3, 1)]):
            one(kind, functools.partial(of_many, functions[kind]), *broadcast_inputs(normal, *shapes))
        add(kind, [layer(kind, "", ["x", "x"])], lambda x, function=functions[kind]: function(x, x),
            {"x": normal(2, 3)})


def comparisons():
    functions = {"eq": torch.eq, "ne": torch.ne, "lt": torch.lt, "le": torch.le, "gt": torch.gt, "ge": torch.ge}
    for kind, function in functions.items():
        for pair in PAIRS[::2]:
            one(kind, function, *broadcast_inputs(few, *pair))
        for value in (0.5, 0.0, -1.0):
            one(kind, functools.partial(with_value, function, value=value), few(3, 7), free=EVERY, value=value)
        one(kind, function, integers(2, 9), integers(2, 9), free=EVERY)
        one(kind, functools.partial(with_value, function, value=1), integers(2, 9), free=EVERY, value=1)
    for kind, function in {"logical_and": torch.logical_and, "logical_or": torch.logical_or}.items():
        for pair in PAIRS[::2]:
            one(kind, function, *broadcast_inputs(booleans, *pair))
        one(kind, function, few(2, 9), few(2, 9), free=EVERY)
        one(kind, function, integers(2, 9), booleans(2, 9), free=EVERY)
    for values in (booleans(2, 9), few(2, 9), integers(2, 9)):
        one("logical_not", torch.logical_not, values, free=EVERY)


def selections():
    for shapes in [((2, 3, 4), (2, 3, 4), (2, 3, 4)), ((2, 1, 4), (2, 3, 1), (2, 3, 4)),
                   ((3, 1), (2, 3, 4), (4,)), ((2, 3, 4), (1,), (2, 3, 4)), ((2, 3), (3,), (2, 1))]:
        inputs = broadcast_inputs(normal, *shapes)
        inputs[0].tensor = booleans(*shapes[0])
        one("where", torch.where, *inputs)
    one("where", torch.where, booleans(2, 5), integers(2, 5), integers(2, 5), free=EVERY)

    masks = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (2, 1, 4)), ((2, 3, 4), (3, 1)), ((2, 3, 4), (4,)), ((2, 5), (2, 5))]
    for (shape, mask), value in itertools.product(masks, (None, -1e4, float("-inf"))):
        inputs = broadcast_inputs(normal, shape, mask)
        inputs[1].tensor = booleans(*mask)
        one("masked_fill", functools.partial(torch.masked_fill, value=value or 0), *inputs, **present(value=value))
    one("masked_fill", functools.partial(torch.masked_fill, value=7), integers(2, 5), booleans(2, 5), free=EVERY,
        value=7)


def joins():
    for left, right in [((2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
                        ((2, 1, 3, 4), (2, 5, 4, 2)), ((2, 5, 3, 4), (5, 4, 2)), ((1, 3), (3, 1)),
                        ((2, 5, 1, 4), (4, 2))]:
        one("matmul", torch.matmul, Input(normal(*left), EVERY, first=len(left) >= len(right)),
            Input(normal(*right), EVERY, first=len(right) > 2 and len(right) >= len(left)))
    one("matmul", torch.matmul, wide(2, 3, 4), wide(2, 4, 3), free=EVERY)

    def concat(*tensors, dim):
        return torch.cat(tensors, dim)

    def stack(*tensors, dim=0):
        return torch.stack(tensors, dim)

    for dim, count in itertools.product((None, 0, 1, 2, -1), (2, 3)):
        at = 1 if dim is None else dim % 3
        shapes = [[size + i if place == at else size for place, size in enumerate((2, 3, 4))]
                  for i in range(count)]
        one("concat", functools.partial(concat, dim=at), *(normal(*shape) for shape in shapes), free=EVERY,
            **present(dim=dim))
    for count, dim in enumerate((None, 0, 1, 2, 3, -1, -2)):
        one("stack", functools.partial(stack, dim=dim or 0), *(normal(2, 3, 4) for _ in range(count % 2 + 2)),
            free=EVERY, **present(dim=dim))
    for make in (integers, booleans, wide):
        one("concat", functools.partial(concat, dim=1), make(2, 3), make(2, 2), free=EVERY)
        one("stack", stack, make(2, 3), make(2, 3), free=EVERY)
    one("concat", functools.partial(concat, dim=1), normal(2, 3), integers(2, 2), free=EVERY)
    add("concat", [layer("concat", "", ["x", "x"])], lambda x: torch.cat([x, x], 1), {"x": normal(2, 3)})
    add("stack", [layer("stack", "", ["x", "x"])], lambda x: torch.stack([x, x]), {"x": normal(2, 3)})


# Shapes.

def reshape(x, shape):
    return x.reshape([size or x.shape[place] for place, size in enumerate(shape)])


def shapes():
    x = normal(2, 3, 4, 5)
    for given in ({}, {"start_dim": 0}, {"start_dim": 2}, {"start_dim": 1, "end_dim": 2},
                  {"start_dim": 0, "end_dim": 1}, {"start_dim": -2}, {"start_dim": 2, "end_dim": 2},
                  {"start_dim": 0, "end_dim": -2}):
        one("flatten", nn.Flatten(**given), x, free=EVERY, **given)
    for dim, sizes in [(None, (2, 3)), (None, (-1, 2)), (None, (3, -1, 1)), (0, (2, -1)), (-1, (2, 2)), (2, (4,)),
                       (2, (2, -1))]:
        unflatten = functools.partial(torch.Tensor.unflatten, dim=1 if dim is None else dim, sizes=sizes)
        one("unflatten", unflatten, normal(4, 6, 4), free=(1,), sizes=sizes, **present(dim=dim))
    for shape in [(0, -1), (0, 12, 5), (0, 0, -1), (0, 3, 2, 2, 5), (-1,), (-1, 60), (6, -1), (0, 0, 0, 0),
                  (0, 0, 5, 4), (2, 3, 20), (0, 3, 20), (-1, 3, 20), (4, 0, -1)]:
        free = (2,) if shape[:2] == (0, 0) else ()
        one("reshape", functools.partial(reshape, shape=shape), x, free=free, shape=shape)
    for dims in [(0, 2, 1, 3), (0, 3, 1, 2), (3, 2, 1, 0), (1, 0, 2, 3), (0, -1, 1, -2)]:
        one("permute", functools.partial(torch.permute, dims=dims), x, free=EVERY, dims=dims)
    for given in ({}, {"dim0": 1, "dim1": 2}, {"dim0": -1, "dim1": -2}, {"dim1": 3}, {"dim0": 2, "dim1": 2}):
        one("transpose", functools.partial(torch.transpose, **{"dim0": 0, "dim1": 1, **given}), x, free=EVERY, **given)
    for dim, shape in [(None, (2, 3, 1)), (1, (2, 1, 3)), (-2, (2, 1, 3)), (0, (1, 3, 4)), (2, (2, 1, 1))]:
        at = (-1 if dim is None else dim) % 3
        free = [place for place in range(3) if place != at]
        one("squeeze", functools.partial(torch.squeeze, dim=at), Input(normal(*shape), free, first=at != 0),
            **present(dim=dim))
    for dim in (None, 0, 1, 2, 3, -1, -4):
        one("unsqueeze", functools.partial(torch.unsqueeze, dim=dim or 0), normal(2, 3, 4), free=EVERY,
            **present(dim=dim))
    of_integers = {"flatten": nn.Flatten(), "transpose": functools.partial(torch.transpose, dim0=0, dim1=1),
                   "unsqueeze": functools.partial(torch.unsqueeze, dim=0)}
    for kind, function in of_integers.items():
        one(kind, function, integers(2, 3), free=EVERY)


def cut(x, dim, start, end, step):
    where = [slice(None)] * x.dim()
    where[dim] = slice(start, end, step)
    return x[tuple(where)]


def parts():
    for dim, index in [(None, None), (0, 1), (1, 2), (1, -1), (-1, 0), (2, -4)]:
        one("select", functools.partial(torch.select, dim=dim or 0, index=index or 0), normal(2, 3, 4), free=EVERY,
            **present(dim=dim, index=index))

    x = normal(5, 6, 5)
    options = combinations(2, lambda choice: cut(x, **choice).numel() > 0, dim=(0, 1, -1), start=(None, 1, -2),
                           end=(None, 2, 4, -1, -3, 100), step=(1, 2))
    for choice in options:
        one("slice", functools.partial(cut, **choice), x, free=EVERY, **choice.given)

    def of_size(dim, size):
        """Two everywhere but there."""
        return normal(*(size if place == dim else 2 for place in range(3)))

    for dim, sizes in itertools.product((None, 1, -1), [(2,), (3,), (4,), (6,), (1, 3, 2), (4, 2)]):
        at = (dim or 0) % 3
        several = len(sizes) > 1  # Whose number does not depend on the input: that may be free.
        split = functools.partial(torch.split, split_size_or_sections=sizes if several else sizes[0], dim=at)
        free = [place for place in range(3) if place != at or several]
        x = of_size(at, 6)
        one("split", split, Input(x, free, first=at != 0 or several), parts=len(split(x)), split_size=sizes,
            **present(dim=dim))
    for dim, chunks in itertools.product((None, 1, -1), (1, 2, 3, 4, 7)):
        at = (dim or 0) % 3
        chunk = functools.partial(torch.chunk, chunks=chunks, dim=at)
        free = [place for place in range(3) if place != at]
        x = of_size(at, 6)
        one("chunk", chunk, Input(x, free, first=at != 0), parts=len(chunk(x)), chunks=chunks, **present(dim=dim))

    # A part that nobody wants, and parts in another order.
    add("chunk", [layer("chunk", "c", chunks=3, dim=1), layer("sub", "", ["c:2", "c"])],
        lambda x: x[:, 4:] - x[:, :2], {"x": normal(2, 6)})
    add("split", [layer("split", "s", split_size=(1, 2, 3), dim=1), layer("concat", "", ["s:2", "s", "s:1"])],
        lambda x: torch.cat([x[:, 3:], x[:, :1], x[:, 1:3]], 1), {"x": normal(2, 6)})


def expand_as(x, other, dims):
    sizes = list(x.shape)
    for dim in dims or range(x.dim()):
        sizes[dim] = other.shape[dim] if sizes[dim] == 1 else sizes[dim]
    return x.expand(sizes)


def sizes_of_others():
    for shape, other, dims in [((1, 3, 4), (2, 3, 4), ()), ((1, 1, 4), (2, 3, 4), ()), ((1, 1, 4), (2, 3, 4), (0,)),
                               ((1, 1, 4), (2, 3), (0,)), ((1, 3, 4), (2, 5, 6), (0,)), ((2, 1, 4), (2, 3, 5), (1,)),
                               ((1, 1), (2, 3), (0, -1)), ((1, 1, 1), (2, 3, 4), (-1, 0)), ((2, 3), (2, 3), ())]:
        one("expand_as", functools.partial(expand_as, dims=dims), Input(normal(*shape), first=shape[0] > 1),
            Input(normal(*other), EVERY), **present(dim=dims or None))
    for dim, make in itertools.product((None, 0, 1, 2, -1), (normal, integers)):
        one("arange", lambda x, dim=dim: torch.arange(x.shape[1 if dim is None else dim]), make(2, 3, 4), free=EVERY,
            **present(dim=dim))


# Whole networks.

def chain(kind, x, *steps):
    """A network of layers one after the other; each step is a layer's text, its name, and its module."""
    texts, names, modules = zip(*steps)
    add(kind, texts, nn.Sequential(*modules), {"x": x},
        {name: module for name, module in zip(names, modules) if name})


def neighbours():
    """Layers that a server may want to compute together."""
    for dims, image in IMAGES.items():
        conv, norm = f"conv{dims}d", f"batch_norm{dims}d"
        make, make_norm = getattr(nn, f"Conv{dims}d"), getattr(nn, f"BatchNorm{dims}d")
        x = Input(normal(2, 4, *image), but_channels(False))
        for choice in combinations(2, bias=(True, False), affine=(True, False), groups=(1, 2)):
            affine, given = choice["affine"], choice.but("affine")
            chain(conv, x,
                  (layer(conv, "conv", out_channels=6, kernel_size=3, **given), "conv", make(4, 6, 3, **given)),
                  (layer(norm, "bn", affine=affine), "bn", make_norm(6, affine=affine)),
                  (layer("relu"), "", nn.ReLU()))
        transposed = f"conv_transpose{dims}d"
        make_transposed = getattr(nn, f"ConvTranspose{dims}d")
        chain(transposed, x,
              (layer(transposed, "conv", out_channels=6, kernel_size=2, stride=2, groups=2), "conv",
               make_transposed(4, 6, 2, 2, groups=2)),
              (layer(norm, "bn"), "bn", make_norm(6)))
        chain(norm, x, (layer(norm, "bn"), "bn", make_norm(4)),
              (layer(conv, "conv", out_channels=2, kernel_size=3, padding=1), "conv", make(4, 2, 3, padding=1)))
        # What is in between is wanted, too.
        convolution, normalization = make(4, 6, 3), make_norm(6)

        def both(x, convolution=convolution, normalization=normalization):
            between = convolution(x)
            return between + normalization(between)

        layers = [layer(conv, "conv", out_channels=6, kernel_size=3), layer(norm, "bn"),
                  layer("add", "", ["conv", "bn"])]
        add(conv, layers, both, {"x": x}, {"conv": convolution, "bn": normalization})
    for shape in ((3, 5), (3, 5, 5)):
        chain("linear", normal(*shape), (layer("linear", "fc", out_features=5), "fc", nn.Linear(5, 5)),
              (layer("batch_norm1d", "bn"), "bn", nn.BatchNorm1d(5)))

    functions = {"relu": nn.ReLU(), "gelu": nn.GELU(), "tanh": nn.Tanh(), "mish": nn.Mish(), "selu": nn.SELU()}
    for bias, (kind, function) in itertools.product((True, False), functions.items()):
        chain("linear", normal(5, 4), (layer("linear", "0", out_features=16), "0", nn.Linear(4, 16)),
              (layer(kind), "", function),
              (layer("linear", "2", out_features=3, bias=bias), "2", nn.Linear(16, 3, bias)))


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))

    LAYERS = (layer("linear", "fc1", out_features=6), layer("relu"), layer("linear", "fc2", out_features=4))


def repeated_blocks():
    for repeat, first, residual in itertools.product((None, 1, 2, 3), (None, 0, 1, 7), (False, True)):
        if repeat is None and first is not None:
            continue
        numbers = range(first or 0, (first or 0) + (repeat or 1))
        modules = {"net" if repeat is None else f"net.{number}": Perceptron() for number in numbers}

        def compute(x, modules=modules, residual=residual):
            for module in modules.values():
                x = module(x) + x if residual else module(x)
            return x

        layers = [*Perceptron.LAYERS, *([layer("add", "", ["fc2", "input"])] if residual else [])]
        add("block", [block("net", layers, **present(repeat=repeat, first=first))], compute,
            {"x": Input(normal(2, 3, 4), (1,))}, modules)


def blocks_in_blocks():
    """With names that there are outside, too."""
    modules = {f"stages.{i}.blocks.{j}": Perceptron() for i in range(2) for j in range(1, 4)}
    modules.update({"fc1": nn.Linear(4, 4), "fc2": nn.Linear(4, 2)})

    def compute(x):
        outside = modules["fc1"](x)
        x = torch.tanh(outside)
        for i in range(2):
            start = x
            for j in range(1, 4):
                x = x + modules[f"stages.{i}.blocks.{j}"](x)
            x = x * outside + start
        return modules["fc2"](x)

    blocks = block("blocks", [*Perceptron.LAYERS, layer("add", "", ["input", "fc2"])], repeat=3, first=1)
    stage = [blocks, layer("mul", "scaled", ["blocks", "fc1"]), layer("add", "", ["scaled", "input"])]
    layers = [layer("linear", "fc1", out_features=4), layer("tanh"), block("stages", stage, repeat=2),
              layer("linear", "fc2", out_features=2)]
    add("block", layers, compute, {"x": normal(2, 4)}, modules)


def other_blocks():
    # Of two inputs.
    module = Perceptron()
    layers = [layer("relu", "left", ["x"]),
              block("net", [layer("sub", "", ["input", "input:1"]), *Perceptron.LAYERS], ["left", "y"]), layer("neg")]
    add("block", layers, lambda x, y: -module(F.relu(x) - y), {"x": normal(2, 4), "y": normal(2, 4)}, {"net": module})
    # With a layer of several outputs.
    cell = nn.LSTM(4, 4, batch_first=True)

    def states(x):
        hidden, (last, _) = cell(x)
        return hidden + last.transpose(0, 1)

    inside = [layer("lstm", "cell", hidden_size=4, batch_first=True), layer("transpose", "last", ["cell:1"]),
              layer("add", "", ["cell", "last"])]
    add("block", [block("rnn", inside)], states, {"x": normal(2, 3, 4)}, {"rnn.cell": cell})
    # One of its layers as an output of the network.
    other = Perceptron()
    add("block", [block("net", Perceptron.LAYERS), layer("softmax", "probabilities")],
        lambda x: [other.fc1(x), other(x).softmax(-1)], {"x": normal(2, 4)}, {"net": other},
        ["net.fc1", "probabilities"])
    # With a parameter of its own.
    scale = Holder(lambda x, scale: x * scale, scale=torch.empty(4))
    inside = [layer("parameter", "scale", shape=(4,)), layer("mul", "", ["input", "scale"])]
    add("block", [block("net", inside, repeat=1)], scale, {"x": normal(2, 4)}, {"net.0": scale})


def without(*keys):
    return lambda state: {key: tensor for key, tensor in state.items() if key not in keys}


def copied(state):
    return {key: tensor.clone() for key, tensor in state.items()}


def shared_parameters():
    """Which the state dict has under both names (tied, or as copies), or under the first alone."""
    for change in (as_it_is, copied, without("head.weight")):
        embed, head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        head.weight = embed.weight
        layers = [layer("embedding", "embed", num_embeddings=7, embedding_dim=4), layer("gelu"),
                  layer("linear", "head", parameters_of="embed", out_features=7, bias=False)]
        add("embedding", layers, lambda x, embed=embed, head=head: head(F.gelu(embed(x))),
            {"x": torch.randint(0, 7, (2, 3))}, {"embed": embed, "head": head}, change_state=change)
    for change in (as_it_is, copied, without("b.weight", "b.bias"), without("b.bias")):
        module = nn.Linear(4, 4)
        layers = [layer("linear", "a", out_features=4), layer("tanh"),
                  layer("linear", "b", parameters_of="a", out_features=4)]
        add("linear", layers, lambda x, module=module: module(torch.tanh(module(x))), {"x": normal(2, 4)},
            {"a": module, "b": module}, change_state=change)

    # Of several layers, from within a repeated block.
    names = [f"layers.{i}.fc.{parameter}" for i in range(2) for parameter in ("weight", "bias")]
    for change in (as_it_is, without(*names)):
        module = nn.Linear(4, 4)
        inside = [layer("linear", "fc", parameters_of="shared", out_features=4), layer("relu")]
        add("linear", [layer("linear", "shared", out_features=4), block("layers", inside, repeat=2)],
            lambda x, module=module: F.relu(module(F.relu(module(module(x))))), {"x": normal(2, 4)},
            {"shared": module, "layers.0.fc": module, "layers.1.fc": module}, change_state=change)
    # Of kinds with buffers, and with many parameters.
    conv, norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
    given = {"out_channels": 3, "kernel_size": 3, "padding": 1}
    layers = [layer("conv2d", "conv1", **given), layer("batch_norm2d", "norm1"), layer("relu"),
              layer("conv2d", "conv2", parameters_of="conv1", **given),
              layer("batch_norm2d", "norm2", parameters_of="norm1")]
    # Some of which a state dict may lack, under either name.
    counts = [f"norm{i}.num_batches_tracked" for i in (1, 2)]
    for change in (as_it_is, without(*counts), without(counts[0]), without(counts[1])):
        add("conv2d", layers, lambda x: norm(conv(F.relu(norm(conv(x))))), {"x": normal(2, 3, 5, 5)},
            {"conv1": conv, "norm1": norm, "conv2": conv, "norm2": norm}, change_state=change)
    cell = nn.GRU(4, 4)
    layers = [layer("gru", "a", hidden_size=4), layer("gru", "b", parameters_of="a", hidden_size=4)]
    add("gru", layers, lambda x: cell(cell(x)[0])[0], {"x": normal(3, 2, 4)}, {"a": cell})


def state_dicts_that_do_not_fit():
    def changed(state):
        return {key: tensor + 1 if key == "b.weight" else tensor for key, tensor in state.items()}

    def with_another(state):
        return {**state, "c.weight": torch.zeros(4, 4)}

    layers = [layer("linear", "a", out_features=4), layer("linear", "b", parameters_of="a", out_features=4)]
    for change in (changed, with_another, without("a.weight"), without("a.weight", "b.weight")):
        module = nn.Linear(4, 4)
        add("linear", layers, lambda x, module=module: module(module(x)), {"x": normal(2, 4)},
            {"a": module, "b": module}, change_state=change, refused=True)


def attention_layer(name, inputs=(), **arguments):
    return layer("multihead_attention", name, inputs, num_heads=2, batch_first=True, **arguments)


def norm_layer(name, inputs=()):
    return layer("layer_norm", name, inputs, normalized_shape=(4,))


def sum_layer(name, *inputs):
    return layer("add", name, inputs)


def feed_forward(activation):
    return [layer("linear", "linear1", out_features=8), layer(activation), layer("linear", "linear2", out_features=4)]


def transformers():
    for activation, norm_first, depth in itertools.product(("relu", "gelu"), (False, True), (1, 3)):
        template = nn.TransformerEncoderLayer(4, 2, 8, activation=activation, batch_first=True, norm_first=norm_first)
        encoder = nn.TransformerEncoder(template, depth, norm=nn.LayerNorm(4))
        if norm_first:
            inside = [norm_layer("norm1"), attention_layer("self_attn"), sum_layer("attended", "input", "self_attn"),
                      norm_layer("norm2"), *feed_forward(activation), sum_layer("", "attended", "linear2")]
        else:
            inside = [attention_layer("self_attn"), sum_layer("", "input", "self_attn"), norm_layer("norm1"),
                      *feed_forward(activation), sum_layer("", "norm1", "linear2"), norm_layer("norm2")]
        add("block", [block("layers", inside, repeat=depth), norm_layer("norm")], encoder,
            {"x": Input(normal(2, 5, 4), (1,))}, {"": encoder})

    # A decoder: its blocks see an input of the network from within, or as a second one of their own.
    for memory, fed in (("memory", ["x"]), ("input:1", ["x", "memory"])):
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8, batch_first=True), 2)
        inside = [attention_layer("self_attn", is_causal=True), sum_layer("", "input", "self_attn"),
                  norm_layer("norm1"), attention_layer("multihead_attn", ["norm1", memory, memory]),
                  sum_layer("", "norm1", "multihead_attn"), norm_layer("norm2"), *feed_forward("relu"),
                  sum_layer("", "norm2", "linear2"), norm_layer("norm3")]
        add("block", [block("layers", inside, fed, repeat=2)],
            lambda x, memory, decoder=decoder: decoder(x, memory, tgt_mask=additive(later(5, 5), x.dtype)),
            {"x": Input(normal(2, 5, 4), (1,)), "memory": Input(normal(2, 3, 4), (1,))}, {"": decoder})


def language_model():
    """From tokens, some of them padding, to logits; weights that are tied without being shared layers."""
    tokens, positions, head = nn.Embedding(11, 4), nn.Embedding(6, 4), nn.Linear(4, 11)
    attention, norm = nn.MultiheadAttention(4, 2, batch_first=True), nn.LayerNorm(4)
    head.weight = tokens.weight

    def compute(ids):
        x = tokens(ids) + positions(torch.arange(ids.shape[1]))
        return head(norm(x + attention(x, x, x, key_padding_mask=ids == 0)[0]))

    layers = [
        layer("embedding", "tokens", num_embeddings=11, embedding_dim=4), layer("arange", "places", ["ids"]),
        layer("embedding", "positions", num_embeddings=6, embedding_dim=4), sum_layer("x", "tokens", "positions"),
        layer("eq", "padding", ["ids"], value=0), attention_layer("attention", ["x", "key_padding_mask=padding"]),
        sum_layer("", "x", "attention"), norm_layer("norm"), layer("linear", "head", out_features=11),
    ]
    ids = torch.tensor([[3, 5, 9, 0, 0], [1, 2, 3, 4, 0]])
    add("embedding", layers, compute, {"ids": Input(ids, EVERY)},
        {"tokens": tokens, "positions": positions, "attention": attention, "norm": norm, "head": head})


def patches():
    """A vision transformer's beginning: patches, a class token, positions."""
    project = nn.Conv2d(3, 4, 2, 2)
    learned = Holder(cls_token=torch.empty(1, 1, 4), pos_embed=torch.empty(1, 7, 4))

    def compute(x):
        x = project(x).flatten(2).transpose(1, 2)
        return torch.cat([learned.cls_token.expand(x.shape[0], -1, -1), x], 1) + learned.pos_embed

    layers = [
        layer("conv2d", "patch_embed.proj", out_channels=4, kernel_size=2, stride=2), layer("flatten", start_dim=2),
        layer("transpose", "patches", dim0=1, dim1=2), layer("parameter", "cls_token", shape=(1, 1, 4)),
        layer("expand_as", "cls", ["cls_token", "patches"], dim=0), layer("concat", "all", ["cls", "patches"]),
        layer("parameter", "pos_embed", shape=(1, 7, 4)), sum_layer("", "all", "pos_embed"),
    ]
    add("parameter", layers, compute, {"x": normal(2, 3, 4, 6)}, {"patch_embed.proj": project, "": learned})


FAMILIES = [
    linear, convolutions, transposed_convolutions, batch_and_instance_norms, other_norms, embeddings, prelu,
    parameters, recurrent, multihead_attention, scaled_dot_product_attention, pools, images, padding, upsampling,
    activations, conversions, along_dimensions, reductions, elementwise, comparisons, selections, joins, shapes,
    parts, sizes_of_others, neighbours, repeated_blocks, blocks_in_blocks, other_blocks, shared_parameters,
    state_dicts_that_do_not_fit, transformers, language_model, patches,
]


def all_cases():
    CASES.clear()
    for family in FAMILIES:
        torch.manual_seed(0)  # What one adds changes no other's numbers.
        family()
    return CASES
