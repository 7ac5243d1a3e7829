"""What snapshots carry beside the weights: from the open file, not at all, and what cannot be written."""

import json
import os
import unittest
import zipfile

import grpc
import torch

import harness
from harness import Daemon, SIMPLENET, SimpleNet, admin_pb2, integer_state, torch_bytes

OPEN_FILE = SIMPLENET + "training_state: OPEN_FILE\n"
NONE = SIMPLENET + "training_state: NONE\n"


class Unwritable:
    """What a trainer of its own may keep in a checkpoint, and no restricted unpickler knows."""

    def __init__(self):
        self.setting = 7


def make_bundle(seed):
    """Integer weights, and an Adam that has made a step."""
    state = integer_state(seed)
    net = SimpleNet()
    net.load_state_dict(state)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.5)
    net(torch.ones(1, 10) * seed).sum().backward()
    optimizer.step()
    return {"epoch": seed, "model_state_dict": state, "optimizer_state_dict": optimizer.state_dict()}


def not_finite(bundle):
    """The same, but that the server refuses it: what served before serves on."""
    weights = {**bundle["model_state_dict"], "fc1.bias": torch.full((5,), float("nan"))}
    return {**bundle, "model_state_dict": weights}


class SnapshotTest(unittest.TestCase):
    """One daemon for all tests of a class, and a model for each test."""

    MODELS = {}

    @classmethod
    def setUpClass(cls):
        cls.daemon = cls.enterClassContext(Daemon(models=cls.MODELS))

    def serve(self, model, bundle):
        path = self.daemon.save(bundle, "step-1.pt", model)
        self.daemon.wait_until(lambda status: status.loaded and status.loaded[0].file_sha256, model)
        return path

    def snapshot(self, model, path, **fields):
        request = admin_pb2.SnapshotRequest(model=model, path=path, **fields)
        *_, last = self.daemon.admin.Snapshot(request, timeout=harness.PATIENCE)
        return last.result

    def assert_same(self, wanted, got):
        self.assertEqual(isinstance(wanted, dict), isinstance(got, dict))
        if torch.is_tensor(wanted):
            self.assertTrue(torch.equal(wanted, got), f"{wanted} is not {got}")
        elif isinstance(wanted, dict):
            self.assertEqual(list(wanted), list(got))
            for key in wanted:
                self.assert_same(wanted[key], got[key])
        elif isinstance(wanted, (list, tuple)):
            self.assertEqual(len(wanted), len(got))
            for left, right in zip(wanted, got):
                self.assert_same(left, right)
        else:
            self.assertEqual(wanted, got)

    def assert_refused(self, model, path, words, code=grpc.StatusCode.FAILED_PRECONDITION):
        before = self.files()
        with self.assertRaises(grpc.RpcError) as caught:
            self.snapshot(model, path)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        for word in words:
            self.assertIn(word, caught.exception.details())
        self.assertEqual(self.files(), before)

    def assert_weights_only(self, model, path, weights):
        result = self.snapshot(model, path, weights_only=True)
        self.assertFalse(result.training_state)
        self.assert_same(weights, torch.load(result.path, weights_only=True))

    def files(self):
        """Everything in the snapshot folder, hidden and temporary files included."""
        return sorted(os.path.join(folder, name)
                      for folder, _, names in os.walk(self.daemon.snapshots) for name in names)


class OpenFileTest(SnapshotTest):
    MODELS = dict.fromkeys(("kept", "deleted", "replaced", "refused", "truncated", "damaged", "newer", "both"),
                           OPEN_FILE)

    def assert_gone(self, model, bundle):
        self.assert_refused(model, f"{model}.pt", ("step-1.pt", "written over", "OPEN_FILE", "weights_only"))
        self.assert_weights_only(model, f"{model}.pt", bundle["model_state_dict"])

    def test_a_source_that_is_still_there_gives_its_optimizer(self):
        bundle = make_bundle(1)
        self.serve("kept", bundle)
        result = self.snapshot("kept", "kept.pt")
        self.assertTrue(result.training_state)
        self.assertEqual(list(result.left_out), [])
        self.assert_same(bundle, torch.load(result.path))

    def test_a_deleted_one_is_still_open(self):
        bundle = make_bundle(2)
        os.unlink(self.serve("deleted", bundle))
        self.daemon.wait_until(lambda status: not status.candidates, "deleted")
        self.assert_same(bundle, torch.load(self.snapshot("deleted", "deleted.pt").path))

    def test_one_with_another_in_its_place_is_still_open(self):
        bundle = make_bundle(3)
        self.serve("replaced", bundle)
        self.daemon.save(not_finite(make_bundle(30)), "step-1.pt", "replaced")
        self.wait_refused("replaced")
        self.assert_same(bundle, torch.load(self.snapshot("replaced", "replaced.pt").path))

    def test_one_that_was_written_over_is_gone(self):
        bundle = make_bundle(4)
        torch.save(not_finite(make_bundle(40)), self.serve("refused", bundle))
        self.wait_refused("refused")
        self.assert_gone("refused", bundle)

    def test_one_that_was_truncated_is_gone(self):
        bundle = make_bundle(5)
        os.truncate(self.serve("truncated", bundle), 100)
        self.assert_gone("truncated", bundle)

    def test_one_that_was_damaged_behind_its_times_is_found_out(self):
        bundle = make_bundle(7)
        path = self.serve("damaged", bundle)
        times = os.stat(path)
        # Of fc2.bias, whose gradient is one: no weight is a tenth.
        moments = bundle["optimizer_state_dict"]["state"][3]["exp_avg"].numpy().tobytes()
        with open(path, "r+b") as f:
            data = f.read()
            f.seek(data.index(moments))
            f.write(bytes([moments[0] ^ 1]))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        self.assert_refused("damaged", "damaged.pt", ("step-1.pt", "CRC"), grpc.StatusCode.DATA_LOSS)
        self.assert_weights_only("damaged", "damaged.pt", bundle["model_state_dict"])

    def test_the_version_before_has_a_file_of_its_own(self):
        bundles = [make_bundle(8), make_bundle(80)]
        path = self.serve("both", bundles[0])
        self.daemon.save(bundles[1], "step-2.pt", "both")
        self.daemon.wait_serving(2, "both")
        os.unlink(path)
        for version, bundle in enumerate(bundles, 1):
            result = self.snapshot("both", f"both-{version}.pt", version=version)
            self.assertEqual(result.version, version)
            self.assert_same(bundle, torch.load(result.path))

    def test_one_that_was_written_over_with_better_weights_gives_the_new_optimizer(self):
        path = self.serve("newer", make_bundle(6))
        bundle = make_bundle(60)
        torch.save(bundle, path)
        self.daemon.wait_until(lambda status: status.generation == 2, "newer")
        result = self.snapshot("newer", "newer.pt")
        self.assertEqual((result.version, result.generation), (1, 2))
        self.assert_same(bundle, torch.load(result.path))

    def wait_refused(self, model):
        self.daemon.wait_until(lambda status: any(
            c.state == admin_pb2.VERSION_REFUSED for c in status.candidates), model)


class NoneTest(SnapshotTest):
    MODELS = dict.fromkeys(("bundle", "weights"), NONE)

    def test_a_snapshot_with_training_state_is_refused(self):
        bundle = make_bundle(1)
        self.serve("bundle", bundle)
        loaded = self.daemon.status("bundle").loaded[0]
        self.assertFalse(loaded.training_state)
        self.assertIn("training_state: NONE", loaded.training_state_reason)
        self.assert_refused("bundle", "bundle.pt", ("training_state: NONE", "weights_only"))
        self.assert_weights_only("bundle", "bundle.pt", bundle["model_state_dict"])

    def test_a_state_dict_has_none_to_lose(self):
        state = integer_state(2)
        self.serve("weights", state)
        result = self.snapshot("weights", "weights.pt")
        self.assertFalse(result.training_state)
        self.assert_same(state, torch.load(result.path, weights_only=True))


class LeftOutTest(SnapshotTest):
    MODELS = dict.fromkeys(("listed", "lossless", "whole"), SIMPLENET)

    def bundle_with_unwritable(self, seed):
        return {**make_bundle(seed), "settings": Unwritable(), "log": {"lines": [1, Unwritable()], "length": 2}}

    def relightctl(self, *arguments, check=True):
        return self.daemon.relightctl("snapshot", *arguments, check=check)

    def test_what_cannot_be_written_is_listed(self):
        bundle = self.bundle_with_unwritable(1)
        self.assertIn(b"Unwritable", torch_bytes(bundle))
        self.serve("listed", bundle)
        text = self.relightctl("listed", "text.pt").stdout
        self.assertRegex(text, r"(?m)left out +/?settings: \S*Unwritable$")
        self.assertRegex(text, r"(?m)left out +/?log/lines: holds \S*Unwritable$")
        answer = json.loads(self.relightctl("listed", "json.pt", "--json").stdout)
        self.assertEqual(len(answer["left_out"]), 2)
        for path in (text.splitlines()[0], answer["path"]):
            with zipfile.ZipFile(path) as written:
                for name in written.namelist():
                    self.assertNotIn(b"Unwritable", written.read(name))
            wanted = {key: value for key, value in bundle.items() if key != "settings"}
            wanted["log"] = {"length": 2}
            self.assert_same(wanted, torch.load(path))

    def test_lossless_refuses_and_leaves_no_file(self):
        bundle = self.bundle_with_unwritable(2)
        self.serve("lossless", bundle)
        before = self.files()
        result = self.relightctl("lossless", "sub/lossless.pt", "--lossless", check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertRegex(result.stderr, r"settings: \S*Unwritable")
        self.assertRegex(result.stderr, r"log/lines: holds \S*Unwritable")
        self.assertEqual(self.files(), before)
        # The weights alone lose nothing.
        self.relightctl("lossless", "sub/lossless.pt", "--lossless", "--weights-only")
        path = os.path.join(self.daemon.snapshots, "sub", "lossless.pt")
        self.assert_same(bundle["model_state_dict"], torch.load(path, weights_only=True))

    def test_lossless_writes_what_can_be_written(self):
        bundle = make_bundle(3)
        self.serve("whole", bundle)
        self.relightctl("whole", "whole.pt", "--lossless")
        self.assert_same(bundle, torch.load(os.path.join(self.daemon.snapshots, "whole.pt")))


if __name__ == "__main__":
    unittest.main()
