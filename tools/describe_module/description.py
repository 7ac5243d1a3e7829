"""A whole module as model.textproto."""

import collections
import inspect
import operator
import re

import torch

# Each of these registers what it converts.
from . import arithmetic, einsum, parts, reductions, sequences, shapes, transformer, weighted, windows  # noqa: F401
from .further import chance, other_sizes
from .inputs import ASK, NAMES, Input, deduce_input, parse_input, plans
from .network import Network
from .operands import Refused
from .problems import DescriptionError, DoesNotRun, Refusal
from .state import unread_inputs, unread_keys, wrong_keys
from .steps import UNKNOWN, Step, merge
from .text import description_text
from .tracing import trace
from .translation import Call, Translator

UNREAD = ("{} is in the state dict, but forward never uses it, or nothing that it makes of it reaches an "
          "output: take it out of the module, or say --leave-aside")


def describe(module, inputs=(), leave_aside=False):
    """The text of a model.textproto that says what `module` computes in eval mode.

    `inputs`: what forward is given, each an Input or as in "x=FP32[-1,3,224,224]"; may be left out
    where the first layer says it. `leave_aside`: the state dict may hold what forward never uses. Raises
    DescriptionError with all that stands in the way.
    """
    specs, deduced_from = _inputs(module, inputs)
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        return _describe(module, specs, deduced_from, leave_aside)
    finally:
        for part, mode in modes.items():
            part.training = mode


def _inputs(module, given):
    try:
        specs = [spec if isinstance(spec, Input) else parse_input(spec) for spec in given]
    except ValueError as error:
        raise DescriptionError([str(error)]) from None
    parameters = inspect.signature(module.forward).parameters.values()
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    problems = [f'--input {spec.name}: forward has no such argument, it has {", ".join(one.name for one in named)}'
                for spec in specs if spec.name not in {one.name for one in named}]
    counts = collections.Counter(spec.name for spec in specs)
    problems += [f"--input {name}: is given {count} times" for name, count in counts.items() if count > 1]
    missing = [one.name for one in named
               if one.default is one.empty and one.name not in {spec.name for spec in specs}]
    problems += [] if problems or not missing or not specs else [
        ASK.format(name) for name in missing]
    if type(module).__module__.startswith("torch.nn.") and not isinstance(module, torch.nn.Sequential):
        problems.append(f"a {type(module).__name__} by itself has parameters without names: put it into a module, "
                        "such as torch.nn.Sequential")
    if problems:
        raise DescriptionError(problems)
    if not specs:
        spec, path = deduce_input(module, missing)
        return [spec], path
    order = [one.name for one in named]
    return sorted(specs, key=lambda spec: order.index(spec.name)), None


def _describe(module, specs, deduced_from, leave_aside):
    runs, traces = _traces(module, specs)
    _require_none(chance(module, specs, runs, traces))
    text = _said(module, specs, deduced_from, leave_aside, traces)
    problems, further = other_sizes(module, specs, runs, traces)
    _require_none(problems)
    return _said(module, specs, deduced_from, leave_aside, traces + further) if further else text


def _require_none(problems):
    if problems:
        raise DescriptionError(list(dict.fromkeys(problems)))


def _said(module, specs, deduced_from, leave_aside, traces):
    """What is the same in all these traces, as text."""
    steps, result, problems = merge(traces)
    if deduced_from is not None:
        _check_deduced(steps, deduced_from)
    live = _live(steps, result)
    network = Network([spec.name for spec in specs], [path for path, _ in module.named_modules() if path])
    translator = Translator(module, network, _used_parts(live))
    translator.run(live)
    problems += translator.problems
    unread = {}
    if result is not UNKNOWN:
        outputs = _outputs(result, translator, problems)
        unread = unread_keys(module, translator.read_keys, network)
        problems += unread_inputs(network, specs, live, [value for _, value, _ in outputs])
        problems += [] if leave_aside else [UNREAD.format(name) for name in unread.values()]
    _require_none(problems)
    declared = _name_outputs(network, outputs)
    _require_none(unread_inputs(network, specs) + wrong_keys(module, network, unread))
    return description_text([tuple(spec) for spec in specs], declared, network, leaves_aside=bool(unread))


def _traces(module, specs):
    """The first plan that forward runs with, and what it does then."""
    failure = None
    for plan in plans(specs):
        runs = [{spec.name: spec.example(shapes[spec.name]) for spec in specs} for shapes in plan]
        try:
            _settle_sizes(module, runs[0])
            return plan, [trace(module, run) for run in runs]
        except DoesNotRun as error:
            failure = failure or f"{error} ({_shapes_text(plan[0])}: what --input says must fit the module)"
    raise DescriptionError([failure])


def _shapes_text(shapes):
    return ", ".join(f"{name} of shape {list(shape)}" for name, shape in shapes.items())


def _settle_sizes(module, run):
    """Lazy layers have their sizes from the first input that they see."""
    if not any(map(torch.nn.parameter.is_lazy, [*module.parameters(), *module.buffers()])):
        return
    try:
        with torch.no_grad():
            module(**run)
    except Exception as error:
        raise DoesNotRun(f"forward: {error}") from error


def _check_deduced(steps, path):
    """An input that was deduced from a layer goes to that layer alone."""
    placeholder = next(step for step in steps if step.op == "placeholder")
    users = [step for step in steps if placeholder in step.inputs()]
    if [(step.op, step.target) for step in users] != [("call_module", path)]:
        raise DescriptionError([ASK.format(placeholder.target)])


def _live(steps, result):
    """What an output depends on, in order. All of them where tracing came to no output."""
    if result is UNKNOWN:
        return steps
    live = set()
    pending = [value for _, value in _flattened("", result) if isinstance(value, Step)]
    while pending:
        step = pending.pop()
        if step not in live:
            live.add(step)
            pending += step.inputs()
    return [step for step in steps if step in live or step.op == "placeholder"]


def _used_parts(live):
    return {tuple(step.args) for step in live
            if step.target is operator.getitem and isinstance(step.args[0], Step) and not step.args[0].is_tensor}


# Outputs.


def _flattened(name, result):
    """What forward returned, by name: "output_0", or a key of a dict."""
    if isinstance(result, dict):
        return [item for key, value in result.items()
                for item in _flattened(f"{name}_{key}" if name else str(key), value)]
    if type(result) in (tuple, list):
        return [item for index, value in enumerate(result)
                for item in _flattened(f"{name or 'output'}_{index}", value)]
    return [] if result is None else [(name or "output", result)]


def _outputs(result, translator, problems):
    """(name, value, step) of each."""
    outputs = []
    for name, step in _flattened("", result):
        if not isinstance(step, Step):
            problems.append(f"forward returns {name}, which does not follow from its inputs")
            continue
        operand = translator.results[step]
        if isinstance(operand, Refused):
            continue  # Why, has been said.
        try:
            outputs.append((name, Call(translator, step).value(operand), step))
        except Refusal as refusal:
            problems.append(f"forward returns {name}: {refusal}")
    if not outputs and not problems and not translator.problems:
        problems.append("forward returns no tensor")
    return outputs


def _name_outputs(network, outputs):
    """Gives the layers their names. (name, datatype, shape) of each output."""
    network.drop_unused([value for _, value, _ in outputs])
    alone = len(outputs) == 1 and outputs[0][0] == "output"
    named = []
    for name, value, step in outputs:
        name = re.sub(r"[^\w.-]", "_", name)
        layer = value.layer
        if alone and value.index == 0 and network.layers and network.layers[-1] is layer:
            pass  # The last layer is the output.
        elif layer.name == name and value.index == 0 and layer.kind != "input":
            pass
        elif not alone and not layer.name and value.index == 0:
            layer.name = name if network.is_free(name) else network.unique(name)
        else:
            named_so = "" if alone else name if network.is_free(name) else network.unique(name)
            layer = network.add("identity", value, name=named_so, hint=name).layer
        named.append((name if alone else layer.name, layer, step))
    network.name_layers()
    return [(_output_name(network, name, layer) if alone else name, NAMES[step.dtype],
             [sizes[0] if len(set(sizes)) == 1 else -1 for sizes in zip(*step.shapes)])
            for name, layer, step in named]


def _output_name(network, name, layer):
    """Of the only output, which need not be a layer's, but must not be another one's."""
    return name if layer.name == name or network.is_free(name) else network.unique(name)
