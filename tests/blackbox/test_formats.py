"""Every format that trainers save in takes over from the one before, however its files arrive."""

import json
import os
import unittest

import grpc
import numpy as np
import torch

import harness
from harness import Daemon, SIMPLENET, admin_pb2, clients_at_work, integer_answer, integer_state
from harness import safetensors_bytes, torch_bytes, write_file

# Nothing here waits for time to pass: what is torn stays so until the test completes it.
PATIENT = SIMPLENET + "checkpoints { torn_timeout_ms: 86400000 settle_time_ms: %d }\n"

ENCODERS = {".safetensors": safetensors_bytes, ".bin": torch_bytes}


def shards_of(state, suffix, stem, folder=""):
    """A checkpoint in two shards, as names below the watched folder and bytes; the index is last."""
    files, weight_map = {}, {}
    for number, prefix in enumerate(("fc1.", "fc2."), 1):
        part = {key: value for key, value in state.items() if key.startswith(prefix)}
        shard = f"{stem}-{number:05}-of-00002{suffix}"
        files[os.path.join(folder, shard)] = ENCODERS[suffix](part)
        weight_map.update(dict.fromkeys(part, shard))
    index = {"metadata": {"total_size": 268}, "weight_map": weight_map}
    files[os.path.join(folder, f"{stem}{suffix}.index.json")] = json.dumps(index).encode()
    return files


def write_in_place(path, data):
    with open(path, "wb") as f:
        f.write(data)


# Each gives the files of a version; the last one's name is what the status calls the checkpoint.
FORMATS = [
    lambda state, n: {f"step-{n}.pt": torch_bytes(state)},
    lambda state, n: {f"step-{n}.pth": torch_bytes(state, legacy=True)},
    lambda state, n: {f"step-{n}.ckpt": torch_bytes({"state_dict": state, "epoch": n}, legacy=True)},
    lambda state, n: {f"step-{n}.safetensors": safetensors_bytes(state)},
    lambda state, n: shards_of(state, ".safetensors", f"step-{n}"),
    lambda state, n: shards_of(state, ".bin", f"step-{n}"),
    lambda state, n: shards_of(state, ".safetensors", "model", f"checkpoint-{n}"),
    lambda state, n: shards_of(state, ".bin", "pytorch_model", f"checkpoint-{n}"),
]


class ArrivalTest(unittest.TestCase):
    X = np.arange(-20, 20, dtype=np.float32).reshape(4, 10)

    def place(self, daemon, files, write=write_file):
        for name, data in files.items():
            path = os.path.join(daemon.watched(), name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write(path, data)

    def assert_serves(self, daemon, version, state):
        (got,), response = daemon.infer(self.X)
        self.assertEqual(response.model_version, str(version))
        np.testing.assert_array_equal(got, integer_answer(state, self.X))

    def wait_for(self, daemon, file, state, reason):
        """Waits until the status shows `file` in `state`, for a reason that contains `reason`."""
        daemon.wait_until(lambda status: any(
            c.file == file and c.state == state and reason in c.reason for c in status.candidates))


class FormatsTest(ArrivalTest):
    def test_each_takes_over_from_the_one_before(self):
        formats = [*FORMATS, FORMATS[0]]
        states = {version: integer_state(version) for version in range(1, len(formats) + 1)}
        with Daemon(models={"simplenet": PATIENT % 50}) as daemon:
            self.place(daemon, formats[0](states[1], 1))
            daemon.wait_serving(1)
            with clients_at_work(daemon, states, 2):
                for version, files_of in enumerate(formats[1:], 2):
                    self.place(daemon, files_of(states[version], version))
                    daemon.wait_serving(version)
                    self.assert_serves(daemon, version, states[version])
            self.assertEqual(daemon.status().generation, len(formats))

    def test_the_same_weights_in_another_format_are_no_swap(self):
        state = integer_state(1)
        with Daemon(models={"simplenet": PATIENT % 50}) as daemon:
            self.place(daemon, FORMATS[0](state, 1))
            daemon.wait_serving(1)
            for version, files_of in enumerate(FORMATS[1:], 2):
                *_, name = files = files_of(state, version)
                self.place(daemon, files)
                self.wait_for(daemon, name, admin_pb2.VERSION_SERVING, "same weights as version 1")
                self.assert_serves(daemon, 1, state)
            self.assertEqual(daemon.status().generation, 1)

    def test_each_comes_back_as_a_snapshot(self):
        with Daemon(models={"simplenet": PATIENT % 50}) as daemon:
            for version, files_of in enumerate(FORMATS, 1):
                state = integer_state(version)
                self.place(daemon, files_of(state, version))
                daemon.wait_serving(version)
                request = admin_pb2.SnapshotRequest(
                    model="simplenet", weights_only=True, format=admin_pb2.SNAPSHOT_STATE_DICT)
                *_, last = daemon.admin.Snapshot(request, timeout=harness.PATIENCE)
                self.assertEqual(last.result.version, version)
                written = torch.load(last.result.path, weights_only=True)
                self.assertEqual(list(written), list(state))
                for key in state:
                    self.assertTrue(torch.equal(written[key], state[key]), key)

    def test_no_part_of_a_growing_file_is_served(self):
        # Without a settle time only the bytes themselves say that there is more to come.
        states = {version: integer_state(version) for version in range(1, 6)}
        growing = [
            ("step-2.pt", {"step-2.pt": torch_bytes(states[2])}),
            ("step-3.pth", {"step-3.pth": torch_bytes(states[3], legacy=True)}),
            ("step-4.safetensors", {"step-4.safetensors": safetensors_bytes(states[4])}),
            ("step-5-00002-of-00002.safetensors", shards_of(states[5], ".safetensors", "step-5")),
        ]
        with Daemon(models={"simplenet": PATIENT % 0}) as daemon:
            self.place(daemon, {"step-1.pt": torch_bytes(states[1])})
            daemon.wait_serving(1)
            for version, (name, files) in enumerate(growing, 2):
                data = files.pop(name)
                self.place(daemon, files)
                with open(os.path.join(daemon.watched(), name), "wb", buffering=0) as f:
                    for at in range(0, len(data) - 1, 101):
                        f.write(data[at:min(at + 101, len(data) - 1)])
                        self.reload_in_vain(daemon, version)
                        self.assert_serves(daemon, version - 1, states[version - 1])
                    f.write(data[-1:])
                daemon.wait_serving(version)
                self.assert_serves(daemon, version, states[version])

    def reload_in_vain(self, daemon, version):
        try:
            answer = daemon.admin.Reload(admin_pb2.ReloadRequest(model="simplenet"), timeout=harness.PATIENCE)
            self.assertFalse(answer.swapped)
        except grpc.RpcError as error:
            self.assertEqual(error.code(), grpc.StatusCode.FAILED_PRECONDITION, error.details())
        # Its shards, where it has some, are passed over.
        daemon.wait_until(lambda status: [c.state for c in status.candidates if c.version == version]
                          == [admin_pb2.VERSION_WAITING])

    def test_what_has_no_checksums_and_may_still_be_written_waits(self):
        states = {version: integer_state(version) for version in range(1, 5)}
        waiting = [
            ("step-2.pth", {"step-2.pth": torch_bytes(states[2], legacy=True)}),
            ("step-3.safetensors", {"step-3.safetensors": safetensors_bytes(states[3])}),
            ("step-4.safetensors.index.json", shards_of(states[4], ".safetensors", "step-4")),
        ]

        def rename_an_old_file(path, data):
            with open(path + ".tmp", "wb") as f:
                f.write(data)
            # A rename shows by a change after the modification, if the clock ticked in between.
            os.utime(path + ".tmp", (1, 1))
            os.rename(path + ".tmp", path)

        with Daemon(models={"simplenet": PATIENT % 86400000}) as daemon:
            self.place(daemon, {"step-1.pt": torch_bytes(states[1])}, write_in_place)
            daemon.wait_serving(1)
            for version, (name, files) in enumerate(waiting, 2):
                self.place(daemon, files, write_in_place)
                self.wait_for(daemon, name, admin_pb2.VERSION_WAITING, "has no checksums")
                self.assert_serves(daemon, version - 1, states[version - 1])
                # What comes by a rename is whole.
                self.place(daemon, files, rename_an_old_file)
                daemon.wait_serving(version)
                self.assert_serves(daemon, version, states[version])


class ShardsTest(ArrivalTest):
    def test_they_come_in_any_order(self):
        orders = [(2, 0, 1), (0, 2, 1), (1, 2, 0), (1, 0, 2)]  # 2 is the index.
        state = integer_state(1)
        with Daemon(models={"simplenet": PATIENT % 50}) as daemon:
            self.place(daemon, {"step-1.pt": torch_bytes(state)})
            daemon.wait_serving(1)
            for version, order in enumerate(orders, 2):
                suffix = (".safetensors", ".bin")[version % 2]
                files = list(shards_of(integer_state(version), suffix, f"step-{version}").items())
                index = files[2][0]
                here = set()
                for at in order[:2]:
                    self.place(daemon, dict([files[at]]))
                    here.add(at)
                    for there in sorted(here):
                        missing = files[min({0, 1} - here, default=0)][0]
                        reason = (f"waits for its shard {missing}" if there == 2 else
                                  f"is a shard of {index}" if 2 in here else "is a shard")
                        self.wait_for(daemon, files[there][0], admin_pb2.VERSION_PASSED_OVER, reason)
                    self.assert_serves(daemon, version - 1, state)
                self.place(daemon, dict([files[order[2]]]))
                daemon.wait_serving(version)
                state = integer_state(version)
                self.assert_serves(daemon, version, state)

    def test_a_torn_one_holds_the_others_up_until_it_is_whole(self):
        state = integer_state(1)
        version = 1
        with Daemon(models={"simplenet": PATIENT % 50}) as daemon:
            self.place(daemon, {"step-1.pt": torch_bytes(state)})
            daemon.wait_serving(1)
            for suffix in ENCODERS:
                for tear, complete in ((write_file, write_file), (write_in_place, write_in_place),
                                       (write_file, write_in_place), (write_in_place, write_file)):
                    version += 1
                    files = shards_of(integer_state(version), suffix, f"step-{version}")
                    *_, torn, index = files
                    self.place(daemon, {torn: files[torn][:-40]}, tear)
                    self.place(daemon, {name: data for name, data in files.items() if name != torn})
                    self.wait_for(daemon, index, admin_pb2.VERSION_WAITING, torn)
                    self.assert_serves(daemon, version - 1, state)
                    self.place(daemon, {torn: files[torn]}, complete)
                    daemon.wait_serving(version)
                    state = integer_state(version)
                    self.assert_serves(daemon, version, state)

    def test_a_new_shard_is_a_new_generation_of_the_version(self):
        with Daemon(models={"simplenet": PATIENT % 50}) as daemon:
            for version, suffix in enumerate(ENCODERS, 1):
                old, new = integer_state(10 * version), integer_state(10 * version + 1)
                self.place(daemon, shards_of(old, suffix, f"step-{version}"))
                daemon.wait_serving(version)
                self.assert_serves(daemon, version, old)
                generation = daemon.status().generation
                name, data = list(shards_of(new, suffix, f"step-{version}").items())[1]
                self.place(daemon, {name: data})
                daemon.wait_until(lambda status, before=generation: status.generation > before)
                mixed = {**old, "fc2.weight": new["fc2.weight"], "fc2.bias": new["fc2.bias"]}
                self.assert_serves(daemon, version, mixed)
                self.assertEqual(daemon.status().generation, generation + 1)

    def test_one_that_lacks_what_the_index_promises_is_refused_until_it_is_replaced(self):
        # It could be an older one that the trainer is about to write over: that it is not, time says.
        impatient = SIMPLENET + "checkpoints { torn_timeout_ms: 100 }\n"
        state = integer_state(1)
        with Daemon(models={"simplenet": impatient}) as daemon:
            self.place(daemon, {"step-1.pt": torch_bytes(state)})
            daemon.wait_serving(1)
            for version, suffix in enumerate(ENCODERS, 2):
                files = shards_of(integer_state(version), suffix, f"step-{version}")
                _, second, index = files
                lacking = ENCODERS[suffix]({"fc2.weight": state["fc2.weight"]})
                self.place(daemon, {**files, second: lacking})
                self.wait_for(daemon, index, admin_pb2.VERSION_REFUSED,
                              f"says that tensor fc2.bias is in {second}, where it is not")
                self.assert_serves(daemon, version - 1, state)
                self.place(daemon, {second: files[second]})
                daemon.wait_serving(version)
                state = integer_state(version)
                self.assert_serves(daemon, version, state)


if __name__ == "__main__":
    unittest.main()
