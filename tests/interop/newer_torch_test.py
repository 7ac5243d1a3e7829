"""Both directions with a newer PyTorch: relightd serves what it saves, and it loads the snapshots.

Run by tests/platform/newer_torch_test.sh, which has that PyTorch: RELIGHT_NEWER_TORCH is a command
that runs its Python, RELIGHT_NEWER_TORCH_FOLDER a folder that both see.
"""
import json
import os
import shlex
import shutil
import subprocess
import unittest

import numpy as np

from harness import Daemon, PATIENCE, SIMPLENET

PYTHON = shlex.split(os.environ["RELIGHT_NEWER_TORCH"])
FOLDER, INSIDE = os.environ["RELIGHT_NEWER_TORCH_FOLDER"].split(":")


def newer_torch(what):
    subprocess.run([*PYTHON, f"{INSIDE}/newer_torch.py", what, INSIDE], check=True, timeout=10 * PATIENCE)


class NewerTorchTest(unittest.TestCase):
    def test_both_directions(self):
        here = os.path.dirname(os.path.abspath(__file__))
        shutil.copy(os.path.join(here, "newer_torch.py"), FOLDER)
        newer_torch("save")
        with open(os.path.join(FOLDER, "cases.json")) as file:
            cases = json.load(file)["cases"]
        snapshots = os.path.join(FOLDER, "snapshots")
        os.makedirs(snapshots, exist_ok=True)
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            for version, case in enumerate(cases, 1):
                suffix = os.path.splitext(case["file"])[1]
                daemon.push(os.path.join(FOLDER, case["file"]), f"step-{version}{suffix}")
                daemon.wait_serving(version)
                (got,), response = daemon.infer(np.array(case["input"], np.float32))
                self.assertEqual(response.model_version, str(version))
                np.testing.assert_allclose(got, np.array(case["output"], np.float32), rtol=1e-5, atol=1e-5,
                                           err_msg=case["file"])
                for target, options in {"own.pt": [], "weights.pt": ["--weights-only"],
                                        "safetensors": ["--format", "safetensors"]}.items():
                    name = f"{case['file']}.{target}"
                    daemon.relightctl("snapshot", "simplenet", name, *options)
                    shutil.copy(os.path.join(daemon.snapshots, name), snapshots)
        newer_torch("check")


if __name__ == "__main__":
    unittest.main()
