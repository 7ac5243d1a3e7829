#include "storage/safetensors_writer.h"

#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "storage/checkpoint_source.h"
#include "storage/safetensors_format.h"
#include "storage/snapshot_tree.h"
#include "storage/weights_digest.h"
#include "tests/storage/fixtures.h"
#include "tests/storage/made_checkpoint.h"

namespace relight::storage {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::ordered_json;

class SafetensorsWriterTest : public ::testing::Test {
 protected:
  absl::StatusOr<WriteReport> TryWrite(const Tree& tree, NodeId root, const StorageSource& source,
                                       bool lossless = false) {
    file_.clear();
    calls_ = 0;
    return WriteSafetensors(
        tree, root, source, {.lossless = lossless}, [this](absl::Span<const std::byte> bytes) {
          ++calls_;
          file_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
          return absl::OkStatus();
        });
  }
  absl::StatusOr<WriteReport> TryWrite(NodeId root, bool lossless = false) {
    return TryWrite(made_.tree, root, made_, lossless);
  }
  WriteReport Write(NodeId root) {
    absl::StatusOr<WriteReport> report = TryWrite(root);
    EXPECT_TRUE(report.ok()) << report.status();
    const auto predicted = PredictSafetensorsBytes(made_.tree, root);
    EXPECT_EQ(*predicted, file_.size());
    return report.ok() ? *std::move(report) : WriteReport();
  }
  std::string HeaderText() const {
    std::uint64_t length = 0;
    std::memcpy(&length, file_.data(), sizeof length);
    return file_.substr(8, length);
  }
  Json Header() const { return Json::parse(HeaderText()); }
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    const Json header = Header();
    for (const auto& item : header.items()) names.push_back(item.key());
    return names;
  }
  std::string Data() const { return file_.substr(8 + HeaderText().size()); }

  MadeCheckpoint made_;
  std::string file_;
  int calls_ = 0;
};

TEST_F(SafetensorsWriterTest, IsByteForByteWhatTheReferenceImplementationWrites) {
  const std::uint32_t storage = made_.AddStorage<std::int16_t>(DType::kInt16, {1, -1});
  Write(made_.AddDict(
      {{"w", made_.AddFloats({1.5F})}, {"n", made_.AddTensor(storage, {2, 1}, {1, 1})}}));
  const std::string json = R"({"__metadata__":{"format":"pt"},)"
                           R"("w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                           R"("n":{"dtype":"I16","shape":[2,1],"data_offsets":[4,8]}})";
  std::string expected(8, '\0');
  const std::uint64_t length = (json.size() + 7) / 8 * 8;
  std::memcpy(expected.data(), &length, 8);
  expected += json + std::string(length - json.size(), ' ');
  expected += std::string("\0\0\xc0\x3f\x01\0\xff\xff", 8);
  EXPECT_EQ(file_, expected);
  EXPECT_EQ(calls_, 1) << "small pieces reach the sink together";
}

TEST_F(SafetensorsWriterTest, AFileOfTheReferenceImplementationComesBackAsItWas) {
  const Checkpoint source = *Checkpoint::Open(DataPath("good/model.safetensors"));
  const auto report =
      TryWrite(source.tree(), source.tree().root(), CheckpointSource(source), /*lossless=*/true);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(file_, ReadWholeFile(DataPath("good/model.safetensors")));
  EXPECT_THAT(report->converted, IsEmpty());
}

TEST_F(SafetensorsWriterTest, DataComesWidestFirstAndNamesInTheDictsOrder) {
  const auto tensor = [this](DType dtype, std::vector<std::uint8_t> bytes) {
    const auto count = static_cast<std::int64_t>(bytes.size() / ItemSize(dtype));
    const std::uint32_t storage = made_.AddStorage(dtype, bytes);
    return made_.AddTensor(storage, {count}, {1});
  };
  Write(made_.AddDict({{"flag", tensor(DType::kBool, {1, 0, 1})},
                       {"z", tensor(DType::kFloat32, {1, 2, 3, 4})},
                       {"half", tensor(DType::kFloat16, {5, 6})},
                       {"a", tensor(DType::kFloat32, {7, 8, 9, 10})},
                       {"long", tensor(DType::kInt64, {11, 0, 0, 0, 0, 0, 0, 0})},
                       {"double", tensor(DType::kFloat64, {12, 0, 0, 0, 0, 0, 0, 0})}}));
  EXPECT_THAT(Names(), ElementsAre("__metadata__", "flag", "z", "half", "a", "long", "double"));
  EXPECT_EQ(Header()["long"]["data_offsets"], Json({0, 8}));
  EXPECT_EQ(Header()["double"]["data_offsets"], Json({8, 16}));
  EXPECT_EQ(Header()["a"]["data_offsets"], Json({16, 20}));
  EXPECT_EQ(Header()["z"]["data_offsets"], Json({20, 24}));
  EXPECT_EQ(Header()["half"]["data_offsets"], Json({24, 26}));
  EXPECT_EQ(Header()["flag"]["data_offsets"], Json({26, 29}));
  EXPECT_EQ(Data().size(), 29u);
  EXPECT_EQ(HeaderText().size() % 8, 0u);
}

TEST_F(SafetensorsWriterTest, OfTiedTensorsTheFirstIsWrittenAndTheOthersAreNoted) {
  const NodeId shared = made_.AddFloats({1, 2, 3});
  const std::uint32_t storage = made_.tree.tensor(shared).storage;
  const NodeId again = made_.AddTensor(storage, {3}, {1});  // Another object, the same view.
  const WriteReport report =
      Write(made_.AddDict({{"wte", shared}, {"b", made_.AddFloats({4})}, {"head", again}}));
  EXPECT_THAT(Names(), ElementsAre("__metadata__", "wte", "b"));
  EXPECT_EQ(Header()["__metadata__"], Json::parse(R"({"format":"pt","head":"wte"})"));
  EXPECT_EQ(Data().size(), 16u);
  EXPECT_THAT(report.left_out, IsEmpty());
  EXPECT_THAT(report.converted, IsEmpty());

  // Our reader ties them again.
  TempFolder folder;
  folder.Write("m.safetensors", file_);
  const Checkpoint read = *Checkpoint::Open(folder.Path("m.safetensors"));
  const Tree& tree = read.tree();
  EXPECT_EQ(tree.Find(tree.root(), "head"), tree.Find(tree.root(), "wte"));
}

TEST_F(SafetensorsWriterTest, ViewsBecomeDenseAndAreListed) {
  const std::uint32_t storage = made_.AddStorage<float>(DType::kFloat32, {1, 2, 3, 4, 5, 6});
  const std::uint32_t other = made_.AddStorage<float>(DType::kFloat32, {1, 2, 3});
  const WriteReport report = Write(made_.AddDict({{"t", made_.AddTensor(storage, {3, 2}, {1, 3})},
                                                  {"head", made_.AddTensor(other, {2}, {1})},
                                                  {"last", made_.AddTensor(other, {2}, {1}, 1)}}));
  EXPECT_THAT(report.converted,
              ElementsAre("/t: strided view, written dense",
                          "/head: shares memory with another tensor, written apart",
                          "/last: shares memory with another tensor, written apart"));
  std::vector<float> values(10);
  ASSERT_EQ(Data().size(), 40u);
  std::memcpy(values.data(), Data().data(), 40);
  EXPECT_THAT(values, ElementsAre(1, 2, 2, 3, 1, 4, 2, 5, 3, 6));
}

TEST_F(SafetensorsWriterTest, PartsOfOneStorageThatDoNotOverlapAreNoConversion) {
  const std::uint32_t flat = made_.AddStorage<float>(DType::kFloat32, {1, 2, 3, 4});
  EXPECT_THAT(Write(made_.AddDict({{"a", made_.AddTensor(flat, {2}, {1})},
                                   {"b", made_.AddTensor(flat, {2}, {1}, 2)}}))
                  .converted,
              IsEmpty());
}

TEST_F(SafetensorsWriterTest, WhatIsNoTensorIsLeftOutAndListed) {
  Tree& tree = made_.tree;
  const NodeId dict = made_.AddDict({{"w", made_.AddFloats({1})},
                                     {"extra", tree.AddInt(7)},
                                     {"sparse", tree.AddUnsupportedTensor({}, "sparse_coo")}},
                                    NodeKind::kOrderedDict);
  tree.SetItem(dict, tree.AddInt(3), made_.AddFloats({2}));
  tree.SetAttributes(dict, made_.AddDict({{"_metadata", tree.Add(NodeKind::kDict)}}));
  const WriteReport report = Write(dict);
  EXPECT_THAT(report.left_out,
              ElementsAre("/extra: int", "/sparse: tensor: sparse_coo",
                          "/<int>: a key that is no string", "/@attributes/_metadata: dict"));
  EXPECT_THAT(Names(), ElementsAre("__metadata__", "w"));

  const absl::Status status = TryWrite(dict, /*lossless=*/true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/extra: int"));
  EXPECT_EQ(calls_, 0);
}

TEST_F(SafetensorsWriterTest, AParameterBecomesATensorAndIsListed) {
  const NodeId parameter = made_.AddFloats({1});
  made_.tree.mutable_tensor(parameter).is_parameter = true;
  EXPECT_THAT(Write(made_.AddDict({{"w", parameter}})).converted,
              ElementsAre("/w: parameter, written as a plain tensor"));
}

TEST_F(SafetensorsWriterTest, TensorsThatTheFormatCannotHoldAreAllRefusedByName) {
  const std::uint32_t storage = made_.AddStorage<double>(DType::kComplex128, {1, 2});
  const absl::Status status = TryWrite(made_.AddDict({{"good", made_.AddFloats({1})},
                                                      {"wide", made_.AddTensor(storage, {1}, {1})},
                                                      {"__metadata__", made_.AddFloats({2})},
                                                      {"\xed\xa0\x80", made_.AddFloats({3})}}))
                                  .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("3 tensors"), HasSubstr("wide has dtype complex128"),
                    HasSubstr("__metadata__ is a name"), HasSubstr("is a name that is not UTF-8"),
                    HasSubstr("ask for a state dict")));
  EXPECT_EQ(calls_, 0);
}

TEST_F(SafetensorsWriterTest, OnlyADictHasNames) {
  EXPECT_EQ(TryWrite(made_.AddFloats({1})).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PredictSafetensorsBytes(made_.tree, made_.AddFloats({1})).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(SafetensorsWriterTest, NamesAreQuoted) {
  Write(made_.AddDict({{"a\"b\\c\n\xc3\xa9", made_.AddFloats({1})}}));
  EXPECT_THAT(HeaderText(), HasSubstr("\"a\\\"b\\\\c\\n\xc3\xa9\":{"));
  EXPECT_THAT(Names(), Contains("a\"b\\c\n\xc3\xa9"));
}

TEST_F(SafetensorsWriterTest, MetadataOfASafetensorsFileIsKept) {
  const std::string json = R"({"__metadata__":{"format":"pt","step":"12","tied":"w"},)"
                           R"("w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  std::string bytes(8, '\0');
  const std::uint64_t length = json.size();
  std::memcpy(bytes.data(), &length, 8);
  TempFolder folder;
  folder.Write("m.safetensors", bytes + json + "abcd");
  const absl::StatusOr<Checkpoint> source = Checkpoint::Open(folder.Path("m.safetensors"));
  ASSERT_TRUE(source.ok()) << source.status();
  ASSERT_TRUE(
      TryWrite(source->tree(), source->tree().root(), CheckpointSource(*source), true).ok());
  EXPECT_EQ(Header()["__metadata__"], Json::parse(R"({"format":"pt","step":"12","tied":"w"})"));

  // No other format carries it; that it was for PyTorch goes without saying.
  const auto report =
      WriteCheckpoint(source->tree(), source->tree().root(), CheckpointSource(*source), {},
                      [](absl::Span<const std::byte>) { return absl::OkStatus(); });
  EXPECT_THAT(report->left_out,
              ElementsAre("/@attributes/__metadata__/step: metadata of safetensors"));
}

TEST_F(SafetensorsWriterTest, ASourceThatGivesTooLittleIsDataLoss) {
  TensorInfo beyond = made_.tree.tensor(made_.AddFloats({1, 2}));
  beyond.shape = {3};
  EXPECT_EQ(TryWrite(made_.AddDict({{"w", made_.tree.AddTensor(beyond)}})).status().code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(SafetensorsWriterTest, WhatTheSinkSaysEndsTheWrite) {
  const NodeId root = made_.AddDict({{"w", made_.AddFloats({1})}});
  EXPECT_EQ(WriteSafetensors(
                made_.tree, root, made_, {},
                [](absl::Span<const std::byte>) { return absl::ResourceExhaustedError("full"); })
                .status(),
            absl::ResourceExhaustedError("full"));
}

TEST(SafetensorsDTypeTest, NamesGoBothWaysAndRanksFollowWidth) {
  int named = 0;
  for (int i = 0; i <= static_cast<int>(DType::kFloat4E2M1FNx2); ++i) {
    const auto dtype = static_cast<DType>(i);
    const auto name = SafetensorsName(dtype);
    if (!name.has_value()) continue;
    ++named;
    EXPECT_EQ(DTypeFromSafetensorsName(*name), dtype);
    for (const DType other : {DType::kBool, DType::kFloat16, DType::kFloat32, DType::kInt64}) {
      if (ItemSize(dtype) > ItemSize(other)) {
        EXPECT_GT(SafetensorsRank(dtype), SafetensorsRank(other)) << *name;
      }
    }
  }
  EXPECT_EQ(named, 19);
  EXPECT_EQ(SafetensorsName(DType::kComplex128), std::nullopt);
  EXPECT_TRUE(IsSubByteSafetensorsName("F4"));
  EXPECT_FALSE(IsSubByteSafetensorsName("F8_E4M3"));
}

// Every state dict among the fixtures: written, read, and written again.
class SafetensorsRoundTripTest : public ::testing::TestWithParam<std::string> {};

absl::StatusOr<std::string> WeightsAsSafetensors(const Checkpoint& checkpoint) {
  absl::StatusOr<StateDict> state_dict = FindStateDict(checkpoint);
  if (!state_dict.ok()) return state_dict.status();
  absl::StatusOr<SnapshotTree> tree = MakeSnapshotTree(checkpoint.tree(), *state_dict, true);
  if (!tree.ok()) return tree.status();
  std::string file;
  const absl::Status status =
      WriteSafetensors(tree->tree, tree->root, CheckpointSource(checkpoint), {},
                       [&file](absl::Span<const std::byte> bytes) {
                         file.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
                         return absl::OkStatus();
                       })
          .status();
  if (!status.ok()) return status;
  return file;
}

absl::StatusOr<WeightsDigest> DigestOf(const Checkpoint& checkpoint) {
  absl::StatusOr<StateDict> state_dict = FindStateDict(checkpoint);
  if (!state_dict.ok()) return state_dict.status();
  absl::StatusOr<WeightPlan> plan = PlanWeights(checkpoint, *state_dict, {});
  if (!plan.ok()) return plan.status();
  const Block block(plan->total_bytes);
  absl::StatusOr<ExaminedWeights> loaded = LoadWeights(checkpoint, *plan, block.span());
  if (!loaded.ok()) return loaded.status();
  return loaded->digest;
}

TEST_P(SafetensorsRoundTripTest, TheSameWeightsAndThenTheSameFile) {
  const absl::StatusOr<Checkpoint> before = Checkpoint::Open(DataPath(GetParam()));
  ASSERT_TRUE(before.ok()) << before.status();
  const absl::StatusOr<std::string> once = WeightsAsSafetensors(*before);
  ASSERT_TRUE(once.ok()) << once.status();
  TempFolder folder;
  folder.Write("once.safetensors", *once);
  const absl::StatusOr<Checkpoint> after = Checkpoint::Open(folder.Path("once.safetensors"));
  ASSERT_TRUE(after.ok()) << after.status();
  const absl::StatusOr<WeightsDigest> digest = DigestOf(*before);
  if (digest.ok()) {
    EXPECT_EQ(DigestOf(*after)->ToHex(), digest->ToHex());
  }
  const absl::StatusOr<std::string> twice = WeightsAsSafetensors(*after);
  ASSERT_TRUE(twice.ok()) << twice.status();
  EXPECT_TRUE(*twice == *once);
}

INSTANTIATE_TEST_SUITE_P(
    Good, SafetensorsRoundTripTest,
    ::testing::Values("good/bf16_state.pth", "good/bundle_full.pth", "good/checkpoint.pth",
                      "good/checkpoint_legacy.pth", "good/compiled_prefixed.pth",
                      "good/conv_bn_channels_last.pth", "good/conv_bn_entire.pth",
                      "good/ddp_prefixed.pth", "good/entire_model.pth", "good/half_state.pth",
                      "good/hf_sharded/pytorch_model.bin.index.json", "good/many_storages.pt",
                      "good/mixed.safetensors", "good/model.safetensors", "good/model_state.pth",
                      "good/named_parameters.pth", "good/noncontiguous.pt", "good/shapes.pt",
                      "good/slice_of_big.pt", "good/special_values.pt",
                      "good/st_sharded/model.safetensors.index.json", "good/syn_bigendian.pt",
                      "good/tied_entire.pth", "good/tied_weights.pth", "good/views_shared.pt"),
    [](const auto& file) { return TestNameOf(file.param); });

}  // namespace
}  // namespace relight::storage
