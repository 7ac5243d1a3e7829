"""Layers for operations, by the converters that know them."""

from . import constants
from .inputs import NAMES
from .network import Layer, Value
from .operands import Computed, ConstantTensor, Operand, Refused, StateTensor
from .problems import Refusal, Unnamed
from .registry import MODULES, apply, function_converter, layer_class, method_converter
from .steps import Constant, Step

NO_VALUE = Value(Layer("refused"))
MOST_COPIES = 16  # That are put beside each other; more are taken from the size of another tensor.


class Translator:
    def __init__(self, root, network, used_parts):
        """`used_parts`: (step, index) of what is used of steps that give several tensors."""
        self.root = root
        self.network = network
        self.used_parts = used_parts
        self.problems = []
        self.results = {}  # By step: an operand, or a tuple of such.
        self.constants = []  # Of (ConstantTensor, value): what was built already.
        self._operands = []  # Computed so far: what sizes may be taken from.
        self.names = {}  # By a tensor's identity: its keys in the state dict.
        for key, tensor in root.state_dict(keep_vars=True).items():
            self.names.setdefault(id(tensor), []).append(key)
        self.read_keys = set()  # Of the state dict, whether or not a layer could be made of it.

    def run(self, steps):
        for step in steps:
            count = len(self.network.layers)
            try:
                given = self._translate(step)
                self._hint(step, given, self.network.layers[count:])
                self.results[step] = self._result(step, given)
            except Refusal as refusal:
                self._refuse(step, refusal)
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                # Something that no converter expects where it was given.
                self._refuse(step, f"its arguments cannot be said: {error}")

    def _refuse(self, step, why):
        """Goes on as if there were a layer, so that what else is wrong is found, too."""
        self.problems.append(f"{place(step)}: {why}")
        self.results[step] = Refused(NO_VALUE, step.shapes, step.dtype) if step.is_tensor \
            else (NO_VALUE,) * len(step.examples[0])

    def _hint(self, step, given, added):
        """What the layer may be called that gives the operation's result."""
        value = given[0] if isinstance(given, tuple) and given else given
        if isinstance(value, Value) and value.layer in added:
            value.layer.hint = step.name
            value.layer.path = step.target if step.op == "call_module" else ""

    def _translate(self, step):
        if step.op == "placeholder":
            return self.network.inputs[step.target]
        if step.op == "get_attr":
            return self._state(step)
        args, kwargs = self.argument(step.args), self.argument(step.kwargs)
        call = Call(self, step)
        if step.op == "call_module":
            return self._module(call, args, kwargs)
        converter = (method_converter if step.op == "call_method" else function_converter)(step.target)
        if converter is None:
            raise Refusal("there is no layer for it")
        return apply(converter, call, args, kwargs)

    def _module(self, call, args, kwargs):
        module = call.module
        self.read_keys |= {f"{call.path}.{key}" for key in module.state_dict()}
        converter = MODULES.get(layer_class(module))
        if converter is None:
            raise Refusal("there is no layer for it")
        for inner in module.modules():
            if inner._forward_hooks or inner._forward_pre_hooks:
                raise Refusal("has forward hooks (as weight_norm and spectral_norm have), which no layer runs: "
                              "remove them")
        return apply(converter, call, (module, *args), kwargs)

    def _state(self, step):
        path, _, name = step.target.rpartition(".")
        tensor = getattr(self.root.get_submodule(path), name)
        if id(tensor) not in self.names:
            raise Refusal(f"buffer {step.target} is not in the state dict, so that no checkpoint has it: register "
                          "it with persistent=True")
        key = self.names[id(tensor)][0]
        self.read_keys.add(key)
        return StateTensor(key, tensor, len(step.examples))

    def argument(self, value):
        """What a converter is given for an argument of a step."""
        if isinstance(value, Step):
            return self.results[value]
        if isinstance(value, Constant):
            return ConstantTensor(value.tensors)
        if type(value) in (tuple, list):
            return type(value)(map(self.argument, value))
        if isinstance(value, dict):
            return {key: self.argument(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*map(self.argument, (value.start, value.stop, value.step)))
        return value

    def _result(self, step, given):
        """Operands of the shapes that the examples have."""
        if not step.is_tensor:
            return (*given, *(None,) * (len(step.examples[0]) - len(given)))
        if isinstance(given, Operand):
            return given
        if given == NO_VALUE:
            return Refused(given, step.shapes, step.dtype)
        operand = Computed(given, step.shapes, step.dtype)
        self._operands.append(operand)
        return operand

    # Where sizes that are known only at run time can be taken from: inputs first, which every layer
    # that follows depends on anyway.

    def find_size(self, sizes):
        for operand in self._operands:
            for dim in range(operand.rank):
                if operand.sizes(dim) == sizes:
                    return operand, dim
        return None

    def find_like(self, rank, sizes_by_dim):
        """Something with these sizes in these dimensions, of this rank if possible."""
        fitting = [operand for operand in self._operands
                   if all(dim < operand.rank and operand.sizes(dim) == sizes
                          for dim, sizes in sizes_by_dim.items())]
        from_inputs = [operand for operand in fitting if operand.value.layer.kind == "input"]
        same_rank = [operand for operand in fitting if operand.rank == rank]
        return next(iter(from_inputs or same_rank or fitting), None)

    def find_anything(self):
        """A tensor and a dimension of it: not the batch's, in which rows would meet."""
        operand = max(self._operands, key=lambda operand: operand.rank > 1)
        return operand, min(1, operand.rank - 1)

    def find_shape(self, shapes):
        return next((operand for operand in self._operands if operand.shapes == shapes), None)


class Call:
    """One operation under translation: what converters add layers by."""

    def __init__(self, translator, step):
        self.step = step
        self.block = None  # Where layers are added, if not to the network itself.
        self.find_size = translator.find_size
        self.find_like = translator.find_like
        self.find_shape = translator.find_shape
        self.find_anything = translator.find_anything
        self.network = translator.network
        self._root = translator.root
        self._used_parts = translator.used_parts
        self._names = translator.names
        self._constants = translator.constants

    def uses_part(self, index):
        """Whether anything is done with one of the tensors that the operation gives."""
        return (self.step, index) in self._used_parts

    @property
    def module(self):
        return self._root.get_submodule(self.step.target)

    @property
    def path(self):
        return self.step.target if self.step.op == "call_module" else ""

    def add(self, kind, *operands, named=None, tensors=None, name="", block=None, **arguments):
        """The first output of a layer more."""
        return self.network.add(
            kind, *map(self.value, operands), named={argument: self.value(operand) for argument, operand
                                                     in (named or {}).items() if operand is not None},
            tensors=tensors, arguments=arguments, name=name, hint=kind, block=block or self.block)

    def value(self, operand):
        """What layers are fed for an operand."""
        if isinstance(operand, Value):
            return operand
        if isinstance(operand, Computed):
            return operand.value
        if isinstance(operand, StateTensor):
            return self._parameter(operand)
        if isinstance(operand, ConstantTensor):
            return self._constant(operand)
        raise Refusal(f"is given {operand!r} where a tensor is needed")

    def _require_no_input(self, name):
        if name in self.network.inputs:
            raise Refusal(f'is called as argument "{name}" of forward is, and must be, for its parameters are: '
                          "rename the argument")

    def _constant(self, operand):
        for known, value in self._constants:
            if known.is_same(operand):
                return value
        value = constants.build(self, operand)
        if self.block is None:
            self._constants.append((operand, value))
        return value

    def _parameter(self, operand):
        value = self._parameter_itself(operand)
        return self.add("transpose", value) if operand.is_transposed else value

    def _parameter_itself(self, operand):
        owner = self.network.owner(operand.tensor)
        if owner and owner[0].kind == "parameter":
            return Value(owner[0])
        if owner:
            raise Refusal(f"reads {operand.key}, which is a part of layer {owner[0].whole_name}: nothing but a "
                          "layer of the same kind can share it")
        self._require_no_input(operand.key)
        datatype = "FP32" if operand.dtype.is_floating_point else NAMES[operand.dtype]
        return self.network.add("parameter", tensors={"": operand.tensor}, name=operand.key, arguments={
            "shape": list(operand.tensor.shape) or None, "datatype": datatype, "buffer": operand.is_buffer})

    def state(self):
        """The module's parameters and buffers, by the ends of their keys."""
        return {key: StateTensor(f"{self.path}.{key}", tensor, len(self.step.examples))
                for key, tensor in self.module.state_dict(keep_vars=True).items()}

    def weighted(self, kind, *operands, state, named=None, **arguments):
        """A layer that reads these StateTensors (or None), by the ends of its keys. They must be called
        NAME.KEY all; then that is the layer's name."""
        state = {key: tensor for key, tensor in state.items() if tensor is not None}
        if any(isinstance(tensor, Refused) for tensor in state.values()):
            return NO_VALUE
        for key, tensor in state.items():
            if not isinstance(tensor, StateTensor) or tensor.is_transposed:
                raise Refusal(f"its {key} is neither a parameter nor a buffer: no layer computes it")
        paths = {tensor.key[:-len(key) - 1] if tensor.key.endswith(f".{key}") else ""
                 for key, tensor in state.items()}
        if len(paths) != 1 or "" in paths:
            raise Unnamed(f"its parameters must be called NAME.{', NAME.'.join(state)}, they are "
                          f"{', '.join(tensor.key for tensor in state.values())}")
        return self.add(kind, *operands, named=named, name=self._free_name(*paths, state),
                        tensors={key: tensor.tensor for key, tensor in state.items()}, **arguments)

    def _free_name(self, path, state):
        """After the module at `path`, or another one that has the same parameters."""
        self._require_no_input(path)
        others = [name[:-len(key) - 1] for key, tensor in state.items()
                  for name in self._names.get(id(tensor.tensor), ()) if name.endswith(f".{key}")]
        free = (name for name in [path, *others] if self.network.is_free(name))
        return next(free, None) or self.network.unique(self.step.name)

    # What several converters need.

    def as_float(self, operand):
        """For functions that compute integers and booleans as floats."""
        if operand.dtype.is_floating_point:
            return operand
        return self.add("to", operand, datatype="FP32")

    def cast(self, operand, dtype):
        return operand if operand.dtype == dtype else self.add("to", operand, datatype=NAMES[dtype])

    def full(self, like, number, datatype):
        """A number in the shape of a value. Nothing is less than -inf, whatever is in it."""
        value = self.add("lt", like, value=float("-inf"))
        if datatype == "BOOL":
            return self.add("logical_not", value) if number else value
        value = self.add("to", value, datatype=datatype)
        return self.add("add", value, value=number) if number else value

    def expand(self, value, shapes, wanted):
        """Repeats what has a size of 1, adding dimensions in front, to the shapes `wanted` in each run."""
        added = len(wanted[0]) - len(shapes[0])
        for _ in range(added):
            value = self.add("unsqueeze", value)
        shapes = tuple((1,) * added + tuple(shape) for shape in shapes)
        changed = {dim: tuple(shape[dim] for shape in wanted) for dim in range(len(wanted[0]))
                   if any(shape[dim] != want[dim] for shape, want in zip(shapes, wanted))}
        for dim, sizes in changed.items():
            if len(set(sizes)) == 1 and sizes[0] <= MOST_COPIES:
                value = self.add("concat", *[value] * sizes[0], dim=dim)
        rest = {dim: sizes for dim, sizes in changed.items() if len(set(sizes)) > 1 or sizes[0] > MOST_COPIES}
        if not rest:
            return value
        like = self.find_like(len(wanted[0]), rest)
        if like is not None:
            return self.add("expand_as", value, like, dim=list(rest))
        for dim, sizes in rest.items():
            like = self.find_like(len(wanted[0]), {dim: sizes})
            if like is None:
                raise Refusal(f"repeats dimension {dim} as often as no tensor has it")
            value = self.add("expand_as", value, like, dim=[dim])
        return value


def place(step):
    """"model.py:12: torch.cumsum in encoder.layers.0"."""
    within = step.target if step.op == "call_module" else step.path
    return f"{step.where}: {step.operation}" + (f" in {within}" if within else "")
