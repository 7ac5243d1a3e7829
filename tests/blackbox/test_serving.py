"""The ways of saving in the wild, answered as PyTorch answers."""

import os
import subprocess
import unittest

import grpc
import numpy as np

import harness
from harness import Daemon, GOOD, SIMPLENET, io_case, pb

CONV_BN = """
network {
  layer { name: "conv" conv2d { in_channels: 3 out_channels: 4 kernel_size: 3 padding: 1 } }
  layer { name: "bn" batch_norm2d {} }
}
"""


class AnswersTest(unittest.TestCase):
    def check(self, file):
        x, wanted, case = io_case("simplenet.json", file)
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, file), file)
            daemon.wait_serving()
            (got,), response = daemon.infer(x, id="seven")
            np.testing.assert_allclose(got, wanted, atol=1e-5)
            self.assertEqual(response.id, "seven")
            self.assertEqual(response.model_name, "simplenet")
            self.assertGreater(int(response.model_version), 0)
            self.assertEqual(response.parameters["generation"].int64_param, 1)
            self.assertRegex(response.parameters["weights_digest"].string_param, "^[0-9a-f]{32}$")
            return response.parameters["weights_digest"].string_param

    def test_state_dict(self):
        self.check("model_state.pth")

    def test_bundle(self):
        self.check("checkpoint.pth")

    def test_whole_module(self):
        self.check("entire_model.pth")

    def test_data_parallel_prefix(self):
        self.check("ddp_prefixed.pth")

    def test_compiled_prefix(self):
        self.check("compiled_prefixed.pth")

    def test_plain_dict(self):
        self.check("plain_dict.bin")

    def test_the_digest_is_of_the_weights_not_of_the_file(self):
        state = harness.integer_state(1)
        ways = {
            "a-1.pt": state,
            "b-2.pt": {"model_state_dict": state, "epoch": 1},
            "c-3.pt": {"module." + key: value for key, value in state.items()},
        }
        digests = set()
        for name, value in ways.items():
            with Daemon(models={"simplenet": SIMPLENET}) as daemon:
                daemon.save(value, name)
                digests.add(daemon.wait_serving().loaded[0].weights_digest)
        self.assertEqual(len(digests), 1)


class TypedContentsTest(unittest.TestCase):
    def test_typed_in_gives_typed_out(self):
        x, wanted, _ = io_case("simplenet.json", "model_state.pth")
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, "model_state.pth"), "a-1.pt")
            daemon.wait_serving(1)
            request = pb.ModelInferRequest(model_name="simplenet")
            request.inputs.add(name="input", datatype="FP32", shape=x.shape).contents.fp32_contents.extend(
                x.ravel().tolist())
            response = daemon.stub.ModelInfer(request, timeout=harness.PATIENCE)
            self.assertEqual(len(response.raw_output_contents), 0)
            got = np.array(response.outputs[0].contents.fp32_contents, np.float32).reshape(3, 2)
            np.testing.assert_allclose(got, wanted, atol=1e-5)


class SeveralModelsTest(unittest.TestCase):
    def test_one_daemon_serves_many_models_and_finds_new_ones(self):
        x, wanted, _ = io_case("simplenet.json", "model_state.pth")
        with Daemon(models={"simplenet": SIMPLENET, "second": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, "model_state.pth"), "a-1.pt")
            daemon.push(os.path.join(GOOD, "checkpoint.pth"), "b-2.pt", model="second")
            daemon.wait_serving(1)
            daemon.wait_serving(2, model="second")
            daemon.add_model("third", SIMPLENET)
            daemon.push(os.path.join(GOOD, "model_state.pth"), "c-3.pt", model="third")
            daemon.wait_for_log("third.*serves version 3")  # Until then the model may be unknown.
            daemon.wait_serving(3, model="third")
            for model, version in (("simplenet", "1"), ("second", "2"), ("third", "3")):
                _, response = daemon.infer(x, model=model)
                self.assertEqual(response.model_version, version)
            index = daemon.stub.RepositoryIndex(pb.RepositoryIndexRequest())
            self.assertEqual({(m.name, m.version, m.state) for m in index.models},
                             {("simplenet", "1", "READY"), ("second", "2", "READY"), ("third", "3", "READY")})


class BranchesTest(unittest.TestCase):
    def test_named_inputs_branch_and_join(self):
        config = """
        input { name: "a" datatype: "FP32" shape: [-1, 10] }
        input { name: "b" datatype: "FP32" shape: [-1, 10] }
        output { name: "sum" datatype: "FP32" shape: [-1, 5] }
        output { name: "both" datatype: "FP32" shape: [-1, 10] }
        network {
          layer { name: "fc1" input: "a" linear { out_features: 5 } }
          layer { name: "other" input: "b" linear { out_features: 5 } }
          layer { name: "sum" input: "fc1" input: "other" add {} }
          layer { name: "both" input: "sum" input: "other" concat {} }
        }
        """
        state = harness.integer_state(3)
        state = {"fc1.weight": state["fc1.weight"], "fc1.bias": state["fc1.bias"],
                 "other.weight": state["fc1.weight"] * 2, "other.bias": state["fc1.bias"] + 1}
        with Daemon(models={"branches": config}) as daemon:
            daemon.save(state, "step-4.pt", model="branches")
            daemon.wait_serving(4, model="branches")
            a = np.arange(20, dtype=np.float32).reshape(2, 10)
            b = np.ones((2, 10), np.float32)
            request = pb.ModelInferRequest(model_name="branches")
            for name, value in (("b", b), ("a", a)):
                request.inputs.add(name=name, datatype="FP32", shape=value.shape)
                request.raw_input_contents.append(value.tobytes())
            response = daemon.stub.ModelInfer(request, timeout=harness.PATIENCE)
            fc1 = a @ state["fc1.weight"].numpy().T + state["fc1.bias"].numpy()
            other = b @ state["other.weight"].numpy().T + state["other.bias"].numpy()
            outputs = dict(zip([o.name for o in response.outputs], harness.outputs_of(response)))
            np.testing.assert_array_equal(outputs["sum"], fc1 + other)
            np.testing.assert_array_equal(outputs["both"], np.concatenate([fc1 + other, other], 1))
            request.outputs.add(name="both")
            response = daemon.stub.ModelInfer(request, timeout=harness.PATIENCE)
            self.assertEqual([o.name for o in response.outputs], ["both"])
            self.assertEqual(len(response.raw_output_contents), 1)


class RelightctlTest(unittest.TestCase):
    def test_init_drafts_a_config_that_serves(self):
        x, wanted, _ = io_case("simplenet.json", "entire_model.pth")
        draft = subprocess.run([harness.RELIGHTCTL, "init", os.path.join(GOOD, "entire_model.pth")],
                               capture_output=True, text=True, check=True).stdout
        with Daemon(models={"simplenet": draft}) as daemon:
            daemon.push(os.path.join(GOOD, "entire_model.pth"), "m-1.pt")
            daemon.wait_serving(1)
            (got,), _ = daemon.infer(x)
            np.testing.assert_allclose(got, wanted, atol=1e-5)


if __name__ == "__main__":
    unittest.main()
