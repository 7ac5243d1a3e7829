"""Checkpoints whose keys are not the graph's: renamed, or with more or less than it wants."""

import json
import os
import unittest

import numpy as np
import torch

import harness
from harness import Daemon, SIMPLENET, integer_answer, integer_state

X = np.arange(-20, 20, dtype=np.float32).reshape(4, 10)


def under_other_names(state):
    return {"module." + key.replace("fc1", "encoder.0").replace("fc2", "encoder.1"): value
            for key, value in state.items()}


class NamesTest(unittest.TestCase):
    def assert_serves(self, daemon, version, state, model="simplenet", input_name="input"):
        daemon.wait_serving(version, model)
        (got,), response = daemon.infer(X, model, input_name)
        np.testing.assert_array_equal(got, integer_answer(state, X))
        self.assertEqual(response.model_version, str(version))

    def test_rules_rename_keys_and_a_snapshot_has_the_old_ones(self):
        rules = r"""
        checkpoints {
          rename { pattern: "^encoder\\.(\\d)" replacement: "fc\\1" }
          rename { pattern: "^fc1" replacement: "fc2" }
          rename { pattern: "^fc0" replacement: "fc1" }
        }
        """
        with Daemon(models={"simplenet": SIMPLENET + rules}) as daemon:
            first, second = integer_state(1), integer_state(2)
            daemon.save(first, "step-1.pt")
            daemon.wait_for_log("step-1.pt is refused")  # Here fc1 becomes fc2, twice.
            daemon.save(under_other_names(second), "step-2.pt")
            self.assert_serves(daemon, 2, second)
            daemon.relightctl("snapshot", "simplenet", "a.pt")
            taken = torch.load(os.path.join(daemon.snapshots, "a.pt"))
            self.assertEqual(list(taken), list(under_other_names(second)))

    def test_what_the_graph_does_not_know_is_left_aside_where_asked_for(self):
        more = {"ema": torch.ones(3), **integer_state(1), "loss.weight": torch.zeros(2)}
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(more, "step-1.pt")
            daemon.wait_for_log("step-1.pt is refused.*2 unexpected: ema, loss.weight")
        with Daemon(models={"simplenet": SIMPLENET + "checkpoints { strict: false }\n"}) as daemon:
            daemon.save(more, "step-1.pt")
            self.assert_serves(daemon, 1, integer_state(1))
            daemon.wait_for_log("step-1.pt fits in part: left aside.*: ema, loss.weight")
            entries = json.loads(daemon.relightctl("history", "simplenet", "--json").stdout)
            self.assertIn("ema, loss.weight", json.dumps(entries))
            config = os.path.join(daemon.repository, "simplenet")
            inspected = daemon.relightctl("inspect", os.path.join(daemon.watched(), "step-1.pt"), "--config", config)
            self.assertIn("left aside, because the graph does not know them: ema, loss.weight", inspected.stdout)
            daemon.relightctl("snapshot", "simplenet", "a.pt")
            self.assertEqual(list(torch.load(os.path.join(daemon.snapshots, "a.pt"))), list(more))
            # Less than the graph wants is never served.
            less = integer_state(2)
            del less["fc2.bias"]
            daemon.save(less, "step-2.pt")
            daemon.wait_for_log("step-2.pt is refused.*1 missing: fc2.bias")
            self.assert_serves(daemon, 1, integer_state(1))

    def test_an_archives_own_values_stand_in_where_asked_for(self):
        archive = os.path.join(harness.GOOD, "torchscript.pt")
        config = """
        input { name: "x" datatype: "FP32" shape: [-1, 10] }
        output { name: "y" datatype: "FP32" shape: [-1, 2] }
        torchscript { file: "graph.pt" }
        checkpoints { strict: %s }
        """
        half = {key: value for key, value in integer_state(1).items() if key.startswith("fc1")}
        whole = {**torch.jit.load(archive).state_dict(), **half}
        with open(archive, "rb") as source:
            graph = source.read()
        daemon = Daemon(models={"strict": config % "true", "lax": config % "false"})
        for model in ("strict", "lax"):
            harness.write_file(os.path.join(daemon.repository, model, "graph.pt"), graph)
        with daemon:
            for model in ("strict", "lax"):
                daemon.save({**half, "more": torch.ones(1)}, "step-1.pt", model=model)
            daemon.wait_for_log("model strict: step-1.pt is refused.*2 missing: fc2.weight, fc2.bias")
            daemon.wait_serving(1, "lax")
            daemon.wait_for_log("model lax: step-1.pt fits in part: left aside.*: more; as in the archive.*: fc2")
            (got,), _ = daemon.infer(X, "lax", "x")
            hidden = np.maximum(X @ whole["fc1.weight"].numpy().T + whole["fc1.bias"].numpy(), 0)
            np.testing.assert_allclose(
                got, hidden @ whole["fc2.weight"].numpy().T + whole["fc2.bias"].numpy(), rtol=1e-5)


class LimitsTest(unittest.TestCase):
    def test_a_config_bounds_what_a_file_may_ask_for(self):
        limits = "checkpoints { limits { max_tensor_bytes: 100 } }\n"
        with Daemon(models={"simplenet": SIMPLENET + limits}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")  # fc1.weight has 200 bytes.
            line = daemon.wait_for_log("step-1.pt is refused")
            self.assertRegex(line, "fc1.weight|200")
            self.assertRegex(line, "100")


if __name__ == "__main__":
    unittest.main()
