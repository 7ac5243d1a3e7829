"""What relight writes, PyTorch loads: same values, and training resumes bit for bit.

usage: rewrite_checkpoint_test.py PATH/TO/rewrite_checkpoint PATH/TO/tests/data
"""
import collections
import copy
import enum
import inspect
import json
import math
import os
import pickletools
import re
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

TOOL, DATA = sys.argv[1:3]
GOOD = os.path.join(DATA, "good")


class SimpleNet(nn.Module):
    """The class of entire_model.pth, which unpickles as __main__.SimpleNet."""

    def __init__(self, n_in=10, n_hidden=5, n_out=2):
        super().__init__()
        self.fc1 = nn.Linear(n_in, n_hidden)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(n_hidden, n_out)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


class ConvBNNet(nn.Module):
    """The class of conv_bn_entire.pth; only ever unpickled."""


class TiedLM(nn.Module):
    """The class of tied_entire.pth; only ever unpickled."""


def load(name):
    return torch.load(os.path.join(GOOD, name), map_location="cpu", weights_only=False)


class Colour(enum.Enum):
    """The class of a value in globals_misc.pt."""

    RED = 1


class MarkedTensor(torch.Tensor):
    """A tensor of a library of its own."""


class TrainConfig:
    """The class of a value in globals_misc.pt; only ever unpickled."""


class Rewriter(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def rewrite(self, source, *flags, target="out.pt"):
        """Returns the loaded target and the report's lines."""
        if not os.path.isabs(source):
            source = os.path.join(GOOD, source)
        if os.path.exists(self.path(target)):
            os.unlink(self.path(target))
        done = subprocess.run([TOOL, *flags, source, self.path(target)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return torch.load(self.path(target)), done.stdout.splitlines()

    def assert_same(self, a, b, where="", storages=None):
        """Types, order, bits, strides and sharing."""
        storages = {} if storages is None else storages
        if isinstance(a, (np.floating, np.integer, np.bool_)):
            a = a.item()
        self.assertIs(type(a), type(b), where)
        if isinstance(a, torch.Tensor):
            self.assert_same_tensor(a, b, where, storages)
        elif isinstance(a, dict):
            self.assertEqual(list(a), list(b), where)
            for key in a:
                self.assert_same(a[key], b[key], "%s/%r" % (where, key), storages)
            self.assertEqual(hasattr(a, "_metadata"), hasattr(b, "_metadata"), where)
            if hasattr(a, "_metadata"):
                self.assert_same(a._metadata, b._metadata, where + "/@_metadata", storages)
        elif isinstance(a, (list, tuple)):
            self.assertEqual(len(a), len(b), where)
            for i, (x, y) in enumerate(zip(a, b)):
                self.assert_same(x, y, "%s/%d" % (where, i), storages)
        elif isinstance(a, float):
            self.assertEqual(math.copysign(1, a), math.copysign(1, b), where)
            self.assertTrue(a == b or (math.isnan(a) and math.isnan(b)), where)
        else:
            self.assertEqual(a, b, where)

    def assert_same_tensor(self, a, b, where, storages):
        self.assertEqual(a.dtype, b.dtype, where)
        self.assertEqual(a.shape, b.shape, where)
        self.assertEqual(a.stride(), b.stride(), where)
        self.assertEqual(a.requires_grad, b.requires_grad, where)
        self.assertEqual(self.bits(a), self.bits(b), where)
        if a.numel() > 0:
            theirs, ours = a.storage().data_ptr(), b.storage().data_ptr()
            self.assertEqual(storages.setdefault(("to", theirs), ours), ours, where + ": sharing")
            self.assertEqual(storages.setdefault(("from", ours), theirs), theirs, where + ": sharing")

    @staticmethod
    def bits(tensor):
        tensor = tensor.detach().resolve_conj().resolve_neg().contiguous().flatten()
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.view(torch.int16)
        return tensor.numpy().tobytes()


class RoundTripTest(Rewriter):
    SAME = [
        "bf16_state.pth", "checkpoint.pth", "checkpoint_legacy.pth", "checkpoint_legacy_proto4.pth",
        "checkpoint_proto3.pth", "checkpoint_proto4.pth", "checkpoint_proto5.pth",
        "compiled_prefixed.pth", "conv_bn_channels_last.pth", "conv_bn_state.pth", "ddp_prefixed.pth",
        "dtypes.pt", "empty_state.pth", "half_state.pth", "lightning_like.ckpt", "many_keys.pt",
        "many_storages.pt", "model_state.pth", "model_state_legacy.pth", "named_parameters.pth",
        "nested_state.pth", "noncontiguous.pt", "optim_adagrad.pth", "optim_adam.pth",
        "optim_adamw_amsgrad.pth", "optim_groups_sched.pth", "optim_rmsprop.pth",
        "optim_sgd_momentum.pth", "optim_sgd_plain.pth", "plain_dict.bin", "requires_grad.pt",
        "scalars.pt", "shapes.pt", "special_values.pt", "syn_adam_2_7.pt", "syn_layout_1_13.pt",
        "syn_layout_2_1.pt", "syn_layout_2_7.pt", "syn_no_crc.pt", "syn_rezipped.pt",
        "syn_zip64_fields.pt", "syn_align4096.pt", "tied_weights.pth", "top_level_list.pt",
        "top_level_tensor.pt", "views_shared.pt",
    ]

    def test_everything_comes_back(self):
        for name in self.SAME:
            with self.subTest(name):
                rewritten, report = self.rewrite(name, "--whole-tree")
                self.assertEqual(report, [])
                self.assert_same(load(name), rewritten, name)

    def test_a_slice_does_not_drag_its_storage_along(self):
        rewritten, _ = self.rewrite("slice_of_big.pt", "--whole-tree")
        self.assertTrue(torch.equal(rewritten["w"], load("slice_of_big.pt")["w"]))
        self.assertLess(rewritten["w"].storage().nbytes(), 64)

    def test_the_offset_of_an_expanded_view_survives(self):
        rewritten, _ = self.rewrite("noncontiguous.pt", "--whole-tree")
        original = load("noncontiguous.pt")
        for key in original:
            self.assertEqual(original[key].storage_offset(), rewritten[key].storage_offset(), key)

    def test_bare_storages_come_back(self):
        rewritten, _ = self.rewrite("storages_only.pt", "--whole-tree")
        self.assertEqual(rewritten["typed"].tolist(), [0.0, 1.0, 2.0])
        self.assertEqual(len(rewritten["untyped"]), 8)

    def test_what_cannot_be_carried_is_listed(self):
        rewritten, report = self.rewrite("bundle_full.pth", "--whole-tree")
        original = load("bundle_full.pth")
        self.assertEqual(set(original) - set(rewritten), {"args", "numpy_rng"})
        self.assertIn("left out /args: argparse.Namespace", report)
        self.assertTrue(any(l.startswith("left out /numpy_rng: holds numpy.ndarray") for l in report), report)
        self.assertTrue(any(l.startswith("converted /loss") for l in report), report)
        for key in ("args", "numpy_rng"):
            del original[key]
        self.assert_same(original, rewritten)

    def test_lossless_refuses_it(self):
        done = subprocess.run([TOOL, "--lossless", os.path.join(GOOD, "bundle_full.pth"), self.path("x.pt")],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/args: argparse.Namespace", done.stderr)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_a_scheduler_that_holds_an_object_loses_only_that(self):
        rewritten, report = self.rewrite("sched_onecycle.pth", "--whole-tree")
        self.assertEqual(len(report), 1, report)
        self.assertIn("anneal_func", report[0])
        original = load("sched_onecycle.pth")
        del original["lr_scheduler"]["anneal_func"]
        self.assert_same(original, rewritten)

    def test_common_values_of_the_wild(self):
        rewritten, report = self.rewrite("globals_misc.pt", "--whole-tree")
        original = load("globals_misc.pt")
        for key in ("bytes", "bytes_empty", "set", "size", "device", "dtype", "counter", "np_f8", "np_i8", "np_bool"):
            self.assert_same(original[key], rewritten[key], key)
        self.assertEqual(rewritten["defaultdict"], {1: [2]})
        self.assertIn("converted /defaultdict: collections.defaultdict, written as a plain dict", report)
        for key in ("path", "ns", "enum", "partial", "func", "np_arr", "frozenset"):
            self.assertNotIn(key, rewritten)


class WeightsOnlyTest(Rewriter):
    """torch.load(weights_only=True), without floats because that of 1.13 knows none."""

    STATE_DICTS = ["model_state.pth", "model_state_legacy.pth", "ddp_prefixed.pth", "compiled_prefixed.pth",
                   "tied_weights.pth", "plain_dict.bin", "half_state.pth", "bf16_state.pth", "dtypes.pt",
                   "views_shared.pt", "noncontiguous.pt", "conv_bn_state.pth", "named_parameters.pth",
                   "requires_grad.pt", "shapes.pt", "entire_model.pth", "empty_state.pth"]

    def test_restricted_loading(self):
        for name in self.STATE_DICTS:
            with self.subTest(name):
                full, _ = self.rewrite(name)
                restricted = torch.load(self.path("out.pt"), weights_only=True)
                self.assert_same(full, restricted, name)

    def test_the_weights_of_a_bundle(self):
        for name, key in (("checkpoint.pth", "model_state_dict"), ("checkpoint_legacy.pth", "model_state_dict"),
                          ("optim_adam.pth", "model"), ("bundle_full.pth", "state_dict"),
                          ("lightning_like.ckpt", "state_dict")):
            with self.subTest(name):
                rewritten, report = self.rewrite(name, "--weights-only")
                self.assertEqual(report, [])
                self.assert_same(load(name)[key], rewritten, name)
                self.assert_same(rewritten, torch.load(self.path("out.pt"), weights_only=True))

    def test_the_container_is_an_ordinary_zip_file(self):
        self.rewrite("checkpoint.pth")
        with zipfile.ZipFile(self.path("out.pt")) as archive:
            self.assertIsNone(archive.testzip())
            self.assertEqual(archive.namelist()[0], "archive/data.pkl")


class ContainerTest(Rewriter):
    """What readers that map or compute, rather than parse, rely on."""

    def records(self, path):
        """Name -> (offset of the data, size), in the order of the file."""
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            found = {}
            for info in archive.infolist():
                self.assertEqual(info.compress_type, zipfile.ZIP_STORED, info.filename)
                file.seek(info.header_offset + 26)
                name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
                offset = info.header_offset + 30 + name_bytes + extra_bytes
                found[info.filename] = (offset, info.file_size)
            return found

    def test_every_storage_can_be_mapped(self):
        for name in ("checkpoint.pth", "many_storages.pt", "shapes.pt", "views_shared.pt", "dtypes.pt"):
            rewritten, _ = self.rewrite(name, "--whole-tree")
            mapped = np.memmap(self.path("out.pt"), mode="r")
            storages = {}
            for key, (offset, size) in self.records(self.path("out.pt")).items():
                if key.startswith("archive/data/"):
                    self.assertEqual(offset % 64, 0, (name, key))
                    storages[key] = mapped[offset:offset + size].tobytes()
            # torch.load gives the keys in the order of first mention, as the records come.
            seen = {}
            for tensor in self.tensors(rewritten):
                seen.setdefault(tensor.storage().data_ptr() if tensor.storage().nbytes() else len(seen),
                                bytes(tensor.storage().untyped()))
            for content in seen.values():
                self.assertIn(content, storages.values(), name)

    def tensors(self, value):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, dict):
            for child in value.values():
                yield from self.tensors(child)
        elif isinstance(value, (list, tuple)):
            for child in value:
                yield from self.tensors(child)

    def test_storages_lie_where_recent_versions_compute_them(self):
        for name in ("checkpoint.pth", "many_storages.pt", "shapes.pt"):
            self.rewrite(name, "--whole-tree")
            records = self.records(self.path("out.pt"))
            offset, size = records["archive/byteorder"]
            key = 0
            while "archive/data/%d" % key in records:
                next_header = offset + size + (16 if size > 0 else 0)
                computed = next_header + 30 + len("archive/data/%d" % key) + 4
                computed += -computed % 64
                offset, size = records["archive/data/%d" % key]
                self.assertEqual(offset, computed, (name, key))
                key += 1
            self.assertGreater(key, 0)

    @unittest.skipUnless("mmap" in inspect.signature(torch.load).parameters, "this PyTorch maps no files")
    def test_torch_load_maps_it(self):
        for name in RoundTripTest.SAME:
            with self.subTest(name):
                self.rewrite(name, "--whole-tree")
                self.assert_same(load(name), torch.load(self.path("out.pt"), mmap=True), name)


class SafetensorsTest(Rewriter):
    """Read by hand: the format in fifteen lines, which share nothing with ours."""

    DTYPES = {"BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64,
              "F16": np.float16, "F32": np.float32, "F64": np.float64, "C64": np.complex64,
              "BF16": np.int16}  # Compared by their bits.

    def write(self, source, *flags):
        if not os.path.isabs(source):
            source = os.path.join(GOOD, source)
        target = self.path("out.safetensors")
        if os.path.exists(target):
            os.unlink(target)
        return subprocess.run([TOOL, "--safetensors", *flags, source, target], capture_output=True, text=True)

    def read(self):
        with open(self.path("out.safetensors"), "rb") as file:
            content = file.read()
        (length,) = struct.unpack("<Q", content[:8])
        self.assertEqual(length % 8, 0)
        header = json.loads(content[8:8 + length])
        data = content[8 + length:]
        metadata = header.pop("__metadata__", {})
        at = 0
        tensors = {}
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            begin, end = entry["data_offsets"]
            self.assertEqual(begin, at, name)
            dtype = np.dtype(self.DTYPES[entry["dtype"]])
            self.assertEqual(begin % dtype.itemsize, 0, "%s is not aligned" % name)
            tensors[name] = (entry["dtype"], np.frombuffer(data[begin:end], dtype).reshape(entry["shape"]))
            at = end
        self.assertEqual(at, len(data))
        return metadata, {name: tensors[name] for name in header}

    def assert_holds(self, state_dict, name):
        done = self.write(name)
        self.assertEqual(done.returncode, 0, done.stderr)
        metadata, tensors = self.read()
        for dropped, kept in metadata.items():
            if dropped != "format":
                tensors[dropped] = tensors[kept]
        self.assertEqual(set(tensors), set(state_dict), name)
        for key, tensor in state_dict.items():
            code, values = tensors[key]
            self.assertEqual(list(values.shape), list(tensor.shape), key)
            self.assertEqual(code == "BF16", tensor.dtype == torch.bfloat16)
            self.assertEqual(values.tobytes(), self.bits(tensor), "%s: %s" % (name, key))
        return metadata, list(tensors), done.stdout.splitlines()

    def test_state_dicts(self):
        for name in ("model_state.pth", "half_state.pth", "bf16_state.pth", "conv_bn_state.pth",
                     "conv_bn_channels_last.pth", "noncontiguous.pt", "views_shared.pt", "ddp_prefixed.pth",
                     "many_storages.pt", "special_values.pt"):
            with self.subTest(name):
                original = load(name)
                metadata, names, _ = self.assert_holds(original, name)
                self.assertEqual(metadata["format"], "pt")
                if len(metadata) == 1:
                    self.assertEqual(names, list(original))

    def test_a_subclass_of_tensors_that_is_lost_is_listed(self):
        noted = torch.ones(2).as_subclass(MarkedTensor)
        noted.origin = "elsewhere"
        torch.save({"plain": torch.ones(2), "marked": torch.ones(2).as_subclass(MarkedTensor), "noted": noted},
                   self.path("types.pt"))
        rewritten, report = self.rewrite(self.path("types.pt"), "--whole-tree")
        self.assertEqual(report, [
            f"converted /marked: {__name__}.MarkedTensor, written as a plain tensor",
            f"converted /noted: {__name__}.MarkedTensor with attributes, written as a plain tensor"])
        self.assertEqual([value.tolist() for value in rewritten.values()], [[1, 1]] * 3)

    def test_the_weights_of_bundles_and_modules(self):
        self.assert_holds(load("checkpoint.pth")["model_state_dict"], "checkpoint.pth")
        self.assert_holds(load("lightning_like.ckpt")["state_dict"], "lightning_like.ckpt")
        self.assert_holds(load("entire_model.pth").state_dict(), "entire_model.pth")

    def test_tied_weights_are_written_once(self):
        original = load("tied_weights.pth")
        metadata, _, _ = self.assert_holds(original, "tied_weights.pth")
        ties = {dropped: kept for dropped, kept in metadata.items() if dropped != "format"}
        self.assertTrue(ties)
        for dropped, kept in ties.items():
            self.assertLess(list(original).index(kept), list(original).index(dropped))
            self.assertEqual(original[kept].data_ptr(), original[dropped].data_ptr())

    def test_what_becomes_dense_is_listed(self):
        original = load("noncontiguous.pt")
        _, _, report = self.assert_holds(original, "noncontiguous.pt")
        dense = {line.split("/")[1].split(":")[0] for line in report if line.startswith("converted")}
        self.assertTrue({key for key, t in original.items() if not t.is_contiguous()} <= dense, report)

    def test_lossless_refuses_what_it_cannot_carry(self):
        done = self.write("model_state.pth", "--lossless")
        self.assertEqual(done.returncode, 1)
        self.assertIn("_metadata", done.stderr)
        self.assertFalse(os.path.exists(self.path("out.safetensors")))

    def test_a_dtype_without_a_name_is_refused(self):
        torch.save({"w": torch.zeros(2, dtype=torch.complex128)}, self.path("wide.pt"))
        done = self.write(self.path("wide.pt"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("w has dtype complex128", done.stderr)


class PickleTest(Rewriter):
    """What the restricted unpicklers of all versions have in common, which only 1.13 can be run here."""

    OPCODES = set("""PROTO GLOBAL REDUCE BUILD MARK TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST
        EMPTY_DICT APPENDS SETITEMS NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE BINPERSID
        BINPUT LONG_BINPUT BINGET LONG_BINGET STOP BINFLOAT""".split())
    SYMBOLS = set("""collections.OrderedDict collections.Counter torch._utils._rebuild_tensor_v2
        torch._utils._rebuild_tensor_v3 torch._utils._rebuild_parameter torch.storage.UntypedStorage
        torch.Size torch.device _codecs.encode __builtin__.set""".split())

    def test_only_opcodes_and_symbols_that_every_version_takes(self):
        for name in RoundTripTest.SAME + ["globals_misc.pt", "bundle_full.pth", "syn_v3_dtypes.pt", "syn_conj_neg.pt"]:
            done = subprocess.run([TOOL, "--whole-tree", os.path.join(GOOD, name), self.path(name)], capture_output=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            with zipfile.ZipFile(self.path(name)) as archive:
                pickled = archive.read("archive/data.pkl")
            for opcode, argument, _ in pickletools.genops(pickled):
                self.assertIn(opcode.name, self.OPCODES, name)
                if opcode.name == "GLOBAL":
                    symbol = argument.replace(" ", ".")
                    plain = re.fullmatch(r"torch\.[A-Z]\w*Storage|torch\.[a-z]+\d+(_\w+)?|torch\.bool", symbol)
                    self.assertTrue(symbol in self.SYMBOLS or plain, (name, symbol))


class ModuleTest(Rewriter):
    def test_a_module_becomes_its_state_dict(self):
        model = load("entire_model.pth")
        for flags in ((), ("--weights-only",)):
            rewritten, report = self.rewrite("entire_model.pth", *flags)
            self.assertEqual(report, [])
            self.assertIs(type(rewritten), collections.OrderedDict)
            self.assertEqual(list(rewritten), list(model.state_dict()))
            fresh = SimpleNet()
            fresh.load_state_dict(rewritten, strict=True)
            x = torch.arange(20.0).view(2, 10)
            self.assertTrue(torch.equal(fresh(x), model(x)))
            self.assertFalse(any(t.requires_grad for t in rewritten.values()))

    def test_a_module_with_buffers(self):
        model = load("conv_bn_entire.pth")
        rewritten, _ = self.rewrite("conv_bn_entire.pth")
        self.assertEqual(list(rewritten), list(model.state_dict()))
        model.load_state_dict(rewritten, strict=True)

    def test_tied_weights_of_a_module_stay_tied(self):
        rewritten, _ = self.rewrite("tied_entire.pth")
        self.assertEqual(rewritten["embed.weight"].data_ptr(), rewritten["out.weight"].data_ptr())

    def test_a_module_in_a_bundle(self):
        torch.manual_seed(5)
        model = SimpleNet()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        torch.save({"epoch": 3, "model": model, "optimizer": optimizer.state_dict()}, self.path("yolo.pt"))
        rewritten, report = self.rewrite(self.path("yolo.pt"))
        self.assertEqual(report, [])
        self.assertEqual(list(rewritten), ["epoch", "model", "optimizer"])
        SimpleNet().load_state_dict(rewritten["model"], strict=True)
        self.assert_same(optimizer.state_dict(), rewritten["optimizer"])


class ResumeTest(Rewriter):
    def steps(self, bundle, make_optimizer, model_key, optimizer_key, x, y):
        model = SimpleNet()
        model.load_state_dict(bundle[model_key], strict=True)
        optimizer = make_optimizer(model.parameters())
        optimizer.load_state_dict(copy.deepcopy(bundle[optimizer_key]))
        losses = []
        after = []
        for _ in range(2):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            after.append(copy.deepcopy((model.state_dict(), optimizer.state_dict())))
        self.assertNotEqual(self.bits(after[0][0]["fc1.weight"]), self.bits(after[1][0]["fc1.weight"]))
        return losses, after

    def assert_resumes_alike(self, name, make_optimizer, model_key="model", optimizer_key="optimizer"):
        torch.manual_seed(9)
        x, y = torch.randn(4, 10), torch.tensor([0, 1, 1, 0])
        rewritten, report = self.rewrite(name)
        self.assertEqual(report, [])
        original = self.steps(load(name), make_optimizer, model_key, optimizer_key, x, y)
        resumed = self.steps(rewritten, make_optimizer, model_key, optimizer_key, x, y)
        self.assert_same(original, resumed, name)

    def test_optimizers_resume_bit_for_bit(self):
        optim = torch.optim
        cases = [
            ("optim_adam.pth", lambda p: optim.Adam(p, lr=1e-3)),
            ("optim_adamw_amsgrad.pth", lambda p: optim.AdamW(p, lr=1e-3, amsgrad=True, weight_decay=0.01)),
            ("optim_sgd_plain.pth", lambda p: optim.SGD(p, lr=0.1)),
            ("optim_sgd_momentum.pth", lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
            ("optim_rmsprop.pth", lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True)),
            ("optim_adagrad.pth", lambda p: optim.Adagrad(p, lr=0.01)),
        ]
        for name, make_optimizer in cases:
            with self.subTest(name):
                self.assert_resumes_alike(name, make_optimizer)

    def test_optimizers_with_every_option_resume_bit_for_bit(self):
        optim = torch.optim
        cases = {
            "adam-amsgrad": lambda p: optim.Adam(p, lr=1e-3, amsgrad=True, weight_decay=0.1),
            "adamw": lambda p: optim.AdamW(p, lr=1e-3),
            "sgd-momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1),
            "rmsprop": lambda p: optim.RMSprop(p, lr=0.01),
            "rmsprop-momentum": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5),
        }
        for name, make_optimizer in cases.items():
            with self.subTest(name):
                torch.manual_seed(3)
                model = SimpleNet()
                optimizer = make_optimizer(model.parameters())
                for _ in range(3):
                    optimizer.zero_grad()
                    model(torch.randn(4, 10)).square().mean().backward()
                    optimizer.step()
                source = self.path(name + ".pt")
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, source)
                self.assert_resumes_alike(source, make_optimizer)

    def test_bundles_of_every_protocol_resume_bit_for_bit(self):
        for name in ("checkpoint.pth", "checkpoint_legacy.pth", "checkpoint_proto4.pth"):
            with self.subTest(name):
                self.assert_resumes_alike(name, lambda p: torch.optim.Adam(p, lr=0.01),
                                          "model_state_dict", "optimizer_state_dict")

    def test_the_recorded_next_steps(self):
        with open(os.path.join(DATA, "io", "simplenet.json")) as file:
            resume = json.load(file)["checkpoint.pth"]["resume"]
        rewritten, _ = self.rewrite("checkpoint.pth")
        model = SimpleNet()
        model.load_state_dict(rewritten["model_state_dict"], strict=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        optimizer.load_state_dict(rewritten["optimizer_state_dict"])
        x, y = torch.tensor(resume["x"]).view(resume["x_shape"]), torch.tensor(resume["y"])
        for loss_before, after in zip(resume["loss_before_each_step"], resume["params_after_each_step"]):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            self.assertAlmostEqual(loss.item(), loss_before, delta=resume["tolerance"])
            loss.backward()
            optimizer.step()
            for key, values in after.items():
                mine = model.state_dict()[key].flatten()
                self.assertLess((mine - torch.tensor(values)).abs().max().item(), resume["tolerance"], key)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
