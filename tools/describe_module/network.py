"""The layers of a description: who is fed by whom, whose tensors are whose, and what all are called."""

import dataclasses
import itertools

from .problems import Refusal
from .steps import WHY_FIXED, Varying
from .vocabulary import SEVERAL_INPUTS, arguments_of, keys_of


class Layer:
    def __init__(self, kind, inputs=(), arguments=None, name="", path="", hint="", block=None):
        self.kind = kind
        self.inputs = list(inputs)  # Of (argument's name or "", Value).
        self.arguments = arguments or {}
        # Where its parameters are. Others are named only if they are referred to: after the module that
        # they stand for, if no other layer is, or like `hint`.
        self.name = name
        self.path = path
        self.hint = hint
        self.block = block  # The layer whose name stands before this one's.
        self.layers = []  # Of a block.
        self.parameters_of = None
        self.tensors = {}  # What it reads, by the ends of its keys.

    @property
    def whole_name(self):
        return f"{self.block.whole_name}.{self.name}" if self.block else self.name

    @property
    def keys(self):
        """Of the state dict, by the ends of its own."""
        if self.kind == "parameter":
            return {"": self.whole_name}
        return {key: f"{self.whole_name}.{key}" for key in keys_of(self.kind, self.arguments)}


@dataclasses.dataclass(frozen=True)
class Value:
    """One of a layer's outputs, or an input."""

    layer: Layer
    index: int = 0


class Network:
    def __init__(self, inputs, paths=()):
        """`inputs`: names. `paths`: of modules, after which only their own layers are named."""
        self.inputs = {name: Value(Layer("input", name=name)) for name in inputs}
        self.layers = []
        self.paths = set(paths)
        self._owners = {}  # By a tensor's identity: the layer that reads it first, and as what.

    def add(self, kind, *inputs, tensors=None, named=None, arguments=None, block=None, **names):
        """A layer's first output. `named`: inputs by argument, where they are not None. `tensors`: what
        it reads, by the ends of its keys. `names`: as a Layer has them."""
        for argument, value in (arguments or {}).items():
            values = [value] if isinstance(value, Varying) or not isinstance(value, (list, tuple)) else value
            if any(isinstance(item, Varying) for item in values):
                raise Refusal(f"{argument} follows from a size that is known only at run time: {WHY_FIXED}")
        fed = [("", value) for value in inputs]
        fed += [(argument, value) for argument, value in (named or {}).items() if value is not None]
        layer = Layer(kind, fed, arguments_of(kind, arguments or {}), block=block, **names)
        if tensors:
            self._claim(layer, tensors)
        (block.layers if block else self.layers).append(layer)
        return Value(layer)

    def find(self, kind, *inputs, **arguments):
        """The first output of a layer that there is already, or None."""
        fed, arguments = [("", value) for value in inputs], arguments_of(kind, arguments)
        return next((Value(layer) for layer in self.layers
                     if (layer.kind, layer.inputs, layer.arguments) == (kind, fed, arguments)), None)

    def add_block(self, name, inputs):
        block = Layer("block", [("", value) for value in inputs], name=name)
        self.layers.append(block)
        return block

    def owner(self, tensor):
        """The layer that reads a tensor, and the end of its key there; or None."""
        return self._owners.get(id(tensor))

    def _claim(self, layer, tensors):
        layer.tensors = tensors
        shared = [self._owners[id(tensor)] + (key,) for key, tensor in tensors.items()
                  if id(tensor) in self._owners]
        for key, tensor in tensors.items():
            self._owners.setdefault(id(tensor), (layer, key))
        if not shared:
            return
        first = shared[0][0]
        for owner, owners_key, key in shared:
            if owner is not first or owners_key != key:
                raise Refusal(f"shares {key} with layer {owner.whole_name}, which has it as "
                              f"{owners_key or 'a tensor by itself'}: layers share what they call the same, "
                              "with one other layer")
        apart = sorted(set(tensors) & set(first.tensors) - {key for _, _, key in shared})
        if apart:
            raise Refusal(f"shares {', '.join(key for *_, key in shared)} with layer {first.whole_name}, but "
                          f"not {', '.join(apart)}: layers share all that they call the same, or nothing")
        layer.parameters_of = first

    @property
    def all_layers(self):
        """With those inside blocks."""
        return [inner for layer in self.layers for inner in (layer, *layer.layers)]

    def drop_unused(self, outputs):
        """Takes out what reaches none of these values."""
        used = {id(value.layer) for value in outputs}
        for layer in reversed(self.layers):
            if id(layer) in used:
                used.update(id(value.layer) for inner in [layer, *layer.layers] for _, value in inner.inputs)
        self.layers = [layer for layer in self.layers if id(layer) in used]

    def unique(self, hint):
        """A name like `hint` that neither a layer nor an input nor another module has."""
        names = itertools.chain([hint], (f"{hint}_{count}" for count in itertools.count(1)))
        return next(name for name in names if name not in self.paths and self.is_free(name))

    def is_free(self, name):
        """Whether neither a layer nor an input is called that."""
        return name not in self.inputs and all(layer.name != name for layer in self.layers)

    def name_layers(self):
        """Names what has no name but is referred to."""
        referred = set()
        for layer, before in zip(self.layers, [None] + self.layers):
            if not self.follows(layer, before):
                referred.update(id(value.layer) for _, value in layer.inputs)
        for layer in self.layers:
            if not layer.name and id(layer) in referred:
                own = layer.path and self.is_free(layer.path)
                layer.name = layer.path if own else self.unique(layer.hint)

    def follows(self, layer, before):
        """Whether a layer is fed what it is if that is not said: what the layer before gives."""
        if layer.kind == "parameter":
            return True
        if layer.kind in SEVERAL_INPUTS or len(layer.inputs) != 1:
            return False
        first = next(iter(self.inputs.values()))
        return layer.inputs[0] == ("", first if before is None else Value(before))
