"""Whether a network reads exactly what the module's checkpoints hold."""

import torch


def unread_keys(module, read_keys, network):
    """What forward never uses. `read_keys`: what it does use, whether or not layers could be made of it."""
    state = module.state_dict(keep_vars=True)
    read = read_keys | {key for layer in network.all_layers for key in layer.keys.values()}
    tensors = {id(state[key]) for key in read if key in state}
    return [f"{_kind(tensor)} {key} is in the state dict, but forward never uses it, or nothing that it makes of it "
            "reaches an output: take it out of the module"
            for key, tensor in state.items() if key not in read and id(tensor) not in tensors]


def wrong_keys(module, network):
    """What the layers need and the state dict does not have, or the other way round."""
    needed, optional = {}, set()
    for layer in network.all_layers:
        shared = set(layer.parameters_of.tensors) if layer.parameters_of else set()
        for end, key in layer.keys.items():
            if end in shared or end == "num_batches_tracked":
                optional.add(key)
            else:
                needed[key] = layer
    state = module.state_dict(keep_vars=True)
    problems = [f"layer {layer.whole_name} needs {key}, which the state dict does not have"
                for key, layer in needed.items() if key not in state]
    return problems + [f"{_kind(tensor)} {key} is in the state dict, but no layer reads it: forward uses the same "
                       "tensor under another name" for key, tensor in state.items()
                       if key not in needed and key not in optional]


def unread_inputs(network, specs):
    used = {value.layer.name for layer in network.layers for _, value in layer.inputs if value.layer.kind == "input"}
    return [f'argument "{spec.name}" of forward reaches no output: give it a default value, and leave it out of the '
            "inputs" for spec in specs if spec.name not in used]


def _kind(tensor):
    return "parameter" if isinstance(tensor, torch.nn.Parameter) else "buffer"
