"""The descriptions of tools/describe_module, computed by relight, against the modules themselves.

usage: round_trip_test.py PATH/TO/run_networks

For each module of test_describe_module.py and family_modules.py: its description and its state dict as torch.save writes it
go through relight's own loading, which is strict, and the outputs must be the module's.
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import torch

PROGRAM = sys.argv[1]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))

import test_describe_module as cases  # noqa: E402
from describe_module import describe  # noqa: E402
from family_modules import families  # noqa: E402
from describe_module.inputs import DATATYPES, parse_input  # noqa: E402
from network_runs import Answers, difference, error_of, write_case  # noqa: E402

# Of the largest output.
TOLERANCE = 1e-5

# What free sizes become: the rows, and the others.
ROWS, OTHERS = 3, 8


def example(spec):
    """Numbers for an input; small ones where they are indices."""
    shape = [size if size >= 0 else (ROWS if at == 0 else OTHERS) for at, size in enumerate(spec.shape)]
    dtype = DATATYPES[spec.datatype]
    if dtype.is_floating_point:
        return torch.randn(shape, dtype=dtype)
    if dtype == torch.bool:
        mask = torch.zeros(shape, dtype=dtype)
        mask[..., -1] = True  # Nowhere all of it.
        return mask
    return torch.randint(0, 7, shape, dtype=dtype)


def flat(result):
    if result is None:
        return []
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, cases.Result):
        result = list(vars(result).values())
    parts = result.values() if isinstance(result, dict) else result
    return [tensor for part in parts for tensor in flat(part)]


class RoundTripTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.expected = {}
        torch.manual_seed(5)
        torch.set_num_threads(1)
        described = cases.described()
        del described["synchronised"]  # Computes on a card only.
        for name, (module, inputs) in (described | families()).items():
            cls.write(name, module.eval(), inputs)
        subprocess.run([PROGRAM, folder.name], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    @classmethod
    def write(cls, name, module, inputs):
        text = describe(module, inputs)  # Lazy modules come to be by this.
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.data += 0.1 * torch.rand_like(tensor)
        tensors = [example(parse_input(one)) for one in inputs]
        case = cls.folder / f"{len(cls.expected):03}"
        write_case(case, text, tensors)
        with torch.no_grad():
            cls.expected[name] = case, flat(module(*(tensor.clone() for tensor in tensors)))
        if module.state_dict():
            torch.save(module.state_dict(), case / "weights.pt")

    def test_outputs_are_the_modules(self):
        for name, (case, expected) in self.expected.items():
            with self.subTest(name):
                self.assertIsNone(error_of(case))
                answers = Answers(case)
                self.assertEqual([shape for _, _, shape in answers.signature],
                                 [list(one.shape) for one in expected])
                for i, tensor in enumerate(expected):
                    actual = answers.tensor(i)
                    tolerance = TOLERANCE if actual.is_floating_point() else 0
                    self.assertIsNone(difference(actual, tensor, tolerance), (case / "model.textproto").read_text())


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
