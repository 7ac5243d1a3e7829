"""Weights change under load: nobody notices but for the version."""

import os
import shutil
import unittest

import grpc
import numpy as np
import torch

import harness
from harness import Client, Daemon, SIMPLENET, admin_pb2, integer_answer, integer_state


class StormTest(unittest.TestCase):
    def test_thirty_checkpoints_under_eight_clients(self):
        states = {version: integer_state(version) for version in range(1, 31)}
        with Daemon(models={"simplenet": SIMPLENET + "checkpoints { torn_timeout_ms: 200 }"}) as daemon:
            watched = daemon.watched()
            daemon.save(states[1], "step-1.pt")
            daemon.wait_serving(1)
            clients = [Client(daemon, states, seed) for seed in range(8)]
            for client in clients:
                client.start()

            served = [1]
            refused = []
            for version in range(2, 31):
                name = f"step-{version}.pt"
                path = os.path.join(watched, name)
                data = harness.torch_bytes(states[version])
                kind = version % 6
                if kind == 0:  # Wrong shape.
                    daemon.save({**states[version], "fc2.bias": torch.zeros(3)}, name)
                    refused.append((version, "shape"))
                elif kind == 1:  # NaN.
                    bad = dict(states[version])
                    bad["fc1.bias"] = torch.full((5,), float("nan"))
                    daemon.save(bad, name)
                    refused.append((version, "finite|NaN"))
                elif kind == 2:  # Torn for good, by rename.
                    harness.write_file(path, data[: len(data) // 2])
                    refused.append((version, "ZIP_CORRUPT"))
                elif kind == 3:  # A slow copy.
                    with open(path, "wb", buffering=0) as f:
                        for at in range(0, len(data), 256):
                            f.write(data[at:at + 256])
                            # The daemon meets the file at every stage of its growth.
                            daemon.status()
                    served.append(version)
                elif kind == 4:  # In place over an empty file.
                    open(path, "wb").close()
                    with open(path, "wb") as f:
                        f.write(data)
                    served.append(version)
                else:
                    daemon.save(states[version], name)
                    served.append(version)
                if version == served[-1]:
                    daemon.wait_serving(version)
                else:
                    daemon.wait_until(lambda status, file=name: any(
                        c.file == file and c.state == admin_pb2.VERSION_REFUSED for c in status.candidates))

            for client in clients:
                client.stopping.set()
            for client in clients:
                client.join(harness.PATIENCE)
            for client in clients:
                self.assertEqual(client.problems, [])
                self.assertGreater(sum(client.answers.values()), 100)
            answered = set().union(*(client.answers for client in clients))
            self.assertLessEqual(answered, set(served))
            self.assertGreater(len(answered), len(served) // 2)

            status = daemon.status()
            reasons = {c.version: c.reason for c in status.candidates}
            for version, reason in refused:
                self.assertRegex(reasons[version], reason)
                self.assertRegex(daemon.log(), rf"step-{version}\.pt.*({reason})")
            metrics = harness_metrics(daemon)
            self.assertGreaterEqual(metrics['relight_reloads_total{model="simplenet",outcome="refused"}'], len(refused))
            self.assertEqual(metrics['relight_reloads_total{model="simplenet",outcome="served"}'], len(served))


def harness_metrics(daemon):
    import urllib.request
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.metrics_port}/metrics") as page:
        lines = page.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line and line[0] != "#"}


class ArrivalsTest(unittest.TestCase):
    def test_overwriting_in_place_keeps_the_version_and_counts_a_generation(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            path = daemon.save(integer_state(1), "step-5.pt")
            daemon.wait_serving(5)
            torch.save(integer_state(2), path)
            daemon.wait_until(lambda status: status.generation == 2)
            x = np.ones((1, 10), np.float32)
            (got,), response = daemon.infer(x)
            self.assertEqual(response.model_version, "5")
            self.assertEqual(response.parameters["generation"].int64_param, 2)
            np.testing.assert_array_equal(got, integer_answer(integer_state(2), x))

    def test_a_trainer_that_never_stops_saving_to_one_path(self):
        states = {version: integer_state(version) for version in range(1, 31)}
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            path = daemon.save(states[1], "model.pt")
            daemon.wait_serving()
            x = np.ones((1, 10), np.float32)
            possible = [integer_answer(state, x) for state in states.values()]
            for version in range(2, 31):
                torch.save(states[version], path)
                (got,), _ = daemon.infer(x)
                self.assertTrue(any(np.array_equal(got, answer) for answer in possible), got)
            modified = os.stat(path).st_mtime_ns
            daemon.wait_until(lambda status: any(
                c.state == admin_pb2.VERSION_SERVING and c.modified_at.ToNanoseconds() == modified
                for c in status.candidates))
            np.testing.assert_array_equal(daemon.infer(x)[0][0], integer_answer(states[30], x))

    def test_a_symlink_flip_is_a_new_checkpoint(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            outside = os.path.join(daemon.root, "volume")
            for release, seed in (("one", 1), ("two", 2)):
                os.makedirs(os.path.join(outside, release))
                torch.save(integer_state(seed), os.path.join(outside, release, "model.pt"))
            link = os.path.join(outside, "current")
            os.symlink("one", link)
            os.symlink(os.path.join(link, "model.pt"), os.path.join(daemon.watched(), "model.pt"))
            daemon.wait_serving()
            x = np.ones((1, 10), np.float32)
            np.testing.assert_array_equal(daemon.infer(x)[0][0], integer_answer(integer_state(1), x))
            os.symlink("two", link + ".new")
            os.rename(link + ".new", link)
            daemon.wait_until(lambda status: status.generation == 2)
            np.testing.assert_array_equal(daemon.infer(x)[0][0], integer_answer(integer_state(2), x))

    def test_the_same_weights_again_are_no_swap(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_serving(1)
            before = daemon.status().loaded[0].weights_digest
            daemon.save({"model_state_dict": integer_state(1), "epoch": 2}, "step-2.pt")
            daemon.admin.Reload(admin_pb2.ReloadRequest(model="simplenet"), timeout=harness.PATIENCE)
            status = daemon.status()
            self.assertEqual(status.generation, 1)
            self.assertEqual(status.loaded[0].weights_digest, before)

    def test_the_folder_may_vanish_and_return(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_serving(1)
            shutil.rmtree(daemon.watched())
            x = np.ones((1, 10), np.float32)
            daemon.wait_until(lambda status: not any(c.file == "step-1.pt" for c in status.candidates))
            np.testing.assert_array_equal(daemon.infer(x)[0][0], integer_answer(integer_state(1), x))
            os.makedirs(daemon.watched())
            daemon.save(integer_state(2), "step-2.pt")
            daemon.wait_serving(2)

    def test_the_folder_may_come_after_the_start(self):
        daemon = Daemon(models={"simplenet": SIMPLENET})
        os.rmdir(daemon.watched())
        with daemon:
            status = daemon.wait_until(lambda s: "does not exist" in s.reason)
            self.assertEqual(status.state, admin_pb2.MODEL_WAITING)
            os.makedirs(daemon.watched())
            daemon.save(integer_state(1), "step-1.pt")
            daemon.wait_serving(1)

    def test_names_that_are_not_utf8_are_served_and_shown_escaped(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            scratch = os.path.join(daemon.root, "scratch.pt")
            torch.save(integer_state(1), scratch)
            os.rename(scratch.encode(), os.path.join(daemon.watched().encode(), b"caf\xe9-7.pt"))
            status = daemon.wait_serving(7)
            self.assertEqual(status.loaded[0].file, "caf\\xe9-7.pt")

    def test_pin_unpin_and_roll_back(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            for version in (1, 2):
                daemon.save(integer_state(version), f"step-{version}.pt")
                daemon.wait_serving(version)
            daemon.admin.RollBack(admin_pb2.RollBackRequest(model="simplenet"), timeout=harness.PATIENCE)
            x = np.ones((1, 10), np.float32)
            (got,), response = daemon.infer(x)
            self.assertEqual(response.model_version, "1")
            np.testing.assert_array_equal(got, integer_answer(integer_state(1), x))
            # A pinned model takes nothing newer.
            daemon.save(integer_state(3), "step-3.pt")
            daemon.wait_until(lambda status: any(c.version == 3 for c in status.candidates))
            self.assertEqual(daemon.infer(x)[1].model_version, "1")
            daemon.admin.Unpin(admin_pb2.UnpinRequest(model="simplenet"), timeout=harness.PATIENCE)
            daemon.wait_serving(3)
            daemon.admin.Pin(admin_pb2.PinRequest(model="simplenet", version=2), timeout=harness.PATIENCE)
            self.assertEqual(daemon.infer(x)[1].model_version, "2")
            with self.assertRaises(grpc.RpcError) as caught:
                daemon.admin.Pin(admin_pb2.PinRequest(model="simplenet", version=99), timeout=harness.PATIENCE)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)


if __name__ == "__main__":
    unittest.main()
