"""The served model and its optimizer come back as a file that training resumes from, bit for bit."""

import copy
import json
import os
import signal
import struct
import sys
import unittest
import unittest.mock

import grpc
import numpy as np
import torch

import harness
from harness import Daemon, GOOD, SIMPLENET, SimpleNet, admin_pb2, io_case


def snapshot(daemon, path="", model="simplenet", **fields):
    request = admin_pb2.SnapshotRequest(model=model, path=path, **fields)
    *_, last = daemon.admin.Snapshot(request, timeout=harness.PATIENCE)
    return last.result


def load_original(path):
    """Loads whole modules too, whose class was pickled as __main__.SimpleNet."""
    with unittest.mock.patch.object(sys.modules["__main__"], "SimpleNet", SimpleNet, create=True):
        return torch.load(path)


def train(bundle, make_optimizer, steps=2):
    """Resumes from `bundle` and trains on: the loss, parameters and optimizer state of each step."""
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
        history.append((loss.item(), [p.detach().clone() for p in model.parameters()],
                        copy.deepcopy(optimizer.state_dict())))
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
    "adam-amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adamw-amsgrad": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "rmsprop-momentum-centered": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
}


def read_safetensors(path):
    """By hand: returns (metadata, {name: array} in the order of the header)."""
    dtypes = {"F32": np.float32, "F64": np.float64, "F16": np.float16, "I64": np.int64, "BOOL": np.bool_}
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    metadata = header.pop("__metadata__", {})
    data = content[8 + length:]
    tensors = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        assert entry["data_offsets"][0] == end, f"{name} leaves a gap"
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[begin:end], dtypes[entry["dtype"]]).reshape(entry["shape"])
    assert end == len(data), "there is more data than the tensors take"
    return metadata, {name: tensors[name] for name in header}


class SnapshotTest(unittest.TestCase):
    def assert_same_training(self, a, b):
        self.assertEqual((len(a), len(b)), (2, 2))
        for (loss_a, parameters_a, optimizer_a), (loss_b, parameters_b, optimizer_b) in zip(a, b):
            self.assertEqual(loss_a, loss_b)
            for left, right in zip(parameters_a, parameters_b):
                self.assertTrue(torch.equal(left, right))
            self.assertEqual(optimizer_a["param_groups"], optimizer_b["param_groups"])
            self.assertEqual(list(optimizer_a["state"]), list(optimizer_b["state"]))
            for key, state in optimizer_a["state"].items():
                for name, value in state.items():
                    other = optimizer_b["state"][key][name]
                    same = torch.equal(value, other) if torch.is_tensor(value) else value == other
                    self.assertTrue(same, f"{name} of parameter {key}")

    def test_training_resumes_bit_for_bit(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            for version, (name, make_optimizer) in enumerate(OPTIMIZERS.items(), 1):
                with self.subTest(name):
                    path = daemon.save(make_bundle(make_optimizer), f"{name}-{version}.pt")
                    daemon.wait_serving(version)
                    result = snapshot(daemon, f"{name}.pt")
                    self.assertTrue(result.training_state)
                    self.assertEqual((list(result.left_out), list(result.converted)), ([], []))
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
        originals = {
            "model_state.pth": (SimpleNet, lambda value: value),
            "entire_model.pth": (SimpleNet, lambda module: module.state_dict()),
            # A prefixed source keeps its own names.
            "ddp_prefixed.pth": (lambda: torch.nn.DataParallel(SimpleNet()), lambda value: value),
        }
        for file, (make_module, state_dict_of) in originals.items():
            # Daemons of their own: the same weights are no swap.
            with self.subTest(file), Daemon(models={"simplenet": SIMPLENET}) as daemon:
                source = os.path.join(GOOD, file)
                daemon.push(source, "v-1.pt")
                daemon.wait_serving(1)
                result = snapshot(daemon)
                self.assertEqual((result.format, result.training_state), (admin_pb2.SNAPSHOT_STATE_DICT, False))
                written = torch.load(result.path, weights_only=True)
                make_module().load_state_dict(written, strict=True)
                original = state_dict_of(load_original(source))
                self.assertEqual(list(written), list(original))
                for key in original:
                    self.assertTrue(torch.equal(written[key], original[key]), key)

    def test_weights_only(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.push(os.path.join(GOOD, "checkpoint.pth"), "v-1.pt")
            daemon.wait_serving(1)
            result = snapshot(daemon, weights_only=True)
            self.assertFalse(result.training_state)
            SimpleNet().load_state_dict(torch.load(result.path, weights_only=True), strict=True)


class SnapshotFormatTest(unittest.TestCase):
    def assert_refused(self, daemon, code, *texts, **fields):
        with self.assertRaises(grpc.RpcError) as caught:
            snapshot(daemon, **fields)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        for text in texts:
            self.assertIn(text, caught.exception.details())

    def test_the_weights_of_a_bundle_as_safetensors(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            bundle = make_bundle(OPTIMIZERS["adam"])
            daemon.save(bundle, "a-1.pt")
            daemon.wait_serving(1)
            result = json.loads(daemon.relightctl("snapshot", "simplenet", "--format", "safetensors", "--json").stdout)
            self.assertRegex(result["path"], r"/snapshots/simplenet/1-1-[0-9a-f]{8}\.safetensors$")
            self.assertEqual((result["format"], result["training_state"]), ("safetensors", False))
            listed = [line.split(":")[0] for line in result["left_out"]]
            self.assertEqual(listed, ["/epoch", "/optimizer_state_dict", "/loss",
                                      "/model_state_dict/@attributes/_metadata"])
            metadata, tensors = read_safetensors(result["path"])
            self.assertEqual(metadata, {"format": "pt"})
            self.assertEqual(list(tensors), list(bundle["model_state_dict"]))
            for name, tensor in bundle["model_state_dict"].items():
                self.assertEqual(tensors[name].tobytes(), tensor.numpy().tobytes(), name)
            # The suffix says the same.
            again = snapshot(daemon, "b.safetensors")
            self.assertEqual(again.file_sha256, result["file_sha256"])
            text = daemon.relightctl("snapshot", "simplenet", "c.safetensors").stdout
            self.assertIn("left out   /optimizer_state_dict: dict", text)

    def test_the_formats_of_torch_save(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(make_bundle(OPTIMIZERS["adam"]), "a-1.pt")
            daemon.wait_serving(1)
            daemon.relightctl("snapshot", "simplenet", "bundle.pt", "--format", "bundle")
            self.assertIn("optimizer_state_dict", torch.load(os.path.join(daemon.snapshots, "bundle.pt")))
            daemon.relightctl("snapshot", "simplenet", "state.pt", "--format", "state-dict")
            written = torch.load(os.path.join(daemon.snapshots, "state.pt"), weights_only=True)
            SimpleNet().load_state_dict(written, strict=True)

    def test_contradictions_are_refused_naming_both(self):
        refused = grpc.StatusCode.INVALID_ARGUMENT
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            daemon.save(make_bundle(OPTIMIZERS["adam"]), "a-1.pt")
            daemon.wait_serving(1)
            safetensors, bundle = admin_pb2.SNAPSHOT_SAFETENSORS, admin_pb2.SNAPSHOT_BUNDLE
            self.assert_refused(daemon, refused, "safetensors", "a.pt", path="a.pt", format=safetensors)
            self.assert_refused(daemon, refused, "bundle", "a.safetensors", path="a.safetensors", format=bundle)
            self.assert_refused(daemon, refused, "bundle", "weights_only", weights_only=True, format=bundle)
            self.assert_refused(daemon, refused, "/optimizer_state_dict", format=safetensors, lossless=True)
            self.assert_refused(daemon, refused, "77", "bundle, state-dict and safetensors", format=77)
            self.assertEqual(os.listdir(daemon.snapshots), [])
            usage = daemon.relightctl("snapshot", "simplenet", "--format", "onnx", check=False)
            self.assertEqual(usage.returncode, 2)
            self.assertIn("bundle, state-dict or safetensors", usage.stderr)
            daemon.push(os.path.join(GOOD, "model_state.pth"), "b-2.pt")
            daemon.wait_serving(2)
            self.assert_refused(daemon, grpc.StatusCode.FAILED_PRECONDITION, "bundle", "b-2.pt", format=bundle)

    def test_a_safetensors_source_gives_its_own_bytes_back(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            source = os.path.join(GOOD, "model.safetensors")
            daemon.push(source, "v-1.safetensors")
            daemon.wait_serving(1)
            with open(source, "rb") as original, open(snapshot(daemon).path, "rb") as written:
                self.assertEqual(original.read(), written.read())

    def test_a_snapshot_of_a_snapshot_is_the_same_file(self):
        # Models of their own: the same weights are no swap.
        paths = {"bundle": "bundle.pt", "weights": "weights.pt", "tensors": "weights.safetensors"}
        with Daemon(models={model: SIMPLENET for model in ("simplenet", *paths)}) as daemon:
            daemon.save(make_bundle(OPTIMIZERS["rmsprop-momentum-centered"]), "a-1.pt")
            digest = daemon.wait_serving(1).loaded[0].weights_digest
            for model, path in paths.items():
                with self.subTest(path):
                    first = snapshot(daemon, path, weights_only=path == "weights.pt")
                    daemon.push(first.path, path, model=model)
                    self.assertEqual(daemon.wait_serving(model=model).loaded[0].weights_digest, digest)
                    second = snapshot(daemon, "again-" + path, model=model)
                    self.assertEqual(second.file_sha256, first.file_sha256)
                    self.assertEqual(second.format, first.format)
                    with open(first.path, "rb") as one, open(second.path, "rb") as other:
                        self.assertEqual(one.read(), other.read())


class SnapshotMemoryTest(unittest.TestCase):
    def test_a_snapshot_takes_no_memory_of_the_models_size(self):
        net = 'network { layer { name: "fc" linear { in_features: 2048 out_features: 8192 } } }'
        with Daemon(models={"simplenet": net}) as daemon:
            model = torch.nn.Sequential()
            model.add_module("fc", torch.nn.Linear(2048, 8192))  # 64 MiB
            optimizer = torch.optim.Adam(model.parameters())
            model(torch.randn(1, 2048)).sum().backward()
            optimizer.step()
            daemon.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "a-1.pt")
            daemon.wait_until(lambda s: s.loaded and s.loaded[0].training_state and s.loaded[0].file_sha256)
            for path in ("a.pt", "b.pt", "c.safetensors"):
                with self.subTest(path):
                    process = f"/proc/{daemon.process.pid}"
                    with open(f"{process}/clear_refs", "w") as file:
                        file.write("5")  # The high-water mark begins anew.
                    before = self.memory_bytes(process, "VmHWM")
                    result = snapshot(daemon, path, weights_only=path == "b.pt")
                    self.assertGreater(result.size_bytes, 64 << 20)
                    self.assertLess(self.memory_bytes(process, "VmHWM") - before, 32 << 20)

    @staticmethod
    def memory_bytes(process, name):
        with open(f"{process}/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name + ":"))


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


class KilledSnapshotTest(unittest.TestCase):
    NET = 'network { layer { name: "fc" linear { in_features: 2048 out_features: 8192 } } }'

    def test_a_daemon_killed_in_the_middle_leaves_no_half_file(self):
        for path in ("kept.pt", "new.pt"):  # To replace another, and where nothing was.
            with self.subTest(path):
                self.kill_in_the_middle(path)

    def kill_in_the_middle(self, path):
        layer = torch.nn.Sequential()
        layer.add_module("fc", torch.nn.Linear(2048, 8192))  # 64 MiB: it takes its time.
        daemon = Daemon(models={"simplenet": self.NET})
        daemon.expected_exit = -signal.SIGKILL
        folder = daemon.root + "-killed"
        with daemon:
            daemon.save(layer.state_dict(), "a-1.pt")
            digest = daemon.wait_serving(1).loaded[0].weights_digest
            kept = snapshot(daemon, "kept.pt")
            with open(kept.path, "rb") as file:
                content = file.read()
            self.stop_in_the_middle(daemon, path)
            self.assertEqual(daemon.stop(signal.SIGKILL), -signal.SIGKILL)
            (left,) = set(os.listdir(daemon.snapshots)) - {"kept.pt"}
            self.assertRegex(left, r"^\..*\.tmp$")
            with open(kept.path, "rb") as file:
                self.assertTrue(file.read() == content, "an existing snapshot was touched")
            os.rename(daemon.root, folder)
        again = Daemon()
        os.rmdir(again.repository)
        os.rmdir(again.root)
        os.rename(folder, again.root)
        with again:
            again.wait_for_log("removed 1 unfinished files")
            self.assertEqual(os.listdir(again.snapshots), ["kept.pt"])
            self.assertEqual(again.wait_serving(1).loaded[0].weights_digest, digest)
            self.assertEqual(snapshot(again, path, overwrite=True).file_sha256, kept.file_sha256)

    def stop_in_the_middle(self, daemon, path):
        """Leaves the daemon stopped while it writes or verifies the snapshot `path`."""
        for _ in range(50):  # It may be done before it is stopped.
            call = daemon.admin.Snapshot(
                admin_pb2.SnapshotRequest(model="simplenet", path=path, overwrite=path == "kept.pt"),
                timeout=harness.PATIENCE)
            while not call.done() and not self.has_temporary(daemon):
                pass
            daemon.process.send_signal(signal.SIGSTOP)
            os.waitpid(daemon.process.pid, os.WUNTRACED)
            if self.has_temporary(daemon):
                return
            daemon.process.send_signal(signal.SIGCONT)
            self.assertEqual(call.code(), grpc.StatusCode.OK, call.details())
            if path != "kept.pt":
                os.unlink(os.path.join(daemon.snapshots, path))
        self.fail("each snapshot was done before the daemon could be stopped")

    @staticmethod
    def has_temporary(daemon):
        return any(name.endswith(".tmp") for name in os.listdir(daemon.snapshots))


if __name__ == "__main__":
    unittest.main()
