"""A daemon with one linear net, into which checkpoints are swapped one after another."""

import dataclasses
import os
import re
import time

import grpc
import numpy as np

import harness
import linear_net
import target

MODEL = "linear"
# Between two asks for a version that is not there yet; the answer is seen this much late at most.
# Asking every millisecond makes the swap of 1 GiB an eighth longer on two cores.
PAUSE = 0.005


@dataclasses.dataclass
class Swap:
    seconds: float  # From the rename to the first answer by the new version.
    answer: float  # The last of these seconds: what the answer itself took.
    phases: dict  # Seconds of the load's phases, as the daemon has them in its history.
    peak_bytes: int  # The most that was resident of the daemon until it was at rest again.


class SwappingDaemon(harness.Daemon):
    def __init__(self, width):
        super().__init__(models={MODEL: target.config(linear_net.config(width))})
        self.ones = np.ones((1, width), np.float32)
        self.version = 0

    def swap(self, path):
        """Moves a file into the watched folder, and back when its version serves and all is done
        that is done for it afterwards."""
        self.version += 1
        pushed = os.path.join(self.watched(MODEL), f"step-{self.version}.pt")
        read_into_page_cache(path)
        self._forget_peak()
        begin = time.perf_counter()
        os.rename(path, pushed)
        asked = self._first_answer()
        end = time.perf_counter()
        self._wait_for_rest()
        swap = Swap(end - begin, end - asked, self._phases(), self._peak_bytes())
        os.rename(pushed, path)
        os.sync()
        return swap

    def _first_answer(self):
        """Asks until the version answers; returns when that was asked for."""
        request = harness.infer_request(self.ones, MODEL, version=self.version)
        give_up = time.monotonic() + harness.PATIENCE
        while time.monotonic() < give_up:
            asked = time.perf_counter()
            try:
                self.stub.ModelInfer(request, timeout=harness.PATIENCE)
                return asked
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
                    raise
            time.sleep(PAUSE)
        raise AssertionError(f"version {self.version} was never served:\n{self.log()}")

    def _wait_for_rest(self):
        """Taking the file's SHA-256 is the last that is done for a version."""
        self.wait_until(lambda status: any(loaded.version == self.version and loaded.file_sha256
                                           for loaded in status.loaded), MODEL)

    def _phases(self):
        request = harness.admin_pb2.GetHistoryRequest(model=MODEL)
        for entry in self.admin.GetHistory(request).entries:
            if entry.version == self.version and entry.event == entry.SERVED:
                return {name: spent.ToNanoseconds() / 1e9 for name, spent in entry.phases.items()}
        raise AssertionError(f"the history has no load of version {self.version}")

    def _forget_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as file:
            file.write("5")

    def _peak_bytes(self):
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmHWM:\s*(\d+) kB", file.read()).group(1)) * 1024


def read_into_page_cache(path):
    block = bytearray(4 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(block):
            pass
