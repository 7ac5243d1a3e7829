"""Each step of a disk fails once, or is the process's last: nothing is lost, and nothing stays behind."""

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import unittest

import grpc
import numpy as np
import torch

import harness
from harness import Daemon, SIMPLENET, SimpleNet, admin_pb2, integer_answer, integer_state, torch_bytes

KILL = 0
# A disk that breaks, one that is full, and a network folder that is lost.
ERRORS = (errno.EIO, errno.ENOSPC, errno.ESTALE)
FOREVER = 1 << 30
# More than anything here takes.
MANY_STEPS = 60
TEMPORARY = re.compile(r"^\..+\.relight-[0-9a-f]{16}\.tmp$")


class Disk:
    """The plan of the library that comes between a process and its disk; see faulty_disk.cc."""

    def __init__(self, plan):
        self.plan = plan
        self.id = 0
        self.env = {"LD_PRELOAD": os.environ["FAULTY_DISK"], "FAULTY_DISK_PLAN": plan}

    def arm(self, folder, kind, faults):
        """Counts the steps below `folder` from 1 on. Of each fault: the first, the last, an errno."""
        self.id += 1
        lines = [f"{self.id} {folder} {kind}", *(" ".join(map(str, fault)) for fault in faults)]
        harness.write_file(self.plan, "\n".join(lines).encode())

    def disarm(self):
        """Returns the names of the steps since it was armed, the failed ones too."""
        os.unlink(self.plan)
        with open(self.plan + ".steps", "a+") as file:
            file.seek(0)
            return [line.split()[2] for line in file if line.split()[0] == str(self.id)]

    def walk(self, folder, how, act, lasting=False, kind="changes", first=1, before=()):
        """Has the first step of `act`, then the second, and so on, fail with `how`, until it takes
        fewer; `lasting`: all after it, too. Yields what `act` returned, or the error that it raised."""
        for step in range(first, MANY_STEPS):
            self.arm(folder, kind, [*before, (step, FOREVER if lasting else step, how)])
            try:
                outcome = act()
            except (grpc.RpcError, subprocess.CalledProcessError) as error:
                outcome = error
            steps = self.disarm()
            if len(steps) < step:
                break
            yield outcome
        assert first + 4 < step < MANY_STEPS - 1, f"the steps were {steps}"
        if isinstance(outcome, Exception):
            raise outcome  # Nothing was in its way.


class FaultyDaemon(Daemon):
    def __init__(self):
        super().__init__(models={"simplenet": SIMPLENET})
        self.disk = Disk(os.path.join(self.root, "plan"))
        self.env = self.disk.env
        self.state = os.path.join(self.root, "state")

    def push_bytes(self, name, data):
        parts = (admin_pb2.PushRequest(header=admin_pb2.PushHeader(
                     model="simplenet", file=name, size_bytes=len(data), overwrite=True)),
                 admin_pb2.PushRequest(chunk=data),
                 admin_pb2.PushRequest(commit=admin_pb2.PushCommit(file_sha256=hashlib.sha256(data).hexdigest())))
        return self.admin.PushCheckpoint(iter(parts), timeout=harness.PATIENCE)

    def snapshot(self, path):
        request = admin_pb2.SnapshotRequest(model="simplenet", path=path, overwrite=True)
        *_, last = self.admin.Snapshot(request, timeout=harness.PATIENCE)
        return read(last.result.path)

    def pin(self, version):
        self.admin.Pin(admin_pb2.PinRequest(model="simplenet", version=version), timeout=harness.PATIENCE)

    def start_after_kill(self):
        assert self.process.wait(harness.PATIENCE) == -signal.SIGKILL
        self._reader.join(harness.PATIENCE)
        self.process.stderr.close()
        self._contexts.close()
        self.lines = []
        self.start()


def read(path):
    with open(path, "rb") as file:
        return file.read()


def contents(folder):
    """{path below it: bytes} of all files, and of those the temporary ones."""
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    files = {os.path.relpath(path, folder): read(path) for path in paths}
    return files, {path for path in files if TEMPORARY.match(os.path.basename(path))}


def make_bundle(seed):
    """Integer weights, and an optimizer that has made a step."""
    net = SimpleNet()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    return {"model_state_dict": integer_state(seed), "optimizer_state_dict": optimizer.state_dict(), "epoch": seed}


class CrashSafetyTest(unittest.TestCase):
    def setUp(self):
        self.daemon = self.enterContext(FaultyDaemon())
        self.disk = self.daemon.disk
        self.seeds = itertools.count(1)  # Of weights, and the versions that they are pushed as.

    def assert_serves(self, *seeds):
        """The weights of one of them answer."""
        x = np.arange(20, dtype=np.float32).reshape(2, 10)
        (got,), _ = self.daemon.infer(x)
        self.assertTrue(any(np.array_equal(got, integer_answer(integer_state(seed), x)) for seed in seeds))

    def assert_failed(self, outcome, how):
        self.assertIsInstance(outcome, grpc.RpcError)
        self.assertIn(os.strerror(how), outcome.details())
        self.assertEqual(outcome.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, how == errno.ENOSPC)

    def assert_whole(self, folder, allowed, unfinished):
        """The files but for temporary ones are one of `allowed`; `unfinished`: there may be some."""
        files, temporaries = contents(folder)
        self.assertIn({path: data for path, data in files.items() if path not in temporaries}, allowed)
        if not unfinished:
            self.assertEqual(temporaries, set())

    def serve_two(self):
        """Returns the snapshots of both: the older is kept.pt, the newer is served."""
        snapshots = []
        for version in (1, 2):
            self.daemon.save(integer_state(version), f"step-{version}.pt")
            self.daemon.wait_serving(version)
            snapshots.append(self.daemon.snapshot("kept.pt"))
        return snapshots

    def restore_snapshots(self, kept):
        shutil.rmtree(os.path.join(self.daemon.snapshots, "sub"), ignore_errors=True)
        for name in os.listdir(self.daemon.snapshots):
            os.unlink(os.path.join(self.daemon.snapshots, name))
        harness.write_file(os.path.join(self.daemon.snapshots, "kept.pt"), kept)

    # A snapshot that replaces one, and one where nothing was, not even its folder.
    def snapshot_cases(self):
        old, new = self.serve_two()
        for path in ("kept.pt", "sub/new.pt"):
            self.restore_snapshots(old)
            yield path, old, ({"kept.pt": old}, {"kept.pt": old, path: new})

    def test_a_snapshot_whose_disk_fails(self):
        for path, old, allowed in self.snapshot_cases():
            for how, lasting in itertools.product(ERRORS, (False, True)):
                kind = "changes" if how == errno.ENOSPC else "all"
                for outcome in self.disk.walk(self.daemon.snapshots, how, lambda: self.daemon.snapshot(path),
                                              lasting, kind):
                    self.assert_failed(outcome, how)
                    self.assert_whole(self.daemon.snapshots, allowed, unfinished=lasting)
                    self.restore_snapshots(old)
                self.restore_snapshots(old)
            self.assert_serves(2)

    def test_a_snapshot_that_is_killed(self):
        for path, old, allowed in self.snapshot_cases():
            for _ in self.disk.walk(self.daemon.snapshots, KILL, lambda: self.daemon.snapshot(path)):
                self.assert_whole(self.daemon.snapshots, allowed, unfinished=True)
                self.daemon.start_after_kill()
                self.daemon.wait_serving(2)
                self.assert_whole(self.daemon.snapshots, allowed, unfinished=False)
                self.restore_snapshots(old)

    # A push that replaces a file, and one where none was. Each attempt has other weights.
    def push_walk(self, how, new_names, lasting=False):
        first = seed = next(self.seeds)
        self.daemon.push_bytes(f"step-{first}.pt", torch_bytes(integer_state(first)))
        allowed = None

        def act():
            nonlocal seed, allowed
            seed = next(self.seeds)
            name = f"step-{seed if new_names else first}.pt"
            before, _ = contents(self.daemon.watched())
            data = torch_bytes(integer_state(seed))
            allowed = (before, {**before, name: data})
            return self.daemon.push_bytes(name, data)

        for outcome in self.disk.walk(self.daemon.watched(), how, act, lasting):
            yield outcome, allowed, seed
        self.daemon.wait_until(lambda status: status.loaded and not status.last_error)
        self.assert_serves(seed)

    def test_a_push_whose_disk_fails(self):
        for how, new_names in itertools.product(ERRORS, (False, True)):
            with self.subTest(errno.errorcode[how], new_names=new_names):
                for outcome, (before, after), seed in self.push_walk(how, new_names):
                    if isinstance(outcome, admin_pb2.PushResponse):  # The last step: it is in place.
                        self.assertIn(os.strerror(how), outcome.reason)
                        self.assertTrue(outcome.serves)
                        self.assert_whole(self.daemon.watched(), (after,), unfinished=False)
                    else:
                        self.assert_failed(outcome, how)
                        self.assert_whole(self.daemon.watched(), (before,), unfinished=False)

    def test_a_push_that_is_killed(self):
        for new_names in (False, True):
            with self.subTest(new_names=new_names):
                for _, allowed, seed in self.push_walk(KILL, new_names):
                    self.assert_whole(self.daemon.watched(), allowed, unfinished=True)
                    self.daemon.start_after_kill()
                    self.daemon.wait_serving()
                    self.assert_whole(self.daemon.watched(), allowed, unfinished=False)

    def serve_bundle(self):
        """Serves one more, and waits until what came with the weights is set aside."""
        seed = next(self.seeds)
        self.daemon.save(make_bundle(seed), f"step-{seed}.pt")
        return self.daemon.wait_until(lambda status: any(
            loaded.version == seed and loaded.file_sha256 for loaded in status.loaded)).loaded[0]

    # On a file system without unnamed files there is a name for a moment.
    SPOOLS = (dict(), dict(first=2, before=[(1, 1, errno.EOPNOTSUPP)]))

    def test_spooling_whose_disk_fails(self):
        for how, spool in itertools.product(ERRORS, self.SPOOLS):
            with self.subTest(errno.errorcode[how], **spool):
                for loaded in self.disk.walk(self.daemon.state, how, self.serve_bundle, **spool):
                    self.assertFalse(loaded.training_state)
                    self.assertIn(os.strerror(how), loaded.training_state_reason)
                    self.assert_serves(loaded.version)
                    self.assert_whole(self.daemon.state, ({},), unfinished=False)
                self.assertTrue(self.daemon.status().loaded[0].training_state)

    def test_spooling_that_is_killed(self):
        for spool in self.SPOOLS:
            with self.subTest(**spool):
                def act():
                    try:
                        return self.serve_bundle()
                    except AssertionError:  # The watch ended with the daemon.
                        return None
                for _ in self.disk.walk(self.daemon.state, KILL, act, **spool):
                    self.assert_whole(self.daemon.state, ({},), unfinished=True)
                    self.daemon.start_after_kill()
                    self.daemon.wait_serving()
                    self.assert_whole(self.daemon.state, ({},), unfinished=False)

    def test_a_pin_whose_disk_fails_or_that_is_killed(self):
        self.serve_two()
        pinned = {"pins.json": b'{\n  "simplenet": 1\n}\n'}
        for how in (*ERRORS, KILL):
            with self.subTest(how=how):
                self.daemon.pin(2)
                before, _ = contents(self.daemon.state)
                for outcome in self.disk.walk(self.daemon.state, how, lambda: self.daemon.pin(1)):
                    self.assert_whole(self.daemon.state, (before, pinned), unfinished=how == KILL)
                    if how == KILL:
                        self.daemon.start_after_kill()
                        self.assert_whole(self.daemon.state, (before, pinned), unfinished=False)
                        kept = json.loads(read(os.path.join(self.daemon.state, "pins.json")))["simplenet"]
                        self.daemon.wait_serving(kept)
                    else:
                        self.assert_failed(outcome, how)
                        self.daemon.wait_serving(2)
                        self.assert_whole(self.daemon.state, (before,), unfinished=False)
                    self.daemon.pin(2)

    def test_a_download_whose_disk_fails_or_that_is_killed(self):
        old, new = self.serve_two()
        here = os.path.join(self.daemon.root, "here")
        os.mkdir(here)
        disk = Disk(os.path.join(self.daemon.root, "client-plan"))
        path = os.path.join(here, "a.pt")

        def act():
            subprocess.run([harness.RELIGHTCTL, "--admin", f"unix:{self.daemon.admin_socket}", "download",
                            "simplenet", path, "--overwrite"],
                           env={**os.environ, **disk.env}, check=True, capture_output=True, text=True)

        for how in (*ERRORS, KILL):
            with self.subTest(how=how):
                harness.write_file(path, old)
                for outcome in disk.walk(here, how, act):
                    self.assertIsInstance(outcome, subprocess.CalledProcessError)
                    self.assert_whole(here, ({"a.pt": old}, {"a.pt": new}), unfinished=how == KILL)
                    if how == KILL:
                        self.assertEqual(outcome.returncode, -signal.SIGKILL)
                    else:
                        self.assertIn(os.strerror(how), outcome.stderr)
                    harness.write_file(path, old)
                # The next one removes what is left of those before.
                self.assert_whole(here, ({"a.pt": new},), unfinished=False)


if __name__ == "__main__":
    unittest.main()
