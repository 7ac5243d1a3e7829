#include "storage/optimizer_view.h"

#include <set>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace relight::storage {
namespace {

using Names = std::set<std::string, std::less<>>;

// Which names of states or settings speak for which optimizer; the first row that fits counts.
struct Sign {
  std::string_view setting;  // Empty: any.
  std::string_view state;    // Empty: any.
  std::string_view kind;
};
constexpr Sign kSigns[] = {
    {"momentum_decay", "", "NAdam"}, {"nesterov", "", "SGD"},   {"centered", "", "RMSprop"},
    {"lr_decay", "", "Adagrad"},     {"rho", "", "Adadelta"},   {"etas", "", "Rprop"},
    {"lambd", "", "ASGD"},           {"max_iter", "", "LBFGS"}, {"", "exp_inf", "Adamax"},
    {"", "exp_avg_sq", "like Adam"},
};

// Which of two settings was written first; PyTorch keeps the order of its constructor's arguments.
bool IsBefore(const OptimizerGroup& group, std::string_view first, std::string_view second) {
  for (const auto& [name, value] : group.settings) {
    if (name == first) return true;
    if (name == second) return false;
  }
  return false;
}

NodeId Setting(const OptimizerGroup& group, std::string_view wanted) {
  for (const auto& [name, value] : group.settings) {
    if (name == wanted) return value;
  }
  return kNoNode;
}

bool IsTrue(const Tree& tree, NodeId node) {
  return node != kNoNode && tree.Is(node, NodeKind::kBool) && tree.boolean(node);
}

// Adam and AdamW keep the same states. Since 2.7 a setting tells them apart; before, their
// constructors named maximize and foreach in a different order.
std::string AdamOrAdamW(const Tree& tree, const OptimizerGroup& group) {
  std::string kind = "Adam or AdamW";
  if (const NodeId decoupled = Setting(group, "decoupled_weight_decay"); decoupled != kNoNode) {
    kind = IsTrue(tree, decoupled) ? "AdamW" : "Adam";
  } else if (IsBefore(group, "maximize", "foreach")) {
    kind = "Adam";
  } else if (IsBefore(group, "foreach", "maximize")) {
    kind = "AdamW";
  }
  return kind + (IsTrue(tree, Setting(group, "amsgrad")) ? " (amsgrad)" : "");
}

std::string GuessKind(const Tree& tree, const OptimizerView& view, const Names& state_names) {
  const OptimizerGroup none;
  const OptimizerGroup& group = view.groups.empty() ? none : view.groups.front();
  if (Setting(group, "amsgrad") != kNoNode) return AdamOrAdamW(tree, group);
  for (const Sign& sign : kSigns) {
    const bool setting = sign.setting.empty() || Setting(group, sign.setting) != kNoNode;
    const bool state = sign.state.empty() || state_names.contains(sign.state);
    if (setting && state) return std::string(sign.kind);
  }
  return "of an unknown kind";
}

std::optional<OptimizerGroup> ReadGroup(const Tree& tree, NodeId node) {
  if (!tree.IsDict(node)) return std::nullopt;
  const NodeId params = tree.Find(node, "params");
  if (params == kNoNode || !tree.Is(params, NodeKind::kList)) return std::nullopt;
  OptimizerGroup group;
  group.parameters = tree.items(params).size();
  for (const auto& [key, value] : tree.pairs(node)) {
    if (value == params || !tree.Is(key, NodeKind::kString)) continue;
    group.settings.emplace_back(tree.text(key), value);
  }
  return group;
}

}  // namespace

std::optional<OptimizerView> ViewOptimizer(const Tree& tree, NodeId node) {
  if (!tree.IsDict(node)) return std::nullopt;
  const NodeId state = tree.Find(node, "state");
  const NodeId groups = tree.Find(node, "param_groups");
  if (state == kNoNode || groups == kNoNode || !tree.IsDict(state) ||
      !tree.Is(groups, NodeKind::kList)) {
    return std::nullopt;
  }
  OptimizerView view;
  for (const NodeId item : tree.items(groups)) {
    std::optional<OptimizerGroup> group = ReadGroup(tree, item);
    if (!group.has_value()) return std::nullopt;
    view.groups.push_back(*std::move(group));
  }
  constexpr std::size_t kMaxStateNames = 64;
  Names names;
  for (const auto& [parameter, of_parameter] : tree.pairs(state)) {
    if (!tree.IsDict(of_parameter)) continue;
    ++view.states;
    for (const auto& [key, value] : tree.pairs(of_parameter)) {
      if (tree.Is(value, NodeKind::kTensor)) ++view.tensors;
      if (!tree.Is(key, NodeKind::kString)) continue;
      if (view.step == kNoNode && tree.text(key) == "step") view.step = value;
      if (names.size() < kMaxStateNames) names.emplace(tree.text(key));
    }
  }
  view.kind = GuessKind(tree, view, names);
  return view;
}

}  // namespace relight::storage
