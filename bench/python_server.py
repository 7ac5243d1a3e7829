"""python_server.py NET CHECKPOINT [--threads N] [--batch N] [--intra-op N] [--device cuda:0]: what one
would write by hand.

A grpcio server for one net of nets.py: a pool of threads, tensors as raw bytes in both directions,
inference mode, and with --batch a thread that computes what has come together meanwhile at once.
Prints "port=N" when it listens, and serves until it is killed.
"""

import argparse
import concurrent.futures
import queue
import threading

import grpc
import torch

from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc
import nets
import target


class Batcher:
    """Calls the net with all rows that wait, up to `most`."""

    def __init__(self, net, most):
        self.net = net
        self.most = most
        self.waiting = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def __call__(self, rows):
        future = concurrent.futures.Future()
        self.waiting.put((rows, future))
        return future.result()

    @torch.inference_mode()
    def _run(self):
        while True:
            batch = [self.waiting.get()]
            while len(batch) < self.most and not self.waiting.empty():
                batch.append(self.waiting.get())
            try:
                answers = self.net(torch.cat([rows for rows, _ in batch]))
                answers = answers.split([len(rows) for rows, _ in batch])
            except Exception as error:  # pylint: disable=broad-except
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers):
                future.set_result(answer)


class Servicer(grpc_service_pb2_grpc.GRPCInferenceServiceServicer):
    """`compute`: from rows on the host to rows on the host."""

    def __init__(self, compute):
        self.compute = compute

    def ModelInfer(self, request, context):
        tensor = request.inputs[0]
        # PyTorch wants memory that may be written to, and a message's may not.
        values = torch.frombuffer(bytearray(request.raw_input_contents[0]), dtype=torch.float32)
        with torch.inference_mode():
            answer = self.compute(values.reshape(tuple(tensor.shape)))
        output = pb.ModelInferResponse.InferOutputTensor(name="output", datatype="FP32",
                                                         shape=answer.shape)
        return pb.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id,
                                     outputs=[output],
                                     raw_output_contents=[answer.numpy().tobytes()])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("net")
    parser.add_argument("checkpoint")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--intra-op", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=target.TYPES, default="FP32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.intra_op)
    module = nets.BY_NAME[arguments.net].module()
    module.load_state_dict(torch.load(arguments.checkpoint))
    module.eval().to(arguments.device, target.TYPES[arguments.precision])

    def net(rows):
        rows = rows.to(arguments.device, target.TYPES[arguments.precision])
        return module(rows).to("cpu", torch.float32)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(arguments.threads),
                         options=[("grpc.max_receive_message_length", -1),
                                  ("grpc.max_send_message_length", -1)])
    compute = Batcher(net, arguments.batch) if arguments.batch else net
    grpc_service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(compute), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"port={port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
