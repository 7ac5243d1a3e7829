#include "storage/snapshot_tree.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace relight::storage {
namespace {

using ::testing::ElementsAre;

class SnapshotTreeTest : public ::testing::Test {
 protected:
  NodeId Parameter(std::uint32_t storage) {
    TensorInfo tensor;
    tensor.storage = storage;
    tensor.shape = {2};
    tensor.stride = {1};
    tensor.is_parameter = tensor.requires_grad = true;
    return tree_.AddTensor(tensor);
  }
  void Set(NodeId dict, std::string_view key, NodeId value) {
    tree_.SetItem(dict, tree_.AddText(NodeKind::kString, key), value);
  }
  // A module object whose state dict has `weight` and, tied to it, `head`.
  StateDict Module() {
    OpaqueInfo object;
    object.callable = tree_.AddText(NodeKind::kSymbol, "__main__ Net");
    object.arguments = tree_.Add(NodeKind::kTuple);
    const NodeId weight = Parameter(3);
    StateDict found;
    found.container = tree_.AddOpaque(object);
    found.from_module = true;
    found.entries = {{"weight", "module.weight", weight}, {"head", "module.head", weight}};
    return found;
  }
  static std::vector<std::string> Keys(const Tree& tree, NodeId dict) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : tree.pairs(dict)) keys.emplace_back(tree.text(key));
    return keys;
  }
  SnapshotTree Make(const StateDict& state_dict, bool weights_only) {
    auto made = MakeSnapshotTree(tree_, state_dict, weights_only);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }

  Tree tree_;
};

TEST_F(SnapshotTreeTest, WhatIsBesideTheWeightsIsListedOnEveryLevel) {
  const NodeId root = tree_.Add(NodeKind::kDict);
  const NodeId list = tree_.Add(NodeKind::kList);
  const NodeId nested = tree_.Add(NodeKind::kDict);
  StateDict found;
  found.container = tree_.Add(NodeKind::kOrderedDict);
  Set(root, "epoch", tree_.AddInt(3));
  Set(root, "runs", list);
  tree_.SetItem(root, tree_.AddInt(5), tree_.Add(NodeKind::kNone));
  tree_.Append(list, nested);
  tree_.Append(list, tree_.AddFloat(0.5));
  Set(nested, "model", found.container);
  Set(nested, "optimizer\n", tree_.Add(NodeKind::kDict));
  tree_.set_root(root);
  EXPECT_THAT(
      BesideStateDict(tree_, found),
      ElementsAre("/epoch: int", "/<int>: None", "/runs/1: float", "/runs/0/optimizer\\x0a: dict"));
}

TEST_F(SnapshotTreeTest, NothingIsBesideAStateDictAlone) {
  StateDict found;
  found.container = tree_.Add(NodeKind::kOrderedDict);
  tree_.set_root(found.container);
  EXPECT_THAT(BesideStateDict(tree_, found), ElementsAre());
}

TEST_F(SnapshotTreeTest, AnObjectAroundAModuleIsListedAsOne) {
  OpaqueInfo object;
  object.callable = tree_.AddText(NodeKind::kSymbol, "trainer State");
  const StateDict found = Module();
  tree_.set_root(tree_.AddOpaque(object));
  EXPECT_THAT(BesideStateDict(tree_, found), ElementsAre("/: trainer.State"));
}

TEST_F(SnapshotTreeTest, ABundleStaysAsItIs) {
  const NodeId root = tree_.Add(NodeKind::kDict);
  StateDict found;
  found.container = tree_.Add(NodeKind::kOrderedDict);
  Set(root, "model", found.container);
  Set(root, "epoch", tree_.AddInt(3));
  tree_.set_root(root);
  EXPECT_EQ(Make(found, false).root, root);
  EXPECT_EQ(Make(found, true).root, found.container);
}

TEST_F(SnapshotTreeTest, WhatLiesAmongTheWeightsIsNoPartOfThem) {
  // torch.save({**model.state_dict(), "optimizer": ..., "epoch": 3})
  StateDict found;
  found.container = tree_.Add(NodeKind::kDict);
  const NodeId weight = Parameter(0);
  found.entries = {{"fc.weight", "fc.weight", weight}};
  found.other_keys = {"fc._extra_state", "optimizer", "epoch"};
  Set(found.container, "fc.weight", weight);
  Set(found.container, "fc._extra_state", tree_.AddInt(1));
  Set(found.container, "optimizer", tree_.Add(NodeKind::kDict));
  Set(found.container, "epoch", tree_.AddInt(3));
  const NodeId metadata = tree_.Add(NodeKind::kDict);
  tree_.SetAttributes(found.container, metadata);
  tree_.set_root(found.container);
  EXPECT_TRUE(HoldsMoreThanWeights(tree_, found));
  EXPECT_THAT(BesideStateDict(tree_, found), ElementsAre("/optimizer: dict", "/epoch: int"));
  EXPECT_EQ(Make(found, false).root, found.container);
  const SnapshotTree weights = Make(found, true);
  EXPECT_THAT(Keys(weights.tree, weights.root), ElementsAre("fc.weight", "fc._extra_state"));
  EXPECT_EQ(weights.tree.attributes(weights.root), metadata);

  found.other_keys = {"fc._extra_state"};
  EXPECT_FALSE(HoldsMoreThanWeights(tree_, found));
}

TEST_F(SnapshotTreeTest, AModuleBecomesADetachedStateDictUnderTheFilesKeys) {
  const StateDict found = Module();
  tree_.set_root(found.container);
  for (const bool weights_only : {false, true}) {
    const SnapshotTree snapshot = Make(found, weights_only);
    EXPECT_EQ(snapshot.tree.kind(snapshot.root), NodeKind::kOrderedDict);
    EXPECT_THAT(Keys(snapshot.tree, snapshot.root), ElementsAre("module.weight", "module.head"));
    const auto& pairs = snapshot.tree.pairs(snapshot.root);
    EXPECT_EQ(pairs[0].second, pairs[1].second) << "tied entries stay one tensor";
    const TensorInfo& tensor = snapshot.tree.tensor(pairs[0].second);
    EXPECT_EQ(tensor.storage, 3);
    EXPECT_FALSE(tensor.is_parameter);
    EXPECT_FALSE(tensor.requires_grad);
  }
}

TEST_F(SnapshotTreeTest, AModuleInABundleIsReplacedInItsPlace) {
  const StateDict found = Module();
  const NodeId root = tree_.Add(NodeKind::kDict);
  const NodeId nets = tree_.Add(NodeKind::kList);
  tree_.Append(nets, tree_.AddInt(1));
  tree_.Append(nets, found.container);
  const NodeId optimizer = tree_.Add(NodeKind::kDict);
  Set(root, "epoch", tree_.AddInt(3));
  Set(root, "nets", nets);
  Set(root, "optimizer", optimizer);
  tree_.set_root(root);

  const SnapshotTree snapshot = Make(found, false);
  EXPECT_THAT(Keys(snapshot.tree, snapshot.root), ElementsAre("epoch", "nets", "optimizer"));
  EXPECT_EQ(snapshot.tree.Find(snapshot.root, "optimizer"), optimizer);
  const auto& items = snapshot.tree.items(snapshot.tree.Find(snapshot.root, "nets"));
  ASSERT_EQ(items.size(), 2);
  EXPECT_EQ(snapshot.tree.integer(items[0]), 1);
  EXPECT_THAT(Keys(snapshot.tree, items[1]), ElementsAre("module.weight", "module.head"));
  EXPECT_EQ(tree_.Find(root, "nets"), nets) << "the served tree is another one";

  EXPECT_THAT(Keys(snapshot.tree, Make(found, true).root),
              ElementsAre("module.weight", "module.head"));
}

TEST_F(SnapshotTreeTest, AnOrderedDictOnTheWayKeepsItsAttributes) {
  const StateDict found = Module();
  const NodeId root = tree_.Add(NodeKind::kOrderedDict);
  const NodeId attributes = tree_.Add(NodeKind::kDict);
  tree_.SetAttributes(root, attributes);
  Set(root, "net", found.container);
  tree_.set_root(root);
  const SnapshotTree snapshot = Make(found, false);
  EXPECT_EQ(snapshot.tree.attributes(snapshot.root), attributes);
}

TEST_F(SnapshotTreeTest, AModuleWithinAnObjectOnlyGivesItsWeights) {
  const StateDict found = Module();
  OpaqueInfo trainer;
  trainer.callable = tree_.AddText(NodeKind::kSymbol, "x Trainer");
  trainer.states = {found.container};
  tree_.set_root(tree_.AddOpaque(trainer));
  EXPECT_EQ(MakeSnapshotTree(tree_, found, false).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(MakeSnapshotTree(tree_, found, true).ok());
}

}  // namespace
}  // namespace relight::storage
