"""What a description can say: each kind of layer with its arguments and defaults, and the tensors of
the state dict that it reads. As proto/relight/v1/model_config.proto has them.
"""

REQUIRED = object()  # No default.

_WINDOW = {"kernel_size": REQUIRED, "stride": None, "padding": 0}
_CONV = {"in_channels": None, "out_channels": REQUIRED, "kernel_size": REQUIRED, "stride": 1, "padding": 0,
         "dilation": 1, "groups": 1, "bias": True}
_BATCH_NORM = {"num_features": None, "eps": 1e-5, "affine": True}
_INSTANCE_NORM = {"num_features": None, "eps": 1e-5, "affine": False, "track_running_stats": False}
_RECURRENT = {"input_size": None, "hidden_size": REQUIRED, "num_layers": 1, "bias": True,
              "batch_first": False, "bidirectional": False}
_REDUCE = {"dim": None, "keepdim": False}
_ARG_REDUCE = {"dim": -1, "keepdim": False}
_VALUE = {"value": None}

# By kind: by argument, what it is where it is left out. None: something that has no value of its own.
KINDS = {
    "linear": {"in_features": None, "out_features": REQUIRED, "bias": True},
    "bilinear": {"in1_features": None, "in2_features": None, "out_features": REQUIRED, "bias": True},
    "layer_norm": {"normalized_shape": REQUIRED, "eps": 1e-5, "elementwise_affine": True, "bias": True},
    "rms_norm": {"normalized_shape": REQUIRED, "eps": None, "elementwise_affine": True},
    "group_norm": {"num_groups": REQUIRED, "num_channels": None, "eps": 1e-5, "affine": True},
    "embedding": {"num_embeddings": REQUIRED, "embedding_dim": REQUIRED},
    "lstm": {**_RECURRENT, "proj_size": 0},
    "gru": _RECURRENT,
    "rnn": {**_RECURRENT, "nonlinearity": "tanh"},
    "multihead_attention": {
        "embed_dim": None, "num_heads": REQUIRED, "bias": True, "add_bias_kv": False, "add_zero_attn": False,
        "kdim": None, "vdim": None, "batch_first": False, "is_causal": False, "need_weights": False},
    "prelu": {"num_parameters": 1},
    "parameter": {"shape": None, "datatype": "FP32", "buffer": False},

    "local_response_norm": {"size": REQUIRED, "alpha": 1e-4, "beta": 0.75, "k": 1},
    "pad": {"padding": REQUIRED, "mode": "constant", "value": 0},
    "upsample": {"size": None, "scale_factor": None, "mode": "nearest", "align_corners": False},
    "pixel_shuffle": {"upscale_factor": REQUIRED},
    "pixel_unshuffle": {"downscale_factor": REQUIRED},
    "channel_shuffle": {"groups": REQUIRED},

    "dropout": {"p": 0.5},
    "gelu": {"approximate": "none"},
    "leaky_relu": {"negative_slope": 0.01},
    "elu": {"alpha": 1},
    "celu": {"alpha": 1},
    "softplus": {"beta": 1, "threshold": 20},
    "hardtanh": {"min_val": -1, "max_val": 1},
    "clamp": {"min": None, "max": None},
    "softshrink": {"lambd": 0.5},
    "hardshrink": {"lambd": 0.5},
    "threshold": {"threshold": 0, "value": 0},
    "to": {"datatype": REQUIRED},

    "softmax": {"dim": -1},
    "log_softmax": {"dim": -1},
    "softmin": {"dim": -1},
    "glu": {"dim": -1},
    "normalize": {"p": 2, "dim": 1, "eps": 1e-12},
    "mean": _REDUCE,
    "sum": _REDUCE,
    "amax": _REDUCE,
    "amin": _REDUCE,
    "argmax": _ARG_REDUCE,
    "argmin": _ARG_REDUCE,
    "cumsum": {"dim": -1},

    "masked_fill": {"value": 0},
    "concat": {"dim": 1},
    "stack": {"dim": 0},
    "scaled_dot_product_attention": {"is_causal": False, "scale": None},

    "flatten": {"start_dim": 1, "end_dim": -1},
    "unflatten": {"dim": 1, "sizes": REQUIRED},
    "reshape": {"shape": REQUIRED},
    "permute": {"dims": REQUIRED},
    "transpose": {"dim0": 0, "dim1": 1},
    "squeeze": {"dim": -1},
    "unsqueeze": {"dim": 0},
    "select": {"dim": 0, "index": 0},
    "slice": {"dim": 0, "start": None, "end": None, "step": 1},
    "split": {"split_size": REQUIRED, "dim": 0},
    "chunk": {"chunks": REQUIRED, "dim": 0},
    "expand_as": {"dim": None},
    "arange": {"dim": 1},
}
for _dims in (1, 2, 3):
    KINDS.update({
        f"conv{_dims}d": {**_CONV, "padding_mode": "zeros"},
        f"conv_transpose{_dims}d": {**_CONV, "output_padding": 0},
        f"batch_norm{_dims}d": _BATCH_NORM,
        f"instance_norm{_dims}d": _INSTANCE_NORM,
        f"max_pool{_dims}d": {**_WINDOW, "dilation": 1, "ceil_mode": False},
        f"avg_pool{_dims}d": {**_WINDOW, "ceil_mode": False, "count_include_pad": True,
                              "divisor_override": None},
        f"adaptive_avg_pool{_dims}d": {"output_size": REQUIRED},
        f"adaptive_max_pool{_dims}d": {"output_size": REQUIRED},
    })
KINDS.update(dict.fromkeys([
    "block", "identity", "relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "selu", "mish",
    "log_sigmoid", "softsign", "tanhshrink", "exp", "log", "sqrt", "rsqrt", "reciprocal", "erf", "sin", "cos",
    "abs", "neg", "square", "logical_not", "logical_and", "logical_or", "where", "matmul"], {}))
KINDS.update(dict.fromkeys([
    "add", "mul", "sub", "rsub", "div", "pow", "maximum", "minimum", "eq", "ne", "lt", "le", "gt", "ge"],
    _VALUE))

# Kinds of several inputs: these are always named.
SEVERAL_INPUTS = {"bilinear", "concat", "stack", "where", "masked_fill", "matmul",
                  "scaled_dot_product_attention", "expand_as"}


def arguments_of(kind, given):
    """`given` without what is left out, in the vocabulary's order."""
    known = KINDS[kind]
    unknown = set(given) - set(known)
    assert not unknown, f"{kind} has no {unknown}"
    return {name: given[name] for name, default in known.items()
            if name in given and given[name] is not None and given[name] != default}


def keys_of(kind, arguments):
    """What a layer reads: the ends of its keys, after its name and a dot."""
    stated = {**KINDS[kind], **arguments}
    weight = ["weight", "bias"] if stated.get("bias", True) else ["weight"]
    statistics = ["running_mean", "running_var", "num_batches_tracked"]
    kind = kind[:-2] if kind[-2:] in ("1d", "2d", "3d") else kind
    if kind in ("linear", "bilinear", "conv", "conv_transpose"):
        return weight
    if kind == "batch_norm":
        return (weight if stated["affine"] else []) + statistics
    if kind == "instance_norm":
        return (weight if stated["affine"] else []) + (statistics if stated["track_running_stats"] else [])
    if kind == "layer_norm":
        return weight if stated["elementwise_affine"] else []
    if kind == "group_norm":
        return weight if stated["affine"] else []
    if kind == "rms_norm":
        return ["weight"] if stated["elementwise_affine"] else []
    if kind in ("embedding", "prelu"):
        return ["weight"]
    if kind in ("lstm", "gru", "rnn"):
        return _recurrent_keys(stated)
    return _attention_keys(stated) if kind == "multihead_attention" else []


def _recurrent_keys(stated):
    entries = ["weight_ih", "weight_hh"] + (["bias_ih", "bias_hh"] if stated["bias"] else [])
    entries += ["weight_hr"] if stated.get("proj_size") else []
    directions = ["", "_reverse"] if stated["bidirectional"] else [""]
    return [f"{entry}_l{layer}{direction}" for layer in range(stated["num_layers"])
            for direction in directions for entry in entries]


def _attention_keys(stated):
    same = all(stated[width] in (None, stated["embed_dim"]) for width in ("kdim", "vdim"))
    keys = ["in_proj_weight"] if same else ["q_proj_weight", "k_proj_weight", "v_proj_weight"]
    keys += ["in_proj_bias"] if stated["bias"] else []
    keys += ["bias_k", "bias_v"] if stated["add_bias_kv"] else []
    return keys + ["out_proj.weight"] + (["out_proj.bias"] if stated["bias"] else [])
