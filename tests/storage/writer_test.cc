#include "storage/writer.h"

#include <bit>
#include <cstring>
#include <map>
#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/error.h"

namespace relight::storage {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using std::string_literals::operator""s;

std::uint64_t Little(std::string_view bytes, std::size_t at, int count) {
  std::uint64_t value = 0;
  for (int i = count; i-- > 0;) {
    value = value << 8 | static_cast<std::uint8_t>(bytes[at + static_cast<std::size_t>(i)]);
  }
  return value;
}

// Storages in memory, given in pieces of `piece_bytes`.
class FakeSource final : public StorageSource {
 public:
  void Add(DType dtype, std::string bytes) { storages_.push_back({dtype, std::move(bytes)}); }
  template <typename T>
  void AddValues(DType dtype, const std::vector<T>& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    Add(dtype, std::move(bytes));
  }

  absl::Status Stream(std::uint32_t index, const ByteSink& sink) const override {
    std::string_view left = storages_[index].second;
    left = left.substr(0, left.size() - std::min(left.size(), withheld_bytes));
    while (!left.empty()) {
      const std::string_view piece = left.substr(0, piece_bytes);
      left.remove_prefix(piece.size());
      const absl::Status status =
          sink({reinterpret_cast<const std::byte*>(piece.data()), piece.size()});
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  std::uint64_t SizeBytes(std::uint32_t index) const override {
    return storages_[index].second.size();
  }
  DType ElementType(std::uint32_t index) const override { return storages_[index].first; }

  std::size_t piece_bytes = 7;
  std::size_t withheld_bytes = 0;

 private:
  std::vector<std::pair<DType, std::string>> storages_;
};

// An entry as a reader that trusts only the directory, and then only the descriptor, sees it.
struct Entry {
  std::string name;
  std::uint64_t header = 0;
  std::uint64_t data = 0;
  std::uint64_t size = 0;
  std::uint64_t flags = 0;
  std::uint64_t crc = 0;
  std::string content;
};

std::vector<Entry> Entries(std::string_view file) {
  const std::size_t end = file.size() - 22;
  EXPECT_EQ(file.substr(end, 4), "PK\x05\x06");
  EXPECT_EQ(file.substr(end - 20, 4), "PK\x06\x07");
  EXPECT_EQ(file.substr(end - 76, 4), "PK\x06\x06");
  EXPECT_EQ(Little(file, end - 20 + 8, 8), end - 76);
  std::vector<Entry> entries;
  std::size_t at = Little(file, end + 16, 4);
  EXPECT_EQ(Little(file, end - 76 + 48, 8), at);
  const std::uint64_t count = Little(file, end - 76 + 32, 8);
  for (std::uint64_t i = 0; i < count; ++i) {
    EXPECT_EQ(file.substr(at, 4), "PK\x01\x02");
    Entry entry;
    entry.flags = Little(file, at + 8, 2);
    EXPECT_EQ(Little(file, at + 10, 6), 0) << "stored, without a date";
    entry.crc = Little(file, at + 16, 4);
    EXPECT_EQ(Little(file, at + 20, 4), Little(file, at + 24, 4));
    entry.size = Little(file, at + 24, 4);
    entry.name = file.substr(at + 46, Little(file, at + 28, 2));
    EXPECT_EQ(Little(file, at + 30, 2), 0) << "no extra field is needed";
    entry.header = Little(file, at + 42, 4);
    entry.data =
        entry.header + 30 + Little(file, entry.header + 26, 2) + Little(file, entry.header + 28, 2);
    entry.content = file.substr(entry.data, entry.size);
    entries.push_back(entry);
    at += 46 + entry.name.size();
  }
  EXPECT_EQ(at, end - 76);
  return entries;
}

class WriterTest : public ::testing::Test {
 protected:
  NodeId Text(std::string_view text) { return tree_.AddText(NodeKind::kString, text); }
  NodeId Dict(const std::vector<std::pair<std::string, NodeId>>& pairs,
              NodeKind kind = NodeKind::kDict) {
    const NodeId dict = tree_.Add(kind);
    for (const auto& [key, value] : pairs) tree_.SetItem(dict, Text(key), value);
    return dict;
  }
  NodeId Sequence(NodeKind kind, const std::vector<NodeId>& items) {
    const NodeId sequence = tree_.Add(kind);
    for (const NodeId item : items) tree_.Append(sequence, item);
    return sequence;
  }
  TensorInfo Info(std::uint32_t storage, std::vector<std::int64_t> shape,
                  DType dtype = DType::kFloat32) {
    TensorInfo tensor;
    tensor.dtype = dtype;
    tensor.storage = storage;
    tensor.stride.assign(shape.size(), 1);
    for (std::size_t i = shape.size(); i-- > 1;) {
      tensor.stride[i - 1] = tensor.stride[i] * shape[i];
    }
    tensor.shape = std::move(shape);
    return tensor;
  }
  NodeId Tensor(std::uint32_t storage, std::vector<std::int64_t> shape,
                DType dtype = DType::kFloat32) {
    return tree_.AddTensor(Info(storage, std::move(shape), dtype));
  }
  NodeId Object(std::string_view symbol) {
    OpaqueInfo object;
    object.callable = tree_.AddText(NodeKind::kSymbol, symbol);
    object.arguments = tree_.Add(NodeKind::kTuple);
    return tree_.AddOpaque(object);
  }

  absl::StatusOr<WriteReport> TryWrite(NodeId root, const WriteOptions& options = {}) {
    file_.clear();
    calls_ = 0;
    return WriteCheckpoint(
        tree_, root, source_, options, [this](absl::Span<const std::byte> bytes) {
          ++calls_;
          file_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
          return absl::OkStatus();
        });
  }
  WriteReport Write(NodeId root) {
    auto report = TryWrite(root);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? *std::move(report) : WriteReport();
  }
  std::string Record(const std::string& name) {
    for (const Entry& entry : Entries(file_)) {
      if (entry.name == "archive/" + name) return entry.content;
    }
    ADD_FAILURE() << "no record " << name;
    return "";
  }
  // The pickle of one value, without PROTO and STOP.
  std::string Pickled(NodeId root) {
    Write(root);
    const std::string pickle = Record("data.pkl");
    EXPECT_EQ(pickle.substr(0, 2), "\x80\x02");
    EXPECT_EQ(pickle.back(), '.');
    return pickle.substr(2, pickle.size() - 3);
  }

  Tree tree_;
  FakeSource source_;
  std::string file_;
  int calls_ = 0;
};

TEST_F(WriterTest, RecordsComeInTheOrderOfRecentPyTorch) {
  source_.AddValues<float>(DType::kFloat32, {1, 2});
  source_.AddValues<float>(DType::kFloat32, {3});
  Write(Dict({{"b", Tensor(1, {1})}, {"a", Tensor(0, {2})}}));
  std::vector<std::string> names;
  for (const Entry& entry : Entries(file_)) names.push_back(entry.name);
  EXPECT_THAT(names,
              ElementsAre("archive/data.pkl", "archive/.format_version",
                          "archive/.storage_alignment", "archive/byteorder", "archive/data/0",
                          "archive/data/1", "archive/version", "archive/.data/serialization_id"));
  EXPECT_EQ(Record(".format_version"), "1");
  EXPECT_EQ(Record(".storage_alignment"), "64");
  EXPECT_EQ(Record("byteorder"), "little");
  EXPECT_EQ(Record("version"), "3\n");
  EXPECT_EQ(Record("data/0"), "\0\0\x40\x40"s) << "keys follow first mention";
}

TEST_F(WriterTest, EntriesAreAlignedTiledAndDescribedAsPyTorchExpects) {
  source_.AddValues<float>(DType::kFloat32, std::vector<float>(33, 1.5F));
  source_.AddValues<float>(DType::kFloat32, {});
  source_.AddValues<float>(DType::kFloat32, {4});
  Write(Dict({{"a", Tensor(0, {33})}, {"empty", Tensor(1, {0})}, {"c", Tensor(2, {1})}}));
  std::uint64_t next = 0;
  for (const Entry& entry : Entries(file_)) {
    EXPECT_EQ(entry.header, next) << entry.name;
    EXPECT_EQ(file_.substr(entry.header, 4), "PK\x03\x04");
    EXPECT_EQ(entry.data % 64, 0) << entry.name;
    EXPECT_LT(entry.data - (entry.header + 30 + entry.name.size() + 4), 64) << "minimal padding";
    EXPECT_EQ(entry.flags, entry.size == 0 ? 0x0800 : 0x0808) << entry.name;
    EXPECT_EQ(Little(file_, entry.header + 6, 2), entry.flags);
    EXPECT_EQ(Little(file_, entry.header + 8, 8), 0) << "stored, no date, start of the CRC";
    EXPECT_EQ(Little(file_, entry.header + 16, 8), 0) << "sizes come later";
    EXPECT_EQ(file_.substr(entry.header + 30 + entry.name.size(), 2), "FB");
    next = entry.data + entry.size;
    if (entry.size > 0) {
      EXPECT_EQ(file_.substr(next, 4), "PK\x07\x08");
      EXPECT_EQ(Little(file_, next + 4, 4), entry.crc);
      EXPECT_EQ(Little(file_, next + 8, 4), entry.size);
      EXPECT_EQ(Little(file_, next + 12, 4), entry.size);
      next += 16;
    }
  }
}

TEST_F(WriterTest, SmallPiecesReachTheSinkTogether) {
  source_.AddValues<float>(DType::kFloat32, std::vector<float>(1000, 1.0F));
  Write(Dict({{"a", Tensor(0, {1000})}}));
  EXPECT_EQ(calls_, 1);
}

TEST_F(WriterTest, EqualContentGivesEqualFilesAndOtherContentAnotherId) {
  source_.AddValues<float>(DType::kFloat32, {1, 2});
  source_.AddValues<float>(DType::kFloat32, {1, 3});
  const NodeId one = Dict({{"a", Tensor(0, {2})}});
  Write(one);
  const std::string first = file_;
  const std::string id = Record(".data/serialization_id");
  EXPECT_EQ(id.size(), 40);
  EXPECT_EQ(id.find_first_not_of("0123456789"), std::string::npos);
  source_.piece_bytes = 3;
  Write(one);
  EXPECT_EQ(file_, first);
  Write(Dict({{"a", Tensor(1, {2})}}));
  EXPECT_NE(Record(".data/serialization_id"), id);
}

TEST_F(WriterTest, NumbersTakeTheirShortestOpcode) {
  const std::vector<std::pair<std::int64_t, std::string>> cases = {
      {0, "K\0"s},
      {255, "K\xff"},
      {256, "M\0\x01"s},
      {65535, "M\xff\xff"},
      {65536, "J\0\0\x01\0"s},
      {-1, "J\xff\xff\xff\xff"},
      {INT32_MIN, "J\0\0\0\x80"s},
      {std::int64_t{1} << 31, "\x8a\x05\0\0\0\x80\0"s},
      {-(std::int64_t{1} << 31) - 1, "\x8a\x05\xff\xff\xff\x7f\xff"},
      {INT64_MAX, "\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"},
      {INT64_MIN, "\x8a\x08\0\0\0\0\0\0\0\x80"s}};
  for (const auto& [value, bytes] : cases) {
    EXPECT_EQ(Pickled(tree_.AddInt(value)), bytes) << value;
  }
  EXPECT_EQ(Pickled(tree_.AddText(NodeKind::kBigInt, "\0\0\0\0\0\0\0\0\x01\0\0"s)),
            "\x8a\x09\0\0\0\0\0\0\0\0\x01"s);
  EXPECT_EQ(Pickled(tree_.AddFloat(1.5)), "G\x3f\xf8\0\0\0\0\0\0"s);
  const double nan = std::bit_cast<double>(std::uint64_t{0x7FF8000000000123});
  EXPECT_EQ(Pickled(tree_.AddFloat(nan)), "G\x7f\xf8\0\0\0\0\x01\x23"s);
  EXPECT_EQ(Pickled(tree_.AddBool(true)), "\x88");
  EXPECT_EQ(Pickled(tree_.Add(NodeKind::kNone)), "N");
}

TEST_F(WriterTest, ContainersAreWrittenInBatchesOfAThousand) {
  EXPECT_EQ(Pickled(tree_.Add(NodeKind::kList)), "]");
  EXPECT_EQ(Pickled(tree_.Add(NodeKind::kDict)), "}");
  EXPECT_EQ(Pickled(tree_.Add(NodeKind::kTuple)), ")");
  const NodeId none = tree_.Add(NodeKind::kNone);
  EXPECT_EQ(Pickled(Sequence(NodeKind::kList, {none})), "](Ne");
  EXPECT_EQ(Pickled(Sequence(NodeKind::kTuple, {none})), "N\x85");
  EXPECT_EQ(Pickled(Sequence(NodeKind::kTuple, {none, none, none})), "NNN\x87");
  EXPECT_EQ(Pickled(Sequence(NodeKind::kTuple, {none, none, none, none})), "(NNNNt");
  EXPECT_EQ(Pickled(Sequence(NodeKind::kList, std::vector<NodeId>(1001, none))),
            "](" + std::string(1000, 'N') + "e(Ne");
  NodeId dict = tree_.Add(NodeKind::kDict);
  for (int i = 0; i < 1001; ++i) tree_.SetItem(dict, none, none);
  EXPECT_EQ(Pickled(dict), "}(" + std::string(2000, 'N') + "u(NNu");
}

TEST_F(WriterTest, SymbolsAreWrittenOnceAndThenReferredTo) {
  const NodeId a = tree_.Add(NodeKind::kOrderedDict);
  const NodeId b = tree_.Add(NodeKind::kOrderedDict);
  EXPECT_EQ(Pickled(Sequence(NodeKind::kTuple, {a, b})),
            "ccollections\nOrderedDict\nq\0)Rh\0)R\x86"s);
}

TEST_F(WriterTest, AttributesOfAnOrderedDictAreBuilt) {
  const NodeId dict = tree_.Add(NodeKind::kOrderedDict);
  tree_.SetAttributes(dict, Dict({{"_metadata", tree_.Add(NodeKind::kDict)}}));
  EXPECT_THAT(Pickled(dict), testing::EndsWith(")R}(X\x09\0\0\0_metadata}ub"s));
}

TEST_F(WriterTest, BytesTravelAsLatin1) {
  const std::string pickled = Pickled(tree_.AddText(NodeKind::kBytes, "a\xff"));
  EXPECT_EQ(pickled,
            "c_codecs\nencode\nq\0X\x03\0\0\0a\xc3\xbfX\x06\0\0\0latin1q\x01"
            "\x86R"s);
}

TEST_F(WriterTest, ATensorNamesItsStorageAndItsView) {
  source_.AddValues<float>(DType::kFloat32, {1, 2, 3, 4});
  TensorInfo tensor = Info(0, {2});
  tensor.offset_elements = 2;
  const std::string expected = "ctorch._utils\n_rebuild_tensor_v2\nq\0(("s +
                               "X\x07\0\0\0storageq\x01"s + "ctorch\nFloatStorage\nq\x02" +
                               std::string(
                                   "X\x01\0\0\0"
                                   "0",
                                   6) +
                               "X\x03\0\0\0cpuq\x03"s + "K\x04tQK\x02K\x02\x85" + "K\x01\x85\x89" +
                               "ccollections\nOrderedDict\nq\x04)RtR";
  EXPECT_EQ(Pickled(tree_.AddTensor(tensor)), expected);
}

TEST_F(WriterTest, AParameterCarriesItsFlagOutsideOfTheTensor) {
  source_.AddValues<float>(DType::kFloat32, {1});
  TensorInfo tensor = Info(0, {1});
  tensor.is_parameter = true;
  tensor.requires_grad = true;
  const std::string pickled = Pickled(tree_.AddTensor(tensor));
  EXPECT_TRUE(pickled.starts_with("ctorch._utils\n_rebuild_parameter\n")) << pickled;
  EXPECT_THAT(pickled, HasSubstr("\x89"
                                 "ccollections\nOrderedDict\n"));
  EXPECT_TRUE(pickled.ends_with(std::string(")RtR\x88h\x05)R\x87R"))) << pickled;
}

TEST_F(WriterTest, AliasesShareOneStorage) {
  source_.AddValues<float>(DType::kFloat32, {1, 2, 3, 4});
  Write(Dict({{"a", Tensor(0, {4})}, {"b", Tensor(0, {2})}}));
  EXPECT_EQ(Entries(file_).size(), 7);
  EXPECT_EQ(Record("data/0").size(), 16);
}

TEST_F(WriterTest, DtypesWithoutAStorageClassGoOverUntypedStorage) {
  source_.AddValues<std::uint16_t>(DType::kUInt8, {1, 2, 3});
  const std::string pickled = Pickled(Tensor(0, {3}, DType::kUInt16));
  EXPECT_THAT(pickled, HasSubstr("_rebuild_tensor_v3"));
  EXPECT_THAT(pickled, HasSubstr("ctorch.storage\nUntypedStorage\n"));
  EXPECT_THAT(pickled, HasSubstr("ctorch\nuint16\n"));
  EXPECT_EQ(Record("data/0").size(), 6);
}

TEST_F(WriterTest, OneStorageNeverAppearsUnderTwoClasses) {
  source_.AddValues<float>(DType::kUInt8, {1, 2});
  const std::string pickled =
      Pickled(Dict({{"f", Tensor(0, {2})}, {"i", Tensor(0, {2}, DType::kInt32)}}));
  EXPECT_EQ(pickled.find("FloatStorage"), std::string::npos);
  EXPECT_EQ(pickled.find("IntStorage"), std::string::npos);
  EXPECT_THAT(pickled, HasSubstr("UntypedStorage"));
}

TEST_F(WriterTest, ASmallViewDoesNotDragItsStorageAlong) {
  std::vector<float> values(4096);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  source_.AddValues(DType::kFloat32, values);
  TensorInfo tensor = Info(0, {8});
  tensor.offset_elements = 101;
  Write(tree_.AddTensor(tensor));
  const std::string data = Record("data/0");
  ASSERT_EQ(data.size(), 4 * (8 + 1)) << "begins at a multiple of 16 bytes";
  float first = 0;
  std::memcpy(&first, data.data() + 4, 4);
  EXPECT_EQ(first, 101);
  EXPECT_THAT(Record("data.pkl"), HasSubstr("K\x09tQK\x01K\x08\x85"));
}

TEST_F(WriterTest, AliasesKeepWhatTheyNeedOfALargeStorage) {
  source_.AddValues(DType::kFloat32, std::vector<float>(4096, 1.0F));
  TensorInfo tail = Info(0, {8});
  tail.offset_elements = 4088;
  Write(Dict({{"head", Tensor(0, {8})}, {"tail", tree_.AddTensor(tail)}}));
  EXPECT_EQ(Record("data/0").size(), 4096 * 4);
}

TEST_F(WriterTest, AnEmptyViewOfALargeStorageIsEmpty) {
  source_.AddValues(DType::kFloat32, std::vector<float>(4096, 1.0F));
  TensorInfo empty = Info(0, {0});
  empty.offset_elements = 100;
  Write(tree_.AddTensor(empty));
  EXPECT_EQ(Record("data/0").size(), 0);
  EXPECT_THAT(Record("data.pkl"), HasSubstr("K\0tQK\0K\0\x85"s));
}

TEST_F(WriterTest, LazyConjugationAndNegationAreCarriedOut) {
  source_.AddValues<float>(DType::kComplex64, {1, 2, 3, 4, 5, 6});
  TensorInfo conj = Info(0, {2}, DType::kComplex64);
  conj.offset_elements = 2;
  conj.stride = {0};
  conj.conj = true;
  TensorInfo both = Info(0, {3}, DType::kComplex64);
  both.conj = both.neg = true;
  Write(Dict({{"conj", tree_.AddTensor(conj)}, {"both", tree_.AddTensor(both)}}));
  std::vector<float> values(4);
  std::memcpy(values.data(), Record("data/0").data(), 16);
  EXPECT_THAT(values, ElementsAre(5, -6, 5, -6));
  values.resize(6);
  std::memcpy(values.data(), Record("data/1").data(), 24);
  EXPECT_THAT(values, ElementsAre(-1, 2, -3, 4, -5, 6));
}

TEST_F(WriterTest, ATiedLazyTensorIsCarriedOutOnce) {
  source_.AddValues<float>(DType::kComplex64, {1, 2});
  TensorInfo lazy = Info(0, {1}, DType::kComplex64);
  lazy.conj = true;
  const NodeId tensor = tree_.AddTensor(lazy);
  Write(Dict({{"a", tensor}, {"b", tensor}}));
  EXPECT_EQ(Entries(file_).size(), 7);
  EXPECT_EQ(Record("data/0").size(), 8);
}

TEST_F(WriterTest, WhatCannotBeWrittenIsLeftOutAndListed) {
  source_.AddValues<float>(DType::kFloat32, {1});
  tree_.set_root(kNoNode);
  const NodeId list = Sequence(
      NodeKind::kList, {tree_.AddInt(1), Sequence(NodeKind::kTuple, {Object("a.b Thing")})});
  TensorInfo sparse = Info(0, {1});
  const NodeId root = Dict(
      {{"args", Object("argparse Namespace")},
       {"nested", Dict({{"list", list}, {"kept", tree_.AddInt(7)}})},
       {"weird/\xff", tree_.AddArray({.dtype = "f4", .shape = {}, .fortran = false, .bytes = ""})},
       {"sparse", tree_.AddUnsupportedTensor(sparse, "sparse_coo")},
       {"frozen", tree_.Add(NodeKind::kFrozenSet)},
       {"kept", Tensor(0, {1})}});
  const WriteReport report = Write(root);
  EXPECT_THAT(report.left_out,
              ElementsAre("/args: argparse.Namespace", "/weird/\\xff: numpy.ndarray",
                          testing::StartsWith("/sparse: tensor"), "/frozen: frozenset",
                          "/nested/list: holds a.b.Thing"));
  const std::string pickle = Record("data.pkl");
  EXPECT_THAT(pickle, HasSubstr("nested"));
  EXPECT_THAT(pickle, HasSubstr("kept"));
  EXPECT_EQ(pickle.find("Namespace"), std::string::npos);
  EXPECT_EQ(pickle.find("Thing"), std::string::npos);
  EXPECT_EQ(pickle.find("list"), std::string::npos);
}

TEST_F(WriterTest, LosslessRefusesWithEverythingListedBeforeAnythingIsWritten) {
  const NodeId root =
      Dict({{"a", Object("x Y")}, {"b", tree_.Add(NodeKind::kFrozenSet)}, {"c", tree_.AddInt(1)}});
  const absl::Status status = TryWrite(root, {.lossless = true}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/a: x.Y; /b: frozenset"));
  EXPECT_EQ(calls_, 0);
  EXPECT_TRUE(TryWrite(Dict({{"c", tree_.AddInt(1)}}), {.lossless = true}).ok());
}

TEST_F(WriterTest, ARootThatCannotBeWrittenIsAnError) {
  const absl::Status status =
      TryWrite(Sequence(NodeKind::kList, {tree_.AddInt(1), Object("x Y")})).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("x.Y"));
}

TEST_F(WriterTest, NumpyScalarsBecomePythonNumbersAndAreListed) {
  const NodeId scalar = Sequence(NodeKind::kNumpyScalar, {tree_.AddFloat(0.25)});
  const WriteReport report =
      Write(Dict({{"losses", Sequence(NodeKind::kList, {tree_.AddInt(1), scalar})}}));
  EXPECT_THAT(report.converted, ElementsAre("/losses/1: numpy scalar, written as a Python float"));
  EXPECT_THAT(report.left_out, IsEmpty());
}

TEST_F(WriterTest, TypesThatAreLostAreListed) {
  const NodeId list = Sequence(NodeKind::kList, {tree_.AddInt(1)});
  tree_.SetLostType(list, "x.List");
  EXPECT_THAT(Write(Dict({{"kept", tree_.Add(NodeKind::kDict)}, {"lost", list}})).converted,
              ElementsAre("/lost: x.List, written as a plain list"));
}

TEST_F(WriterTest, ACycleIsRefusedByCode) {
  const NodeId list = tree_.Add(NodeKind::kList);
  tree_.Append(list, Dict({{"again", list}}));
  EXPECT_EQ(GetErrorCode(TryWrite(list).status()), ErrorCode::kPickleCycle);
}

TEST_F(WriterTest, ACycleThroughAnObjectDoesNotMatter) {
  const NodeId object = Object("x Y");
  const NodeId root = Dict({{"o", object}, {"n", tree_.AddInt(1)}});
  tree_.mutable_opaque(object).states.push_back(root);
  EXPECT_THAT(Write(root).left_out, ElementsAre("/o: x.Y"));
}

TEST_F(WriterTest, NestingDoesNotTouchTheStack) {
  NodeId node = tree_.Add(NodeKind::kList);
  for (int i = 0; i < 200'000; ++i) node = Sequence(NodeKind::kList, {node});
  EXPECT_EQ(Pickled(node).size(), 200'000 * 3 + 1);
}

TEST_F(WriterTest, ATreeThatUnfoldsWithoutEndIsRefusedByCode) {
  NodeId node = tree_.AddInt(1);
  for (int i = 0; i < 100; ++i) node = Sequence(NodeKind::kTuple, {node, node});
  EXPECT_EQ(GetErrorCode(TryWrite(node).status()), ErrorCode::kLimitExceeded);
}

TEST_F(WriterTest, WritesNoMoreThanTheLimitsOfItsReader) {
  const NodeId root = Dict({{"a", tree_.AddInt(1)}, {"b", tree_.AddInt(2)}});
  const auto code_with = [&](const ReadLimits& limits) {
    return GetErrorCode(TryWrite(root, {.limits = limits}).status());
  };
  EXPECT_EQ(code_with({.max_expanded_nodes = 5}), std::nullopt);
  EXPECT_EQ(code_with({.max_expanded_nodes = 4}), ErrorCode::kLimitExceeded);
  EXPECT_EQ(calls_, 0);
  ASSERT_TRUE(TryWrite(root).ok());
  const std::uint64_t pickle_bytes = Record("data.pkl").size();
  EXPECT_EQ(code_with({.max_pickle_bytes = pickle_bytes}), std::nullopt);
  EXPECT_EQ(code_with({.max_pickle_bytes = pickle_bytes - 1}), ErrorCode::kLimitExceeded);
  EXPECT_EQ(calls_, 0);
  const WriteOptions tight = {.limits = {.max_expanded_nodes = 4}};
  EXPECT_EQ(GetErrorCode(PredictCheckpointBytes(tree_, root, source_, tight).status()),
            ErrorCode::kLimitExceeded);
}

TEST_F(WriterTest, ASourceThatGivesTooLittleIsDataLoss) {
  source_.AddValues<float>(DType::kFloat32, {1, 2});
  source_.withheld_bytes = 1;
  EXPECT_EQ(TryWrite(Tensor(0, {2})).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(WriterTest, ATensorBeyondItsStorageIsDataLoss) {
  source_.AddValues<float>(DType::kFloat32, {1, 2});
  EXPECT_EQ(TryWrite(Tensor(0, {3})).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(WriterTest, WhatTheSinkSaysEndsTheWrite) {
  const absl::Status status =
      WriteCheckpoint(tree_, tree_.AddInt(1), source_, {}, [](absl::Span<const std::byte>) {
        return absl::ResourceExhaustedError("full");
      }).status();
  EXPECT_EQ(status, absl::ResourceExhaustedError("full"));
}

TEST_F(WriterTest, NeededStoragesAreThoseOfWhatIsWritten) {
  for (int i = 0; i < 5; ++i) source_.AddValues<float>(DType::kFloat32, {1});
  TensorInfo lazy = Info(4, {1});
  lazy.neg = true;
  const NodeId root = Dict({{"b", Tensor(3, {1})},
                            {"dropped", Sequence(NodeKind::kList, {Tensor(1, {1}), Object("x Y")})},
                            {"a", Tensor(0, {1})},
                            {"lazy", tree_.AddTensor(lazy)}});
  const auto needed = NeededStorages(tree_, root);
  ASSERT_TRUE(needed.ok());
  EXPECT_THAT(*needed, ElementsAre(0, 3, 4));
}

TEST_F(WriterTest, ThePredictedSizeIsTheSize) {
  source_.AddValues(DType::kFloat32, std::vector<float>(1000, 1.0F));
  const NodeId root = Dict({{"a", Tensor(0, {1000})}, {"e", Tensor(0, {0})}});
  Write(root);
  const auto predicted = PredictCheckpointBytes(tree_, root, source_);
  ASSERT_TRUE(predicted.ok());
  EXPECT_EQ(*predicted, file_.size());
}

}  // namespace
}  // namespace relight::storage
