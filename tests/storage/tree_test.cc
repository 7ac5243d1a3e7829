#include "storage/tree.h"

#include <bit>
#include <limits>

#include "gtest/gtest.h"

namespace relight::storage {
namespace {

TEST(TreeTest, ContainersGrowAfterTheyWereShared) {
  Tree tree;
  const NodeId list = tree.Add(NodeKind::kList);
  const NodeId dict = tree.Add(NodeKind::kOrderedDict);
  tree.SetItem(dict, tree.AddText(NodeKind::kString, "a"), list);
  tree.SetItem(dict, tree.AddText(NodeKind::kString, "b"), list);
  tree.Append(list, tree.AddInt(-7));
  tree.set_root(dict);
  ASSERT_EQ(tree.items(tree.Find(dict, "b")).size(), 1u);
  EXPECT_EQ(tree.integer(tree.items(tree.Find(dict, "a"))[0]), -7);
  EXPECT_EQ(tree.Find(dict, "c"), kNoNode);
  EXPECT_EQ(tree.attributes(dict), kNoNode);
}

TEST(TreeTest, FloatsKeepTheirBits) {
  Tree tree;
  const double nan = std::bit_cast<double>(std::uint64_t{0x7FF8000000000123});
  EXPECT_EQ(std::bit_cast<std::uint64_t>(tree.real(tree.AddFloat(nan))),
            std::uint64_t{0x7FF8000000000123});
  EXPECT_EQ(std::bit_cast<std::uint64_t>(tree.real(tree.AddFloat(-0.0))),
            std::uint64_t{0x8000000000000000});
}

TEST(TreeTest, TextMayHoldAnyBytes) {
  Tree tree;
  const NodeId first = tree.AddText(NodeKind::kBytes, std::string_view("a\0b", 3));
  const NodeId second = tree.AddText(NodeKind::kString, "");
  EXPECT_EQ(tree.text(first), std::string_view("a\0b", 3));
  EXPECT_EQ(tree.text(second), "");
}

TEST(TreeTest, UnsupportedTensorsSayWhy) {
  Tree tree;
  TensorInfo info;
  info.shape = {2, 3};
  const NodeId node = tree.AddUnsupportedTensor(info, "sparse_coo");
  EXPECT_EQ(tree.kind(node), NodeKind::kUnsupportedTensor);
  EXPECT_EQ(tree.text(node), "sparse_coo");
  EXPECT_EQ(tree.tensor(node).shape, info.shape);
}

}  // namespace
}  // namespace relight::storage
