"""A description in protobuf's text format."""

import json

from .network import Value


def description_text(inputs, outputs, network, leaves_aside=False):
    """`inputs` and `outputs`: (name, datatype, shape). `leaves_aside`: whether checkpoints hold more than is
    needed."""
    lines = [_tensor("input", *tensor) for tensor in inputs]
    lines += [_tensor("output", *tensor) for tensor in outputs]
    lines += ["checkpoints { strict: false }"] if leaves_aside else []
    lines += ["network {", *_layers(network.layers, network.follows, "  "), "}"]
    return "\n".join(lines) + "\n"


def _tensor(field, name, datatype, shape):
    return f"{field} {{ name: {_quoted(name)} datatype: {_quoted(datatype)} shape: {list(shape)} }}"


def _layers(layers, follows, indent):
    lines = []
    for layer, before in zip(layers, [None] + layers):
        head = [f"name: {_quoted(layer.name)}"] if layer.name else []
        if not follows(layer, before):
            head += [f"input: {_quoted(_reference(*fed))}" for fed in layer.inputs]
        if layer.parameters_of:
            head.append(f"parameters_of: {_quoted(layer.parameters_of.whole_name)}")
        if layer.kind == "block":
            lines.append(f"{indent}layer {{ {' '.join(head)} block {{")
            lines += _layers(layer.layers, _says_nothing, indent + "  ")
            lines.append(f"{indent}}} }}")
        else:
            lines.append(f"{indent}layer {{ {' '.join([*head, _kind(layer)])} }}")
    return lines


def _says_nothing(layer, before):
    """Whether a layer of a block is fed what the one before it gives."""
    return before is not None and layer.inputs == [("", Value(before))]


def _reference(argument, value):
    name = value.layer.name if value.index == 0 else f"{value.layer.name}:{value.index}"
    return f"{argument}={name}" if argument else name


def _kind(layer):
    arguments = " ".join(f"{name}: {_value(value)}" for name, value in layer.arguments.items())
    return f"{layer.kind} {{ {arguments} }}" if arguments else f"{layer.kind} {{}}"


def _value(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return _value(value[0]) if len(value) == 1 else f"[{', '.join(map(_value, value))}]"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, int) or value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(float(value))


def _quoted(text):
    return json.dumps(text, ensure_ascii=False)
