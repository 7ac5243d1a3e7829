"""Starts the real relightd in a folder of its own and talks to it from outside."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import grpc
import numpy as np
import torch

from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc
from relight.v1 import admin_pb2
from relight.v1 import admin_pb2_grpc

RELIGHTD = os.environ["RELIGHTD"]
RELIGHTCTL = os.environ["RELIGHTCTL"]
SOURCE_DIR = os.environ["RELIGHT_SOURCE_DIR"]
TEST_DATA = os.environ["RELIGHT_TEST_DATA"]
GOOD = os.path.join(TEST_DATA, "good")

# Far beyond what anything takes; only a broken daemon reaches it.
PATIENCE = 60

SIMPLENET = """
network {
  layer { name: "fc1" linear { in_features: 10 out_features: 5 } }
  layer { name: "relu" relu {} }
  layer { name: "fc2" linear { out_features: 2 } }
}
"""


class SimpleNet(torch.nn.Module):
    def __init__(self, inputs=10, hidden=5, outputs=2):
        super().__init__()
        self.fc1 = torch.nn.Linear(inputs, hidden)
        self.relu = torch.nn.ReLU()
        self.fc2 = torch.nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


def io_case(file, checkpoint):
    with open(os.path.join(TEST_DATA, "io", file)) as f:
        case = json.load(f)[checkpoint]
    x = np.array(case["input"], np.float32).reshape(case["input_shape"])
    y = np.array(case["output"], np.float32).reshape(case["output_shape"])
    return x, y, case


class Daemon:
    """One relightd. A context manager: leaving it stops the daemon and fails if it ended badly."""

    def __init__(self, *flags, models=None, env=None):
        self.root = tempfile.mkdtemp(prefix="relight-test-")
        self.repository = os.path.join(self.root, "models")
        self.snapshots = os.path.join(self.root, "snapshots")
        self.admin_socket = os.path.join(self.root, "admin.sock")
        self.flags = list(flags)
        self.env = env or {}
        self.lines = []
        self.expected_exit = 0
        self.process = None
        self._changed = threading.Condition()
        self._contexts = contextlib.ExitStack()
        os.makedirs(self.repository)
        for name, text in (models or {}).items():
            self.add_model(name, text)

    def add_model(self, name, text):
        folder = os.path.join(self.repository, name)
        os.makedirs(os.path.join(folder, "checkpoints"), exist_ok=True)
        write_file(os.path.join(folder, "model.textproto"), text.encode())

    def watched(self, model="simplenet"):
        return os.path.join(self.repository, model, "checkpoints")

    def push(self, source, name, model="simplenet"):
        """Copies a file into the watched folder as a careful trainer does: aside, then a rename."""
        path = os.path.join(self.watched(model), name)
        shutil.copyfile(source, path + ".tmp")
        os.rename(path + ".tmp", path)
        return path

    def save(self, value, name, model="simplenet"):
        path = os.path.join(self.watched(model), name)
        torch.save(value, path + ".tmp")
        os.rename(path + ".tmp", path)
        return path

    def command(self):
        return [
            RELIGHTD,
            "--model-repository", self.repository,
            "--state-dir", os.path.join(self.root, "state"),
            "--snapshot-dir", self.snapshots,
            "--admin-socket", self.admin_socket,
            "--grpc-address", "127.0.0.1", "--grpc-port", "0",
            "--metrics-address", "127.0.0.1", "--metrics-port", "0",
            "--port-file", os.path.join(self.root, "ports"),
            *self.flags,
        ]

    def start(self):
        self.process = subprocess.Popen(
            self.command(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            env={**os.environ, **self.env})
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        self.wait_for_log("listening")
        with open(os.path.join(self.root, "ports")) as f:
            ports = dict(line.strip().split("=") for line in f)
        self.grpc_port = int(ports["grpc"])
        self.metrics_port = int(ports["metrics"])
        self.admin_port = int(ports["admin"])
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = self._contexts.enter_context(
            grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options))
        self.admin_channel = self._contexts.enter_context(
            grpc.insecure_channel(f"unix:{self.admin_socket}", options))
        self.stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self.admin = admin_pb2_grpc.AdminStub(self.admin_channel)
        return self

    def _read_log(self):
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()
        with self._changed:
            self.lines.append(None)
            self._changed.notify_all()

    def wait_for_log(self, pattern, since=0):
        """Waits for a log line that matches, from line `since` on, and returns it."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            at = since
            while True:
                while at < len(self.lines):
                    line = self.lines[at]
                    if line is None:
                        raise AssertionError(f"relightd ended; no line matched {pattern!r}:\n{self.log()}")
                    if re.search(pattern, line):
                        return line
                    at += 1
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no line matched {pattern!r}:\n{self.log()}")

    def log(self):
        return "\n".join(line for line in self.lines if line is not None)

    def wait_until(self, condition, model="simplenet"):
        """Waits on the admin Watch stream until `condition(status)` holds; returns the status."""
        call = self.admin.Watch(admin_pb2.WatchRequest(model=model), timeout=PATIENCE)
        last = None
        try:
            for last in call:
                if condition(last):
                    return last
        except grpc.RpcError as error:
            raise AssertionError(f"gave up waiting: {error.code()}\nlast status: {last}\n{self.log()}")
        finally:
            call.cancel()
        raise AssertionError(f"the Watch stream ended\nlast status: {last}\n{self.log()}")

    def wait_serving(self, version=None, model="simplenet"):
        def serving(status):
            for loaded in status.loaded:
                if loaded.state == admin_pb2.VERSION_SERVING:
                    return version is None or loaded.version == version
            return False
        return self.wait_until(serving, model)

    def status(self, model="simplenet"):
        return self.admin.GetStatus(admin_pb2.GetStatusRequest(model=model), timeout=PATIENCE).models[0]

    def infer(self, x, model="simplenet", input_name="input", **request):
        """One raw request; returns (list of outputs, response)."""
        x = np.ascontiguousarray(x)
        response = self.stub.ModelInfer(infer_request(x, model, input_name, **request), timeout=PATIENCE)
        return outputs_of(response), response

    def relightctl(self, *arguments, check=True):
        result = subprocess.run(
            [RELIGHTCTL, "--server", f"127.0.0.1:{self.grpc_port}",
             "--admin", f"unix:{self.admin_socket}", *arguments],
            capture_output=True, text=True, timeout=PATIENCE)
        if check and result.returncode != 0:
            raise AssertionError(f"relightctl {arguments} ended with {result.returncode}:\n"
                                 f"{result.stdout}{result.stderr}\n{self.log()}")
        return result

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise

    def __exit__(self, kind, value, traceback):
        ended_already = self.process.poll()
        code = self.stop() if ended_already is None else ended_already
        self._reader.join(PATIENCE)
        self._contexts.close()
        shutil.rmtree(self.root, ignore_errors=True)
        if kind is None and code != self.expected_exit:
            raise AssertionError(f"relightd ended with {code}:\n{self.log()}")


class Client(threading.Thread):
    """Asks without pause and checks every answer against the version that it names, and that
    versions only rise. `states` holds the weights of each version, as integer_state gives them."""

    def __init__(self, daemon, states, seed, model="simplenet", input_name="input"):
        super().__init__(daemon=True)
        self.server = daemon
        self.states = states
        self.model = model
        self.input_name = input_name
        self.random = np.random.RandomState(seed)
        self.stopping = threading.Event()
        self.answers = {}
        self.problems = []

    def run(self):
        newest = 0
        while not self.problems:
            rows = self.random.randint(1, 5)
            x = self.random.randint(-4, 5, (rows, 10)).astype(np.float32)
            try:
                (got,), response = self.server.infer(x, self.model, self.input_name)
            except grpc.RpcError as error:
                self.problems.append(f"failed: {error.code()} {error.details()}")
                return
            version = int(response.model_version)
            if version < newest:
                self.problems.append(f"version {version} answered after version {newest}")
                return
            newest = version
            if version not in self.states:
                self.problems.append(f"version {version} answered, which nobody pushed")
                return
            wanted = integer_answer(self.states[version], x)
            if not np.array_equal(got, wanted):
                self.problems.append(f"version {version}: wanted {wanted}, got {got}")
            self.answers[version] = self.answers.get(version, 0) + 1
            if self.stopping.is_set():
                return


@contextlib.contextmanager
def clients_at_work(daemon, states, count, **target):
    """Clients that ask while the block runs, each once at least. Fails if one met a problem."""
    clients = [Client(daemon, states, seed, **target) for seed in range(count)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.join(PATIENCE)
    problems = [problem for client in clients for problem in client.problems]
    if problems:
        raise AssertionError("\n".join(problems))


class RawClient:
    """A client of HTTP/2 frames, for what no gRPC client sends. `window` bytes of each answer fit."""

    DATA, HEADERS, SETTINGS = 0, 1, 4

    def __init__(self, port, window=65535):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(PATIENCE)
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._send(self.SETTINGS, 0, 0, struct.pack(">HI", 4, window))

    def call(self, path, message, headers={}):
        """Begins a call and waits for the header of its answer."""
        block = b"".join(self._literal(name, value) for name, value in {
            ":method": "POST", ":scheme": "http", ":authority": "x", ":path": path, "te": "trailers",
            "content-type": "application/grpc", **headers}.items())
        body = message.SerializeToString()
        self._send(self.HEADERS, 4, 1, block)
        self._send(self.DATA, 1, 1, b"\0" + struct.pack(">I", len(body)) + body)
        kind = None
        while kind != self.HEADERS:
            head = self._receive(9)
            kind = head[3]
            self._receive(int.from_bytes(head[:3], "big"))

    def _receive(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise AssertionError("the server has closed the connection")
            data += more
        return data

    @staticmethod
    def _literal(name, value):  # HPACK without indexing and without Huffman's code.
        assert len(name) < 127 and len(value) < 127
        return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    def _send(self, kind, flags, stream, payload):
        self.socket.sendall(struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) +
                            struct.pack(">I", stream) + payload)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.socket.close()


DATATYPES = {
    np.dtype(np.float32): "FP32", np.dtype(np.float64): "FP64", np.dtype(np.float16): "FP16",
    np.dtype(np.int64): "INT64", np.dtype(np.int32): "INT32", np.dtype(np.int16): "INT16",
    np.dtype(np.int8): "INT8", np.dtype(np.uint8): "UINT8", np.dtype(np.bool_): "BOOL",
}
DTYPES = {name: dtype for dtype, name in DATATYPES.items()}


def infer_request(x, model="simplenet", input_name="input", version="", id="", outputs=()):
    request = pb.ModelInferRequest(model_name=model, model_version=str(version), id=id)
    request.inputs.add(name=input_name, datatype=DATATYPES[x.dtype], shape=x.shape)
    request.raw_input_contents.append(x.tobytes())
    for name in outputs:
        request.outputs.add(name=name)
    return request


def outputs_of(response):
    return [np.frombuffer(raw, DTYPES[output.datatype]).reshape(tuple(output.shape))
            for output, raw in zip(response.outputs, response.raw_output_contents)]


def write_file(path, data):
    with open(path + ".tmp", "wb") as f:
        f.write(data)
    os.rename(path + ".tmp", path)


def torch_bytes(value, legacy=False):
    """What torch.save writes: a zip file, or, as before torch 1.6, a stream without checksums."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def safetensors_bytes(state):
    """A state dict of float32 as the safetensors format, which Debian has no Python module for."""
    header, data = {}, b""
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        raw = tensor.contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def integer_state(seed):
    """A SimpleNet state dict of small integers: every order of summation gives the same bits."""
    random = np.random.RandomState(seed)
    def tensor(*shape):
        return torch.from_numpy(random.randint(-4, 5, shape).astype(np.float32))
    return {"fc1.weight": tensor(5, 10), "fc1.bias": tensor(5),
            "fc2.weight": tensor(2, 5), "fc2.bias": tensor(2)}


def integer_answer(state, x):
    hidden = np.maximum(x @ state["fc1.weight"].numpy().T + state["fc1.bias"].numpy(), 0)
    return hidden @ state["fc2.weight"].numpy().T + state["fc2.bias"].numpy()
