"""Where is computed, and in which precision: what bench.py was asked for. All that is compared with
the daemon computes there, too."""

import torch

TYPES = {"FP32": torch.float32, "BF16": torch.bfloat16, "FP16": torch.float16}

device = "cpu"
precision = "FP32"


def config(text):
    """A model.textproto's text, for there."""
    return f'device: "{device}"\nprecision: {precision}\n{text}'


def on_card():
    return device != "cpu"


def memory_bytes():
    return torch.cuda.get_device_properties(torch.device(device)).total_memory


def names():
    """For what is reported."""
    if not on_card():
        return {}
    return {"device": torch.cuda.get_device_name(torch.device(device)), "precision": precision,
            "CUDA": torch.version.cuda}
