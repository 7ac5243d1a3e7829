// PartsFromModule: reads the layers off the classes and attributes of a pickled module.
#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "server/config/draft_parts.h"

namespace relight::config {
namespace {

using network::ActivationOp;
using network::Pair;
using storage::kNoNode;
using storage::NodeId;
using storage::NodeKind;
using storage::Tree;

constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxVisits = 100'000;

// One torch.nn.Module as data: its class and its attributes.
class Module {
 public:
  Module(const Tree& tree, NodeId node) : tree_(tree) {
    if (!tree.Is(node, NodeKind::kOpaque)) return;
    const storage::OpaqueInfo& info = tree.opaque(node);
    if (info.callable != kNoNode && tree.Is(info.callable, NodeKind::kSymbol)) {
      class_name_ = tree.text(info.callable);
      std::replace(class_name_.begin(), class_name_.end(), ' ', '.');
    }
    for (const NodeId state : info.states) {
      const bool pair = tree.Is(state, NodeKind::kTuple) && !tree.items(state).empty();
      const NodeId dict = pair ? tree.items(state)[0] : state;
      if (tree.IsDict(dict)) state_ = dict;
    }
  }

  bool valid() const { return state_ != kNoNode; }
  const std::string& class_name() const { return class_name_; }
  // "Linear" of torch.nn's own; empty for all other classes.
  std::string TorchClass() const {
    if (!class_name_.starts_with("torch.nn.modules.")) return "";
    return class_name_.substr(class_name_.rfind('.') + 1);
  }

  NodeId Attribute(std::string_view name) const { return tree_.Find(state_, name); }

  std::vector<std::pair<std::string, NodeId>> Children() const {
    std::vector<std::pair<std::string, NodeId>> children;
    const NodeId modules = Attribute("_modules");
    if (modules == kNoNode || !tree_.IsDict(modules)) return children;
    for (const auto& [key, value] : tree_.pairs(modules)) {
      if (!tree_.Is(key, NodeKind::kString) || tree_.Is(value, NodeKind::kNone)) continue;
      children.emplace_back(tree_.text(key), value);
    }
    return children;
  }

  bool HasParameter(std::string_view name) const {
    const NodeId parameters = Attribute("_parameters");
    if (parameters == kNoNode || !tree_.IsDict(parameters)) return false;
    const NodeId value = tree_.Find(parameters, name);
    return value != kNoNode && !tree_.Is(value, NodeKind::kNone);
  }

  bool Is(std::string_view name, NodeKind kind) const {
    const NodeId node = Attribute(name);
    return node != kNoNode && tree_.Is(node, kind);
  }
  std::int64_t Int(std::string_view name, std::int64_t otherwise) const {
    return Is(name, NodeKind::kInt) ? tree_.integer(Attribute(name)) : otherwise;
  }
  bool Bool(std::string_view name, bool otherwise) const {
    return Is(name, NodeKind::kBool) ? tree_.boolean(Attribute(name)) : otherwise;
  }
  double Real(std::string_view name, double otherwise) const {
    if (Is(name, NodeKind::kFloat)) return tree_.real(Attribute(name));
    if (Is(name, NodeKind::kInt)) return static_cast<double>(tree_.integer(Attribute(name)));
    return otherwise;
  }
  std::string Text(std::string_view name) const {
    return Is(name, NodeKind::kString) ? std::string(tree_.text(Attribute(name))) : "";
  }
  // One int, or a tuple of two.
  std::optional<Pair> TwoInts(std::string_view name) const {
    const NodeId node = Attribute(name);
    if (node == kNoNode) return std::nullopt;
    if (tree_.Is(node, NodeKind::kInt)) return Pair{tree_.integer(node), tree_.integer(node)};
    if (!tree_.Is(node, NodeKind::kTuple) && !tree_.Is(node, NodeKind::kList)) return std::nullopt;
    const std::vector<NodeId>& items = tree_.items(node);
    if (items.size() != 2) return std::nullopt;
    if (!tree_.Is(items[0], NodeKind::kInt) || !tree_.Is(items[1], NodeKind::kInt)) {
      return std::nullopt;
    }
    return Pair{tree_.integer(items[0]), tree_.integer(items[1])};
  }

 private:
  const Tree& tree_;
  std::string class_name_;
  NodeId state_ = kNoNode;
};

// The argument `name` of `module`; where it cannot be read, `otherwise` and a remark.
Pair PairOf(const Module& module, const char* name, Pair otherwise, DraftPart& part) {
  if (const std::optional<Pair> pair = module.TwoInts(name)) return *pair;
  part.checks.push_back(absl::StrCat(name, " could not be read from the module"));
  return otherwise;
}

Pair ConvPadding(const Module& module, const network::Conv2d& conv, DraftPart& part) {
  const std::string text = module.Text("padding");
  if (text == "valid") return {0, 0};
  if (text != "same") return PairOf(module, "padding", {0, 0}, part);
  Pair padding;
  for (std::size_t i = 0; i < 2; ++i) {
    const std::int64_t total = conv.dilation[i] * (conv.kernel_size[i] - 1);
    padding[i] = total / 2;
    if (total % 2 != 0)
      part.checks.push_back("padding \"same\" pads unevenly, which relight cannot");
  }
  return padding;
}

network::LayerKind ReadLinear(const Module& module, DraftPart&) {
  return network::Linear{.in_features = module.Int("in_features", 0),
                         .out_features = module.Int("out_features", 0),
                         .bias = module.HasParameter("bias")};
}

network::LayerKind ReadConv(const Module& module, DraftPart& part) {
  network::Conv2d conv{.in_channels = module.Int("in_channels", 0),
                       .out_channels = module.Int("out_channels", 0),
                       .kernel_size = PairOf(module, "kernel_size", {1, 1}, part),
                       .stride = PairOf(module, "stride", {1, 1}, part),
                       .dilation = PairOf(module, "dilation", {1, 1}, part),
                       .groups = module.Int("groups", 1),
                       .bias = module.HasParameter("bias")};
  conv.padding = ConvPadding(module, conv, part);
  const std::string mode = module.Text("padding_mode");
  if (!mode.empty() && mode != "zeros") {
    part.checks.push_back(
        absl::StrCat("padding_mode is \"", Escape(mode), "\", relight pads with zeros"));
  }
  return conv;
}

network::LayerKind ReadNorm(const Module& module, DraftPart& part) {
  if (!module.Bool("track_running_stats", true)) {
    part.checks.push_back("keeps no running statistics, which relight needs");
  }
  return network::BatchNorm{.spatial_dims = module.TorchClass() == "BatchNorm1d" ? 1 : 2,
                            .num_features = module.Int("num_features", 0),
                            .eps = module.Real("eps", 1e-5),
                            .affine = module.HasParameter("weight")};
}

network::LayerKind ReadMaxPool(const Module& module, DraftPart& part) {
  const Pair kernel = PairOf(module, "kernel_size", {1, 1}, part);
  return network::MaxPool2d{.kernel_size = kernel,
                            .stride = module.TwoInts("stride").value_or(kernel),
                            .padding = PairOf(module, "padding", {0, 0}, part),
                            .dilation = PairOf(module, "dilation", {1, 1}, part),
                            .ceil_mode = module.Bool("ceil_mode", false)};
}

network::LayerKind ReadAvgPool(const Module& module, DraftPart& part) {
  const Pair kernel = PairOf(module, "kernel_size", {1, 1}, part);
  if (module.Is("divisor_override", NodeKind::kInt)) {
    part.checks.push_back("divisor_override is set, which relight does not have");
  }
  return network::AvgPool2d{.kernel_size = kernel,
                            .stride = module.TwoInts("stride").value_or(kernel),
                            .padding = PairOf(module, "padding", {0, 0}, part),
                            .ceil_mode = module.Bool("ceil_mode", false),
                            .count_include_pad = module.Bool("count_include_pad", true)};
}

network::LayerKind ReadAdaptivePool(const Module& module, DraftPart& part) {
  return network::AdaptiveAvgPool2d{.output_size = PairOf(module, "output_size", {1, 1}, part)};
}

network::LayerKind ReadFlatten(const Module& module, DraftPart&) {
  return network::Flatten{.start_dim = module.Int("start_dim", 1),
                          .end_dim = module.Int("end_dim", -1)};
}

network::LayerKind ReadSoftmax(const Module& module, DraftPart& part) {
  if (!module.Is("dim", NodeKind::kInt)) {
    part.checks.push_back("dim is not set in the module; the last is a guess");
  }
  return network::Softmax{.dim = module.Int("dim", -1), .log = module.TorchClass() == "LogSoftmax"};
}

network::LayerKind ReadDropout(const Module& module, DraftPart& part) {
  part.text = absl::StrCat("dropout { p: ", module.Real("p", 0.5), " }");
  return network::Identity{};
}

using ReadKind = std::function<network::LayerKind(const Module&, DraftPart&)>;

ReadKind Plain(network::LayerKind kind) {
  return [kind](const Module&, DraftPart&) { return kind; };
}

ReadKind Act(ActivationOp op) { return Plain(network::Activation{.op = op}); }

const std::map<std::string, ReadKind>& Readers() {
  static const auto* const kReaders = new std::map<std::string, ReadKind>{
      {"Linear", ReadLinear},
      {"Conv2d", ReadConv},
      {"BatchNorm1d", ReadNorm},
      {"BatchNorm2d", ReadNorm},
      {"SyncBatchNorm", ReadNorm},
      {"MaxPool2d", ReadMaxPool},
      {"AvgPool2d", ReadAvgPool},
      {"AdaptiveAvgPool2d", ReadAdaptivePool},
      {"Flatten", ReadFlatten},
      {"Softmax", ReadSoftmax},
      {"LogSoftmax", ReadSoftmax},
      {"Dropout", ReadDropout},
      {"Dropout1d", ReadDropout},
      {"Dropout2d", ReadDropout},
      {"AlphaDropout", ReadDropout},
      {"Identity", Plain(network::Identity{})},
      {"ReLU", Act(ActivationOp::kRelu)},
      {"ReLU6", Act(ActivationOp::kRelu6)},
      {"Sigmoid", Act(ActivationOp::kSigmoid)},
      {"Tanh", Act(ActivationOp::kTanh)},
      {"SiLU", Act(ActivationOp::kSilu)},
      {"Hardswish", Act(ActivationOp::kHardswish)},
      {"Hardsigmoid", Act(ActivationOp::kHardsigmoid)},
      {"GELU",
       [](const Module& module, DraftPart&) -> network::LayerKind {
         return network::Gelu{.tanh = module.Text("approximate") == "tanh"};
       }},
      {"LeakyReLU",
       [](const Module& module, DraftPart&) -> network::LayerKind {
         return network::LeakyRelu{.negative_slope = module.Real("negative_slope", 0.01)};
       }},
      {"ELU",
       [](const Module& module, DraftPart&) -> network::LayerKind {
         return network::Elu{.alpha = module.Real("alpha", 1.0)};
       }},
      {"Softplus",
       [](const Module& module, DraftPart&) -> network::LayerKind {
         return network::Softplus{.beta = module.Real("beta", 1.0),
                                  .threshold = module.Real("threshold", 20.0)};
       }},
      {"Hardtanh",
       [](const Module& module, DraftPart&) -> network::LayerKind {
         return network::Hardtanh{.min_val = module.Real("min_val", -1.0),
                                  .max_val = module.Real("max_val", 1.0)};
       }},
  };
  return *kReaders;
}

// Walks the modules depth first with a stack of its own, since files decide how deep they nest.
class Walk {
 public:
  Walk(const Tree& tree, std::string stripped_prefix)
      : tree_(tree), stripped_prefix_(std::move(stripped_prefix)) {}

  std::vector<DraftPart> Run(NodeId root) {
    stack_.push_back({root, "", false, 0});
    // Modules may be shared, so that a small file can describe a huge tree of them.
    for (std::size_t visits = 0; !stack_.empty() && visits < kMaxVisits; ++visits) {
      const Item item = std::move(stack_.back());
      stack_.pop_back();
      Visit(item);
    }
    return std::move(parts_);
  }

 private:
  struct Item {
    NodeId node;
    std::string path;
    bool follows;
    std::size_t depth;
  };

  void Visit(const Item& item) {
    const Module module(tree_, item.node);
    if (!module.valid()) return;
    const auto reader = Readers().find(module.TorchClass());
    if (reader != Readers().end()) {
      AddLayer(item, module, reader->second);
      return;
    }
    const auto children = module.Children();
    if (children.empty() || item.depth >= kMaxDepth) {
      AddUnknown(item, module);
      return;
    }
    const bool sequential = module.TorchClass() == "Sequential";
    for (std::size_t i = children.size(); i-- > 0;) {
      const auto& [name, node] = children[i];
      // The first child follows whatever its Sequential follows.
      const bool follows = i == 0 ? item.follows : sequential;
      stack_.push_back({node, item.path.empty() ? name : absl::StrCat(item.path, ".", name),
                        follows, item.depth + 1});
    }
  }

  // As the state dict's keys have it.
  std::string Name(const std::string& path) const {
    const std::string dotted = path + ".";
    return dotted.starts_with(stripped_prefix_) && dotted.size() > stripped_prefix_.size()
               ? path.substr(stripped_prefix_.size())
               : path;
  }

  void AddLayer(const Item& item, const Module& module, const ReadKind& read) {
    DraftPart part{.name = Name(item.path), .kind = std::nullopt, .follows = item.follows};
    part.kind = read(module, part);
    if (!seen_.insert(item.node).second) {
      part.checks.push_back(
          "is one module under two names: relight keeps two copies of its weights");
    }
    parts_.push_back(std::move(part));
  }

  void AddUnknown(const Item& item, const Module& module) {
    parts_.push_back(
        {.name = Name(item.path),
         .kind = std::nullopt,
         .checks = {absl::StrCat(item.path.empty() ? "the model" : Escape(item.path), " is a ",
                                 Escape(module.class_name()), ", for which relight has no layer")},
         .follows = item.follows});
  }

  const Tree& tree_;
  std::string stripped_prefix_;
  std::vector<Item> stack_;
  std::set<NodeId> seen_;
  std::vector<DraftPart> parts_;
};

}  // namespace

std::vector<DraftPart> PartsFromModule(const storage::Tree& tree,
                                       const storage::StateDict& weights) {
  return Walk(tree, weights.stripped_prefix).Run(weights.container);
}

}  // namespace relight::config
