#include "storage/optimizer_view.h"

#include <gtest/gtest.h>

#include "storage/checkpoint.h"
#include "tests/storage/fixtures.h"

namespace relight::storage {
namespace {

// The view of what lies under `key` of a good file's root.
std::optional<OptimizerView> ViewIn(const std::string& file, const std::string& key) {
  static std::vector<Checkpoint> open;
  absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath("good/" + file));
  EXPECT_TRUE(opened.ok()) << opened.status();
  if (!opened.ok()) return std::nullopt;
  open.push_back(*std::move(opened));
  const Tree& tree = open.back().tree();
  return ViewOptimizer(tree, tree.Find(tree.root(), key));
}

TEST(OptimizerViewTest, GuessesTheKindsOfPyTorch) {
  const std::pair<const char*, const char*> kKinds[] = {
      {"optim_adam.pth", "Adam"},         {"optim_adamw_amsgrad.pth", "AdamW (amsgrad)"},
      {"optim_sgd_momentum.pth", "SGD"},  {"optim_sgd_plain.pth", "SGD"},
      {"optim_rmsprop.pth", "RMSprop"},   {"optim_adagrad.pth", "Adagrad"},
      {"optim_groups_sched.pth", "Adam"},
  };
  for (const auto& [file, kind] : kKinds) {
    const std::optional<OptimizerView> view = ViewIn(file, "optimizer");
    ASSERT_TRUE(view.has_value()) << file;
    EXPECT_EQ(view->kind, kind) << file;
  }
}

TEST(OptimizerViewTest, CountsStatesTensorsAndParameters) {
  const std::optional<OptimizerView> view = ViewIn("checkpoint.pth", "optimizer_state_dict");
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->kind, "Adam");
  EXPECT_EQ(view->states, 4u);
  EXPECT_EQ(view->tensors, 12u);
  ASSERT_EQ(view->groups.size(), 1u);
  EXPECT_EQ(view->groups[0].parameters, 4u);
  EXPECT_EQ(view->groups[0].settings[0].first, "lr");
  EXPECT_NE(view->step, kNoNode);
}

TEST(OptimizerViewTest, AnOptimizerThatNeverSteppedHasNoState) {
  Tree tree;
  const NodeId group = tree.Add(NodeKind::kDict);
  const NodeId params = tree.Add(NodeKind::kList);
  tree.Append(params, tree.AddInt(0));
  tree.SetItem(group, tree.AddText(NodeKind::kString, "mystery"), tree.AddFloat(0.5));
  tree.SetItem(group, tree.AddText(NodeKind::kString, "params"), params);
  const NodeId groups = tree.Add(NodeKind::kList);
  tree.Append(groups, group);
  const NodeId root = tree.Add(NodeKind::kDict);
  tree.SetItem(root, tree.AddText(NodeKind::kString, "state"), tree.Add(NodeKind::kDict));
  tree.SetItem(root, tree.AddText(NodeKind::kString, "param_groups"), groups);
  const std::optional<OptimizerView> view = ViewOptimizer(tree, root);
  ASSERT_TRUE(view.has_value());
  EXPECT_EQ(view->states, 0u);
  EXPECT_EQ(view->step, kNoNode);
  EXPECT_EQ(view->kind, "of an unknown kind");
  EXPECT_EQ(view->groups[0].settings.size(), 1u);
}

TEST(OptimizerViewTest, OtherDictsAreNone) {
  EXPECT_FALSE(ViewIn("checkpoint.pth", "model_state_dict").has_value());
  EXPECT_FALSE(ViewIn("checkpoint.pth", "epoch").has_value());
  Tree tree;
  const NodeId root = tree.Add(NodeKind::kDict);
  EXPECT_FALSE(ViewOptimizer(tree, root).has_value());
  tree.SetItem(root, tree.AddText(NodeKind::kString, "state"), tree.Add(NodeKind::kDict));
  tree.SetItem(root, tree.AddText(NodeKind::kString, "param_groups"), tree.Add(NodeKind::kDict));
  EXPECT_FALSE(ViewOptimizer(tree, root).has_value());
}

}  // namespace
}  // namespace relight::storage
