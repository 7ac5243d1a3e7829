"""A checkpoint that does not answer golden requests as it should never serves."""

import os
import unittest

import numpy as np
import torch

import harness
from harness import Daemon, SIMPLENET, admin_pb2, integer_answer, integer_state

GOOD, OTHER = integer_state(1), integer_state(2)
X = np.arange(20, dtype=np.float32).reshape(2, 10)


def put_golden(daemon, tensors, name="golden.pt"):
    torch.save(tensors, os.path.join(daemon.repository, "simplenet", name))


def refusal(daemon, name):
    """Waits until the file is refused, and says why."""
    def refused(status):
        return any(c.file == name and c.state == admin_pb2.VERSION_REFUSED for c in status.candidates)
    status = daemon.wait_until(refused)
    return next(c.reason for c in status.candidates if c.file == name)


def nearly(state, factor):
    return {**state, "fc2.bias": state["fc2.bias"] + factor}


class GoldenRequestsTest(unittest.TestCase):
    def test_wrong_answers_are_refused_with_the_numbers_and_the_old_version_serves_on(self):
        daemon = Daemon(models={"simplenet": SIMPLENET + 'accept { request { file: "golden.pt" } }'})
        expected = integer_answer(GOOD, X)
        put_golden(daemon, {"input": torch.from_numpy(X), "output": torch.from_numpy(expected)})
        with daemon:
            daemon.save(GOOD, "step-1.pt")
            daemon.wait_serving(1)
            daemon.save(OTHER, "step-2.pt")
            reason = refusal(daemon, "step-2.pt")
            self.assertIn("golden.pt", reason)
            self.assertIn('output "output"', reason)
            self.assertRegex(reason, r"element \[\d, \d\] is -?[\d.]+, expected is -?[\d.]+")
            outputs, response = daemon.infer(X)
            self.assertEqual(response.model_version, "1")
            np.testing.assert_array_equal(outputs[0], expected)
            # Within the tolerance.
            daemon.save(nearly(GOOD, 1e-3), "step-3.pt")
            daemon.wait_serving(3)

    def test_properties_and_agreement_with_the_serving_version(self):
        rules = 'accept { request { file: "inputs.pt" max_change: 0.1 output { name: "output" min: -1e4 max: 1e4 } } }'
        daemon = Daemon(models={"simplenet": SIMPLENET + rules})
        put_golden(daemon, {"input": torch.from_numpy(X)}, "inputs.pt")
        with daemon:
            huge = {**GOOD, "fc2.weight": GOOD["fc2.weight"] * 1e6}
            daemon.save(huge, "step-1.pt")
            self.assertRegex(refusal(daemon, "step-1.pt"), r"(min is -10000|max is 10000) \(\d of 4 elements\)")
            daemon.save(GOOD, "step-2.pt")
            daemon.wait_serving(2)
            daemon.save(OTHER, "step-3.pt")
            self.assertIn("the version that serves answers", refusal(daemon, "step-3.pt"))
            daemon.save(nearly(GOOD, 0.01), "step-4.pt")
            daemon.wait_serving(4)
            # Not finite, though every weight is.
            big = torch.full_like(GOOD["fc1.weight"], 3e38)
            daemon.save({**GOOD, "fc1.weight": big}, "step-5.pt")
            self.assertIn("not finite", refusal(daemon, "step-5.pt"))
            history = daemon.relightctl("history", "simplenet").stdout
            self.assertIn("not finite", history)

    def test_a_file_that_is_no_request_is_refused_as_a_config_is(self):
        daemon = Daemon(models={"simplenet": SIMPLENET + 'accept { request { file: "golden.pt" } }'})
        put_golden(daemon, {"input": torch.from_numpy(X)})
        with daemon:
            daemon.save(GOOD, "step-1.pt")
            daemon.wait_serving(1)
            put_golden(daemon, {"x": torch.from_numpy(X)})
            daemon.wait_for_log(
                r'golden\.pt: input "input" is missing; "x" is no input or output of the model')
            daemon.infer(X)
            # What is mended is read again.
            put_golden(daemon, {"input": torch.from_numpy(X),
                                "output": torch.from_numpy(integer_answer(OTHER, X))})
            daemon.save(OTHER, "step-2.pt")
            daemon.wait_for_log("the changed config is in use")
            self.assertEqual(daemon.infer(X)[1].model_version, "2")
            daemon.save(GOOD, "step-3.pt")
            self.assertIn("expected is", refusal(daemon, "step-3.pt"))


if __name__ == "__main__":
    unittest.main()
