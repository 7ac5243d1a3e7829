"""The Open Inference Protocol, line by line, and what hostile or busy clients do with it."""

import collections
import os
import random
import socket
import threading
import unittest
import urllib.request

import grpc
import numpy as np
import torch

import harness
from harness import Daemon, SIMPLENET, admin_pb2, grpc_service_pb2_grpc, infer_request, integer_answer
from harness import integer_state, io_case, outputs_of, pb

Code = grpc.StatusCode

# The protocol's datatypes: what numpy reads them as (BF16 as its bits), the typed field.
NUMPY = {"BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32,
         "UINT64": np.uint64, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32,
         "INT64": np.int64, "FP16": np.float16, "BF16": np.uint16, "FP32": np.float32,
         "FP64": np.float64}
FIELDS = {"BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents",
          "UINT32": "uint_contents", "UINT64": "uint64_contents", "INT8": "int_contents",
          "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
          "FP32": "fp32_contents", "FP64": "fp64_contents"}


def identity(datatype, shape="[-1, 4]"):
    return f"""
    input {{ name: "x" datatype: "{datatype}" shape: {shape} }}
    output {{ name: "same" datatype: "{datatype}" shape: {shape} }}
    network {{ layer {{ name: "same" input: "x" identity {{}} }} }}
    """


CONV = """
input { name: "x" datatype: "FP32" shape: [-1, 1, -1, -1] }
network {
  layer { name: "c" conv2d { out_channels: 2 kernel_size: 3 padding: 1 } }
  layer { name: "relu" relu {} }
}
"""


def extremes(datatype):
    if datatype == "BOOL":
        return np.array([[True, False, False, True], [False] * 4])
    if datatype == "BF16":  # 0, -0, inf, -inf; 1, the smallest, the largest, -3
        return np.array([[0, 0x8000, 0x7F80, 0xFF80], [0x3F80, 1, 0x7F7F, 0xC040]], np.uint16)
    kind = NUMPY[datatype]
    if datatype.startswith("FP"):
        info = np.finfo(kind)
        return np.array([[0, -0.0, np.inf, -np.inf], [1.5, info.tiny, info.max, info.min]], kind)
    info = np.iinfo(kind)
    most = min(info.max, np.iinfo(np.int64).max)  # UINT64 is computed as int64.
    return np.array([[0, info.min, most, 1], [2, most - 1, info.min + 1, 7]], kind)


def request_of(model, datatype, x, typed=False):
    request = pb.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype=datatype, shape=x.shape)
    if typed:
        getattr(tensor.contents, FIELDS[datatype]).extend(x.ravel().tolist())
    else:
        request.raw_input_contents.append(x.tobytes())
    return request


class ProtocolTest(unittest.TestCase):
    """One daemon for all tests of a class: they leave nothing behind."""

    MODELS = {}
    FLAGS = ()

    @classmethod
    def setUpClass(cls):
        cls.daemon = cls.enterClassContext(Daemon(*cls.FLAGS, models=cls.MODELS))
        for model in cls.MODELS:
            cls.give_weights(model)
            cls.daemon.wait_serving(1, model)

    @classmethod
    def give_weights(cls, model):
        if model == "simplenet":
            cls.state = integer_state(1)
            cls.daemon.save(cls.state, "step-1.pt")
        elif model == "conv":
            r = np.random.RandomState(0)
            cls.kernel = torch.from_numpy(r.randint(-3, 4, (2, 1, 3, 3)).astype(np.float32))
            cls.bias = torch.tensor([1.0, -2.0])
            cls.daemon.save({"c.weight": cls.kernel, "c.bias": cls.bias}, "step-1.pt", model)
        else:
            cls.daemon.push(os.path.join(harness.GOOD, "empty_state.pth"), "step-1.pt", model)

    def ask(self, request, **options):
        return self.daemon.stub.ModelInfer(request, timeout=harness.PATIENCE, **options)

    def refused(self, code, words, call, *arguments):
        with self.assertRaises(grpc.RpcError) as caught:
            call(*arguments, timeout=harness.PATIENCE)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(words, caught.exception.details())

    def statistics(self, model):
        rows = self.daemon.stub.ModelStatistics(pb.ModelStatisticsRequest(name=model)).model_stats
        self.assertEqual(len(rows), 1)
        return rows[0]


class DatatypesTest(ProtocolTest):
    MODELS = {name.lower(): identity(name) for name in NUMPY}

    def test_raw_in_gives_the_same_raw_out(self):
        for datatype in NUMPY:
            with self.subTest(datatype):
                x = extremes(datatype)
                response = self.ask(request_of(datatype.lower(), datatype, x))
                self.assertEqual(response.raw_output_contents[0], x.tobytes())
                self.assertEqual(response.outputs[0].datatype, datatype)
                self.assertEqual(list(response.outputs[0].shape), [2, 4])

    def test_typed_in_gives_the_same_typed_out(self):
        for datatype, field in FIELDS.items():
            with self.subTest(datatype):
                x = extremes(datatype)
                response = self.ask(request_of(datatype.lower(), datatype, x, typed=True))
                self.assertEqual(len(response.raw_output_contents), 0)
                got = np.array(list(getattr(response.outputs[0].contents, field)), NUMPY[datatype])
                self.assertEqual(got.tobytes(), x.tobytes())

    def test_half_precision_has_no_typed_form(self):
        for datatype in ("FP16", "BF16"):
            request = pb.ModelInferRequest(model_name=datatype.lower())
            tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 4])
            tensor.contents.fp32_contents.extend([1] * 4)
            self.refused(Code.INVALID_ARGUMENT, "raw_input_contents", self.daemon.stub.ModelInfer, request)

    def test_typed_values_that_do_not_fit_are_named(self):
        for datatype, value in (("INT8", 200), ("UINT8", 300), ("INT16", -40000), ("UINT16", 70000)):
            request = request_of(datatype.lower(), datatype, np.full((1, 4), value), typed=True)
            self.refused(Code.INVALID_ARGUMENT, f"{value} does not fit {datatype}",
                         self.daemon.stub.ModelInfer, request)

    def test_a_value_beyond_what_is_computed_is_refused(self):
        x = np.full((1, 4), 2**63, np.uint64)
        self.refused(Code.INVALID_ARGUMENT, str(2**63 - 1), self.daemon.stub.ModelInfer,
                     request_of("uint64", "UINT64", x))

    def test_bytes_and_unknown_datatypes_are_refused(self):
        for datatype in ("BYTES", "FP8", "fp32", ""):
            self.refused(Code.INVALID_ARGUMENT, "input x", self.daemon.stub.ModelInfer,
                         request_of("fp32", datatype, np.ones((1, 4), np.float32)))


class TensorsTest(ProtocolTest):
    MODELS = {"free": identity("FP32", "[2, -1]") + "batching { max_batch_size: 0 }",
              "fp32": identity("FP32")}

    def test_a_tensor_without_elements_keeps_its_place(self):
        x = np.zeros((2, 0), np.float32)
        response = self.ask(request_of("free", "FP32", x))
        self.assertEqual(list(response.raw_output_contents), [b""])
        self.assertEqual(list(response.outputs[0].shape), [2, 0])
        typed = self.ask(request_of("free", "FP32", x, typed=True))
        self.assertEqual(list(typed.outputs[0].shape), [2, 0])
        self.refused(Code.INVALID_ARGUMENT, "batch size is 0", self.daemon.stub.ModelInfer,
                     request_of("fp32", "FP32", np.zeros((0, 4), np.float32)))

    def test_a_tensor_near_the_limit(self):
        x = np.random.RandomState(2).rand(2, 8_000_000).astype(np.float32)
        self.assertEqual(self.ask(request_of("free", "FP32", x)).raw_output_contents[0], x.tobytes())

    def test_a_larger_one_names_the_flag_and_the_next_is_served(self):
        self.refused(Code.RESOURCE_EXHAUSTED, "--max-message-bytes", self.daemon.stub.ModelInfer,
                     request_of("free", "FP32", np.zeros((2, 9_000_000), np.float32)))
        self.refused(Code.RESOURCE_EXHAUSTED, "", self.daemon.stub.ModelInfer,
                     request_of("free", "FP32", np.zeros((2, 40_000_000), np.float32)))
        self.ask(request_of("free", "FP32", np.ones((2, 1), np.float32)))


class ParametersTest(ProtocolTest):
    MODELS = {"fp32": identity("FP32")}

    def parameter(self, name, field, value):
        request = request_of("fp32", "FP32", np.ones((1, 4), np.float32))
        setattr(request.parameters[name], field, value)
        return request

    def test_those_that_clients_send_are_taken(self):
        for name, field, value in (
                ("mine", "bool_param", True), ("mine", "int64_param", -1), ("mine", "string_param", "é"),
                ("mine", "double_param", 1.5), ("mine", "uint64_param", 2**64 - 1),
                ("priority", "uint64_param", 3), ("priority", "int64_param", 3),
                ("timeout", "int64_param", 60_000_000), ("timeout", "uint64_param", 2**64 - 1),
                ("timeout", "int64_param", 0), ("sequence_id", "int64_param", 0),
                ("sequence_id", "string_param", ""), ("sequence_start", "bool_param", False),
                ("triton_enable_empty_final_response", "bool_param", True),
                ("binary_data_output", "bool_param", True), ("headers", "string_param", "x")):
            with self.subTest(name, field=field):
                response = self.ask(self.parameter(name, field, value))
                self.assertEqual(len(response.raw_output_contents), 1)
                self.assertNotIn("triton_final_response", response.parameters)

    def test_those_that_cannot_be_meant_are_refused_by_name(self):
        for name, field, value in (
                ("priority", "string_param", "high"), ("timeout", "int64_param", -5),
                ("sequence_id", "int64_param", 4), ("sequence_id", "string_param", "s"),
                ("triton_enable_empty_final_response", "int64_param", 1),
                ("triton_unheard_of", "bool_param", True)):
            with self.subTest(name, field=field):
                self.refused(Code.INVALID_ARGUMENT, name, self.daemon.stub.ModelInfer,
                             self.parameter(name, field, value))

    def test_a_parameter_without_a_value(self):
        request = request_of("fp32", "FP32", np.ones((1, 4), np.float32))
        request.parameters["mine"].SetInParent()
        self.ask(request)

    def test_classification(self):
        rows = np.array([[1, 5, 3, 5], [np.nan, -1, 0, 2]], np.float32)

        def classify(k, typed):
            request = request_of("fp32", "FP32", rows, typed)
            request.outputs.add(name="same").parameters["classification"].int64_param = k
            output = self.ask(request)
            self.assertEqual(output.outputs[0].datatype, "BYTES")
            return output

        typed = classify(2, typed=True)
        self.assertEqual(list(typed.outputs[0].shape), [2, 2])
        self.assertEqual(list(typed.outputs[0].contents.bytes_contents),
                         [b"5.000000:1", b"5.000000:3", b"2.000000:3", b"0.000000:2"])
        raw = classify(1, typed=False).raw_output_contents[0]
        self.assertEqual(raw, b"\x0a\0\0\0" b"5.000000:1" b"\x0a\0\0\0" b"2.000000:3")
        self.assertEqual(list(classify(1000, typed=True).outputs[0].shape), [2, 4])
        with self.assertRaises(grpc.RpcError) as caught:
            classify(2**62, typed=True)
        self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
        self.assertRegex(caught.exception.details(), f"{2**62} classes.* at most 1000")

    def test_versions(self):
        for version in ("", "1", "01"):
            request = request_of("fp32", "FP32", np.ones((1, 4), np.float32))
            request.model_version = version
            self.assertEqual(self.ask(request).model_version, "1")
        for version, code in (("0", Code.NOT_FOUND), ("-1", Code.NOT_FOUND), ("x", Code.INVALID_ARGUMENT),
                              ("1.0", Code.INVALID_ARGUMENT), ("+1", Code.INVALID_ARGUMENT),
                              (" 1", Code.INVALID_ARGUMENT), ("9" * 30, Code.INVALID_ARGUMENT)):
            request.model_version = version
            self.refused(code, version, self.daemon.stub.ModelInfer, request)

    def test_unknown_names_are_not_found_everywhere(self):
        stub = self.daemon.stub
        for call, request in ((stub.ModelReady, pb.ModelReadyRequest), (stub.ModelConfig, pb.ModelConfigRequest),
                              (stub.ModelMetadata, pb.ModelMetadataRequest),
                              (stub.ModelStatistics, pb.ModelStatisticsRequest)):
            self.refused(Code.NOT_FOUND, "nobody", call, request(name="nobody"))
        for call, request in ((stub.ModelConfig, pb.ModelConfigRequest),
                              (stub.ModelMetadata, pb.ModelMetadataRequest),
                              (stub.ModelStatistics, pb.ModelStatisticsRequest)):
            self.refused(Code.NOT_FOUND, "77", call, request(name="fp32", version="77"))
        self.assertFalse(stub.ModelReady(pb.ModelReadyRequest(name="fp32", version="77")).ready)


class DescriptionsTest(ProtocolTest):
    MODELS = {"simplenet": SIMPLENET, "conv": CONV,
              "free": identity("FP32", "[2, -1]") + "batching { max_batch_size: 0 }"}

    def test_config_and_metadata_agree(self):
        for model in self.MODELS:
            metadata = self.daemon.stub.ModelMetadata(pb.ModelMetadataRequest(name=model))
            config = self.daemon.stub.ModelConfig(pb.ModelConfigRequest(name=model)).config
            self.assertEqual(list(metadata.versions), ["1"])
            self.assertEqual((metadata.name, config.name), (model, model))
            batched = config.max_batch_size > 0
            self.assertEqual(batched, model != "free")
            self.assertEqual(config.HasField("dynamic_batching"), batched)
            self.assertFalse(config.model_transaction_policy.decoupled)
            for described, configured in ((metadata.inputs, config.input), (metadata.outputs, config.output)):
                self.assertEqual([t.name for t in described], [t.name for t in configured])
                for tensor, other in zip(described, configured):
                    self.assertEqual(list(tensor.shape), ([-1] if batched else []) + list(other.dims))

    def test_the_server_lists_only_what_works(self):
        metadata = self.daemon.stub.ServerMetadata(pb.ServerMetadataRequest())
        self.assertIn("statistics", metadata.extensions)
        for absent in ("sequence", "system_shared_memory", "cuda_shared_memory", "trace", "logging"):
            self.assertNotIn(absent, metadata.extensions)

    def test_statistics_count_each_request_once(self):
        x = np.ones((3, 10), np.float32)
        before = self.statistics("simplenet")
        for _ in range(20):
            self.daemon.infer(x)
        alone = self.statistics("simplenet")
        self.assertEqual(alone.version, "1")
        for field in ("queue", "success", "compute_input", "compute_infer", "compute_output"):
            rose = getattr(alone.inference_stats, field).count - getattr(before.inference_stats, field).count
            self.assertEqual(rose, 20, field)
        self.assertEqual(alone.inference_count - before.inference_count, 60)
        self.assertEqual(alone.execution_count - before.execution_count, 20)

    def test_statistics_tell_batches_from_requests(self):
        request = request_of("conv", "FP32", np.ones((3, 1, 4, 4), np.float32))
        before = self.statistics("conv")
        calls = [self.daemon.stub.ModelInfer.future(request, timeout=harness.PATIENCE) for _ in range(1000)]
        for call in calls:
            call.result()
        together = self.statistics("conv")
        self.assertEqual(together.inference_stats.queue.count - before.inference_stats.queue.count, 1000)
        self.assertEqual(together.inference_count - before.inference_count, 3000)
        self.assertLess(together.execution_count - before.execution_count, 1000)
        self.assertEqual(sum(b.batch_size * b.compute_infer.count for b in together.batch_stats),
                         together.inference_count)

    def test_reflection_describes_what_each_listener_serves(self):
        def delimited(field, value):
            return bytes([field << 3 | 2, len(value)]) + value

        def reflect(channel, *requests):
            call = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                         request_serializer=bytes, response_deserializer=bytes)
            return list(call(iter(requests), timeout=harness.PATIENCE))

        health, inference, admin = b"grpc.health.v1.Health", b"inference.GRPCInferenceService", b"relight.v1.Admin"
        for channel, has_admin in ((self.daemon.channel, False), (self.daemon.admin_channel, True)):
            listed, described_health, described_inference = reflect(
                channel, delimited(7, b""), delimited(4, health), delimited(4, inference))
            self.assertIn(health, listed)
            self.assertIn(inference, listed)
            self.assertEqual(admin in listed, has_admin)
            self.assertIn(b"HealthCheckRequest", described_health)
            self.assertIn(b"ModelInferRequest", described_inference)


class StreamTest(ProtocolTest):
    MODELS = {"simplenet": SIMPLENET}

    def row(self, i):
        return np.full((1, 10), i % 7, np.float32)

    def stream(self, requests, **options):
        return self.daemon.stub.ModelStreamInfer(requests, timeout=harness.PATIENCE, **options)

    def test_a_thousand_requests_without_waiting(self):
        bad = {5, 500}

        def requests():
            for i in range(1000):
                x = self.row(i) if i not in bad else np.zeros((1, 9), np.float32)
                request = infer_request(x, id=str(i))
                if i % 3 == 0:
                    request.parameters["triton_enable_empty_final_response"].bool_param = True
                yield request

        answers = list(self.stream(requests()))
        self.assertEqual([a.infer_response.id for a in answers], [str(i) for i in range(1000)])
        for i, answer in enumerate(answers):
            self.assertEqual(bool(answer.error_message), i in bad)
            self.assertEqual("triton_final_response" in answer.infer_response.parameters, i % 3 == 0)
            if i not in bad:
                np.testing.assert_array_equal(outputs_of(answer.infer_response)[0],
                                              integer_answer(self.state, self.row(i)))

    def test_the_header_makes_an_error_the_end(self):
        def requests():
            for i in range(50):
                yield infer_request(np.zeros((1, 10 if i != 5 else 9), np.float32))

        answers = []
        with self.assertRaises(grpc.RpcError) as caught:
            for answer in self.stream(requests(), metadata=[("triton_grpc_error", "true")]):
                answers.append(answer)
        self.assertEqual(caught.exception.code(), Code.INVALID_ARGUMENT)
        self.assertLessEqual(len(answers), 5)
        self.assertEqual(len(list(self.stream(requests(), metadata=[("triton_grpc_error", "false")]))), 50)

    def test_a_client_that_cancels_leaves_nothing_behind(self):
        ended = threading.Event()
        self.addCleanup(ended.set)

        def forever():
            while not ended.is_set():
                yield infer_request(self.row(1))

        for answers in (0, 1, 30, 100):
            call = self.stream(forever())
            for _ in range(answers):
                next(call)
            call.cancel()
        self.assertEqual(list(self.stream(iter(()))), [])

    def test_garbage_in_a_stream_is_answered_in_its_turn(self):
        call = self.daemon.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer", request_serializer=bytes,
            response_deserializer=pb.ModelStreamInferResponse.FromString)
        good = infer_request(self.row(1)).SerializeToString()
        answers = list(call(iter([b"\xff\xff\xff", b"", good]), timeout=harness.PATIENCE))
        self.assertIn("malformed", answers[0].error_message)
        self.assertIn("unknown model", answers[1].error_message)
        self.assertEqual(answers[2].infer_response.model_version, "1")


SLOW = """
input { name: "x" datatype: "FP32" shape: [-1, 2048] }
batching { max_batch_size: 8 max_queue_size: %d }
network {
  layer { name: "fc1" linear { out_features: 4096 bias: false } }
  layer { name: "fc2" linear { out_features: 4096 bias: false } }
}
"""


class OverloadTest(ProtocolTest):
    # Of "light", one request of eight rows may wait.
    MODELS = {"narrow": SLOW % 1, "wide": SLOW % 100,
              "light": SLOW.replace("max_queue_size: %d", f"max_queue_bytes: {8 * 2048 * 4}")}
    FLAGS = ("--compute-threads", "1")

    @classmethod
    def give_weights(cls, model):
        cls.daemon.save({"fc1.weight": torch.zeros(4096, 2048), "fc2.weight": torch.zeros(4096, 4096)},
                        "step-1.pt", model)

    def start(self, model, count, timeout=harness.PATIENCE, parameters=()):
        request = infer_request(np.ones((8, 2048), np.float32), model, "x")
        for name, value in parameters:
            request.parameters[name].int64_param = value
        return [self.daemon.stub.ModelInfer.future(request, timeout=timeout) for _ in range(count)]

    def test_a_full_queue_is_unavailable_and_says_what_to_change(self):
        for model, limit in (("narrow", "batching.max_queue_size"), ("light", "batching.max_queue_bytes")):
            with self.subTest(limit):
                self.check_a_full_queue(model, limit)

    def check_a_full_queue(self, model, limit):
        errors = [call.exception() for call in self.start(model, 200)]
        refused = [error for error in errors if error is not None]
        self.assertTrue(refused)
        self.assertIn(None, errors)
        for error in refused:
            self.assertEqual(error.code(), Code.UNAVAILABLE)
            self.assertIn(limit, error.details())
            self.assertIn("try again later", error.details())
        self.assertEqual(self.statistics(model).inference_stats.success.count, errors.count(None))

    def test_work_that_nobody_waits_for_is_not_begun(self):
        before = self.statistics("wide").execution_count
        wanted = self.start("wide", 40)
        timed_out = self.start("wide", 5, parameters=[("timeout", 1)])
        unwanted = self.start("wide", 20)
        for call in unwanted:
            call.cancel()
        for call in wanted:
            self.assertIsNone(call.exception())
        codes = {call.exception() and call.exception().code() for call in timed_out}
        self.assertEqual(codes, {Code.UNAVAILABLE})
        # Cancelling may come too late for some; each that was begun is counted.
        self.assertLess(self.statistics("wide").execution_count - before, 60)


class CrowdTest(ProtocolTest):
    MODELS = {"conv": CONV}

    def test_many_clients_with_mixed_batches_and_shapes_get_their_own_answers(self):
        before = self.statistics("conv")
        wrong = []

        def client(seed):
            r = np.random.RandomState(seed)
            for _ in range(15):
                shape = (r.randint(1, 9), 1, r.randint(1, 5), r.randint(1, 5))
                x = r.randint(-5, 6, shape).astype(np.float32)
                wanted = torch.relu(torch.nn.functional.conv2d(
                    torch.from_numpy(x), self.kernel, self.bias, padding=1)).numpy()
                try:
                    (got,), _ = self.daemon.infer(x, "conv", "x")
                except grpc.RpcError as error:
                    wrong.append(f"{error.code()} {error.details()}")
                    return
                if not np.array_equal(got, wanted):
                    wrong.append(f"client {seed}: {shape}")

        clients = [threading.Thread(target=client, args=(seed,)) for seed in range(64)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        self.assertEqual(wrong, [])
        after = self.statistics("conv")
        self.assertEqual(after.inference_stats.success.count - before.inference_stats.success.count, 64 * 15)


def mutate(r, message):
    message = bytearray(message)
    for _ in range(r.choice((1, 1, 1, 2, 3, 8))):
        if not message:
            break
        at = r.randrange(len(message))
        kind = r.randrange(6)
        if kind == 0:
            message[at] = r.randrange(256)
        elif kind == 1:
            message[at] ^= 1 << r.randrange(8)
        elif kind == 2:
            del message[at:at + r.randrange(1, 8)]
        elif kind == 3:
            message[at:at] = r.randbytes(r.randrange(1, 8))
        elif kind == 4:
            message[at:at] = message[at:at + r.randrange(1, 20)]
        else:
            message[at] = r.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(message)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class HostileClientTest(ProtocolTest):
    MODELS = {"simplenet": SIMPLENET, "conv": CONV}

    def tearDown(self):
        (got,), _ = self.daemon.infer(np.ones((1, 10), np.float32))
        np.testing.assert_array_equal(got, integer_answer(self.state, np.ones((1, 10), np.float32)))

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.daemon.grpc_port), harness.PATIENCE)
        self.addCleanup(connection.close)
        return connection

    def originals(self):
        raw = infer_request(np.ones((2, 10), np.float32), id="abc", version=1, outputs=["output"])
        raw.parameters["note"].string_param = "x"
        raw.parameters["priority"].uint64_param = 1
        raw.parameters["ratio"].double_param = 2.0
        typed = pb.ModelInferRequest(model_name="simplenet")
        typed.inputs.add(name="input", datatype="FP32", shape=[1, 10]).contents.fp32_contents.extend([1] * 10)
        typed.outputs.add(name="output").parameters["classification"].int64_param = 2
        image = infer_request(np.ones((3, 1, 4, 5), np.float32), "conv", "x")
        return [request.SerializeToString() for request in (raw, typed, image)]

    def test_mutated_requests_get_an_answer_or_a_reason(self):
        r = random.Random(1)
        originals = self.originals()
        call = self.daemon.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer",
                                               request_serializer=bytes, response_deserializer=bytes)
        codes = collections.Counter()
        for _ in range(50):
            calls = [call.future(mutate(r, r.choice(originals)), timeout=harness.PATIENCE) for _ in range(100)]
            for error in (c.exception() for c in calls):
                codes[error and error.code()] += 1
        self.assertLessEqual(set(codes), {None, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNIMPLEMENTED}, codes)
        stream = self.daemon.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer", request_serializer=bytes,
            response_deserializer=pb.ModelStreamInferResponse.FromString)
        requests = [mutate(r, r.choice(originals)) for _ in range(1000)]
        self.assertEqual(len(list(stream(iter(requests), timeout=harness.PATIENCE))), 1000)

    def test_mutated_queries_and_orders_get_an_answer_or_a_reason(self):
        r = random.Random(2)
        for path, message in (("inference.GRPCInferenceService/ModelStatistics", b"\x0a\x09simplenet\x12\x011"),
                              ("inference.GRPCInferenceService/RepositoryIndex", b"\x10\x01"),
                              ("relight.v1.Admin/GetStatus", b"\x0a\x09simplenet"),
                              ("grpc.health.v1.Health/Check", b"\x0a\x00")):
            call = self.daemon.admin_channel.unary_unary("/" + path, request_serializer=bytes,
                                                         response_deserializer=bytes)
            for c in [call.future(mutate(r, message), timeout=harness.PATIENCE) for _ in range(100)]:
                c.exception()
        # Nor does what is not UTF-8 write to the log in its own way.
        for line in self.daemon.lines:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT")

    def test_a_small_message_cannot_ask_for_much_memory(self):
        def peak_bytes():
            with open(f"/proc/{self.daemon.process.pid}/status") as f:
                return int(next(line for line in f if line.startswith("VmHWM")).split()[1]) << 10

        # Compressing keeps this process from greeting a server in time.
        grpc.channel_ready_future(self.daemon.channel).result(harness.PATIENCE)
        before = peak_bytes()
        zeros = bytes(256 << 20)  # A quarter of a megabyte on the wire.
        for method in ("inference.GRPCInferenceService/ModelInfer", "grpc.health.v1.Health/Check"):
            call = self.daemon.channel.unary_unary("/" + method, request_serializer=bytes)
            with self.assertRaises(grpc.RpcError) as caught:
                call(zeros, timeout=harness.PATIENCE, compression=grpc.Compression.Gzip)
            self.assertEqual(caught.exception.code(), Code.UNIMPLEMENTED)
            self.assertIn("gzip", caught.exception.details())
        self.assertLess(peak_bytes() - before, 64 << 20)

    def test_connections_that_say_nothing_are_closed_and_harm_nobody(self):
        silent = [self.connect() for _ in range(200)]
        self.daemon.infer(np.ones((1, 10), np.float32))
        for connection in silent:
            while connection.recv(4096):
                pass

    def test_what_is_not_http2(self):
        r = random.Random(3)
        for i in range(100):
            frames = b"".join(frame(r.randrange(12), r.randrange(256), r.randrange(5),
                                    r.randbytes(r.randrange(40))) for _ in range(20))
            data = r.choice((r.randbytes(200), PREFACE + r.randbytes(200), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                             PREFACE + frame(4, 0, 0, b"") + frames))
            connection = self.connect()
            connection.sendall(data)
            connection.close()

    def test_half_sent_messages(self):
        def literal(name, value):
            return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

        headers = b"".join(literal(*field) for field in (
            (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"x"), (b"te", b"trailers"),
            (b":path", b"/inference.GRPCInferenceService/ModelInfer"), (b"content-type", b"application/grpc")))
        claim = (60 << 20).to_bytes(4, "big")
        for _ in range(50):
            self.connect().sendall(PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, headers) +
                                   frame(0, 0, 1, b"\x00" + claim + b"\x00" * 8000))


class MetricsTest(ProtocolTest):
    ODD = 'we"ird é{}=, name'
    MODELS = {"simplenet": SIMPLENET, ODD: SIMPLENET}

    @classmethod
    def give_weights(cls, model):
        cls.daemon.save(integer_state(1), "step-1.pt", model)

    def scrape(self):
        url = f"http://127.0.0.1:{self.daemon.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=harness.PATIENCE) as answer:
            text = answer.read().decode()
        types, samples, helped = {}, {}, set()
        for line in text.splitlines():
            if line.startswith("# HELP "):
                helped.add(line.split()[2])
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.assertNotIn(name, types)
                types[name] = kind
            else:
                key, value = line.rsplit(" ", 1)
                self.assertNotIn(key, samples)
                samples[key] = float(value)
        self.assertEqual(helped, set(types))
        return types, samples

    def test_names_types_and_buckets_are_sound(self):
        types, samples = self.scrape()
        for name, kind in types.items():
            if name.startswith("relight_"):
                self.assertEqual(name.endswith("_total"), kind == "counter", name)
        for key in samples:
            base = key.split("{")[0]
            if base not in types:
                family, _, part = base.rpartition("_")
                self.assertEqual(types.get(family), "histogram", key)
                self.assertIn(part, ("bucket", "sum", "count"))
        for family in (name for name, kind in types.items() if kind == "histogram"):
            buckets = [value for key, value in samples.items()
                       if key.startswith(family + '_bucket{model="simplenet"')]
            self.assertTrue(buckets, family)
            self.assertEqual(buckets, sorted(buckets))
            self.assertEqual(buckets[-1], samples[family + '_count{model="simplenet"}'])

    def test_labels_are_escaped(self):
        _, samples = self.scrape()
        self.assertEqual(samples['relight_served_version{model="we\\"ird é{}=, name"}'], 1)

    def test_the_numbers_are_those_of_the_requests_sent(self):
        _, before = self.scrape()
        for _ in range(30):
            self.daemon.infer(np.ones((4, 10), np.float32))
        for _ in range(7):
            with self.assertRaises(grpc.RpcError):
                self.daemon.infer(np.ones((4, 9), np.float32))
        with self.assertRaises(grpc.RpcError):
            self.daemon.infer(np.ones((1, 10), np.float32), version=99)
        # What never reaches the model: a version that is no number, a model that is not here.
        for model, version in (("simplenet", "newest"), ("nobody", ""), ("nobody", "newest")):
            with self.assertRaises(grpc.RpcError):
                self.daemon.infer(np.ones((1, 10), np.float32), model, version=version)
        _, after = self.scrape()

        def rose(key):
            return after[key] - before.get(key, 0)

        self.assertEqual(rose('relight_inference_requests_total{model="simplenet",outcome="success"}'), 30)
        self.assertEqual(rose('relight_inference_requests_total{model="simplenet",outcome="failure"}'), 9)
        self.assertEqual(rose('relight_inference_failures_total{model="simplenet",reason="invalid"}'), 9)
        self.assertEqual(rose('relight_inference_failures_total{model="",reason="invalid"}'), 2)
        self.assertEqual(rose('relight_inference_rows_total{model="simplenet"}'), 120)
        self.assertEqual(rose('relight_inference_batches_total{model="simplenet"}'), 30)
        self.assertEqual(rose('relight_request_duration_seconds_count{model="simplenet"}'), 30)
        self.assertEqual(rose('relight_queue_duration_seconds_count{model="simplenet"}'), 30)
        self.assertEqual(rose('relight_batch_rows_sum{model="simplenet"}'), 120)
        self.assertEqual(rose('nv_inference_count{model="simplenet",version="1"}'), 120)
        self.assertEqual(rose('nv_inference_request_success{model="simplenet",version="1"}'), 30)
        self.assertEqual(after['relight_inference_requests_total{model="we\\"ird é{}=, name",outcome="success"}'], 0)


class TorchScriptTest(unittest.TestCase):
    CONFIG = """
    input { name: "x" datatype: "FP32" shape: [-1, 10] }
    output { name: "y" datatype: "FP32" shape: [-1, 2] }
    torchscript { file: "graph.pt" }
    """

    def test_checkpoints_under_clients_one_of_them_misshaped(self):
        states = {version: integer_state(version) for version in (1, 2, 4, 5)}
        # Both layers fit each other, but not the graph.
        misshaped = {"fc1.weight": torch.ones(6, 10), "fc1.bias": torch.ones(6),
                     "fc2.weight": torch.ones(2, 6), "fc2.bias": torch.ones(2)}
        daemon = Daemon(models={"scripted": self.CONFIG})
        torch.jit.script(harness.SimpleNet().eval()).save(
            os.path.join(daemon.repository, "scripted", "graph.pt"))
        with daemon:
            daemon.save(states[1], "step-1.pt", model="scripted")
            daemon.wait_serving(1, "scripted")
            x = np.arange(-10, 10, dtype=np.float32).reshape(2, 10)
            served = 1
            with harness.clients_at_work(daemon, states, 4, model="scripted", input_name="x"):
                for version in range(2, 6):
                    name = f"step-{version}.pt"
                    daemon.save(states.get(version, misshaped), name, model="scripted")
                    if version in states:
                        daemon.wait_serving(version, "scripted")
                        served = version
                    else:
                        status = daemon.wait_until(lambda status: any(
                            c.file == name and c.state == admin_pb2.VERSION_REFUSED
                            for c in status.candidates), "scripted")
                        self.assertRegex(status.last_error, r"fc1\.weight.*\[6, 10\].*\[5, 10\]")
                        self.assertRegex(status.last_error, r"fc2\.weight.*\[2, 6\].*\[2, 5\]")
                    (got,), response = daemon.infer(x, "scripted", "x")
                    self.assertEqual(response.model_version, str(served))
                    np.testing.assert_array_equal(got, integer_answer(states[served], x))
            self.assertEqual(daemon.status("scripted").generation, len(states))

    def test_the_graph_is_exported_once_and_its_weights_come_from_checkpoints(self):
        archive = os.path.join(harness.GOOD, "torchscript.pt")
        x, wanted, _ = io_case("torchscript.json", "torchscript.pt")
        exported = torch.jit.load(archive)
        daemon = Daemon(models={"scripted": self.CONFIG})
        with open(archive, "rb") as source:
            harness.write_file(os.path.join(daemon.repository, "scripted", "graph.pt"), source.read())
        with daemon:
            daemon.save(exported.state_dict(), "step-1.pt", model="scripted")
            daemon.wait_serving(1, "scripted")
            (got,), _ = daemon.infer(x, "scripted", "x")
            np.testing.assert_allclose(got, wanted, atol=1e-5)
            # Other weights in the same graph: integers, so that the answer is exact.
            state = integer_state(5)
            daemon.save(state, "step-2.pt", model="scripted")
            daemon.wait_serving(2, "scripted")
            (got,), response = daemon.infer(np.full((3, 10), 2, np.float32), "scripted", "x")
            np.testing.assert_array_equal(got, integer_answer(state, np.full((3, 10), 2, np.float32)))
            self.assertEqual(response.model_version, "2")
            # Where weights are pushed, an archive is refused by name.
            daemon.push(archive, "step-3.pt", model="scripted")
            daemon.wait_for_log("step-3.*TorchScript")
            self.assertEqual(daemon.infer(x, "scripted", "x")[1].model_version, "2")


class ConvBnNet(torch.nn.Module):
    """The net of the conv_bn fixtures."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
        self.register_buffer("scale", torch.tensor(0.5))
        self.head = torch.nn.Linear(4 * 4 * 4, 3)

    def forward(self, x):
        return self.head(self.features(x).flatten(1) * self.scale)


class ConvBnTest(unittest.TestCase):
    FIXTURES = ("conv_bn_state.pth", "conv_bn_entire.pth", "conv_bn_channels_last.pth")

    def scripted(self):
        daemon = Daemon(models={"conv_bn": """
        input { name: "x" datatype: "FP32" shape: [-1, 3, 4, 4] }
        output { name: "y" datatype: "FP32" shape: [-1, 3] }
        torchscript { file: "graph.pt" }
        """})
        torch.jit.script(ConvBnNet().eval()).save(os.path.join(daemon.repository, "conv_bn", "graph.pt"))
        return daemon

    def test_as_torchscript_every_way_of_saving(self):
        daemon = self.scripted()
        with daemon:
            for version, file in enumerate(self.FIXTURES, 1):
                x, wanted, _ = io_case("conv_bn.json", file)
                # Other weights in between, so that each file is a swap.
                state = integer_conv_bn(version)
                daemon.save(state, f"step-{2 * version - 1}.pt", model="conv_bn")
                daemon.wait_serving(2 * version - 1, "conv_bn")
                daemon.push(os.path.join(harness.GOOD, file), f"step-{2 * version}.pt", model="conv_bn")
                daemon.wait_serving(2 * version, "conv_bn")
                (got,), _ = daemon.infer(x, "conv_bn", "x")
                np.testing.assert_allclose(got, wanted, atol=1e-5, err_msg=file)

    def test_as_torchscript_the_log_names_buffers_that_stay_the_archives(self):
        daemon = self.scripted()
        state = integer_conv_bn(1)
        state["features.1.running_mean"].zero_()
        state["features.1.running_var"].fill_(1)
        del state["scale"]  # As if it had been registered with persistent=False.
        net = ConvBnNet().eval()
        net.load_state_dict(state, strict=False)
        x = np.ones((1, 3, 4, 4), np.float32)
        with daemon:
            daemon.save(state, "step-1.pt", model="conv_bn")
            daemon.wait_serving(1, "conv_bn")
            daemon.wait_for_log("step-1.pt fits in part: as in the archive.*: scale")
            (got,), _ = daemon.infer(x, "conv_bn", "x")
            np.testing.assert_allclose(got, net(torch.from_numpy(x)).detach().numpy(), rtol=1e-5)

    def test_as_a_network_of_named_layers(self):
        # Named layers have no buffer of one's own to multiply with: its factor goes into the head.
        state = torch.load(os.path.join(harness.GOOD, "conv_bn_state.pth"))
        state["head.weight"] *= state.pop("scale")
        x, wanted, _ = io_case("conv_bn.json", "conv_bn_state.pth")
        config = """
        input { name: "x" datatype: "FP32" shape: [-1, 3, 4, 4] }
        network {
          layer { name: "features.0" conv2d { out_channels: 4 kernel_size: 3 padding: 1 bias: false } }
          layer { name: "features.1" batch_norm2d {} }
          layer { name: "features.2" relu {} }
          layer { flatten {} }
          layer { name: "head" linear { out_features: 3 } }
        }
        """
        with Daemon(models={"conv_bn": config}) as daemon:
            daemon.save(state, "step-1.pt", model="conv_bn")
            daemon.wait_serving(1, "conv_bn")
            (got,), _ = daemon.infer(x, "conv_bn", "x")
            np.testing.assert_allclose(got, wanted, atol=1e-5)


def integer_conv_bn(seed):
    r = np.random.RandomState(seed)
    return {name: torch.from_numpy(np.array(r.randint(1, 5, tuple(value.shape)))).to(value.dtype)
            for name, value in ConvBnNet().state_dict().items()}


if __name__ == "__main__":
    unittest.main()
