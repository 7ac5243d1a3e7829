"""Servers to measure, and the load generator that drives them."""

import contextlib
import itertools
import json
import math
import os
import pathlib
import re
import subprocess

import numpy as np
import torch

import harness
import nets
import target

HERE = pathlib.Path(__file__).resolve().parent


class Request:
    """A request for `rows` rows of a net, serialised into a file."""

    def __init__(self, folder, net, rows=1):
        torch.manual_seed(2)
        values = torch.randn(rows, *net.row).numpy()
        self.message = harness.infer_request(values, net.name)
        self.path = os.path.join(folder, f"{net.name}-{rows}.request")
        with open(self.path, "wb") as file:
            file.write(self.message.SerializeToString())


class Child:
    """A server of ours that prints the port that it listens on. A context manager."""

    def __init__(self, command, env=None):
        self.command = [str(part) for part in command]
        self.env = {**os.environ, **(env or {})}

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True,
                                        env=self.env)
        line = self.process.stdout.readline()
        if not line.startswith("port="):
            self.process.kill()
            raise AssertionError(f"{self.command} did not start: {line}")
        self.port = int(line.removeprefix("port="))
        self.pid = self.process.pid
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def relight(nets, *flags):
    """The daemon with these nets, each with a first version."""
    daemon = harness.Daemon(*flags, models={net.name: target.config(net.config) for net in nets})
    with daemon:
        for net in nets:
            torch.manual_seed(1)
            daemon.save(net.module().state_dict(), "step-1.pt", net.name)
            daemon.wait_serving(1, net.name)
        daemon.versions = itertools.count(2)  # Of what will be pushed.
        daemon.port, daemon.pid = daemon.grpc_port, daemon.process.pid
        yield daemon


def libraries():
    """What relightd computes with, in its own words: BLAS kernels, devices, threads."""
    with relight([nets.SIMPLENET]) as daemon:
        return re.search("LibTorch .*", daemon.wait_for_log("LibTorch")).group()


class Generator:
    """Runs load_generator."""

    def __init__(self, build, seconds, warm_up, most_rate=math.inf):
        """`most_rate`: of open loops."""
        self.binary = build / "bench" / "load_generator"
        self.seconds = seconds
        self.warm_up = warm_up
        self.most_rate = most_rate

    def run(self, server, request, **flags):
        """The report of one run, a dict. Of a closed loop no request may fail."""
        with Run(self._start(server, request, flags)) as run:
            report = run.end()
        if report["failed"] and "rate" not in flags:
            raise AssertionError(f"{report['failed']} requests failed: {report['failures']}")
        return report

    def half_of_capacity(self, server, request, in_flight):
        """The rate for an open loop: half of what a closed one gets."""
        capacity = self.run(server, request, in_flight=in_flight)["per_second"]
        return min(max(capacity / 2, 1), self.most_rate)

    def start(self, server, request, **flags):
        """A run that goes on until it is told to end."""
        return Run(self._start(server, request, {"until_eof": "true", **flags}))

    def _start(self, server, request, flags):
        flags = {"target": f"127.0.0.1:{server.port}", "request": request.path,
                 "server_pid": server.pid, "seconds": self.seconds, "warm_up": self.warm_up, **flags}
        return subprocess.Popen([self.binary, *(f"--{name}={value}" for name, value in flags.items())],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Run:
    """load_generator at work. A context manager: leaving it ends what still runs."""

    def __init__(self, process):
        self.process = process

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def end(self):
        """The report, once the time is over; at once where the run goes on until it is told."""
        printed, _ = self.process.communicate(timeout=harness.PATIENCE)
        if self.process.returncode != 0:
            raise AssertionError(f"load_generator ended with {self.process.returncode}")
        return json.loads(printed)


def read_samples(path):
    """When each request was due (seconds of CLOCK_MONOTONIC), and how long its answer took, in the
    order in which they were due."""
    samples = np.fromfile(path, np.float64).reshape(-1, 2)
    return samples[np.argsort(samples[:, 0], kind="stable")].T
