// PartsFromModule: reads the layers off the classes and attributes of a pickled module.
#include <algorithm>
#include <cctype>
#include <cstdint>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "server/config/draft_parts.h"
#include "server/network/arguments.h"

namespace relight::config {
namespace {

using storage::kNoNode;
using storage::NodeId;
using storage::NodeKind;
using storage::Tree;

constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxVisits = 100'000;
// Sizes in one argument; no layer has nearly as many dimensions.
constexpr std::size_t kMaxSizes = 64;

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
  // One int, or a tuple or list of ints.
  std::optional<network::Sizes> Ints(std::string_view name) const {
    const NodeId node = Attribute(name);
    if (node == kNoNode) return std::nullopt;
    if (tree_.Is(node, NodeKind::kInt)) return network::Sizes{tree_.integer(node)};
    if (!tree_.Is(node, NodeKind::kTuple) && !tree_.Is(node, NodeKind::kList)) return std::nullopt;
    network::Sizes sizes;
    for (const NodeId item : tree_.items(node)) {
      if (!tree_.Is(item, NodeKind::kInt) || sizes.size() >= kMaxSizes) return std::nullopt;
      sizes.push_back(tree_.integer(item));
    }
    return sizes;
  }
  std::vector<double> Reals(std::string_view name) const {
    const NodeId node = Attribute(name);
    std::vector<double> values;
    if (node == kNoNode) return values;
    const auto add = [&](NodeId item) {
      if (tree_.Is(item, NodeKind::kFloat)) values.push_back(tree_.real(item));
      if (tree_.Is(item, NodeKind::kInt)) {
        values.push_back(static_cast<double>(tree_.integer(item)));
      }
    };
    add(node);
    if (!tree_.Is(node, NodeKind::kTuple) && !tree_.Is(node, NodeKind::kList)) return values;
    for (const NodeId item : tree_.items(node)) {
      if (values.size() < kMaxSizes) add(item);
    }
    return values;
  }

 private:
  const Tree& tree_;
  std::string class_name_;
  NodeId state_ = kNoNode;
};

// Takes each argument from the attribute of the same name.
class AttributeReader {
 public:
  AttributeReader(const Module& module, const network::Argument& argument, DraftPart& part)
      : module_(module), argument_(argument), part_(part) {}

  // What is no attribute shows in which parameters there are.
  void operator()(bool* out) const {
    const std::string_view name = argument_.name;
    if (name == "bias") {
      *out =
          module_.Bool(name, module_.HasParameter("bias") || module_.HasParameter("in_proj_bias"));
    } else if (name == "affine") {
      *out = module_.HasParameter("weight");
    } else if (name == "add_bias_kv") {
      *out = module_.HasParameter("bias_k");
    } else {
      *out = module_.Bool(name, *out);
    }
  }
  void operator()(std::int64_t* out) const {
    if (argument_.required && !module_.Is(argument_.name, NodeKind::kInt)) return NotRead();
    *out = module_.Int(argument_.name, *out);
  }
  void operator()(std::optional<std::int64_t>* out) const {
    if (module_.Is(argument_.name, NodeKind::kInt)) *out = module_.Int(argument_.name, 0);
  }
  void operator()(double* out) const { *out = module_.Real(argument_.name, *out); }
  void operator()(std::optional<double>* out) const {
    const std::vector<double> values = module_.Reals(argument_.name);
    if (!values.empty()) *out = values.front();
  }
  void operator()(std::string* out) const {
    if (module_.Is(argument_.name, NodeKind::kString)) *out = module_.Text(argument_.name);
  }
  void operator()(network::Sizes* out) const {
    if (const auto sizes = module_.Ints(argument_.name)) {
      *out = *sizes;
    } else if (argument_.required || module_.Is(argument_.name, NodeKind::kTuple)) {
      NotRead();
      *out = network::Sizes(static_cast<std::size_t>(std::max(argument_.entries, 1)), 1);
    }
  }
  void operator()(std::vector<double>* out) const { *out = module_.Reals(argument_.name); }
  void operator()(DType*) const {}

 private:
  void NotRead() const {
    part_.checks.push_back(absl::StrCat(argument_.name, " could not be read from the module"));
  }

  const Module& module_;
  const network::Argument& argument_;
  DraftPart& part_;
};

// "same" and "valid".
void ReadPaddingText(const Module& module, network::Conv& conv, DraftPart& part) {
  const std::string text = module.Text("padding");
  if (text == "valid") conv.padding = {0};
  if (text != "same") return;
  conv.padding.assign(conv.kernel_size.size(), 0);
  for (std::size_t i = 0; i < conv.kernel_size.size(); ++i) {
    const std::int64_t dilation = i < conv.dilation.size() ? conv.dilation[i] : 1;
    const std::int64_t reach = std::max<std::int64_t>(conv.kernel_size[i], 1) - 1;
    const std::int64_t total = CheckedMul(dilation, reach).value_or(0);
    conv.padding[i] = total / 2;
    if (total % 2 != 0) {
      part.checks.push_back(
          "padding \"same\" pads unevenly: write a layer pad { } before this one");
    }
  }
}

// What the attributes say beyond the arguments.
void ReadMore(const Module& module, network::LayerKind& kind, DraftPart& part) {
  if (auto* const conv = std::get_if<network::Conv>(&kind)) ReadPaddingText(module, *conv, part);
  if (std::holds_alternative<network::BatchNorm>(kind) &&
      !module.Bool("track_running_stats", true)) {
    part.checks.push_back("keeps no running statistics, which relight needs");
  }
  if (std::holds_alternative<network::Softmax>(kind) && module.TorchClass() != "Softmax2d" &&
      !module.Is("dim", NodeKind::kInt)) {
    part.checks.push_back("dim is not set in the module; the last is a guess");
  }
  if (std::holds_alternative<network::Embedding>(kind) && !module.Reals("max_norm").empty()) {
    part.checks.push_back("max_norm is set, which relight does not have");
  }
}

const std::map<std::string, network::LayerKind>& TorchClasses() {
  static const auto* const kClasses = [] {
    auto* const classes = new std::map<std::string, network::LayerKind>;
    // PyTorch's classes are called as its functions are, but for capitals and underscores.
    for (const std::string& name : network::KindNames()) {
      std::string flat = name;
      flat.erase(std::remove(flat.begin(), flat.end(), '_'), flat.end());
      classes->emplace(flat, *network::KindNamed(name));
    }
    const auto also = [classes](const char* name, network::LayerKind kind) {
      classes->insert_or_assign(name, std::move(kind));
    };
    also("syncbatchnorm", network::BatchNorm{});
    also("dropout1d", network::Identity{.dropout = true});
    also("dropout2d", network::Identity{.dropout = true});
    also("dropout3d", network::Identity{.dropout = true});
    also("alphadropout", network::Identity{.dropout = true});
    also("featurealphadropout", network::Identity{.dropout = true});
    also("softmax2d", network::Softmax{.dim = -3});
    for (const char* dims : {"1d", "2d", "3d"}) {
      also(absl::StrCat("zeropad", dims).c_str(), network::Pad{});
      also(absl::StrCat("constantpad", dims).c_str(), network::Pad{});
      also(absl::StrCat("reflectionpad", dims).c_str(), network::Pad{.mode = "reflect"});
      also(absl::StrCat("replicationpad", dims).c_str(), network::Pad{.mode = "replicate"});
      also(absl::StrCat("circularpad", dims).c_str(), network::Pad{.mode = "circular"});
    }
    return classes;
  }();
  return *kClasses;
}

// The kind of a layer of torch.nn, with its arguments; nullopt for any other module.
std::optional<network::LayerKind> ReadKind(const Module& module, DraftPart& part) {
  std::string name = module.TorchClass();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto found = TorchClasses().find(name);
  if (found == TorchClasses().end()) return std::nullopt;
  network::LayerKind kind = found->second;
  for (const network::Argument& argument : network::ArgumentsOf(kind)) {
    std::visit(AttributeReader(module, argument, part), argument.field);
  }
  ReadMore(module, kind, part);
  return kind;
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
    DraftPart part{.name = Name(item.path), .kind = std::nullopt, .follows = item.follows};
    part.kind = ReadKind(module, part);
    if (part.kind.has_value()) {
      AddLayer(item, std::move(part));
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

  void AddLayer(const Item& item, DraftPart part) {
    if (!seen_.insert(item.node).second) {
      part.checks.push_back("is one module under two names: parameters_of keeps its weights once");
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
