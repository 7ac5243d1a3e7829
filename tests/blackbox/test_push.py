"""Checkpoints without a shared folder: pushed into the watched one, and downloaded from the daemon."""

import contextlib
import hashlib
import json
import os
import queue
import signal
import threading
import unittest

import grpc
import numpy as np
import torch

import harness
from harness import Daemon, SIMPLENET, admin_pb2, integer_answer, integer_state, safetensors_bytes, torch_bytes

CHUNK = 1 << 20
# 64 MiB: more than one chunk, and more than any buffer on the way.
LARGE = 'network { layer { name: "fc" linear { in_features: 2048 out_features: 8192 } } }'


def header(file, size, model="simplenet", **fields):
    return admin_pb2.PushRequest(
        header=admin_pb2.PushHeader(model=model, file=file, size_bytes=size, **fields))


def chunks(data):
    for begin in range(0, len(data), CHUNK):
        yield admin_pb2.PushRequest(chunk=data[begin:begin + CHUNK])


def commit(sha256):
    return admin_pb2.PushRequest(commit=admin_pb2.PushCommit(file_sha256=sha256))


def push(daemon, file, data, sha256=None, size=None, **fields):
    def parts():
        yield header(file, len(data) if size is None else size, **fields)
        yield from chunks(data)
        yield commit(hashlib.sha256(data).hexdigest() if sha256 is None else sha256)
    return daemon.admin.PushCheckpoint(parts(), timeout=harness.PATIENCE)


def large_bundle():
    layer = torch.nn.Sequential()
    layer.add_module("fc", torch.nn.Linear(2048, 8192))
    return torch_bytes(layer.state_dict())


class OpenPush:
    """A push whose parts are sent when the test says so."""

    def __init__(self, daemon):
        self.parts = queue.Queue()
        self.call = daemon.admin.PushCheckpoint.future(iter(self.parts.get, None), timeout=harness.PATIENCE)

    def send(self, part):
        self.parts.put(part)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.call.cancel()
        self.parts.put(None)


class PushTest(unittest.TestCase):
    def refused(self, code, words, call, *arguments, **fields):
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments, **fields)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertRegex(caught.exception.details(), words)

    def ask(self, daemon, state):
        x = np.arange(20, dtype=np.float32).reshape(2, 10)
        (got,), response = daemon.infer(x)
        np.testing.assert_array_equal(got, integer_answer(state, x))
        return response

    def test_a_good_file_serves_whatever_its_format(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            for version, name, write in ((1, "step-1.pt", torch_bytes), (2, "step-2.safetensors", safetensors_bytes),
                                         (3, "step-3.pth", lambda state: torch_bytes(state, legacy=True)),
                                         (4, "step-4.ckpt", lambda state: torch_bytes({"state_dict": state}))):
                with self.subTest(name):
                    state = integer_state(version)
                    data = write(state)
                    result = push(daemon, name, data)
                    self.assertTrue(result.serves, result.reason)
                    self.assertEqual((result.version, result.generation), (version, version))
                    self.assertEqual(result.state, admin_pb2.VERSION_SERVING)
                    self.assertEqual(result.file_sha256, hashlib.sha256(data).hexdigest())
                    response = self.ask(daemon, state)
                    self.assertEqual(response.parameters["weights_digest"].string_param, result.weights_digest)
                    with open(os.path.join(daemon.watched(), name), "rb") as file:
                        self.assertEqual(file.read(), data)
            # To replace a file that serves.
            state = integer_state(44)
            self.refused(grpc.StatusCode.ALREADY_EXISTS, "step-4.ckpt", push, daemon, "step-4.ckpt", torch_bytes(state))
            self.assertTrue(push(daemon, "step-4.ckpt", torch_bytes(state), overwrite=True).serves)
            self.ask(daemon, state)

    def test_a_bad_file_is_refused_with_the_loaders_reason_and_never_appears(self):
        good = integer_state(1)
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            push(daemon, "step-1.pt", torch_bytes(good))
            nan = integer_state(2)
            nan["fc1.weight"][0, 0] = float("nan")
            shaped = {**integer_state(2), "fc1.weight": torch.zeros(8, 10)}
            missing = {key: value for key, value in integer_state(2).items() if key != "fc2.bias"}
            whole = torch_bytes(integer_state(2))
            flipped = bytearray(whole)
            at = whole.index(integer_state(2)["fc1.weight"].numpy().tobytes())
            flipped[at] ^= 1
            for data, code, words in (
                    (torch_bytes(nan), "INVALID_ARGUMENT", "fc1.weight"),
                    (safetensors_bytes(nan), "INVALID_ARGUMENT", "fc1.weight"),
                    (torch_bytes(shaped), "INVALID_ARGUMENT", r"\[8, 10\]"),
                    (torch_bytes(missing), "INVALID_ARGUMENT", "fc2.bias"),
                    (whole[:-100], "DATA_LOSS", "step-2.pt"),
                    (bytes(flipped), "DATA_LOSS", "CRC_MISMATCH"),
                    (b"hello", "INVALID_ARGUMENT", "step-2.pt"),
                    (b"", "DATA_LOSS", "EMPTY_FILE")):
                with self.subTest(words=words):
                    self.refused(grpc.StatusCode[code], words, push, daemon, "step-2.pt", data)
                    self.assertEqual(os.listdir(daemon.watched()), ["step-1.pt"])
            self.assertEqual(daemon.status().last_error, "")
            self.ask(daemon, good)

    def test_what_came_otherwise_than_announced_is_refused(self):
        data = torch_bytes(integer_state(1))
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            self.refused(grpc.StatusCode.DATA_LOSS, "SHA-256", push, daemon, "step-1.pt", data, sha256="0" * 64)
            self.refused(grpc.StatusCode.INVALID_ARGUMENT, "announced", push, daemon, "step-1.pt", data, size=len(data) + 1)
            self.refused(grpc.StatusCode.INVALID_ARGUMENT, "announced", push, daemon, "step-1.pt", data, size=len(data) - 1)
            self.refused(grpc.StatusCode.INVALID_ARGUMENT, "without a commit", daemon.admin.PushCheckpoint,
                         iter([header("step-1.pt", len(data)), *chunks(data)]), timeout=harness.PATIENCE)
            self.refused(grpc.StatusCode.INVALID_ARGUMENT, "1048576", daemon.admin.PushCheckpoint,
                         iter([header("step-1.pt", CHUNK + 1), admin_pb2.PushRequest(chunk=bytes(CHUNK + 1))]),
                         timeout=harness.PATIENCE)
            self.refused(grpc.StatusCode.INVALID_ARGUMENT, "an empty chunk", daemon.admin.PushCheckpoint,
                         iter([header("step-1.pt", 5), admin_pb2.PushRequest(chunk=b"")]), timeout=harness.PATIENCE)
            for name in ("../step-1.pt", "/tmp/step-1.pt", "a/step-1.pt", ".step-1.pt", "step-1.txt", ""):
                with self.subTest(name):
                    self.refused(grpc.StatusCode.INVALID_ARGUMENT, ".", push, daemon, name, data)
            self.refused(grpc.StatusCode.NOT_FOUND, "nobody", push, daemon, "step-1.pt", data, model="nobody")
            self.assertEqual(os.listdir(daemon.watched()), [])
            self.assertEqual(os.listdir(daemon.repository), ["simplenet"])

    def test_a_file_that_does_not_serve_says_why(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            push(daemon, "step-5.pt", torch_bytes(integer_state(5)))
            older = push(daemon, "step-2.pt", torch_bytes(integer_state(2)))
            self.assertEqual((older.serves, older.version), (False, 2))
            self.assertRegex(older.reason, "older than step-5.pt")
            daemon.relightctl("pin", "simplenet", "5")
            pinned = push(daemon, "step-6.pt", torch_bytes(integer_state(6)))
            self.assertFalse(pinned.serves)
            self.assertRegex(pinned.reason, "pinned to version 5")
            daemon.relightctl("unpin", "simplenet")
            daemon.wait_serving(6)
            same = push(daemon, "step-7.pt", torch_bytes(integer_state(6)))
            self.assertTrue(same.serves)
            self.assertRegex(same.reason, "version 6 from step-6.pt")
            daemon.relightctl("unload", "simplenet")
            unloaded = push(daemon, "step-8.pt", torch_bytes(integer_state(8)))
            self.assertFalse(unloaded.serves)
            self.assertRegex(unloaded.reason, "unloaded")
            unwaited = push(daemon, "step-9.pt", torch_bytes(integer_state(9)), no_wait=True)
            self.assertFalse(unwaited.serves)

    def test_a_client_that_goes_away_in_the_middle_leaves_nothing(self):
        data = large_bundle()
        with Daemon(models={"simplenet": LARGE}) as daemon:
            with OpenPush(daemon) as half:
                half.send(header("step-1.pt", len(data)))
                half.send(next(chunks(data)))
                self.wait_for_temporary(daemon)
            self.wait_for_files(daemon, set())
            self.assertEqual(len(daemon.status().loaded), 0)

    def wait_for_temporary(self, daemon):
        """Hidden files are in the status, so that the watch tells when one is there."""
        daemon.wait_until(lambda status: any(c.file.endswith(".tmp") for c in status.candidates))

    def wait_for_files(self, daemon, wanted):
        daemon.wait_until(lambda status: {c.file for c in status.candidates} == wanted)
        self.assertEqual(set(os.listdir(daemon.watched())), wanted)

    def test_idle_pushes_hold_nobody_up(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon, contextlib.ExitStack() as stack:
            push(daemon, "step-1.pt", torch_bytes(integer_state(1)))
            push(daemon, "step-2.pt", torch_bytes(integer_state(2)))
            for i in range(6):
                stack.enter_context(OpenPush(daemon)).send(header(f"idle-{i}.pt", 5))
            daemon.wait_until(lambda s: sum(c.file.endswith(".tmp") for c in s.candidates) == 6)
            daemon.relightctl("rollback", "simplenet")
            self.ask(daemon, integer_state(1))
            daemon.relightctl("reload", "simplenet")
            daemon.relightctl("unpin", "simplenet")
            self.assertTrue(push(daemon, "step-3.pt", torch_bytes(integer_state(3))).serves)

    def test_more_pushes_than_may_be_under_way_are_told_so(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon, contextlib.ExitStack() as stack:
            data = torch_bytes(integer_state(1))
            for i in range(16):
                stack.enter_context(OpenPush(daemon)).send(header(f"idle-{i}.pt", 5))
            daemon.wait_until(lambda s: sum(c.file.endswith(".tmp") for c in s.candidates) == 16)
            self.refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "16 pushes and downloads", push, daemon, "step-1.pt", data)
            stack.close()
            self.wait_for_files(daemon, set())
            self.assertTrue(push(daemon, "step-1.pt", data).serves)
            pushed = [entry for entry in daemon.admin.GetHistory(
                admin_pb2.GetHistoryRequest(model="simplenet"), timeout=harness.PATIENCE).entries
                if entry.event == admin_pb2.HistoryEntry.PUSHED]
            self.assertEqual([(entry.file, entry.file_sha256) for entry in pushed],
                             [("step-1.pt", hashlib.sha256(data).hexdigest())])

    def test_pushes_and_a_trainer_share_a_folder(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            states = {version: integer_state(version) for version in range(1, 21)}
            push(daemon, "step-1.pt", torch_bytes(states[1]))

            def train():
                for version in range(2, 21, 2):
                    daemon.save(states[version], f"step-{version}.pt")

            trainer = threading.Thread(target=train)
            with harness.clients_at_work(daemon, states, 2):
                trainer.start()
                for version in range(3, 21, 2):
                    result = push(daemon, f"step-{version}.pt", torch_bytes(states[version]))
                    overtaken = "older than" in result.reason or "serves now" in result.reason
                    self.assertTrue(result.serves or overtaken, result)
                trainer.join()
                daemon.wait_serving(20)
            self.assertEqual(set(os.listdir(daemon.watched())), {f"step-{v}.pt" for v in states})

    def test_relightctl_pushes_and_says_what_came_of_it(self):
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            path = os.path.join(daemon.root, "last.pt")
            harness.write_file(path, torch_bytes(integer_state(7)))
            said = json.loads(daemon.relightctl("push", "simplenet", path, "--as", "step-7.pt", "--json").stdout)
            self.assertEqual((said["file"], said["serves"], said["version"]), ("step-7.pt", True, 7))
            again = daemon.relightctl("push", "simplenet", path, "--as", "step-7.pt", check=False)
            self.assertEqual(again.returncode, 1)
            self.assertIn("ALREADY_EXISTS", again.stderr)
            harness.write_file(path, b"hello")
            bad = daemon.relightctl("push", "simplenet", path, "--as", "step-8.pt", check=False)
            self.assertEqual(bad.returncode, 1)
            self.assertIn("does not take step-8.pt", bad.stderr)
            self.assertEqual(os.listdir(daemon.watched()), ["step-7.pt"])

    def test_a_full_disk_leaves_nothing_behind(self):
        data = large_bundle()
        with Daemon(models={"simplenet": LARGE}) as daemon:
            watched = daemon.watched()
            if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=4m tmpfs {watched} 2>/dev/null"):
                self.skipTest("a small file system cannot be mounted here")
            try:
                self.refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "has room for", push, daemon, "step-1.pt", data)
                # There is room for either of two, and the first has it from the beginning.
                with OpenPush(daemon) as first:
                    first.send(header("step-1.pt", 3 << 20))
                    self.wait_for_temporary(daemon)
                    self.refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "has room for", push, daemon, "step-2.pt",
                                 bytes(3 << 20))
                self.wait_for_files(daemon, set())
            finally:
                os.system(f"umount {watched}")


class KilledPushTest(unittest.TestCase):
    def test_a_daemon_killed_in_the_middle_leaves_the_old_file_and_the_next_one_cleans(self):
        old, new = large_bundle(), large_bundle()
        parts = [header("step-1.pt", len(new), overwrite=True), *chunks(new)]
        for sent in (1, 2, len(parts)):  # The header alone, one chunk, all but the commit.
            with self.subTest(sent=sent):
                self.kill_after(parts[:sent], old, sum(len(part.chunk) for part in parts[:sent]))

    def kill_after(self, parts, old, bytes_sent):
        daemon = Daemon(models={"simplenet": LARGE})
        daemon.expected_exit = -signal.SIGKILL
        folder = daemon.root + "-killed"
        with daemon:
            digest = push(daemon, "step-1.pt", old).weights_digest
            with OpenPush(daemon) as half:
                for part in parts:
                    half.send(part)
                daemon.wait_until(lambda status: any(c.file.endswith(".tmp") for c in status.candidates))
                (temporary,) = set(os.listdir(daemon.watched())) - {"step-1.pt"}
                self.assertRegex(temporary, r"^\.step-1\.pt\.relight-[0-9a-f]{16}\.tmp$")
                path = os.path.join(daemon.watched(), temporary)
                while os.path.getsize(path) < bytes_sent:
                    self.assertFalse(half.call.done())
                self.assertEqual(daemon.stop(signal.SIGKILL), -signal.SIGKILL)
            self.assertEqual(set(os.listdir(daemon.watched())), {"step-1.pt", temporary})
            os.rename(daemon.root, folder)
        again = Daemon()
        os.rmdir(again.repository)
        os.rmdir(again.root)
        os.rename(folder, again.root)
        with again:
            again.wait_for_log("removed 1 unfinished files")
            self.assertEqual(os.listdir(again.watched()), ["step-1.pt"])
            self.assertEqual(again.wait_serving(1).loaded[0].weights_digest, digest)
            with open(os.path.join(again.watched(), "step-1.pt"), "rb") as file:
                self.assertTrue(file.read() == old, "the file that was to be replaced was touched")

    def test_a_daemon_killed_during_the_commit_leaves_the_old_file_or_the_new_one(self):
        old, new = large_bundle(), large_bundle()
        daemon = Daemon(models={"simplenet": LARGE})
        daemon.expected_exit = -signal.SIGKILL
        with daemon:
            push(daemon, "step-1.pt", old)
            with OpenPush(daemon) as whole:
                for part in (header("step-1.pt", len(new), overwrite=True), *chunks(new),
                             commit(hashlib.sha256(new).hexdigest())):
                    whole.send(part)
                while not self.all_came(daemon, len(new)) and not whole.call.done():
                    pass
                self.assertEqual(daemon.stop(signal.SIGKILL), -signal.SIGKILL)
            with open(os.path.join(daemon.watched(), "step-1.pt"), "rb") as file:
                self.assertIn(file.read(), (old, new))

    @staticmethod
    def all_came(daemon, size):
        for name in os.listdir(daemon.watched()):
            with contextlib.suppress(FileNotFoundError):  # It may get its name meanwhile.
                if name.endswith(".tmp") and os.path.getsize(os.path.join(daemon.watched(), name)) == size:
                    return True
        return False


class DownloadTest(unittest.TestCase):
    def download(self, daemon, model="simplenet", **fields):
        result, data = None, b""
        call = daemon.admin.DownloadSnapshot(admin_pb2.DownloadRequest(model=model, **fields), timeout=harness.PATIENCE)
        for part in call:
            if part.HasField("result"):
                result = part.result
            elif part.HasField("chunk"):
                self.assertLessEqual(len(part.chunk), CHUNK)
                data += part.chunk
        self.assertEqual(len(data), result.size_bytes)
        self.assertEqual(hashlib.sha256(data).hexdigest(), result.file_sha256)
        return result, data

    def snapshot(self, daemon, **fields):
        *_, last = daemon.admin.Snapshot(admin_pb2.SnapshotRequest(model="simplenet", **fields), timeout=harness.PATIENCE)
        with open(last.result.path, "rb") as file:
            return last.result, file.read()

    def test_it_is_the_snapshot_and_stays_nowhere(self):
        bundle = {"epoch": 3, "model_state_dict": integer_state(1), "loss": 0.5}
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            push(daemon, "step-1.pt", torch_bytes(bundle))
            for name, fields in (("a.pt", {}), ("a.safetensors", {}), ("b.pt", {"weights_only": True})):
                with self.subTest(name=name, **fields):
                    here, data = self.download(daemon, file=name, **fields)
                    there, kept = self.snapshot(daemon, path=name, **fields)
                    self.assertEqual(data, kept)
                    self.assertEqual((here.format, here.weights_digest, list(here.left_out)),
                                     (there.format, there.weights_digest, list(there.left_out)))
                    os.unlink(there.path)
                    self.assertEqual(os.listdir(daemon.snapshots), [])

    def test_relightctl_brings_a_file_that_torch_loads(self):
        state = integer_state(1)
        with Daemon(models={"simplenet": SIMPLENET}) as daemon:
            push(daemon, "step-1.pt", torch_bytes({"epoch": 3, "model_state_dict": state}))
            path = os.path.join(daemon.root, "resume.pt")
            said = json.loads(daemon.relightctl("download", "simplenet", path, "--json").stdout)
            self.assertEqual((said["path"], said["version"], said["training_state"]), (path, 1, True))
            loaded = torch.load(path)
            self.assertEqual(loaded["epoch"], 3)
            for key, value in state.items():
                self.assertTrue(torch.equal(loaded["model_state_dict"][key], value))
            self.assertEqual(daemon.relightctl("download", "simplenet", path, check=False).returncode, 1)
            # What was brought can be pushed again: the same weights.
            again = push(daemon, "step-2.pt", open(path, "rb").read())
            self.assertTrue(again.serves)
            self.assertRegex(again.reason, "version 1 from step-1.pt")

    def test_a_client_that_goes_in_the_middle_leaves_nothing(self):
        with Daemon(models={"simplenet": LARGE}) as daemon:
            push(daemon, "step-1.pt", large_bundle())
            call = daemon.admin.DownloadSnapshot(admin_pb2.DownloadRequest(model="simplenet"), timeout=harness.PATIENCE)
            for part in call:
                if part.HasField("chunk"):
                    break
            call.cancel()
            self.assertEqual(os.listdir(daemon.snapshots), [])
            # And before the first byte: it is gone when the daemon is.
            call = daemon.admin.DownloadSnapshot(admin_pb2.DownloadRequest(model="simplenet"), timeout=harness.PATIENCE)
            next(iter(call))
            call.cancel()
            self.assertEqual(daemon.stop(), 0)
            self.assertEqual(os.listdir(daemon.snapshots), [])


if __name__ == "__main__":
    unittest.main()
