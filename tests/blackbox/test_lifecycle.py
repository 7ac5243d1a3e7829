"""A daemon that can be run: drain, health, metrics, configs that change, restarts."""

import json
import os
import signal
import stat
import threading
import unittest

import grpc
import numpy as np
import torch

import harness
import health_pb2
import health_pb2_grpc
from harness import (Daemon, RawClient, SIMPLENET, admin_pb2, integer_answer, integer_state, pb)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class HealthTest(unittest.TestCase):
    def test_ready_once_every_model_has_served(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            health = health_pb2_grpc.HealthStub(daemon.channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=harness.PATIENCE)
            self.assertEqual(next(watch).status, NOT_SERVING)
            self.assertFalse(daemon.stub.ServerReady(pb.ServerReadyRequest()).ready)
            self.assertTrue(daemon.stub.ServerLive(pb.ServerLiveRequest()).live)
            daemon.save(integer_state(1), "step-1.pt")
            self.assertEqual(next(watch).status, SERVING)
            self.assertTrue(daemon.stub.ServerReady(pb.ServerReadyRequest()).ready)
            self.assertTrue(daemon.stub.ModelReady(pb.ModelReadyRequest(name="simplenet")).ready)
            self.assertEqual(daemon.relightctl("health").returncode, 0)
            with self.assertRaises(grpc.RpcError) as caught:
                health.Check(health_pb2.HealthCheckRequest(service="nobody"))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            # A model that comes later does not take readiness away.
            daemon.add_model("later", SIMPLENET)
            daemon.wait_for_log("later")
            self.assertTrue(daemon.stub.ServerReady(pb.ServerReadyRequest()).ready)


class DrainTest(unittest.TestCase):
    def test_sigterm_lets_requests_finish(self):
        daemon = Daemon(models={"simplenet": SIMPLENET})
        with daemon:
            state = integer_state(1)
            daemon.save(state, "step-1.pt")
            daemon.wait_serving(1)
            x = np.ones((4, 10), np.float32)
            wanted = integer_answer(state, x)
            started = threading.Event()
            problems = []
            answered = []

            def ask():
                while True:
                    try:
                        (got,), _ = daemon.infer(x)
                    except grpc.RpcError as error:
                        # Only a refusal is fine, or a call that began too late to get one: an answer
                        # that is cut off is UNAVAILABLE as well, and says something else.
                        refused = "draining" in error.details()
                        too_late = "failed to connect" in error.details()
                        if error.code() != grpc.StatusCode.UNAVAILABLE or not (refused or too_late):
                            problems.append((error.code(), error.details()))
                        return
                    if not np.array_equal(got, wanted):
                        problems.append(got)
                    answered.append(1)
                    started.set()

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            self.assertTrue(started.wait(harness.PATIENCE))
            self.assertEqual(daemon.stop(signal.SIGTERM), 0)
            for thread in threads:
                thread.join(harness.PATIENCE)
            self.assertEqual(problems, [])
            daemon.wait_for_log("draining")
            daemon.wait_for_log("stopped")

    def test_the_log_says_what_was_cut_off(self):
        with Daemon("--exit-timeout", "0s", models={"simplenet": SIMPLENET}) as daemon:
            # Nobody can be told goodbye who leaves no room for it.
            with RawClient(daemon.grpc_port, window=0) as client:
                client.call("/grpc.health.v1.Health/Watch", health_pb2.HealthCheckRequest(service="other"))
                self.assertEqual(daemon.stop(signal.SIGTERM), 0)
            daemon.wait_for_log(r"--exit-timeout \(0\) was over")

    def test_an_idle_daemon_cuts_nobody_off(self):
        with Daemon("--exit-timeout", "0s", models={"simplenet": SIMPLENET}) as daemon:
            self.assertEqual(daemon.stop(signal.SIGTERM), 0)
            daemon.wait_for_log("stopped")
            self.assertNotIn("was over", daemon.log())

    def test_a_forward_that_does_not_end_is_cut_off(self):
        class Endless(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = torch.nn.Parameter(torch.ones(1))

            def forward(self, x):
                turns = int(x.sum().item())
                for _ in range(turns):
                    x = x * self.scale
                return x

        daemon = Daemon("--exit-timeout", "1s", "--compute-threads", "1")
        daemon.expected_exit = 1
        folder = os.path.join(daemon.repository, "endless")
        daemon.add_model("endless", """
            input { name: "x" datatype: "FP32" shape: [1] }
            output { name: "y" datatype: "FP32" shape: [1] }
            torchscript { file: "graph.pt" }
        """)
        net = Endless()
        torch.jit.script(net).save(os.path.join(folder, "graph.pt"))
        with daemon:
            daemon.save(net.state_dict(), "step-1.pt", model="endless")
            daemon.wait_serving(1, model="endless")
            (two,), _ = daemon.infer(np.full(1, 2, np.float32), model="endless", input_name="x")
            self.assertEqual(two.tolist(), [2])
            endless = harness.infer_request(np.full(1, 2e9, np.float32), "endless", "x")
            call = daemon.stub.ModelInfer.future(endless)
            quick = harness.infer_request(np.zeros(1, np.float32), "endless", "x")
            with self.assertRaises(grpc.RpcError) as caught:
                while True:  # Until the only compute thread is taken.
                    daemon.stub.ModelInfer(quick, timeout=0.5)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
            self.assertEqual(daemon.stop(signal.SIGTERM), 1)
            daemon.wait_for_log("cannot be interrupted")
            self.assertIn(call.code(), (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED))

    def test_an_idle_stream_does_not_hold_the_daemon(self):
        daemon = Daemon("--exit-timeout", "20s", models={"simplenet": SIMPLENET})
        with daemon:
            watch = daemon.admin.Watch(admin_pb2.WatchRequest(), timeout=harness.PATIENCE)
            next(watch)
            never = threading.Event()
            stream = daemon.stub.ModelStreamInfer(iter(never.wait, None), timeout=harness.PATIENCE)
            self.assertEqual(daemon.stop(signal.SIGTERM), 0)
            never.set()
            stream.cancel()


class ConfigChangeTest(unittest.TestCase):
    def test_a_changed_config_and_its_weights_swap_together(self):
        wide = SIMPLENET.replace("out_features: 5", "out_features: 6")
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_serving(1)
            x = np.ones((1, 10), np.float32)
            import torch
            state = {"fc1.weight": torch.ones(6, 10), "fc1.bias": torch.zeros(6),
                     "fc2.weight": torch.ones(2, 6), "fc2.bias": torch.zeros(2)}
            # Weights for the graph that is not there yet are refused; the old ones serve on.
            daemon.save(state, "step-2.pt")
            daemon.wait_until(lambda s: any(
                c.version == 2 and c.state == admin_pb2.VERSION_REFUSED for c in s.candidates))
            np.testing.assert_array_equal(daemon.infer(x)[0][0], integer_answer(integer_state(1), x))
            daemon.add_model("simplenet", wide)
            daemon.wait_serving(2)
            np.testing.assert_array_equal(daemon.infer(x)[0][0], [[60, 60]])

    def test_a_broken_config_leaves_the_old_one_serving(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_serving(1)
            daemon.add_model("simplenet", SIMPLENET + "nonsense: 1\n")
            status = daemon.wait_until(lambda s: "nonsense" in s.last_error or "nonsense" in s.reason)
            self.assertEqual(status.state, admin_pb2.MODEL_SERVING)
            daemon.infer(np.ones((1, 10), np.float32))


class RestartTest(unittest.TestCase):
    def test_pins_survive(self):
        daemon = Daemon(models={"simplenet": SIMPLENET})
        daemon.save(integer_state(1), "step-1.pt")
        daemon.save(integer_state(2), "step-2.pt")
        keep = daemon.root + "-keep"
        with daemon:
            daemon.wait_serving(2)
            daemon.admin.Pin(admin_pb2.PinRequest(model="simplenet", version=1), timeout=harness.PATIENCE)
            self.assertEqual(daemon.stop(), 0)
            os.rename(daemon.root, keep)
        again = Daemon()
        os.rmdir(again.repository)
        os.rmdir(again.root)
        os.rename(keep, again.root)
        with again:
            status = again.wait_serving(1)
            self.assertEqual(status.pinned_version, 1)


class UnloadTest(unittest.TestCase):
    def test_an_unloaded_model_answers_again_after_a_reload(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_serving(1)
            x = np.ones((1, 10), np.float32)
            daemon.relightctl("unload", "simplenet")
            with self.assertRaises(grpc.RpcError) as caught:
                daemon.infer(x)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertEqual(daemon.status().state, admin_pb2.MODEL_UNLOADED)
            # What arrives meanwhile does not load it.
            daemon.save(integer_state(2), "step-2.pt")
            daemon.wait_until(lambda s: any(c.version == 2 for c in s.candidates))
            self.assertEqual(daemon.status().state, admin_pb2.MODEL_UNLOADED)
            daemon.relightctl("reload", "simplenet")
            (got,), response = daemon.infer(x)
            self.assertEqual(response.model_version, "2")
            np.testing.assert_array_equal(got, integer_answer(integer_state(2), x))
            history = daemon.admin.GetHistory(admin_pb2.GetHistoryRequest(model="simplenet"))
            events = [entry.event for entry in history.entries]
            self.assertEqual(events.count(admin_pb2.HistoryEntry.SERVED), 2)
            self.assertIn(admin_pb2.HistoryEntry.UNLOADED, events)

    def test_model_control_on_the_public_port_where_it_is_allowed(self):
        with Daemon("--allow-model-control", models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_serving(1)
            daemon.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="simplenet"),
                                              timeout=harness.PATIENCE)
            self.assertFalse(daemon.stub.ModelReady(pb.ModelReadyRequest(name="simplenet")).ready)
            daemon.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="simplenet"),
                                            timeout=harness.PATIENCE)
            daemon.infer(np.ones((1, 10), np.float32))


class LogTest(unittest.TestCase):
    def test_every_listener_is_named(self):
        with Daemon("--admin-port", "0", models={"simplenet": SIMPLENET}) as daemon:
            line = daemon.wait_for_log("listening")
            for address in (f"127.0.0.1:{daemon.grpc_port}", f"127.0.0.1:{daemon.metrics_port}",
                            daemon.admin_socket, f"127.0.0.1:{daemon.admin_port}"):
                self.assertIn(address, line)

    def test_a_client_cannot_write_a_line_of_its_own(self):
        with Daemon("--log-format", "json", models={"simplenet": SIMPLENET}) as daemon:
            with RawClient(daemon.grpc_port) as client:
                client.call("/inference.GRPCInferenceService/ServerLive", pb.ServerLiveRequest(),
                            {"grpc-encoding": 'x\n{"time":"now","level":"error","message":"forged"}\x1b[31m'})
            self.assertTrue(daemon.stub.ServerLive(pb.ServerLiveRequest()).live)
            self.assertEqual(daemon.stop(), 0)
            daemon.wait_for_log("stopped")
            for line in filter(None, daemon.lines):
                self.assertNotEqual(json.loads(line)["message"], "forged")

    def test_json_lines(self):
        with Daemon("--log-format", "json", models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_for_log("serves version 1")
        lines = [line for line in daemon.lines if line]
        self.assertGreater(len(lines), 3)
        for line in lines:
            self.assertLessEqual({"time", "level", "message"}, set(json.loads(line)))
        served = next(json.loads(line) for line in lines if "serves version 1" in line)
        self.assertEqual({key: served.get(key) for key in ("model", "version", "generation", "event")},
                         {"model": "simplenet", "version": 1, "generation": 1, "event": "served"})


class KernelsTest(unittest.TestCase):
    def test_the_users_choice_of_kernels_wins(self):
        with Daemon(models={"simplenet": SIMPLENET}, env={"OPENBLAS_CORETYPE": "Haswell"}) as daemon:
            self.assertRegex(daemon.wait_for_log("BLAS"), "OpenBLAS Haswell")


class AdminSocketTest(unittest.TestCase):
    def test_only_the_owner_can_open_it(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            mode = os.stat(daemon.admin_socket).st_mode
            self.assertTrue(stat.S_ISSOCK(mode))
            self.assertEqual(stat.S_IMODE(mode), 0o600)


if __name__ == "__main__":
    unittest.main()
