"""What keeps a trainer's checkpoints coming while requests are answered."""

import contextlib
import os
import threading
import time

import torch

import harness


UNDER_WAY = (harness.admin_pb2.VERSION_FOUND, harness.admin_pb2.VERSION_WAITING,
             harness.admin_pb2.VERSION_LOADING, harness.admin_pb2.VERSION_RETRYING)


def save_some(folder, net, change=lambda state: None):
    """State dicts of a net with different weights, each changed before it is saved. Three: one that
    comes after a version that was passed over is not what serves already."""
    paths = [os.path.join(folder, f"{net.name}-{i}.pt") for i in range(3)]
    for seed, path in enumerate(paths, 3):
        torch.manual_seed(seed)
        state = net.module().state_dict()
        change(state)
        torch.save(state, path)
    return paths


def yield_to_others():
    """All threads but the main one, from which the processes that are started inherit."""
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError):  # One that has ended meanwhile.
            if thread != os.getpid():
                os.setpriority(os.PRIO_PROCESS, thread, 19)


class Publisher:
    """Moves checkpoints into a model's watched folder in turn, each under a new version, until it is
    left. A context manager: leaving it waits until the last of them is served or refused.

    A daemon that was held up may pass over a version for the next one, as it should. What works
    here, a trainer's machine would do: it gets out of the way of the requests that are measured."""

    def __init__(self, daemon, model, files, every):
        """`every`: seconds from one to the next; 0: as soon as the one before serves. The files must
        lie on the file system of the daemon's repository, and are left as they are."""
        self.daemon = daemon
        self.model = model
        self.files = files
        self.every = every
        # By version: when it was moved there, and when it was heard that it serves, in seconds of
        # CLOCK_MONOTONIC.
        self.pushed = {}
        self.served = {}
        self._changed = threading.Condition()
        self._leaving = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True)
                         for work in (self._listen, self._push)]

    def wait_for(self, count):
        """Until so many are served."""
        with self._changed:
            while (before := len(self.served)) < count:
                if not self._changed.wait_for(lambda: len(self.served) > before, harness.PATIENCE):
                    raise AssertionError(f"{before} of {count} are served:\n{self.daemon.log()}")

    def on_served(self):
        """Called when it was heard that another one serves."""

    def __enter__(self):
        request = harness.admin_pb2.WatchRequest(model=self.model)
        self._statuses = self.daemon.admin.Watch(request)
        for thread in self._threads:
            thread.start()
        yield_to_others()
        return self

    def __exit__(self, kind, *_):
        self._leaving.set()
        listening, pushing = self._threads
        pushing.join()
        if kind is None:
            self.daemon.wait_until(self._at_rest, self.model)
        self._statuses.cancel()
        listening.join()
        for version in list(self.pushed)[-2:]:
            self._remove(version)

    def _at_rest(self, status):
        last = max(self.pushed)
        return any(found.version == last and found.state not in UNDER_WAY
                   for found in status.candidates)

    def _listen(self):
        serving = harness.admin_pb2.VERSION_SERVING
        try:
            for status in self._statuses:
                now = time.monotonic()
                with self._changed:
                    for loaded in status.loaded:
                        new = loaded.version in self.pushed and loaded.version not in self.served
                        if loaded.state == serving and new:
                            self.served[loaded.version] = now
                            self.on_served()
                    self._changed.notify_all()
        except harness.grpc.RpcError as error:
            if error.code() != harness.grpc.StatusCode.CANCELLED:
                raise

    def _push(self):
        due = time.monotonic()
        before = None
        while not self._leaving.is_set():
            version = next(self.daemon.versions)
            path = self._path(version)
            os.link(self.files[version % len(self.files)], path + ".tmp")
            with self._changed:
                self.pushed[version] = time.monotonic()
            os.rename(path + ".tmp", path)
            if self.every > 0:
                due += self.every
                self._leaving.wait(due - time.monotonic())
            else:
                with self._changed:
                    self._changed.wait_for(lambda: version in self.served, harness.PATIENCE)
            if before is not None:
                self._remove(before)
            before = version

    def _path(self, version):
        return os.path.join(self.daemon.watched(self.model), f"step-{version}.pt")

    def _remove(self, version):
        try:
            os.remove(self._path(version))
        except FileNotFoundError:
            pass
