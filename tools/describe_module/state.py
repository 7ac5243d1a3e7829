"""Whether a network reads exactly what the module's checkpoints hold."""

import torch


def unread_keys(module, read_keys, network):
    """By key, what forward never uses, named: "parameter fc.weight". `read_keys`: what it does use, whether
    or not layers could be made of it."""
    state = module.state_dict(keep_vars=True)
    read = read_keys | {key for layer in network.all_layers for key in layer.keys.values()}
    tensors = {id(state[key]) for key in read if key in state}
    return {key: named(key, tensor) for key, tensor in state.items() if key not in read and id(tensor) not in tensors}


def wrong_keys(module, network, left_aside):
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
    return problems + [f"{named(key, tensor)} is in the state dict, but no layer reads it: forward uses the same "
                       "tensor under another name" for key, tensor in state.items()
                       if key not in needed and key not in optional and key not in left_aside]


def unread_inputs(network, specs, live=(), outputs=()):
    """Inputs that nothing is fed. `live`: steps that use what is no layer yet, too. `outputs`: values."""
    fed = [value for layer in network.layers for _, value in layer.inputs]
    used = {value.layer.name for value in (*fed, *outputs) if value.layer.kind == "input"}
    used |= {given.target for step in live for given in step.inputs() if given.op == "placeholder"}
    return [f'argument "{spec.name}" of forward reaches no output: give it a default value, and leave it out of the '
            "inputs" for spec in specs if spec.name not in used]


def named(key, tensor):
    return f"{'parameter' if isinstance(tensor, torch.nn.Parameter) else 'buffer'} {key}"
