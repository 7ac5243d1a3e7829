"""Every kind of layer that model.textproto knows, over a grid of arguments, against PyTorch.

usage: layer_grid_test.py PATH/TO/run_networks [DEVICE]

run_networks computes all cases of layer_grid.py in one go, in float32 and, where this PyTorch has the
operation on the CPU, in bfloat16; it loads the state dicts as the server does, so that missing and
unknown keys are errors.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest

import torch

import layer_grid
from network_runs import Answers, difference, error_of, write_case

PROGRAM = sys.argv[1]
DEVICE = sys.argv[2] if len(sys.argv) > 2 else "cpu"
PROTO = os.path.join(os.path.dirname(__file__), "..", "..", "proto", "relight", "v1", "model_config.proto")

# Of an output's largest number. In float32, what other orders of summation make of it. A bfloat16 has 8
# bits, so that each rounding is off by up to 2^-9; and whether every step rounds, or a few are computed
# in float32, is an implementation's own choice: some roundings' worth.
# On a card, convolutions of float32 are computed in TF32, which has 11 bits, as PyTorch does there.
TOLERANCES = {"FP32": 1e-5, "BF16": 2e-2} if DEVICE == "cpu" else {"FP32": 2e-3, "BF16": 3e-2}

# Through several layers of attention and norms, each of which rounds what the one before has rounded,
# PyTorch's own answers in bfloat16 are that far from those in float32.
BF16_TOLERANCE_OF_BLOCKS = 5e-2

# Crashes before this gives up.
MOST_CRASHES = 20


class Run:
    """A case in one precision, in a folder of its own."""

    def __init__(self, folder, case, precision, output_types, answers):
        self.folder, self.case, self.precision = folder, case, precision
        self.output_types, self.answers = output_types, answers  # Any of which will do.

    def path(self, name):
        return os.path.join(self.folder, name)

    def text(self):
        precision = "precision: BF16\n" if self.precision == "BF16" else ""
        return f'device: "{DEVICE}"\n{precision}{self.case.text(self.output_types)}'

    def tolerance(self):
        if self.precision == "BF16" and self.case.kind == "block":
            return BF16_TOLERANCE_OF_BLOCKS
        return TOLERANCES[self.precision]

    def write_inputs(self, tensors):
        write_case(self.folder, self.text(), tensors)

    def error(self):
        return error_of(self.folder)

    def problem(self):
        """What is wrong with the program's answer; None where nothing is."""
        if self.error() is not None:
            return self.error()
        given = Answers(self.folder)
        wanted = [(name, layer_grid.DATATYPES[dtype], list(tensor.shape)) for name, dtype, tensor in
                  zip(self.case.outputs or ["output"], self.output_types, self.answers[0])]
        if given.signature != wanted:
            return f"the outputs are {given.signature}, not {wanted}"
        problems = []
        for i, (name, _, _) in enumerate(given.signature):
            actual = given.tensor(i)
            tolerance = self.tolerance() if actual.is_floating_point() else 0
            differences = [difference(actual, answer[i], tolerance) for answer in self.answers]
            if all(differences):
                problems.append(f"{name}: {differences[0]}")
        return "\n".join(problems) or None


def as_bfloat16(tensor):
    return tensor.to(torch.bfloat16) if tensor.dtype == torch.float32 else tensor


def has_bfloat16(case, state):
    """Whether there is something to be computed in it. Other floats than float32 are computed as they are."""
    tensors = [one.tensor for one in case.inputs.values()] + list(state.values())
    floats = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    return floats == {torch.float32} and not case.refused


class Grid:
    """All runs and their answers."""

    def __init__(self, folder):
        self.folder = folder
        self.count = 0
        self.runs = []
        self.without_bfloat16 = []  # Cases.
        for case in layer_grid.all_cases():
            with torch.no_grad():
                self.add(case)

    def add(self, case):
        name = f"{self.count:04}_{case.kind}"
        self.count += 1
        inputs = [one.tensor for one in case.inputs.values()]
        state = case.state_dict()
        expected = layer_grid.flat(case.compute(*inputs))
        output_types = [one.dtype for one in expected]
        run = Run(os.path.join(self.folder, name), case, "FP32", output_types, [expected])
        run.write_inputs(inputs)
        if state:
            torch.save(state, run.path("weights.pt"))
        self.runs.append(run)
        if has_bfloat16(case, state):
            self.add_bfloat16(case, run, inputs)

    def add_bfloat16(self, case, original, inputs):
        """PyTorch's answer in bfloat16, or that in float32 to the same numbers: PyTorch itself is far off
        where it computes places in an image in bfloat16, and rms_norm's eps depends on the type."""
        rounded = [as_bfloat16(one) for one in inputs]
        widened = [one.float() if one.dtype == torch.bfloat16 else one for one in rounded]
        answers = []
        for module in case.modules.values():
            module.to(torch.bfloat16)
        # This PyTorch takes transposed convolutions of bfloat16 for ordinary ones.
        if not any("conv_transpose" in layer for layer in case.layers):
            try:
                answers.append(layer_grid.flat(case.compute(*rounded)))
            except RuntimeError:  # As a rule, "not implemented for 'BFloat16'".
                self.without_bfloat16.append(case)
                return
        for module in case.modules.values():
            module.to(torch.float32)
        answers.append(layer_grid.flat(case.compute(*widened)))
        run = Run(original.folder + "_bf16", case, "BF16", original.output_types, answers)
        run.write_inputs(widened)
        if os.path.exists(original.path("weights.pt")):
            os.link(original.path("weights.pt"), run.path("weights.pt"))
        self.runs.append(run)

    def compute(self):
        """Goes on after the case of a crash, which counts as an error of that case."""
        for _ in range(MOST_CRASHES):
            done = subprocess.run([PROGRAM, self.folder], env={**os.environ, "OMP_NUM_THREADS": "1"})
            if done.returncode == 0:
                return
            left = [run for run in self.runs if run.error() is None and not os.path.exists(run.path("outputs.json"))]
            if not left or done.returncode > 0:
                break
            with open(left[0].path("error.txt"), "w") as file:
                file.write(f"the program died of signal {-done.returncode}")
        raise AssertionError(f"{PROGRAM} ended with {done.returncode}")

    def of(self, precision, refused=False):
        return [run for run in self.runs if run.precision == precision and run.case.refused == refused]


class LayerGridTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        torch.set_num_threads(1)
        start = time.monotonic()
        cls.grid = Grid(folder.name)
        made = time.monotonic()
        cls.grid.compute()
        print(f"{len(cls.grid.of('FP32'))} cases in float32, {len(cls.grid.of('BF16'))} of them in bfloat16, too; "
              f"{len(cls.grid.without_bfloat16)} skipped there: "
              + ", ".join(sorted({case.kind for case in cls.grid.without_bfloat16})))
        print(f"made in {made - start:.1f} s, computed in {time.monotonic() - made:.1f} s", flush=True)

    def assert_no_problems(self, runs):
        problems = [(run, run.problem()) for run in runs]
        texts = [f"{os.path.basename(run.folder)}: {problem}\n{run.text()}" for run, problem in problems if problem]
        if texts:
            self.fail(f"{len(texts)} of {len(runs)} cases:\n\n" + "\n".join(texts))

    def test_float32_gives_what_pytorch_gives(self):
        self.assert_no_problems(self.grid.of("FP32"))

    def test_bfloat16_gives_what_pytorch_gives(self):
        self.assert_no_problems(self.grid.of("BF16"))

    def test_state_dicts_that_do_not_fit_are_refused(self):
        runs = self.grid.of("FP32", refused=True)
        self.assertTrue(runs)
        taken = [run.text() for run in runs if run.error() is None]
        self.assertEqual(taken, [])

    def test_the_grid_has_every_kind(self):
        with open(PROTO) as file:
            fields = re.search(r"oneof kind \{(.*?)\n  \}", file.read(), re.DOTALL).group(1)
        known = set(re.findall(r"^ *\w+ (\w+) = \d+;", fields, re.MULTILINE)) - {"block"}
        self.assertGreater(len(known), 100)
        used = {kind for run in self.grid.of("FP32") for kind in re.findall(r"(\w+) \{", run.text())}
        self.assertEqual(known - used, set())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
