#include "server/network/blocks.h"

#include <cstdlib>
#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/network/arguments.h"

namespace relight::network {
namespace {

// What names mean inside one run of a block (or in the network itself, which has no name).
struct Scope {
  const Scope* around = nullptr;
  std::string prefix = {};            // "layers.0."
  std::vector<std::string> fed = {};  // Whole names of the block's inputs.
  std::map<std::string, std::string, std::less<>> whole_names = {};  // Of what ran here so far.
  std::string last = {};  // What the last entry gave; empty before the first.
};

class Expansion {
 public:
  absl::Status Run(const std::vector<BlockEntry>& entries, Scope& scope, std::size_t depth) {
    for (const BlockEntry& entry : entries) {
      const auto* const block = std::get_if<Block>(&entry.what);
      RELIGHT_RETURN_IF_ERROR(block == nullptr ? Add(std::get<Layer>(entry.what), scope)
                                               : Repeat(*block, scope, depth));
    }
    return absl::OkStatus();
  }

  std::vector<Layer> layers() && { return std::move(layers_); }

 private:
  absl::Status Add(Layer layer, Scope& scope) {
    if (layers_.size() >= kMaxLayers) {
      return At(layer.line, absl::StrCat("the network has more than ", kMaxLayers, " layers"));
    }
    const std::string own = layer.name;
    layer.name = own.empty() ? absl::StrCat("#", layers_.size()) : scope.prefix + own;
    for (std::string& input : layer.inputs) input = Argument(input, scope);
    if (layer.inputs.empty() && scope.last.empty() && !scope.fed.empty()) {
      layer.inputs = TakesNothing(layer) ? std::vector<std::string>()
                                         : std::vector<std::string>{scope.fed.front()};
    }
    if (!layer.parameters_of.empty()) {
      layer.parameters_of = Name(layer.parameters_of, scope);
    }
    bytes_ += BytesOf(layer);
    if (bytes_ > kMaxExpandedBytes) {
      return At(layer.line,
                absl::StrCat("up to here the names, inputs and sizes of the network's ",
                             layers_.size() + 1, " layers take more than ", kMaxExpandedBytes,
                             " bytes; repeat less, or shorten them"));
    }
    if (!own.empty()) scope.whole_names[own] = layer.name;
    scope.last = layer.name;
    layers_.push_back(std::move(layer));
    return absl::OkStatus();
  }

  static std::size_t BytesOf(Layer& layer) {
    std::size_t bytes = layer.name.size() + layer.parameters_of.size();
    for (const std::string& input : layer.inputs) bytes += sizeof(std::string) + input.size();
    for (const network::Argument& argument : ArgumentsOf(layer.kind)) {
      if (const auto* const sizes = std::get_if<Sizes*>(&argument.field)) {
        bytes += (*sizes)->size() * sizeof(std::int64_t);
      } else if (const auto* const numbers = std::get_if<std::vector<double>*>(&argument.field)) {
        bytes += (*numbers)->size() * sizeof(double);
      }
    }
    return bytes;
  }

  // A tensor of the state dict has no input, also where it comes first.
  static bool TakesNothing(const Layer& layer) {
    return std::holds_alternative<Parameter>(layer.kind);
  }

  absl::Status Repeat(const Block& block, Scope& scope, std::size_t depth) {
    const std::string subject = absl::StrCat("block \"", Escape(block.name), "\"");
    if (block.entries.empty()) return At(block.line, absl::StrCat(subject, ": holds no layers"));
    if (depth >= kMaxBlockDepth) {
      return At(block.line,
                absl::StrCat(subject, ": blocks nest more than ", kMaxBlockDepth, " deep"));
    }
    if (block.name.empty() && block.repeat) {
      return At(block.line, "a block that is repeated needs a name: its layers are NAME.0, ...");
    }
    const std::int64_t most = static_cast<std::int64_t>(kMaxLayers);
    if (block.repeat && (*block.repeat < 1 || *block.repeat > most)) {
      return At(block.line, absl::StrCat(subject, ": repeat is ", *block.repeat,
                                         ", it can be from 1 to ", most));
    }
    if (block.first < 0 || block.first > most) {
      return At(block.line,
                absl::StrCat(subject, ": first is ", block.first, ", it can be from 0 to ", most));
    }
    std::vector<std::string> fed;
    for (const std::string& input : block.inputs) fed.push_back(Name(input, scope));
    if (fed.empty() && !scope.last.empty()) fed.push_back(scope.last);
    if (fed.empty() && !scope.fed.empty()) fed.push_back(scope.fed.front());
    for (std::int64_t i = 0; i < block.repeat.value_or(1); ++i) {
      Scope inner{.around = &scope, .prefix = scope.prefix, .fed = fed};
      if (!block.name.empty()) absl::StrAppend(&inner.prefix, block.name, ".");
      if (block.repeat) absl::StrAppend(&inner.prefix, block.first + i, ".");
      RELIGHT_RETURN_IF_ERROR(Run(block.entries, inner, depth + 1));
      if (fed.empty()) fed.emplace_back();
      fed.front() = inner.last;
    }
    scope.last = fed.front();
    if (!block.name.empty()) scope.whole_names[block.name] = scope.last;
    return absl::OkStatus();
  }

  // "name" or "argument=name".
  static std::string Argument(const std::string& text, const Scope& scope) {
    const std::string name = Name(text, scope);
    const std::size_t equals = text.find('=');
    if (name != text || equals == std::string::npos) return name;
    return absl::StrCat(text.substr(0, equals + 1), Name(text.substr(equals + 1), scope));
  }

  // The whole name of what `text` means in `scope`, innermost first; `text` itself where it is the
  // network's business.
  static std::string Name(const std::string& text, const Scope& scope) {
    const std::size_t colon = text.rfind(':');
    const bool numbered = colon != std::string::npos &&
                          text.find_first_not_of("0123456789", colon + 1) == std::string::npos;
    const std::string_view base = std::string_view(text).substr(0, numbered ? colon : text.size());
    for (const Scope* at = &scope; at != nullptr; at = at->around) {
      if (const auto found = at->whole_names.find(text); found != at->whole_names.end()) {
        return found->second;
      }
      if (const auto found = at->whole_names.find(base); found != at->whole_names.end()) {
        return absl::StrCat(found->second, numbered ? text.substr(colon) : "");
      }
      if (base == "input" && at->around != nullptr) {
        const std::size_t index =
            numbered ? std::strtoul(text.c_str() + colon + 1, nullptr, 10) : 0;
        if (index < at->fed.size()) return at->fed[index];
      }
    }
    return text;
  }

  static absl::Status At(int line, const std::string& text) {
    return absl::InvalidArgumentError(
        absl::StrCat(line > 0 ? absl::StrCat("line ", line, ": ") : "", text));
  }

  std::vector<Layer> layers_;
  std::size_t bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<Layer>> ExpandBlocks(const std::vector<BlockEntry>& entries,
                                                const std::string& first_input) {
  Expansion expansion;
  Scope network{.fed = {first_input}};
  RELIGHT_RETURN_IF_ERROR(expansion.Run(entries, network, 0));
  return std::move(expansion).layers();
}

absl::StatusOr<Network> Build(const WrittenNetwork& written) {
  const std::string first = written.inputs.empty() ? "input" : written.inputs.front().name;
  RELIGHT_ASSIGN_OR_RETURN(std::vector<Layer> layers, ExpandBlocks(written.entries, first));
  return Network::Build(
      {.inputs = written.inputs, .outputs = written.outputs, .layers = std::move(layers)});
}

}  // namespace relight::network
