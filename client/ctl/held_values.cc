#include "client/ctl/held_values.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/ctl/value_text.h"
#include "storage/state_dict_finder.h"
#include "storage/tree_audit.h"

namespace relight::ctl {
namespace {

using storage::Checkpoint;
using storage::kNoNode;
using storage::NodeId;
using storage::NodeKind;
using storage::PointerStep;
using storage::StateDict;
using storage::Tree;

// Lists longer than this are not looked into.
constexpr std::size_t kMaxStatesInList = 64;

// Which keys of a scheduler's state speak for which class; the first row that fits counts.
struct ScheduleSign {
  std::string_view key;
  std::string_view guess;
};
constexpr ScheduleSign kScheduleSigns[] = {
    {"milestones", "MultiStepLR"},
    {"step_size", "StepLR"},
    {"T_max", "CosineAnnealingLR"},
    {"T_0", "CosineAnnealingWarmRestarts"},
    {"total_steps", "OneCycleLR"},
    {"patience", "ReduceLROnPlateau"},
    {"total_iters", "LinearLR, ConstantLR or PolynomialLR"},
    {"lr_lambdas", "LambdaLR"},
    {"gamma", "ExponentialLR"},
};

bool Has(const Tree& tree, NodeId dict, std::string_view key) {
  return tree.Find(dict, key) != kNoNode;
}

bool IsSchedule(const Tree& tree, NodeId node) {
  return tree.IsDict(node) && Has(tree, node, "last_epoch") &&
         (Has(tree, node, "base_lrs") || Has(tree, node, "_last_lr") ||
          Has(tree, node, "_step_count") || Has(tree, node, "patience"));
}

bool IsScaler(const Tree& tree, NodeId node) {
  return tree.IsDict(node) && Has(tree, node, "growth_factor") && Has(tree, node, "backoff_factor");
}

bool IsStateDict(const Tree& tree, NodeId node) {
  if (!tree.IsDict(node)) return false;
  bool any = false;
  for (const auto& [key, value] : tree.pairs(node)) {
    const bool tensor =
        tree.Is(value, NodeKind::kTensor) || tree.Is(value, NodeKind::kUnsupportedTensor);
    if (!tensor || !tree.Is(key, NodeKind::kString)) return false;
    any = true;
  }
  return any;
}

std::string GuessSchedule(const Tree& tree, NodeId node) {
  for (const ScheduleSign& sign : kScheduleSigns) {
    if (Has(tree, node, sign.key)) return std::string(sign.guess);
  }
  return "";
}

HeldValue Recognise(const Tree& tree, NodeId node, std::string at) {
  HeldValue held;
  held.at = std::move(at);
  held.node = node;
  held.optimizer = storage::ViewOptimizer(tree, node);
  if (held.optimizer.has_value()) {
    held.kind = HeldKind::kOptimizer;
  } else if (IsSchedule(tree, node)) {
    held.kind = HeldKind::kSchedule;
    held.guess = GuessSchedule(tree, node);
  } else if (IsScaler(tree, node)) {
    held.kind = HeldKind::kScaler;
  } else if (IsStateDict(tree, node)) {
    held.kind = HeldKind::kStateDict;
  } else if (storage::IsModule(tree, node)) {
    held.kind = HeldKind::kModule;
  } else if (tree.Is(node, NodeKind::kOpaque)) {
    held.kind = HeldKind::kObject;
  } else if (tree.Is(node, NodeKind::kTensor) || tree.Is(node, NodeKind::kUnsupportedTensor)) {
    held.kind = HeldKind::kTensor;
  }
  return held;
}

class Collector {
 public:
  Collector(const Checkpoint& checkpoint, const StateDict* weights, std::size_t max_listed)
      : checkpoint_(checkpoint),
        tree_(checkpoint.tree()),
        weights_(weights),
        max_listed_(max_listed),
        seen_(tree_.size()),
        storage_seen_(checkpoint.storages().size()) {}

  HeldValues Collect() {
    if (weights_ != nullptr) {
      for (const storage::StateDictEntry& entry : weights_->entries) {
        seen_[entry.node] = true;
        if (tree_.Is(entry.node, NodeKind::kTensor)) {
          result_.weight_bytes += TakeStorage(tree_.tensor(entry.node).storage);
        }
      }
    }
    List(tree_.root(), "");
    return std::move(result_);
  }

 private:
  // The values at `node`, level by level on the way to the weights; at most as deep as the finder
  // of state dicts goes.
  void List(NodeId node, const std::string& at) {
    const bool is_weights = weights_ != nullptr && node == weights_->container;
    if (is_weights && weights_->from_module) return;
    if (!tree_.IsDict(node)) {
      Add(node, at);
      return;
    }
    for (const auto& [key, value] : tree_.pairs(node)) {
      const bool tensor =
          tree_.Is(value, NodeKind::kTensor) || tree_.Is(value, NodeKind::kUnsupportedTensor);
      if (is_weights && tensor && tree_.Is(key, NodeKind::kString)) continue;
      std::string child = at + PointerStep(KeyText(tree_, key));
      if (!is_weights && weights_ != nullptr &&
          (weights_->location == child || weights_->location.starts_with(child + "/"))) {
        List(value, child);
      } else {
        Add(value, std::move(child));
      }
    }
  }

  // Lists of optimizers and schedules, as Lightning has them, count one by one.
  bool IsListOfStates(NodeId node) const {
    if (!tree_.Is(node, NodeKind::kList)) return false;
    const std::vector<NodeId>& items = tree_.items(node);
    if (items.empty() || items.size() > kMaxStatesInList) return false;
    for (const NodeId item : items) {
      if (!storage::ViewOptimizer(tree_, item).has_value() && !IsSchedule(tree_, item)) {
        return false;
      }
    }
    return true;
  }

  void Add(NodeId node, std::string at) {
    if (IsListOfStates(node)) {
      const std::vector<NodeId>& items = tree_.items(node);
      for (std::size_t i = 0; i < items.size(); ++i) AddOne(items[i], absl::StrCat(at, "/", i));
      return;
    }
    AddOne(node, std::move(at));
  }

  void AddOne(NodeId node, std::string at) {
    if (result_.values.size() >= max_listed_) {
      ++result_.omitted_values;
      return;
    }
    HeldValue held = Recognise(tree_, node, std::move(at));
    Walk(held);
    result_.values.push_back(std::move(held));
  }

  struct Frame {
    NodeId node;
    std::size_t path_bytes;  // How much of the path leads here.
    std::size_t next_child = 0;
  };

  // Counts what was not seen before, with a path to each tensor.
  void Walk(HeldValue& held) {
    std::string path = held.at;
    std::vector<Frame> stack;
    const auto enter = [&](NodeId node) {
      if (seen_[node]) return;
      seen_[node] = true;
      Count(node, path, held);
      stack.push_back({node, path.size()});
    };
    enter(held.node);
    while (!stack.empty()) {
      Frame& frame = stack.back();
      path.resize(frame.path_bytes);
      const std::size_t index = frame.next_child++;
      const auto child = storage::ChildAt(tree_, frame.node, index);
      if (!child.has_value()) {
        stack.pop_back();
        continue;
      }
      path += StepTo(frame.node, index);
      enter(*child);
    }
  }

  // What leads from a container to its `index`th child; nothing within objects.
  std::string StepTo(NodeId node, std::size_t index) const {
    constexpr std::size_t kMaxStepBytes = 256;
    if (tree_.IsDict(node)) {
      const auto& pairs = tree_.pairs(node);
      if (index >= 2 * pairs.size()) return "";
      return PointerStep(KeyText(tree_, pairs[index / 2].first).substr(0, kMaxStepBytes));
    }
    if (tree_.Is(node, NodeKind::kOpaque)) return "";
    return absl::StrCat("/", index);
  }

  void Count(NodeId node, const std::string& path, HeldValue& held) {
    constexpr std::size_t kMaxPathBytes = 1024;
    if (tree_.Is(node, NodeKind::kStorage)) held.stored_bytes += TakeStorage(tree_.storage(node));
    const bool unsupported = tree_.Is(node, NodeKind::kUnsupportedTensor);
    if (!unsupported && !tree_.Is(node, NodeKind::kTensor)) return;
    ++held.tensors;
    if (!unsupported) held.stored_bytes += TakeStorage(tree_.tensor(node).storage);
    if (result_.tensors.size() >= max_listed_) {
      ++result_.omitted_tensors;
    } else {
      result_.tensors.push_back({path.substr(0, kMaxPathBytes), node});
    }
  }

  std::uint64_t TakeStorage(std::uint32_t index) {
    if (storage_seen_[index]) return 0;
    storage_seen_[index] = true;
    return checkpoint_.storages()[index].size_bytes;
  }

  const Checkpoint& checkpoint_;
  const Tree& tree_;
  const StateDict* const weights_;
  const std::size_t max_listed_;
  std::vector<bool> seen_;
  std::vector<bool> storage_seen_;
  HeldValues result_;
};

}  // namespace

std::string_view Name(HeldKind kind) {
  switch (kind) {
    case HeldKind::kValue:
      return "value";
    case HeldKind::kOptimizer:
      return "optimizer";
    case HeldKind::kSchedule:
      return "schedule";
    case HeldKind::kScaler:
      return "scaler";
    case HeldKind::kStateDict:
      return "state_dict";
    case HeldKind::kModule:
      return "module";
    case HeldKind::kTensor:
      return "tensor";
    case HeldKind::kObject:
      return "object";
  }
  return "?";
}

HeldValues FindHeldValues(const Checkpoint& checkpoint, const StateDict* weights,
                          std::size_t max_listed) {
  return Collector(checkpoint, weights, max_listed).Collect();
}

}  // namespace relight::ctl
