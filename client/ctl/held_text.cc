#include "client/ctl/held_text.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/escape.h"
#include "client/ctl/output.h"
#include "client/ctl/value_text.h"
#include "storage/state_dict_finder.h"

namespace relight::ctl {
namespace {

using storage::NodeId;
using storage::NodeKind;
using storage::Tree;

constexpr std::size_t kShownValues = 100;
constexpr std::size_t kShownGroups = 4;
constexpr std::size_t kShownSettings = 24;
constexpr std::size_t kWidestKey = 40;

std::string Count(std::uint64_t number, std::string_view what) {
  return absl::StrCat(Grouped(number), " ", std::string(what), number == 1 ? "" : "s");
}

class HeldWriter {
 public:
  HeldWriter(const Inspection& inspection, const InspectionStyle& style)
      : checkpoint_(*inspection.checkpoint),
        tree_(checkpoint_.tree()),
        held_(inspection.held),
        style_(style) {}

  std::string Write() {
    const std::size_t shown =
        style_.all ? held_.values.size() : std::min(held_.values.size(), kShownValues);
    for (std::size_t i = 0; i < shown; ++i) {
      key_width_ = std::max(key_width_, std::min(TextWidth(Key(held_.values[i])), kWidestKey));
    }
    for (std::size_t i = 0; i < shown; ++i) Add(held_.values[i]);
    const std::size_t more = held_.values.size() - shown + held_.omitted_values;
    if (more > 0) {
      absl::StrAppend(&out_, "  ",
                      Paint(absl::StrCat("and ", Grouped(more), " more",
                                         style_.all ? "" : "; --all lists them"),
                            Color::kDim, style_.color),
                      "\n");
    }
    return std::move(out_);
  }

 private:
  static std::string Key(const HeldValue& value) {
    if (value.at.empty()) return "(all of it)";
    return Escape(std::string_view(value.at).substr(1), 512);
  }

  void Add(const HeldValue& value) {
    const std::string key = Key(value);
    absl::StrAppend(&out_, "  ", Paint(key, Color::kNone, style_.color),
                    std::string(key_width_ - std::min(key_width_, TextWidth(key)) + 2, ' '));
    const std::vector<std::vector<std::string>> lines = Lines(value);
    const std::size_t indent = key_width_ + 4;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      if (i > 0) out_.append(indent, ' ');
      absl::StrAppend(&out_,
                      Paint(WrapWords(lines[i], indent, style_.width),
                            i > 0 ? Color::kDim : Color::kNone, style_.color),
                      "\n");
    }
  }

  static std::vector<std::string> Words(const std::string& text) {
    return absl::StrSplit(text, ' ');
  }

  // The words of each line.
  std::vector<std::vector<std::string>> Lines(const HeldValue& value) const {
    switch (value.kind) {
      case HeldKind::kOptimizer:
        return OptimizerLines(value);
      case HeldKind::kSchedule:
        return {Words(absl::StrCat("schedule of the learning rate",
                                   value.guess.empty() ? "" : ", of the kind ", value.guess)),
                Settings({}, tree_.pairs(value.node))};
      case HeldKind::kScaler:
        return {{"gradient scaler"}, Settings({}, tree_.pairs(value.node))};
      case HeldKind::kStateDict:
        return {Words(absl::StrCat("state dict: ", Count(tree_.pairs(value.node).size(), "tensor"),
                                   Stored(value)))};
      case HeldKind::kModule:
        return {Words(absl::StrCat("module ", Escape(storage::ClassName(tree_, value.node)), ": ",
                                   Count(value.tensors, "tensor"), Stored(value)))};
      case HeldKind::kObject:
        return {Words(absl::StrCat("object of ", Escape(storage::ClassName(tree_, value.node)),
                                   WithTensors(value)))};
      default:
        return {Words(absl::StrCat(ValueText(checkpoint_, value.node), WithTensors(value)))};
    }
  }

  static std::string Stored(const HeldValue& value) {
    if (value.stored_bytes == 0) return ", no bytes of its own";
    return absl::StrCat(", ", FormatBytes(value.stored_bytes));
  }

  // For a container that holds tensors somewhere.
  std::string WithTensors(const HeldValue& value) const {
    const bool itself = tree_.Is(value.node, NodeKind::kTensor) ||
                        tree_.Is(value.node, NodeKind::kUnsupportedTensor);
    if (value.tensors == 0 || itself) return "";
    return absl::StrCat(", ", Count(value.tensors, "tensor"), Stored(value));
  }

  std::vector<std::vector<std::string>> OptimizerLines(const HeldValue& value) const {
    const storage::OptimizerView& optimizer = *value.optimizer;
    std::uint64_t parameters = 0;
    for (const storage::OptimizerGroup& group : optimizer.groups) parameters += group.parameters;
    std::string first = absl::StrCat("optimizer ", optimizer.kind, ": ");
    if (optimizer.states == 0) {
      absl::StrAppend(&first, Count(parameters, "parameter"), ", no state");
    } else {
      const std::string of =
          optimizer.states == parameters ? "" : absl::StrCat(Grouped(optimizer.states), " of ");
      absl::StrAppend(&first, "state of ", of, Count(parameters, "parameter"), ", ",
                      Count(optimizer.tensors, "tensor"), Stored(value));
    }
    if (optimizer.step != storage::kNoNode) {
      absl::StrAppend(&first, ", step ", StepText(optimizer.step));
    }
    std::vector<std::vector<std::string>> lines = {Words(first)};
    const std::vector<storage::OptimizerGroup>& groups = optimizer.groups;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      if (i == kShownGroups) {
        lines.push_back(Words(absl::StrCat("and ", groups.size() - i, " more groups")));
        break;
      }
      std::vector<std::string> title;
      if (groups.size() > 1) {
        title =
            Words(absl::StrCat("group ", i, ", ", Count(groups[i].parameters, "parameter"), ":"));
      }
      lines.push_back(Settings(std::move(title), groups[i].settings));
    }
    return lines;
  }

  // A tensor of one element as its value alone.
  std::string StepText(NodeId step) const {
    std::string text = ValueText(checkpoint_, step);
    text.resize(std::min(text.find(' '), text.size()));
    if (text.ends_with(".0")) text.resize(text.size() - 2);
    return text;
  }

  static std::string Name(const Tree&, const std::string& name) { return Escape(name); }
  static std::string Name(const Tree& tree, NodeId key) { return Escape(KeyText(tree, key)); }

  // "lr 0.001,", "betas (0.9, 0.999)" behind `words`: what says something, that is neither None nor
  // False.
  template <typename Key>
  std::vector<std::string> Settings(std::vector<std::string> words,
                                    const std::vector<std::pair<Key, NodeId>>& settings) const {
    std::vector<std::string> texts;
    for (const auto& [name, value] : settings) {
      const bool silent = tree_.Is(value, NodeKind::kNone) ||
                          (tree_.Is(value, NodeKind::kBool) && !tree_.boolean(value));
      if (silent) continue;
      if (texts.size() == kShownSettings) {
        texts.emplace_back("...");
        break;
      }
      texts.push_back(absl::StrCat(Name(tree_, name), " ", ValueText(checkpoint_, value)));
    }
    for (std::size_t i = 0; i < texts.size(); ++i) {
      words.push_back(i + 1 < texts.size() ? texts[i] + "," : texts[i]);
    }
    return words;
  }

  const storage::Checkpoint& checkpoint_;
  const Tree& tree_;
  const HeldValues& held_;
  const InspectionStyle& style_;
  std::size_t key_width_ = 0;
  std::string out_;
};

}  // namespace

std::string HeldText(const Inspection& inspection, const InspectionStyle& style) {
  return HeldWriter(inspection, style).Write();
}

}  // namespace relight::ctl
