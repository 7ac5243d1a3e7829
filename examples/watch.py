"""What the examples' clients share: asks a served model the same thing again and again, and prints
which version answered and how well.

    client.py [--server HOST:PORT] [--until SCORE] [--seconds N] [--interval SECONDS]

Needs grpcio, numpy and the stubs of proto/inference on PYTHONPATH, and no PyTorch.
"""

import argparse
import contextlib
import sys
import time

import grpc
import numpy as np

from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc

DATATYPES = {np.dtype(np.float32): "FP32", np.dtype(np.int64): "INT64"}
# How long an answer may take, in seconds.
PATIENCE = 30
# gRPC waits longer and longer, up to two minutes, before it looks for a server again, and the daemon
# may start long after the client, or again.
CHANNEL = [("grpc.max_reconnect_backoff_ms", 1000)]


def infer(stub, model, name, rows):
    """Asks about an array in one request, so that one version answers for all of its rows. Returns
    that version and the model's output, of type FP32."""
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name=name, datatype=DATATYPES[rows.dtype], shape=rows.shape)
    request.raw_input_contents.append(rows.tobytes())
    response = stub.ModelInfer(request, timeout=PATIENCE)
    output = np.frombuffer(response.raw_output_contents[0], np.float32)
    return int(response.model_version), output.reshape(tuple(response.outputs[0].shape))


def watch(model, name, rows, what, score):
    """Watches `model` with its input `name` fed `rows`. `score` makes of its output a number from 0
    to 1, and `what` says what that is."""
    parser = argparse.ArgumentParser(description=f"Prints the {what} of the {model} that is served.")
    parser.add_argument("--server", default="localhost:8001")
    parser.add_argument("--until", type=float, help=f"end when the {what} is so high")
    parser.add_argument("--seconds", type=float, help="end after so long; a failure where --until asks for more")
    parser.add_argument("--interval", type=float, default=1, help="seconds between two lines (1)")
    arguments = parser.parse_args()

    begin = time.monotonic()
    # Ctrl-C is how one stops watching.
    with grpc.insecure_channel(arguments.server, CHANNEL) as channel, contextlib.suppress(KeyboardInterrupt):
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while True:
            try:
                version, output = infer(stub, model, name, rows)
                reached = score(output)
                line = f"version {version}: {what} {reached:.3f}"
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    raise
                # There is no checkpoint yet, or no server.
                reached = 0
                line = error.details()
            elapsed = time.monotonic() - begin
            print(f"{elapsed:6.1f} s  {line}", flush=True)
            if arguments.until is not None and reached >= arguments.until:
                return
            if arguments.seconds is not None and elapsed >= arguments.seconds:
                if arguments.until is not None:
                    sys.exit(f"after {arguments.seconds:g} s the {what} is not {arguments.until:g} yet")
                return
            time.sleep(arguments.interval)
