"""Files beyond 4 GiB: what relight writes, Python's zipfile and PyTorch's own reader find.

usage: large_checkpoint_test.py PATH/TO/write_large_checkpoint
"""
import json
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

import torch

TOOL = sys.argv[1]
HUGE = 2**32 + 12345
MARKS = {0: 1, 2**31: 2, 2**32: 3, HUGE - 1: 4}


def available_bytes():
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


class LargeCheckpointTest(unittest.TestCase):
    def write(self, name):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = os.path.join(folder.name, name)
        done = subprocess.run([TOOL, path], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(os.path.getsize(path), HUGE)
        self.assertLess(os.stat(path).st_blocks * 512, 64 << 20, "it is not sparse")
        return path

    def assert_mapped(self, path, offsets):
        """The tensors, at these offsets in the file."""
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for at, mark in MARKS.items():
                self.assertEqual(mapped[offsets["huge"] + at], mark, at)
            self.assertEqual(struct.unpack_from("<2f", mapped, offsets["before"]), (1, 2))
            self.assertEqual(struct.unpack_from("<3f", mapped, offsets["after"]), (3, 4, 5))

    def test_torch_save(self):
        path = self.write("large.pt")
        with zipfile.ZipFile(path) as archive:
            self.assertIsNone(archive.testzip())
            sizes = {info.filename: info.file_size for info in archive.infolist()}
            self.assertEqual([sizes["archive/data/%d" % key] for key in range(3)], [8, HUGE, 12])
            offsets = {}
            for key, name in enumerate(("before", "huge", "after")):
                header = archive.getinfo("archive/data/%d" % key).header_offset
                with open(path, "rb") as file:
                    file.seek(header + 26)
                    name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
                offsets[name] = header + 30 + name_bytes + extra_bytes
                self.assertEqual(offsets[name] % 64, 0, name)
        self.assertGreater(offsets["after"], 2**32)
        self.assert_mapped(path, offsets)

        reader = torch._C.PyTorchFileReader(path)
        after = reader.get_storage_from_record("data/2", 3, torch.float32)
        self.assertEqual(after.storage().tolist(), [3, 4, 5])
        self.assertEqual(reader.get_record("version"), b"3\n")
        if available_bytes() > 3 * HUGE:
            loaded = torch.load(path, weights_only=True)
            self.assertEqual(loaded["after"].tolist(), [3, 4, 5])
            self.assertEqual({at: int(loaded["huge"][at]) for at in MARKS}, MARKS)
            self.assertEqual(int(loaded["huge"].count_nonzero()), len(MARKS))

    def test_safetensors(self):
        path = self.write("large.safetensors")
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        data = 8 + length
        begins = {name: header[name]["data_offsets"][0] for name in ("before", "huge", "after")}
        self.assertEqual(begins, {"after": 0, "before": 12, "huge": 20}, "widest first, then by name")
        self.assertEqual(os.path.getsize(path), data + header["huge"]["data_offsets"][1])
        self.assert_mapped(path, {name: data + begin for name, begin in begins.items()})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
