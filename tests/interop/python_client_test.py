"""A Python client as a user writes one: grpcio and stubs generated from our .proto files.

It finds a daemon that serves one SimpleNet(10, 5, 2), from model_state.pth, through the environment:
RELIGHT_GRPC_PORT, RELIGHT_ADMIN_SOCKET, RELIGHT_MODEL, RELIGHT_TEST_DATA.
"""

import hashlib
import json
import os
import struct
import unittest

import grpc

import health_pb2
import health_pb2_grpc
from inference import grpc_service_pb2 as pb
from inference import grpc_service_pb2_grpc
from relight.v1 import admin_pb2
from relight.v1 import admin_pb2_grpc

MODEL = os.environ["RELIGHT_MODEL"]
SERVICE = "inference.GRPCInferenceService"
TIMEOUT = 60

with open(os.path.join(os.environ["RELIGHT_TEST_DATA"], "io", "simplenet.json")) as f:
    CASE = json.load(f)["model_state.pth"]
ROWS, COLUMNS = CASE["input_shape"]


def pack(values):
    return struct.pack(f"<{len(values)}f", *values)


def unpack(raw):
    return struct.unpack(f"<{len(raw) // 4}f", raw)


class InteropTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.channel = grpc.insecure_channel(f"127.0.0.1:{os.environ['RELIGHT_GRPC_PORT']}")
        cls.admin_channel = grpc.insecure_channel(f"unix:{os.environ['RELIGHT_ADMIN_SOCKET']}")
        cls.stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(cls.channel)
        cls.health = health_pb2_grpc.HealthStub(cls.channel)
        cls.admin = admin_pb2_grpc.AdminStub(cls.admin_channel)
        metadata = cls.stub.ModelMetadata(pb.ModelMetadataRequest(name=MODEL), timeout=TIMEOUT)
        cls.metadata = metadata
        cls.input_name = metadata.inputs[0].name
        cls.output_name = metadata.outputs[0].name

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()
        cls.admin_channel.close()

    def request(self, raw=True, model=MODEL, name=None, datatype="FP32", shape=(ROWS, COLUMNS)):
        request = pb.ModelInferRequest(model_name=model, id="seven")
        tensor = request.inputs.add(name=name or self.input_name, datatype=datatype, shape=shape)
        if raw:
            request.raw_input_contents.append(pack(CASE["input"]))
        else:
            tensor.contents.fp32_contents.extend(CASE["input"])
        return request

    def infer(self, request):
        return self.stub.ModelInfer(request, timeout=TIMEOUT)

    def check_answer(self, got):
        self.assertEqual(len(got), len(CASE["output"]))
        for value, wanted in zip(got, CASE["output"]):
            self.assertAlmostEqual(value, wanted, delta=1e-5)

    def check_refused(self, code, call, *words):
        with self.assertRaises(grpc.RpcError) as raised:
            call()
        self.assertEqual(raised.exception.code(), code, raised.exception.details())
        for word in words:
            self.assertIn(word, raised.exception.details())


class AnswersTest(InteropTest):
    def test_raw_in_gives_raw_out(self):
        response = self.infer(self.request())
        self.check_answer(unpack(response.raw_output_contents[0]))
        self.assertEqual(response.id, "seven")
        self.assertEqual(response.model_name, MODEL)
        self.assertEqual(list(response.outputs[0].shape), CASE["output_shape"])
        self.assertFalse(response.outputs[0].HasField("contents"))
        self.assertGreaterEqual(int(response.model_version), 0)
        self.assertGreaterEqual(response.parameters["generation"].int64_param, 1)
        self.assertRegex(response.parameters["weights_digest"].string_param, "^[0-9a-f]{32}$")

    def test_typed_in_gives_typed_out(self):
        response = self.infer(self.request(raw=False))
        self.assertEqual(len(response.raw_output_contents), 0)
        self.check_answer(response.outputs[0].contents.fp32_contents)

    def test_the_version_that_is_named_answers(self):
        version = self.infer(self.request()).model_version
        request = self.request()
        request.model_version = version
        self.assertEqual(self.infer(request).model_version, version)

    def test_a_named_output_is_the_only_one(self):
        request = self.request()
        request.outputs.add(name=self.output_name)
        self.assertEqual([o.name for o in self.infer(request).outputs], [self.output_name])

    def test_a_stream_answers_in_turn_and_outlives_a_bad_request(self):
        requests = [self.request(), self.request(model="no-such-model"), self.request(raw=False)]
        for i, request in enumerate(requests):
            request.id = str(i)
        answers = list(self.stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT))
        self.assertEqual(len(answers), 3)
        failed = [a for a in answers if a.error_message]
        self.assertEqual(len(failed), 1)
        self.assertIn("no-such-model", failed[0].error_message)
        good = {a.infer_response.id: a.infer_response for a in answers if not a.error_message}
        self.check_answer(unpack(good["0"].raw_output_contents[0]))
        self.check_answer(good["2"].outputs[0].contents.fp32_contents)


class RefusalsTest(InteropTest):
    def test_a_wrong_shape_names_both(self):
        self.check_refused(grpc.StatusCode.INVALID_ARGUMENT,
                           lambda: self.infer(self.request(shape=(COLUMNS, ROWS))),
                           str(ROWS), str(COLUMNS))

    def test_bytes_that_miss_the_shape(self):
        request = self.request()
        request.raw_input_contents[0] = request.raw_input_contents[0][:-4]
        self.check_refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.infer(request),
                           str(ROWS * COLUMNS * 4), str(ROWS * COLUMNS * 4 - 4))

    def test_a_wrong_datatype_names_both(self):
        self.check_refused(grpc.StatusCode.INVALID_ARGUMENT,
                           lambda: self.infer(self.request(datatype="INT32")), "INT32", "FP32")

    def test_a_wrong_name_is_named(self):
        self.check_refused(grpc.StatusCode.INVALID_ARGUMENT,
                           lambda: self.infer(self.request(name="no-such-input")), "no-such-input")

    def test_an_unknown_output_is_named(self):
        request = self.request()
        request.outputs.add(name="no-such-output")
        self.check_refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.infer(request),
                           "no-such-output")

    def test_raw_and_typed_contents_exclude_each_other(self):
        request = self.request(raw=False)
        request.raw_input_contents.append(pack(CASE["input"]))
        self.check_refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.infer(request))

    def test_an_unknown_model_or_version_is_not_found(self):
        self.check_refused(grpc.StatusCode.NOT_FOUND,
                           lambda: self.infer(self.request(model="no-such-model")), "no-such-model")
        request = self.request()
        request.model_version = "999999999"
        self.check_refused(grpc.StatusCode.NOT_FOUND, lambda: self.infer(request), "999999999")

    def test_a_version_that_is_no_number(self):
        request = self.request()
        request.model_version = "newest"
        self.check_refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: self.infer(request), "newest")

    def test_what_is_not_offered_is_unimplemented(self):
        for call in (
                lambda: self.stub.SystemSharedMemoryStatus(
                    pb.SystemSharedMemoryStatusRequest(), timeout=TIMEOUT),
                lambda: self.stub.CudaSharedMemoryUnregister(
                    pb.CudaSharedMemoryUnregisterRequest(), timeout=TIMEOUT),
                lambda: self.stub.TraceSetting(pb.TraceSettingRequest(), timeout=TIMEOUT),
                lambda: self.stub.LogSettings(pb.LogSettingsRequest(), timeout=TIMEOUT)):
            self.check_refused(grpc.StatusCode.UNIMPLEMENTED, call)

    def test_the_public_port_does_not_unload(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.stub.RepositoryModelUnload(
                pb.RepositoryModelUnloadRequest(model_name=MODEL), timeout=TIMEOUT)
        self.assertIn("--allow-model-control", raised.exception.details())
        self.check_answer(unpack(self.infer(self.request()).raw_output_contents[0]))


class DescriptionTest(InteropTest):
    def test_live_and_ready(self):
        self.assertTrue(self.stub.ServerLive(pb.ServerLiveRequest(), timeout=TIMEOUT).live)
        self.assertTrue(self.stub.ServerReady(pb.ServerReadyRequest(), timeout=TIMEOUT).ready)
        self.assertTrue(
            self.stub.ModelReady(pb.ModelReadyRequest(name=MODEL), timeout=TIMEOUT).ready)

    def test_server_metadata(self):
        metadata = self.stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=TIMEOUT)
        self.assertEqual(metadata.name, "relight")
        self.assertIn("statistics", metadata.extensions)

    def test_model_metadata_agrees_with_the_config(self):
        self.assertEqual(list(self.metadata.inputs[0].shape), [-1, COLUMNS])
        self.assertEqual(self.metadata.inputs[0].datatype, "FP32")
        self.assertEqual(list(self.metadata.outputs[0].shape), [-1, CASE["output_shape"][1]])
        self.assertIn(self.infer(self.request()).model_version, self.metadata.versions)
        config = self.stub.ModelConfig(pb.ModelConfigRequest(name=MODEL), timeout=TIMEOUT).config
        self.assertEqual(config.name, MODEL)
        self.assertEqual([i.name for i in config.input], [self.input_name])
        # The batch dimension is in the metadata's shapes and not in the config's.
        batched = 1 if config.max_batch_size > 0 else 0
        self.assertEqual(list(config.input[0].dims), list(self.metadata.inputs[0].shape)[batched:])

    def test_statistics_count_what_was_asked(self):
        def success():
            response = self.stub.ModelStatistics(
                pb.ModelStatisticsRequest(name=MODEL), timeout=TIMEOUT)
            version = self.infer(self.request()).model_version
            row = next(s for s in response.model_stats if s.version == version)
            return row.inference_stats.success.count, row.inference_stats.queue.count, \
                row.inference_count
        before, after = success(), success()
        self.assertEqual(after[0] - before[0], 1)
        self.assertEqual(after[1] - before[1], 1)
        self.assertEqual(after[2] - before[2], ROWS)

    def test_the_index_lists_the_model(self):
        index = self.stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=TIMEOUT)
        self.assertIn((MODEL, "READY"), [(m.name, m.state) for m in index.models])

    def test_health(self):
        for service in ("", SERVICE):
            request = health_pb2.HealthCheckRequest(service=service)
            self.assertEqual(self.health.Check(request, timeout=TIMEOUT).status,
                             health_pb2.HealthCheckResponse.SERVING)
            watch = self.health.Watch(request, timeout=TIMEOUT)
            self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVING)
            watch.cancel()
        unknown = health_pb2.HealthCheckRequest(service="no-such-service")
        self.check_refused(grpc.StatusCode.NOT_FOUND,
                           lambda: self.health.Check(unknown, timeout=TIMEOUT))
        watch = self.health.Watch(unknown, timeout=TIMEOUT)
        self.assertEqual(next(watch).status, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        watch.cancel()

    def reflect(self, request):
        # python3-grpcio brings no reflection stubs; the two requests fit on a line each.
        call = self.channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            request_serializer=bytes, response_deserializer=bytes)
        return next(iter(call(iter([request]), timeout=TIMEOUT)))

    def test_reflection_lists_and_describes_the_services(self):
        list_services = b"\x3a\x01*"
        services = self.reflect(list_services)
        for name in (SERVICE, "grpc.health.v1.Health"):
            self.assertIn(name.encode(), services)
            symbol = name.encode()
            file_containing_symbol = b"\x22" + bytes([len(symbol)]) + symbol
            # A description holds the file's name; an error would not.
            self.assertIn(b".proto", self.reflect(file_containing_symbol))


class AdminTest(InteropTest):
    def test_status_and_history_tell_what_answers(self):
        response = self.infer(self.request())
        status = self.admin.GetStatus(admin_pb2.GetStatusRequest(model=MODEL), timeout=TIMEOUT)
        serving = [v for v in status.models[0].loaded if v.state == admin_pb2.VERSION_SERVING]
        self.assertEqual([str(v.version) for v in serving], [response.model_version])
        self.assertEqual(serving[0].weights_digest, response.parameters["weights_digest"].string_param)
        self.assertTrue(status.ready)
        history = self.admin.GetHistory(admin_pb2.GetHistoryRequest(model=MODEL), timeout=TIMEOUT)
        self.assertIn(admin_pb2.HistoryEntry.SERVED, [e.event for e in history.entries])

    def test_watch_begins_with_the_status(self):
        watch = self.admin.Watch(admin_pb2.WatchRequest(model=MODEL), timeout=TIMEOUT)
        self.assertEqual(next(watch).name, MODEL)
        watch.cancel()

    def test_a_reload_of_nothing_new_swaps_nothing(self):
        response = self.admin.Reload(admin_pb2.ReloadRequest(model=MODEL), timeout=TIMEOUT)
        self.assertFalse(response.swapped)
        self.assertEqual(response.status.state, admin_pb2.MODEL_SERVING)

    def test_a_snapshot_is_the_file_that_it_says(self):
        def snapshot(overwrite):
            request = admin_pb2.SnapshotRequest(model=MODEL, path="interop.pt", overwrite=overwrite)
            return list(self.admin.Snapshot(request, timeout=TIMEOUT))
        result = snapshot(overwrite=True)[-1].result
        with open(result.path, "rb") as f:
            data = f.read()
        self.assertEqual(len(data), result.size_bytes)
        self.assertEqual(hashlib.sha256(data).hexdigest(), result.file_sha256)
        self.check_refused(grpc.StatusCode.ALREADY_EXISTS, lambda: snapshot(overwrite=False),
                           "interop.pt")

    def test_an_unknown_model_is_not_found(self):
        for call in (
                lambda: self.admin.Reload(admin_pb2.ReloadRequest(model="no-such"), timeout=TIMEOUT),
                lambda: self.admin.Pin(admin_pb2.PinRequest(model="no-such"), timeout=TIMEOUT),
                lambda: list(self.admin.Snapshot(
                    admin_pb2.SnapshotRequest(model="no-such"), timeout=TIMEOUT))):
            self.check_refused(grpc.StatusCode.NOT_FOUND, call, "no-such")

    def test_the_protocols_own_load_answers_on_the_admin_socket(self):
        stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self.admin_channel)
        stub.RepositoryModelLoad(
            pb.RepositoryModelLoadRequest(model_name=MODEL), timeout=TIMEOUT)
        self.check_answer(unpack(self.infer(self.request()).raw_output_contents[0]))


if __name__ == "__main__":
    unittest.main()
