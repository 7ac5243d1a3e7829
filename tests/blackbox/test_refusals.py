"""Bad input of every kind gets a clear error, and nothing is lost."""

import os
import re
import subprocess
import unittest

import grpc
import numpy as np
import torch

import harness
from harness import Daemon, GOOD, SIMPLENET, admin_pb2, infer_request, integer_state, pb


class RequestTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(models={"simplenet": SIMPLENET}).__enter__()
        cls.addClassCleanup(cls.daemon.__exit__, None, None, None)
        cls.daemon.save(integer_state(1), "step-1.pt")
        cls.daemon.wait_serving(1)

    def assert_refused(self, request, code, message):
        with self.assertRaises(grpc.RpcError) as caught:
            self.daemon.stub.ModelInfer(request, timeout=harness.PATIENCE)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertRegex(caught.exception.details(), message)
        # The daemon serves on.
        self.daemon.infer(np.ones((1, 10), np.float32))

    INVALID = grpc.StatusCode.INVALID_ARGUMENT
    NOT_FOUND = grpc.StatusCode.NOT_FOUND

    def test_wrong_shape_names_both_numbers(self):
        self.assert_refused(infer_request(np.ones((3, 9), np.float32)), self.INVALID, "9.*10|10.*9")

    def test_wrong_rank(self):
        self.assert_refused(infer_request(np.ones((10,), np.float32)), self.INVALID, "input")

    def test_wrong_datatype(self):
        self.assert_refused(infer_request(np.ones((1, 10), np.float64)), self.INVALID, "FP64.*FP32|FP32.*FP64")

    def test_wrong_input_name(self):
        self.assert_refused(infer_request(np.ones((1, 10), np.float32), input_name="x"), self.INVALID, "x")

    def test_unknown_output(self):
        self.assert_refused(infer_request(np.ones((1, 10), np.float32), outputs=["DUMMY"]), self.INVALID, "DUMMY")

    def test_too_few_bytes_names_both_numbers(self):
        request = infer_request(np.ones((1, 10), np.float32))
        request.raw_input_contents[0] = b"\0" * 36
        self.assert_refused(request, self.INVALID, "40.*36|36.*40")

    def test_missing_raw_content(self):
        request = infer_request(np.ones((1, 10), np.float32))
        del request.raw_input_contents[:]
        self.assert_refused(request, self.INVALID, "input")

    def test_raw_and_typed_content(self):
        request = infer_request(np.ones((1, 10), np.float32))
        request.inputs[0].contents.fp32_contents.extend([1.0] * 10)
        self.assert_refused(request, self.INVALID, "raw_input_contents")

    def test_negative_and_overflowing_dimensions(self):
        for shape in ([-1, 10], [2**62, 10], [2**40, 2**40]):
            request = infer_request(np.ones((1, 10), np.float32))
            request.inputs[0].shape[:] = shape
            self.assert_refused(request, self.INVALID, "shape|dimension|batch|rows")

    def test_unknown_model_and_version(self):
        x = np.ones((1, 10), np.float32)
        self.assert_refused(infer_request(x, model="nobody"), self.NOT_FOUND, "nobody")
        self.assert_refused(infer_request(x, version=77), self.NOT_FOUND, "77")
        self.assert_refused(infer_request(x, version="new"), self.INVALID, "new")

    def test_no_checkpoint_yet(self):
        self.daemon.add_model("empty", SIMPLENET)
        self.daemon.wait_for_log("model empty: watches")
        request = infer_request(np.ones((1, 10), np.float32), model="empty")
        # Requests see a new model a moment after the log does.
        while "is being set up" in self.daemon.stub.ModelInfer.future(request).details():
            pass
        self.assert_refused(request, grpc.StatusCode.UNAVAILABLE, "no checkpoint yet")

    def test_garbage_instead_of_a_message(self):
        call = self.daemon.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer",
                                               request_serializer=lambda b: b, response_deserializer=lambda b: b)
        for garbage in (b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x0f", os.urandom(1000), b"\x2a\x02\x0a"):
            with self.assertRaises(grpc.RpcError) as caught:
                call(garbage, timeout=harness.PATIENCE)
            self.assertEqual(caught.exception.code(), self.INVALID)
        self.daemon.infer(np.ones((1, 10), np.float32))

    def test_shared_memory_trace_and_log_settings_are_unimplemented(self):
        for method, request in ((self.daemon.stub.SystemSharedMemoryStatus, pb.SystemSharedMemoryStatusRequest()),
                                (self.daemon.stub.CudaSharedMemoryRegister, pb.CudaSharedMemoryRegisterRequest()),
                                (self.daemon.stub.TraceSetting, pb.TraceSettingRequest()),
                                (self.daemon.stub.LogSettings, pb.LogSettingsRequest())):
            with self.assertRaises(grpc.RpcError) as caught:
                method(request, timeout=harness.PATIENCE)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_model_control_is_not_public(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.daemon.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="simplenet"),
                                                   timeout=harness.PATIENCE)
        self.assertRegex(caught.exception.details(), "--allow-model-control")


class OversizedRequestTest(unittest.TestCase):
    def test_the_flag_is_named_and_the_next_request_works(self):
        with Daemon("--max-message-bytes", "1000000", models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_serving(1)
            with self.assertRaises(grpc.RpcError) as caught:
                daemon.infer(np.ones((50000, 10), np.float32))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            daemon.infer(np.ones((1, 10), np.float32))


class CheckpointTest(unittest.TestCase):
    def test_every_mismatch_is_listed(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            bad = integer_state(1)
            bad["fc1.weight"] = torch.zeros(8, 10)
            bad["fc9.bias"] = bad.pop("fc2.bias")
            daemon.save(bad, "step-1.pt")
            status = daemon.wait_until(lambda s: any(c.state == admin_pb2.VERSION_REFUSED for c in s.candidates))
            reason = status.candidates[0].reason
            self.assertRegex(reason, r"fc1\.weight.*\[8, 10\].*\[5, 10\]")
            self.assertIn("fc2.bias", reason)
            self.assertIn("fc9.bias", reason)
            self.assertEqual(status.state, admin_pb2.MODEL_FAILED)

    def test_nothing_in_a_file_is_executed(self):
        hostile = os.path.join(harness.TEST_DATA, "hostile")
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_serving(1)
            names = [n for n in sorted(os.listdir(hostile)) if n.startswith("exec_")]
            self.assertGreater(len(names), 20)
            for at, name in enumerate(names, 2):
                stem, suffix = os.path.splitext(name)
                daemon.push(os.path.join(hostile, name), f"{stem}-{at}{suffix}")
            daemon.wait_until(lambda s: sum(
                c.state == admin_pb2.VERSION_REFUSED for c in s.candidates) >= len(names))
            self.assertFalse(os.path.exists("relight_pickle_executed.marker"))
            self.assertEqual(daemon.infer(np.ones((1, 10), np.float32))[1].model_version, "1")

    def test_a_file_without_weights_says_what_it_holds(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save({"epoch": 3, "history": [1, 2]}, "step-1.pt")
            status = daemon.wait_until(lambda s: any(c.state == admin_pb2.VERSION_REFUSED for c in s.candidates))
            self.assertRegex(status.candidates[0].reason, "NO_STATE_DICT.*epoch.*history")

    def test_odd_files_are_passed_over_with_a_reason(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            watched = daemon.watched()
            os.mkfifo(os.path.join(watched, "fifo.pt"))
            os.mkdir(os.path.join(watched, "folder.pt"))
            os.symlink("loop.pt", os.path.join(watched, "loop.pt"))
            os.symlink("/dev/zero", os.path.join(watched, "device.pt"))
            daemon.save(integer_state(1), "step-1.pt")
            status = daemon.wait_serving(1)
            passed = {c.file: c.reason for c in status.candidates if c.state == admin_pb2.VERSION_PASSED_OVER}
            self.assertEqual(set(passed), {"fifo.pt", "folder.pt", "loop.pt", "device.pt"})
            for reason in passed.values():
                self.assertTrue(reason)


class StartTest(unittest.TestCase):
    def fails(self, *flags, models=None):
        daemon = Daemon(*flags, models=models)
        try:
            result = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=harness.PATIENCE)
        finally:
            import shutil
            shutil.rmtree(daemon.root)
        self.assertNotEqual(result.returncode, 0)
        return result.stderr

    def test_a_typo_in_a_config_names_the_line(self):
        log = self.fails(models={"simplenet": SIMPLENET.replace("out_features: 2", "out_featurs: 2") + 'device: "gpu"\n'})
        self.assertRegex(log, r"model\.textproto:5.*out_featurs")

    def test_all_errors_of_a_config_at_once(self):
        log = self.fails(models={"simplenet": SIMPLENET + 'device: "gpu"\narenas: 7\n'})
        self.assertRegex(log, r"model\.textproto:7.*gpu")
        self.assertRegex(log, r"model\.textproto:8.*7")

    def test_the_errors_of_several_configs_at_once(self):
        log = self.fails(models={"first": SIMPLENET + 'device: "gpu"\n',
                                 "second": SIMPLENET + "arenas: 7\nnonsense: 1\n",
                                 "third": SIMPLENET})
        self.assertRegex(log, r"model first: model\.textproto:7.*gpu")
        self.assertRegex(log, r"model second: model\.textproto:7.*arenas")
        self.assertRegex(log, r"error +model second: model\.textproto:8.*nonsense")
        self.assertNotRegex(log, r"model third: model\.textproto")

    def test_a_missing_repository(self):
        self.assertRegex(self.fails("--model-repository", "/nowhere/at/all"), "/nowhere/at/all")

    def test_folders_that_cannot_be_are_all_named(self):
        files = [os.path.join(harness.GOOD, name) for name in ("checkpoint.pth", "model_state.pth")]
        log = self.fails("--state-dir", files[0], "--snapshot-dir", files[1])
        self.assertRegex(log, rf"--state-dir.*{re.escape(files[0])}.*not a folder")
        self.assertRegex(log, rf"--snapshot-dir.*{re.escape(files[1])}.*not a folder")

    def test_a_port_in_use(self):
        with Daemon("--admin-port", "0", models={"simplenet": SIMPLENET}) as daemon:
            for flag, port in (("--metrics-port", daemon.metrics_port), ("--admin-port", daemon.admin_port)):
                log = self.fails(flag, str(port), models={"simplenet": SIMPLENET})
                self.assertRegex(log, rf"{port}.*{flag}|{flag}.*{port}")
            log = self.fails("--grpc-port", str(daemon.grpc_port), models={"simplenet": SIMPLENET})
            self.assertRegex(log, rf"{daemon.grpc_port}.*--grpc-port|--grpc-port.*{daemon.grpc_port}")
            log = self.fails("--admin-socket", daemon.admin_socket, models={"simplenet": SIMPLENET})
            self.assertRegex(log, "in use")

    def test_cuda_where_there_is_none(self):
        if torch.cuda.is_available():
            self.skipTest("this machine has CUDA")
        self.assertRegex(self.fails(models={"simplenet": SIMPLENET + 'device: "cuda:0"\n'}), "(?i)cuda")

    def test_unknown_flags_are_all_named(self):
        log = self.fails("--grpc-prot", "1", "--no-such-thing")
        self.assertRegex(log, "grpc-prot")
        self.assertRegex(log, "no-such-thing")


if __name__ == "__main__":
    unittest.main()
