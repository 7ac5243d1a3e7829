"""Families of networks against the code that they are named after: torchvision's own, and for text
the models of text_models.py.

usage: families_test.py PATH/TO/run_networks

Of each the keys are the same, either side loads the other's strictly, and outputs are equal within
1e-5 of the largest one. Networks that are too large to be computed here are compared by their keys.
"""
import os
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import torch
from torch import nn

import text_models
from network_runs import Answers, difference, error_of, parameters_of, write_case

try:
    import torchvision.models as vision
except ImportError:
    vision = None

PROGRAM = sys.argv[1]
TOLERANCE = 1e-5


def randomize(module):
    """Norms as after training: none is an identity. Their biases keep most numbers above zero: otherwise a
    deep network of random weights makes so much of each rounding that torchvision's own ResNet-50 in float32
    is off by 4e-5 of the largest output."""
    for child in module.modules():
        if isinstance(child, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(child.weight, 0.5, 1.5)
        if isinstance(child, nn.LayerNorm):
            nn.init.normal_(child.bias, std=0.1)
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.bias, 0.5, 1.5)
            child.momentum = None  # The first batch's statistics as they are.
    return module


class Case:
    """A module, the config that names its family, and inputs by name.

    declared    The config declares just the inputs that are given.
    extra       What the checkpoint has beside the module's state dict.
    left_out    Keys that it does not have.
    outputs     Their names.
    """

    def __init__(self, name, family, module, inputs=None, declared=False, extra=None, left_out=(), outputs=("output",)):
        self.name, self.family, self.module, self.inputs = name, family, module.eval(), inputs
        self.declared, self.extra, self.left_out, self.outputs = declared, extra or {}, left_out, list(outputs)

    def text(self):
        declared = [f'input {{ name: "{name}" datatype: "INT64" shape: [-1, -1] }}\n' for name in self.inputs or ()]
        return "".join(declared if self.declared else []) + self.family + "\n"

    def state_dict(self):
        state = {**self.module.state_dict(), **self.extra}
        return {key: value for key, value in state.items() if key not in self.left_out}

    def expected(self):
        with torch.no_grad():
            answer = self.module(*self.inputs.values())
        return list(answer) if isinstance(answer, tuple) else [answer]


def image_case(name, family, module, size=64, rows=1):
    randomize(module)
    with torch.no_grad():
        module.train()(torch.randn(4, 3, size, size))
    return Case(name, family, module, {"input": torch.randn(rows, 3, size, size)})


def image_cases():
    """Networks of torchvision, of random weights."""
    yield image_case("resnet18", "resnet { depth: 18 num_classes: 10 }", vision.resnet18(num_classes=10), rows=3)
    yield image_case("resnet34", "resnet { depth: 34 }", vision.resnet34())
    yield image_case("resnet50", "resnet { depth: 50 }", vision.resnet50(), rows=2)
    yield image_case("resnext50_32x4d", "resnet { depth: 50 groups: 32 width_per_group: 4 }", vision.resnext50_32x4d())
    yield image_case("wide_resnet50_2", "resnet { depth: 50 width_per_group: 128 num_classes: 7 }",
                     vision.wide_resnet50_2(num_classes=7), size=33)
    yield image_case("vgg11_bn", "vgg { depth: 11 batch_norm: true num_classes: 5 }", vision.vgg11_bn(num_classes=5))
    yield image_case("mobilenet_v2", "mobilenet_v2 {}", vision.mobilenet_v2(), rows=2)
    for width in (0.35, 1.4):
        yield image_case(f"mobilenet_v2_{width}", f"mobilenet_v2 {{ num_classes: 10 width_mult: {width} }}",
                         vision.mobilenet_v2(num_classes=10, width_mult=width))
    for more in ({}, {"representation_size": 24}):
        sizes = dict(image_size=32, patch_size=8, num_layers=3, num_heads=4, hidden_dim=48, mlp_dim=96, num_classes=11)
        module = vision.VisionTransformer(**sizes, **more)
        nn.init.normal_(module.class_token)
        nn.init.normal_(module.heads.head.weight)  # Is zero.
        yield image_case(f"vision_transformer_{len(more)}", f"vision_transformer {{ {fields({**sizes, **more})} }}", module,
                         size=32, rows=2)


def large_image_cases():
    """By their keys: values are neither made nor kept."""
    with mock.patch.object(nn.init, "kaiming_normal_"), mock.patch.object(nn.init, "kaiming_uniform_"), \
            mock.patch.object(nn.init, "uniform_"), mock.patch.object(nn.init, "normal_"):
        for case in large_images():
            case.module.to("meta")
            yield case


def large_images():
    for depth, make in ((101, vision.resnet101), (152, vision.resnet152)):
        yield Case(f"resnet{depth}", f"resnet {{ depth: {depth} }}", make())
    yield Case("resnext101_32x8d", "resnet { depth: 101 groups: 32 width_per_group: 8 }", vision.resnext101_32x8d())
    for depth in (11, 13, 16, 19):
        yield Case(f"vgg{depth}", f"vgg {{ depth: {depth} }}", getattr(vision, f"vgg{depth}")())
        yield Case(f"vgg{depth}_bn", f"vgg {{ depth: {depth} batch_norm: true }}", getattr(vision, f"vgg{depth}_bn")())
    for name, (patch, layers, heads, hidden, mlp) in {"vit_b_16": (16, 12, 12, 768, 3072),
                                                      "vit_l_32": (32, 24, 16, 1024, 4096)}.items():
        yield Case(name, f"vision_transformer {{ patch_size: {patch} num_layers: {layers} num_heads: {heads} "
                         f"hidden_dim: {hidden} mlp_dim: {mlp} }}", getattr(vision, name)())


BERT = dict(vocab_size=101, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=80,
            max_position_embeddings=40)
GPT2 = dict(vocab_size=97, n_positions=40, n_embd=48, n_layer=3, n_head=4)


def fields(config):
    def text(value):
        return f'"{value}"' if isinstance(value, str) else str(value).lower()

    return " ".join(f"{name}: {text(value)}" for name, value in config.items())


def tokens(words, *lengths):
    """Rows of so many tokens, padded on the right, and their mask."""
    longest = max(lengths)
    mask = torch.tensor([[1] * length + [0] * (longest - length) for length in lengths])
    return torch.randint(1, words, mask.shape) * mask, mask


def bert_inputs(*lengths):
    ids, mask = tokens(BERT["vocab_size"], *lengths)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.randint(0, 2, ids.shape) * mask}


def bert_case(name, module_class, inputs, outputs, declared=False, extra=None, left_out=(), **config):
    module = randomize(module_class(**BERT, **config))
    named = {"architecture": module_class.__name__, **BERT, **config}
    return Case(name, f"bert {{ {fields(named)} }}", module, inputs, declared, extra, left_out, outputs)


def bert_cases():
    both = ("last_hidden_state", "pooler_output")
    for lengths in ((1,), (7, 7), (17, 0, 40)):
        yield bert_case(f"bert_{max(lengths)}", text_models.BertModel, bert_inputs(*lengths), both)
    for count in (1, 2):
        inputs = dict(list(bert_inputs(9, 4).items())[:count])
        yield bert_case(f"bert_inputs_{count}", text_models.BertModel, inputs, both, declared=True)
    for act in ("gelu_new", "relu", "silu", "tanh"):
        yield bert_case(f"bert_{act}", text_models.BertModel, bert_inputs(5, 9), both, hidden_act=act)
    yield bert_case("bert_of_an_older_release", text_models.BertModel, bert_inputs(5), both,
                    extra={"embeddings.position_ids": torch.arange(40)[None]}, layer_norm_eps=1e-5)
    yield bert_case("bert_without_pooling", text_models.BertModel, bert_inputs(6, 2), both[:1], add_pooling_layer=False)
    yield bert_case("bert_sequences", text_models.BertForSequenceClassification, bert_inputs(6, 8), ("logits",),
                    num_labels=5, extra={"bert.embeddings.position_ids": torch.arange(40)[None]})
    yield bert_case("bert_tokens", text_models.BertForTokenClassification, bert_inputs(6, 8), ("logits",), num_labels=9)
    yield bert_case("bert_questions", text_models.BertForQuestionAnswering, bert_inputs(12, 8),
                    ("start_logits", "end_logits"))
    yield bert_case("bert_masked_lm", text_models.BertForMaskedLM, bert_inputs(6, 8), ("logits",))
    yield bert_case("bert_masked_lm_untied", text_models.BertForMaskedLM, bert_inputs(6, 8), ("logits",),
                    tie_word_embeddings=False)
    yield bert_case("bert_masked_lm_saved_once", text_models.BertForMaskedLM, bert_inputs(6, 8), ("logits",),
                    left_out=("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"))


def gpt2_case(name, module_class, inputs, declared=False, extra=None, left_out=(), **config):
    module = randomize(module_class(**GPT2, **config))
    named = {"architecture": module_class.__name__, **GPT2, **config}
    outputs = ("last_hidden_state",) if module_class is text_models.GPT2Model else ("logits",)
    return Case(name, f"gpt2 {{ {fields(named)} }}", module, inputs, declared, extra, left_out, outputs)


def gpt2_buffers(prefix):
    """What older releases saved of each layer."""
    buffers = {}
    for layer in range(GPT2["n_layer"]):
        buffers[f"{prefix}h.{layer}.attn.bias"] = torch.ones(40, 40, dtype=torch.uint8).tril()[None, None]
        buffers[f"{prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    return buffers


def gpt2_cases():
    def inputs(*lengths):
        return dict(zip(("input_ids", "attention_mask"), tokens(GPT2["vocab_size"], *lengths)))

    for lengths in ((1,), (7, 7), (17, 0, 40)):
        yield gpt2_case(f"gpt2_{max(lengths)}", text_models.GPT2LMHeadModel, inputs(*lengths))
    padded_left = {name: tensor.flip(1) for name, tensor in inputs(3, 11).items()}
    yield gpt2_case("gpt2_padded_left", text_models.GPT2LMHeadModel, padded_left)
    yield gpt2_case("gpt2_inputs_1", text_models.GPT2LMHeadModel, {"input_ids": inputs(9, 9)["input_ids"]},
                    declared=True)
    yield gpt2_case("gpt2_untied", text_models.GPT2LMHeadModel, inputs(9, 5), tie_word_embeddings=False)
    yield gpt2_case("gpt2_saved_once", text_models.GPT2LMHeadModel, inputs(9, 5), left_out=("lm_head.weight",))
    yield gpt2_case("gpt2_body", text_models.GPT2Model, inputs(9, 5), extra=gpt2_buffers(""), n_inner=80,
                    activation_function="gelu", layer_norm_epsilon=1e-3)
    yield gpt2_case("gpt2_of_an_older_release", text_models.GPT2LMHeadModel, inputs(4, 5),
                    extra=gpt2_buffers("transformer."))


class Runs:
    """Folders of cases, computed in one go."""

    def __init__(self, folder, cases):
        self.folder, self.cases, self.answers = folder, [], {}
        for case in cases:
            self.add(case)
        subprocess.run([PROGRAM, folder], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def path(self, case):
        return os.path.join(self.folder, case.name)

    def add(self, case):
        self.cases.append(case)
        if case.inputs is None:
            os.mkdir(self.path(case))
            with open(os.path.join(self.path(case), "model.textproto"), "w") as file:
                file.write(case.text())
            return
        write_case(self.path(case), case.text(), case.inputs.values())
        torch.save(case.state_dict(), os.path.join(self.path(case), "weights.pt"))
        self.answers[case.name] = case.expected()


class FamiliesTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(1)
        torch.set_num_threads(1)

    def compare(self, cases):
        with tempfile.TemporaryDirectory() as folder:
            runs = Runs(folder, cases)
            for case in runs.cases:
                with self.subTest(case.name):
                    self.assertIsNone(error_of(runs.path(case)))
                    self.compare_keys(case, parameters_of(runs.path(case)))
                    if case.inputs is not None:
                        self.compare_outputs(case, Answers(runs.path(case)), runs.answers[case.name])

    def compare_keys(self, case, parameters):
        own = {key: tuple(tensor.shape) for key, tensor in case.module.state_dict().items()}
        self.assertEqual(parameters, own)
        # run_networks has loaded the module's state dict strictly; this is the other way.
        zeros = {key: torch.zeros(()).expand(shape) for key, shape in parameters.items()}
        case.module.load_state_dict(zeros, strict=True)

    def compare_outputs(self, case, given, expected):
        wanted = [(name, "FP32", list(tensor.shape)) for name, tensor in zip(case.outputs, expected)]
        self.assertEqual(given.signature, wanted)
        for i, tensor in enumerate(expected):
            self.assertGreater(tensor.std().item() if tensor.numel() > 1 else 1, 0)
            self.assertIsNone(difference(given.tensor(i), tensor, TOLERANCE))

    @unittest.skipIf(vision is None, "there is no torchvision")
    def test_networks_for_images_give_what_torchvision_gives(self):
        self.compare(image_cases())

    @unittest.skipIf(vision is None, "there is no torchvision")
    def test_large_networks_for_images_have_the_keys_of_torchvision(self):
        self.compare(large_image_cases())

    def test_bert_gives_what_is_published(self):
        self.compare(bert_cases())

    def test_gpt2_gives_what_is_published(self):
        self.compare(gpt2_cases())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
