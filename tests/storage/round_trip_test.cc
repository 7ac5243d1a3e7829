// What the writer writes, the reader reads equal: over random trees, and at the limits.
#include <functional>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/bytes.h"
#include "storage/checkpoint.h"
#include "storage/checkpoint_source.h"
#include "storage/write_plan.h"
#include "storage/writer.h"
#include "tests/storage/memory_file.h"
#include "tests/storage/random_checkpoint.h"
#include "tests/storage/tree_comparison.h"

namespace relight::storage {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr unsigned kTrees = 300;
#else
constexpr unsigned kTrees = 3000;
#endif

absl::StatusOr<WriteReport> Write(const Tree& tree, const StorageSource& source,
                                  std::string& bytes) {
  bytes.clear();
  return WriteCheckpoint(tree, tree.root(), source, {}, [&](absl::Span<const std::byte> piece) {
    bytes.append(AsText(piece));
    return absl::OkStatus();
  });
}

// Every kind of value at or below the root.
void CollectKinds(const Tree& tree, std::set<NodeKind>& kinds) {
  for (NodeId node = 0; node < tree.size(); ++node) kinds.insert(tree.kind(node));
}

TEST(RoundTripTest, RandomTreesComeBackEqual) {
  std::set<NodeKind> read_kinds;
  std::size_t left_out = 0;
  const MemoryFile file;
  for (unsigned seed = 0; seed < kTrees; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const RandomCheckpoint made(seed);
    const Tree& tree = made.tree();
    const auto plan = WritePlan::Make(tree, tree.root());
    ASSERT_TRUE(plan.ok()) << plan.status();
    std::string bytes;
    const auto report = Write(tree, made, bytes);
    ASSERT_TRUE(report.ok()) << report.status();
    left_out += report->left_out.size();
    const auto predicted = PredictCheckpointBytes(tree, tree.root(), made);
    ASSERT_TRUE(predicted.ok()) << predicted.status();
    EXPECT_EQ(*predicted, bytes.size());

    file.Write(bytes);
    const auto read = Checkpoint::Open(file.path(), {.require_crc = true});
    ASSERT_TRUE(read.ok()) << read.status();
    const CheckpointSource read_bytes(*read);
    TreeComparison comparison(tree, read->tree(), *plan, CompareValues(made, read_bytes));
    ASSERT_EQ(comparison.Difference(tree.root(), read->tree().root()), "");
    CollectKinds(read->tree(), read_kinds);

    std::string again;
    const auto second = Write(read->tree(), read_bytes, again);
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_THAT(second->left_out, IsEmpty());
    EXPECT_TRUE(again == bytes) << "a snapshot of a snapshot is another file";
  }
  EXPECT_GT(left_out, 0u);
  for (const NodeKind kind :
       {NodeKind::kNone, NodeKind::kBool, NodeKind::kInt, NodeKind::kBigInt, NodeKind::kFloat,
        NodeKind::kString, NodeKind::kBytes, NodeKind::kList, NodeKind::kTuple, NodeKind::kDict,
        NodeKind::kOrderedDict, NodeKind::kCounter, NodeKind::kSet, NodeKind::kSize,
        NodeKind::kDevice, NodeKind::kDType, NodeKind::kStorage, NodeKind::kTensor}) {
    EXPECT_TRUE(read_kinds.contains(kind)) << Name(kind) << " was never made";
  }
}

// Writes the tree and opens it again.
class LimitTest : public ::testing::Test {
 protected:
  absl::StatusOr<Checkpoint> RoundTrip() {
    std::string bytes;
    if (const auto report = Write(tree_, no_storages_, bytes); !report.ok()) return report.status();
    file_.Write(bytes);
    return Checkpoint::Open(file_.path());
  }

  class OneFloat final : public StorageSource {
   public:
    absl::Status Stream(std::uint32_t, const ByteSink& sink) const override {
      return sink(AsBytes(std::string_view("\0\0\x80\x3F", 4)));
    }
    std::uint64_t SizeBytes(std::uint32_t) const override { return 4; }
    DType ElementType(std::uint32_t) const override { return DType::kFloat32; }
  };

  Tree tree_;
  OneFloat no_storages_;
  MemoryFile file_;
};

TEST_F(LimitTest, ATreeAsDeepAsTheReaderTakesIsWrittenSoThatItTakesIt) {
  const std::size_t deepest = static_cast<std::size_t>(ReadLimits().max_depth);
  for (const NodeKind kind : {NodeKind::kList, NodeKind::kTuple, NodeKind::kDict}) {
    tree_ = Tree();
    TensorInfo scalar;
    scalar.is_parameter = true;
    NodeId node = tree_.AddTensor(scalar);
    for (std::size_t depth = 1; depth < deepest; ++depth) {
      const NodeId around = tree_.Add(kind);
      if (kind == NodeKind::kDict) {
        tree_.SetItem(around, tree_.AddInt(0), node);
      } else {
        for (int i = 0; i < 4; ++i) tree_.Append(around, i == 3 ? node : tree_.AddInt(i));
      }
      node = around;
    }
    tree_.set_root(node);
    const auto read = RoundTrip();
    EXPECT_TRUE(read.ok()) << Name(kind) << ": " << read.status();
  }
}

TEST_F(LimitTest, BytesAsLongAsTheReaderTakesAreWrittenSoThatItTakesThem) {
  const std::string blob(static_cast<std::size_t>(ReadLimits().max_blob_bytes), '\xFF');
  const NodeId dict = tree_.Add(NodeKind::kDict);
  tree_.SetItem(dict, tree_.AddInt(0), tree_.AddText(NodeKind::kBytes, blob));
  tree_.set_root(dict);
  const auto read = RoundTrip();
  ASSERT_TRUE(read.ok()) << read.status();
  const Tree& after = read->tree();
  EXPECT_TRUE(after.text(after.pairs(after.root())[0].second) == blob);
}

// The comparison that the tests above and the fuzz targets stand on.
class TreeComparisonTest : public ::testing::Test {
 protected:
  // A small tree of every shape that `change` may alter.
  struct Sample {
    Tree tree;
    NodeId dict = kNoNode;
    NodeId key = kNoNode;
    NodeId list = kNoNode;
    NodeId tensors[2] = {kNoNode, kNoNode};
  };
  static Sample Make(const std::function<void(Sample&)>& change) {
    Sample sample;
    Tree& tree = sample.tree;
    sample.dict = tree.Add(NodeKind::kOrderedDict);
    sample.list = tree.Add(NodeKind::kList);
    sample.key = tree.AddText(NodeKind::kString, "key");
    for (NodeId& tensor : sample.tensors) {
      TensorInfo info;
      info.shape = {2, 3};
      info.stride = {3, 1};
      tensor = tree.AddTensor(info);
      tree.Append(sample.list, tensor);
    }
    tree.SetItem(sample.dict, sample.key, sample.list);
    tree.set_root(sample.dict);
    change(sample);
    return sample;
  }
  static std::string Difference(const std::function<void(Sample&)>& before_change,
                                const std::function<void(Sample&)>& after_change) {
    const Sample before = Make(before_change);
    const Sample after = Make(after_change);
    const auto plan = WritePlan::Make(before.tree, before.tree.root());
    EXPECT_TRUE(plan.ok());
    const PlaceComparison places = [](const TensorInfo& a, const TensorInfo& b) {
      return a.offset_elements == b.offset_elements ? "" : "another offset";
    };
    return TreeComparison(before.tree, after.tree, *plan, places)
        .Difference(before.tree.root(), after.tree.root());
  }
};

TEST_F(TreeComparisonTest, EqualTreesDoNotDiffer) {
  EXPECT_EQ(Difference([](Sample&) {}, [](Sample&) {}), "");
}

TEST_F(TreeComparisonTest, SaysWhereAndWhatDiffers) {
  using Change = std::function<void(Sample&)>;
  const Change none = [](Sample&) {};
  const auto append = [](NodeId (*make)(Tree&)) -> Change {
    return [make](Sample& s) { s.tree.Append(s.list, make(s.tree)); };
  };
  const auto tensor = [](void (*change)(TensorInfo&)) -> Change {
    return [change](Sample& s) { change(s.tree.mutable_tensor(s.tensors[1])); };
  };
  const auto one = append([](Tree& tree) { return tree.AddInt(1); });
  const auto attributes = [](Sample& s) {
    s.tree.SetAttributes(s.dict, s.tree.Add(NodeKind::kDict));
  };
  const auto entry = [](Sample& s) {
    s.tree.SetItem(s.dict, s.tree.AddInt(1), s.tree.Add(NodeKind::kNone));
  };
  const struct {
    Change before;
    Change after;
    std::string_view difference;
  } cases[] = {
      {one, none, "/value 0: another number of items"},
      {one, append([](Tree& tree) { return tree.AddInt(2); }), "/value 0/item 2: another integer"},
      {one, append([](Tree& tree) { return tree.AddFloat(1); }), "was a int, is a float"},
      {append([](Tree& tree) { return tree.AddFloat(0.0); }),
       append([](Tree& tree) { return tree.AddFloat(-0.0); }), "another float"},
      {append([](Tree& tree) { return tree.AddText(NodeKind::kString, "a"); }),
       append([](Tree& tree) { return tree.AddText(NodeKind::kString, "b"); }), "another text"},
      {entry, none, "/: entries are missing"},
      {none, entry, "/: entries were added"},
      {attributes, none, "attributes came or went"},
      {none, tensor([](TensorInfo& t) { t.dtype = DType::kInt32; }), "another dtype"},
      {none, tensor([](TensorInfo& t) {
         t.shape = {3, 2};
       }),
       "another shape"},
      {none, tensor([](TensorInfo& t) {
         t.stride = {1, 2};
       }),
       "another stride"},
      {none, tensor([](TensorInfo& t) { t.offset_elements = 1; }), "another offset"},
      {none, tensor([](TensorInfo& t) { t.requires_grad = true; }), "another requires_grad"},
      {none, tensor([](TensorInfo& t) { t.is_parameter = true; }), "is a parameter, or no more"},
      {none, tensor([](TensorInfo& t) { t.neg = true; }), "is still lazy"},
      {none, tensor([](TensorInfo& t) { t.storage = 1; }), "no longer shares its storage"},
      {tensor([](TensorInfo& t) { t.storage = 1; }), none, "shares another's storage"},
  };
  for (const auto& row : cases) {
    EXPECT_THAT(Difference(row.before, row.after), HasSubstr(std::string(row.difference)));
  }
}

TEST_F(TreeComparisonTest, SeesOtherValues) {
  const RandomCheckpoint one(1);
  const RandomCheckpoint two(2);
  TensorInfo info;
  info.dtype = DType::kUInt8;
  info.shape = {1};
  info.stride = {1};
  ASSERT_GT(one.SizeBytes(0), 0u);
  ASSERT_GT(two.SizeBytes(0), 0u);
  EXPECT_EQ(CompareValues(one, one)(info, info), "");
  EXPECT_EQ(CompareValues(one, two)(info, info), "other values");
}

}  // namespace
}  // namespace relight::storage
