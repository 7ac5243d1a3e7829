"""The served model and its optimizer come back as a file that training resumes from, bit for bit."""

import copy
import os
import shutil
import unittest

import grpc
import numpy as np
import torch

import harness
from harness import Daemon, GOOD, SIMPLENET, SimpleNet, admin_pb2, io_case


def snapshot(daemon, path="", **fields):
    request = admin_pb2.SnapshotRequest(model="simplenet", path=path, **fields)
    *_, last = daemon.admin.Snapshot(request, timeout=harness.PATIENCE)
    return last.result


def train(bundle, make_optimizer, steps=2):
    """Resumes from `bundle` and trains on: returns losses and parameters after each step."""
    model = SimpleNet()
    model.load_state_dict(bundle["model_state_dict"], strict=True)
    optimizer = make_optimizer(model.parameters())
    optimizer.load_state_dict(bundle["optimizer_state_dict"])
    torch.manual_seed(7)
    history = []
    for _ in range(steps):
        x, y = torch.randn(8, 10), torch.randn(8, 2)
        loss = torch.nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append((loss.item(), [p.detach().clone() for p in model.parameters()]))
    return history


def make_bundle(make_optimizer):
    torch.manual_seed(3)
    model = SimpleNet()
    optimizer = make_optimizer(model.parameters())
    for _ in range(3):
        loss = model(torch.randn(4, 10)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"epoch": 3, "model_state_dict": model.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(), "loss": loss.item()}


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
}


class SnapshotTest(unittest.TestCase):
    def assert_same_training(self, a, b):
        for (loss_a, parameters_a), (loss_b, parameters_b) in zip(a, b):
            self.assertEqual(loss_a, loss_b)
            for left, right in zip(parameters_a, parameters_b):
                self.assertTrue(torch.equal(left, right))

    def test_training_resumes_bit_for_bit(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            for version, (name, make_optimizer) in enumerate(OPTIMIZERS.items(), 1):
                with self.subTest(name):
                    path = daemon.save(make_bundle(make_optimizer), f"{name}-{version}.pt")
                    daemon.wait_serving(version)
                    result = snapshot(daemon, f"{name}.pt")
                    self.assertTrue(result.training_state)
                    self.assertEqual(list(result.left_out), [])
                    original, written = torch.load(path), torch.load(result.path)
                    self.assertEqual(list(original), list(written))
                    self.assertEqual(list(original["model_state_dict"]), list(written["model_state_dict"]))
                    self.assertEqual(original["model_state_dict"]._metadata,
                                     written["model_state_dict"]._metadata)
                    self.assert_same_training(train(original, make_optimizer), train(written, make_optimizer))

    def test_the_fixture_resumes_as_recorded(self):
        _, _, case = io_case("simplenet.json", "checkpoint.pth")
        resume = case["resume"]
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, "checkpoint.pth"), "checkpoint-50.pth")
            daemon.wait_serving(50)
            written = torch.load(snapshot(daemon).path)
        model = SimpleNet()
        model.load_state_dict(written["model_state_dict"], strict=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
        optimizer.load_state_dict(written["optimizer_state_dict"])
        self.check_resume(model, optimizer, resume)

    def check_resume(self, model, optimizer, resume):
        x = torch.tensor(resume["x"]).reshape(resume["x_shape"])
        y = torch.tensor(resume["y"])
        for wanted_loss, wanted in zip(resume["loss_before_each_step"], resume["params_after_each_step"]):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            self.assertAlmostEqual(loss.item(), wanted_loss, delta=1e-6)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for name, parameter in model.named_parameters():
                np.testing.assert_allclose(parameter.detach().numpy().ravel(), wanted[name], atol=1e-6)

    def test_a_deleted_source_loses_nothing(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            bundle = make_bundle(OPTIMIZERS["adam"])
            path = daemon.save(bundle, "a-1.pt")
            daemon.wait_until(lambda s: s.loaded and s.loaded[0].training_state)
            os.unlink(path)
            result = snapshot(daemon)
            self.assertTrue(result.training_state)
            self.assert_same_training(train(bundle, OPTIMIZERS["adam"]),
                                      train(torch.load(result.path), OPTIMIZERS["adam"]))

    def test_a_source_overwritten_in_place_loses_nothing(self):
        # The new file is refused, so the old one serves on, from an inode that is no longer its own.
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            bundle = make_bundle(OPTIMIZERS["adam"])
            path = daemon.save(bundle, "a-1.pt")
            daemon.wait_until(lambda s: s.loaded and s.loaded[0].training_state)
            other = copy.deepcopy(bundle)
            other["model_state_dict"]["fc1.weight"].fill_(float("nan"))
            torch.save(other, path)
            daemon.wait_until(lambda s: any(c.state == admin_pb2.VERSION_REFUSED for c in s.candidates))
            self.assert_same_training(train(bundle, OPTIMIZERS["adam"]),
                                      train(torch.load(snapshot(daemon).path), OPTIMIZERS["adam"]))

    def test_sources_without_a_bundle_give_a_state_dict(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            for version, file in enumerate(("model_state.pth", "entire_model.pth", "ddp_prefixed.pth"), 1):
                with self.subTest(file):
                    daemon.push(os.path.join(GOOD, file), f"v-{version}.pt")
                    daemon.admin.Reload(admin_pb2.ReloadRequest(model="simplenet"), timeout=harness.PATIENCE)
                    if version > 1:  # The same weights are no swap: make way for the next file.
                        continue
                    written = torch.load(snapshot(daemon).path, weights_only=True)
                    SimpleNet().load_state_dict(written, strict=True)
                    original = torch.load(os.path.join(GOOD, file))
                    self.assertEqual(list(written), list(original))
                    for key in original:
                        self.assertTrue(torch.equal(written[key], original[key]))

    def test_a_whole_module_gives_its_state_dict(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, "entire_model.pth"), "v-1.pt")
            daemon.wait_serving(1)
            result = snapshot(daemon)
            written = torch.load(result.path, weights_only=True)
            SimpleNet().load_state_dict(written, strict=True)

    def test_a_prefixed_source_keeps_its_own_names(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, "ddp_prefixed.pth"), "v-1.pt")
            daemon.wait_serving(1)
            written = torch.load(snapshot(daemon).path, weights_only=True)
            torch.nn.DataParallel(SimpleNet()).load_state_dict(written, strict=True)

    def test_weights_only(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, "checkpoint.pth"), "v-1.pt")
            daemon.wait_serving(1)
            result = snapshot(daemon, weights_only=True)
            self.assertFalse(result.training_state)
            SimpleNet().load_state_dict(torch.load(result.path, weights_only=True), strict=True)


class SnapshotPathTest(unittest.TestCase):
    def test_the_path_is_confined_and_nothing_is_overwritten_unasked(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, "checkpoint.pth"), "v-1.pt")
            daemon.wait_serving(1)
            outside = os.path.join(daemon.root, "outside")
            os.makedirs(outside)
            os.symlink(outside, os.path.join(daemon.snapshots, "link"))
            for path in ("../escape.pt", "/tmp/relight-escape.pt", "a/../../escape.pt", "link/escape.pt", "a/", "."):
                with self.subTest(path):
                    with self.assertRaises(grpc.RpcError) as caught:
                        snapshot(daemon, path)
                    self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT,
                                     caught.exception.details())
            self.assertEqual(os.listdir(outside), [])
            first = snapshot(daemon, "sub/a.pt")
            with self.assertRaises(grpc.RpcError) as caught:
                snapshot(daemon, "sub/a.pt")
            self.assertEqual(caught.exception.code(), grpc.StatusCode.ALREADY_EXISTS)
            second = snapshot(daemon, "sub/a.pt", overwrite=True)
            self.assertEqual(first.file_sha256, second.file_sha256)

    def test_a_full_disk_leaves_nothing_behind(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=4k tmpfs {daemon.snapshots} 2>/dev/null"):
                self.skipTest("a small file system cannot be mounted here")
            try:
                daemon.push(os.path.join(GOOD, "checkpoint.pth"), "v-1.pt")
                daemon.wait_serving(1)
                with self.assertRaises(grpc.RpcError) as caught:
                    snapshot(daemon, "a.pt")
                self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
                self.assertRegex(caught.exception.details(), "[Nn]o space")
                self.assertEqual(os.listdir(daemon.snapshots), [])
            finally:
                os.system(f"umount {daemon.snapshots}")


if __name__ == "__main__":
    unittest.main()
