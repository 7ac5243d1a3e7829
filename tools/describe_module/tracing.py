"""What forward does, operation by operation: torch.fx with an example beside each value.

fx follows tensors, but knows nothing of them: neither sizes nor types, by which most modules decide
something. So each operation also runs on an example as it is traced, and what is no tensor (a size,
a type, whether there is a gradient) is given to forward as it is.
"""

import dataclasses
import operator
import typing

import torch
import torch.fx

from . import sizes
from .problems import DoesNotRun, Untraceable
from .registry import layer_class
from .sizes import Comparison, Size, is_users, location, place, plain, sized
from .writes import Writes

# What gives no tensor and yet is the same for all requests of a shape. Anything else that gives no
# tensor has read numbers in one, which differ from request to request.
READS_NO_NUMBERS = {
    "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "element_size", "type",
    "get_device", "is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_same_size",
    "is_inference", "is_conj", "is_neg", "has_names", "is_tensor", "result_type", "eq", "ne", "len", "_assert"}
# What gives a tensor of its own numbers, in which those of its input do not matter.
MAKES_CONSTANTS = {"new_zeros", "new_ones", "new_full", "new_tensor", "zeros_like", "ones_like", "full_like"}
# Mistakes that other sizes do not mend.
MISTAKES = (AttributeError, ImportError, KeyError, NameError, NotImplementedError, TypeError)
ASSIGNS = "assigns to a part of a tensor, which no layer does"

# As people write them.
MODULE_NAMES = {"_operator": "operator", "torch.nn.functional": "F", "torch._C._nn": "F", "torch._VF": "torch",
                "torch.functional": "torch"}


class Trace(typing.NamedTuple):
    nodes: list  # Those that give tensors, in order.
    examples: dict  # A tensor by node.
    result: typing.Any  # What forward returned, with nodes for tensors.
    comparisons: typing.List[Comparison]
    end: typing.Optional[str]  # Why tracing could not go on; then `nodes` is what came before.
    mistaken: bool  # Whether that is because forward failed.


def trace(module, inputs):
    """Runs `module`, which must be in eval mode, on tensors by name. Raises DoesNotRun."""
    tracer = _Tracer(inputs)
    end, mistaken = None, False
    Size.comparisons = []
    with torch.no_grad():
        try:
            tracer.trace(module)
        except Untraceable as error:
            end = str(error)
        except DoesNotRun:
            raise
        except MISTAKES as error:
            end, mistaken = f"{_origin(error)}: {_shortened(error)}", True
        except Exception as error:  # Forward is anybody's code.
            raise DoesNotRun(f"{_origin(error)}: {_shortened(error)}") from error
        finally:
            tracer.writes.close()
    nodes = [node for node in tracer.graph.nodes if node in tracer.examples]
    return Trace(nodes, tracer.examples, tracer.result, Size.comparisons, end, mistaken)


sizes.outermost = trace.__code__


class _Tracer(torch.fx.Tracer):
    proxy_buffer_attributes = True

    def __init__(self, inputs):
        super().__init__()
        self.inputs = inputs
        self.examples = {}
        self.result = None
        self._versions = {}  # By node: how often its tensor had been written to.
        self._latest = {}  # By a tensor's identity: the node that gave it last.
        self._state = []  # The nodes of parameters and buffers.
        self.writes = Writes()
        self._copies = []  # Of (copy, tensor): what the operation under way is given of forward's own tensors.
        self._evaluating = False
        self._path = [""]

    # What fx asks of a tracer.

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        self.names = {id(tensor): name for named in (self.root.named_parameters, self.root.named_buffers)
                      for name, tensor in named()}
        proxies = {name: self.create_proxy("placeholder", name, (), {}) for name in self.inputs}

        def run():
            # What forward is not given has its default.
            self.result = self.create_arg(_as_dict(root_fn(self.root, **proxies)))
        return run, []

    def call_module(self, m, forward, args, kwargs):
        if self._evaluating:
            return forward(*args, **kwargs)
        try:
            path = self.path_of_module(m)
        except NameError:
            raise Untraceable(f"{location()}: a {type(m).__name__} is called that is no submodule, so that "
                              "its parameters are in no checkpoint: register it") from None
        self._path.append(path)
        try:
            if self.is_leaf_module(m, path):
                return self.create_proxy("call_module", path, args, kwargs)
            return forward(*args, **kwargs)
        finally:
            self._path.pop()

    def is_leaf_module(self, m, module_qualified_name):
        return super().is_leaf_module(m, module_qualified_name) or layer_class(m) is not None

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        if self._evaluating:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node):
        return _Proxy(node, self)

    def create_arg(self, a):
        if isinstance(a, torch.fx.Proxy):
            return self._as_it_is_now(a.node)
        if isinstance(a, torch.Tensor):
            if id(a) in self.names:
                return self.create_proxy("get_attr", self.names[id(a)], (), {}).node
            self.writes.check(a)
            copy = a.detach().clone()
            self._copies.append((copy, a))
            return copy
        if isinstance(a, (tuple, list)):
            return (list if isinstance(a, list) else tuple)(self.create_arg(item) for item in a)
        if isinstance(a, dict):
            return {key: self.create_arg(value) for key, value in a.items()}
        if isinstance(a, slice):
            return slice(*(self.create_arg(part) for part in (a.start, a.stop, a.step)))
        return a

    def create_proxy(self, kind, target, args, kwargs, name=None, type_expr=None, *_, **__):
        if kind == "call_function" and _is_wrapped(target):
            return target(*args, **kwargs)
        outer, self._copies = self._copies, []
        node = super().create_proxy(kind, target, args, kwargs, name, type_expr).node
        copies, self._copies = self._copies, outer
        node.meta.update(where=location(), path=self._path[-1], operation=self._operation(node))
        result = self._run(node)
        self._note_writes(node, copies)
        return self._given(node, result)

    def _note_writes(self, node, copies):
        """What an operation wrote into that is no part of the trace."""
        written = [(copy, tensor) for copy, tensor in copies if copy._version]
        for copy, tensor in written:
            before = tensor.detach().clone()
            swap = lambda value: before if value is copy else value  # noqa: B023, E731
            node.args, node.kwargs = torch.fx.node.map_aggregate((node.args, node.kwargs), swap)
        for _, tensor in written:
            self.writes.add(tensor, f"{node.meta['operation']} at {node.meta['where']}")
        kept = [state.target for state in self._state if self.examples[state]._version != self._versions[state]]
        kept += [f"{path}.{name}" if path else name for path, part in self.root.named_modules()
                 for name, value in vars(part).items() if any(value is tensor for _, tensor in written)] \
            if written else []
        if kept:
            raise Untraceable(f"{node.meta['where']}: {node.meta['operation']} writes into {kept[0]}: what forward "
                              "keeps from one request to the next cannot be said")

    def _operation(self, node):
        if node.op == "call_method":
            return f".{node.target}()"
        if node.op == "call_module":
            return type(self.root.get_submodule(node.target)).__name__
        if node.target is getattr:
            return f".{node.args[1]}"
        return function_name(node.target) if node.op == "call_function" else str(node.target)

    # Examples.

    def _run(self, node):
        def example(argument):
            if isinstance(argument, torch.fx.Node):
                return self.examples[argument]
            return plain(argument)

        args, kwargs = torch.fx.node.map_aggregate((node.args, node.kwargs), example)
        self._evaluating = True
        try:
            if node.op == "placeholder":
                return self.inputs[node.target]
            if node.op == "get_attr":
                path, _, name = node.target.rpartition(".")
                return getattr(self.root.get_submodule(path), name)
            if node.op == "call_module":
                return _call(self.root.get_submodule(node.target), *args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], node.target)(*args[1:], **kwargs)
            return node.target(*args, **kwargs)
        except Exception as error:  # Whatever a wrong size makes of it.
            shapes = [list(self.examples[argument].shape) for argument in node.all_input_nodes]
            raise DoesNotRun(f"{node.meta['where']}: {node.meta['operation']} fails on inputs of shape "
                             f"{', '.join(map(str, shapes))}: {_shortened(error)}") from error
        finally:
            self._evaluating = False

    def _given(self, node, result):
        """What forward gets to see of a result."""
        name = str(getattr(node.target, "__name__", node.target))
        if name in MAKES_CONSTANTS and len(node.all_input_nodes) == 1:
            self.graph.erase_node(node)
            return result
        if isinstance(result, torch.Tensor):
            self.examples[node] = result
            self._versions[node] = result._version
            self._latest[id(result)] = node
            if node.op == "get_attr":
                self._state.append(node)
            return self.proxy(node)
        if isinstance(result, (tuple, list)) and _holds_tensor(result):
            self.examples[node] = result
            items = [self._part(node, index, item) for index, item in enumerate(result)]
            # What torch.max(x, 1) gives has names for its parts.
            plain = type(result) in (tuple, list)
            return (type(result) if plain or hasattr(result, "n_fields") else tuple)(items)
        self.graph.erase_node(node)
        if name == "__setitem__":  # Of a tensor that forward made.
            raise Untraceable(f"{node.meta['where']}: {ASSIGNS}")
        if name not in READS_NO_NUMBERS:
            what = "decides by" if name == "__bool__" else f"{node.meta['operation']} reads"
            raise Untraceable(f"{node.meta['where']}: {what} the numbers in a tensor, which differ from request to "
                              "request")
        return sized(result)

    def _part(self, node, index, item):
        if not isinstance(item, torch.Tensor) and not _holds_tensor(item):
            return sized(item)
        part = self.graph.create_node("call_function", operator.getitem, (node, index), {})
        part.meta.update(node.meta)
        return self._given(part, item)

    def _as_it_is_now(self, node):
        """The node whose value a tensor has, which may have been written to since `node` gave it."""
        tensor = self.examples[node]
        if not isinstance(tensor, torch.Tensor) or tensor._version == self._versions[node]:
            return node
        latest = self._latest[id(tensor)]
        if tensor._version == self._versions[latest]:
            return latest
        raise Untraceable(f"{location()}: {node.name} is read here, which was changed in place through a view "
                          "of it: no layer does that")


class _Proxy(torch.fx.Proxy):
    """A tensor as forward sees it. What is no tensor about it is plain."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self.tracer.examples[self.node], name)
        if callable(value) and not isinstance(value, torch.Tensor):
            return super().__getattr__(name)
        if isinstance(value, torch.Tensor):
            return self.tracer.create_proxy("call_function", getattr, (self, name), {})
        return sized(value)

    def __len__(self):
        return self.tracer.examples[self.node].shape[0]

    def __iter__(self):
        return iter([self[index] for index in range(len(self))])

    def __setitem__(self, index, value):
        raise Untraceable(f"{location()}: {ASSIGNS}")

    def __setattr__(self, name, value):
        if name == "data":
            raise Untraceable(f"{location()}: assigns to the data of a tensor, which no layer does")
        super().__setattr__(name, value)

    def __repr__(self):
        return self.node.name


def _reads(name):
    def method(self, *_):
        return self.tracer.create_proxy("call_method", name, (self,), {})
    return method


for _name in ["__bool__", "__int__", "__float__"]:
    setattr(_Proxy, _name, _reads(_name))


def _as_dict(result):
    """What forward returns, where it has names."""
    if dataclasses.is_dataclass(result):
        return {field.name: _as_dict(getattr(result, field.name)) for field in dataclasses.fields(result)}
    if hasattr(result, "_asdict"):
        return result._asdict()
    return result


def _call(module, *args, **kwargs):
    if isinstance(module, torch.nn.SyncBatchNorm):  # Which older releases do not run on CPUs.
        return torch.nn.functional.batch_norm(*args, module.running_mean, module.running_var, module.weight,
                                              module.bias, not module.track_running_stats, eps=module.eps)
    return module(*args, **kwargs)


def _holds_tensor(value):
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return any(map(_holds_tensor, value))
    return isinstance(value, torch.Tensor)


def _is_wrapped(target):
    """Whether it is a function that torch.fx.wrap hides from tracing: we look inside."""
    module = getattr(target, "__module__", None) or "torch"
    return hasattr(target, "__code__") and module.partition(".")[0] != "torch"


def function_name(target):
    """"torch.cumsum", "F.relu", "torch.fft.rfft", "operator.add"."""
    module = getattr(target, "__module__", None) or "torch"
    name = getattr(target, "__name__", str(target))
    family = module.removeprefix("torch._C._")
    if family in ("fft", "linalg", "special"):
        return f"torch.{family}.{name.removeprefix(family + '_')}"
    return f"{MODULE_NAMES.get(module, module)}.{name}"


def _origin(error):
    """Where in the user's source an error comes from."""
    where = "forward"
    traceback = error.__traceback__
    while traceback is not None:
        if is_users(traceback.tb_frame):
            where = place(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return where


def _shortened(error):
    """The first line says what is wrong, the others where in PyTorch."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
