#include "server/config/layer_text.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/network/arguments.h"

namespace relight::config {
namespace {

using network::Argument;

std::string RealText(double value) {
  char text[40];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  return {text, end};
}

// The value of one argument. `entries` as Argument has it.
std::string ValueText(bool value, int) { return value ? "true" : "false"; }
std::string ValueText(std::int64_t value, int) { return absl::StrCat(value); }
std::string ValueText(double value, int) { return RealText(value); }
std::string ValueText(const std::string& value, int) { return QuotedText(value); }
std::string ValueText(DType value, int) { return QuotedText(std::string(ProtocolName(value))); }
std::string ValueText(const network::Sizes& sizes, int entries) {
  // One stands for all where their number is known.
  const bool alike = std::all_of(sizes.begin(), sizes.end(),
                                 [&sizes](std::int64_t size) { return size == sizes.front(); });
  if (!sizes.empty() && (sizes.size() == 1 || (entries > 0 && alike))) {
    return absl::StrCat(sizes.front());
  }
  return absl::StrCat("[", absl::StrJoin(sizes, ", "), "]");
}
std::string ValueText(const std::vector<double>& values, int) {
  std::vector<std::string> texts;
  for (const double value : values) texts.push_back(RealText(value));
  return absl::StrCat("[", absl::StrJoin(texts, ", "), "]");
}
template <typename T>
std::string ValueText(const std::optional<T>& value, int entries) {
  return value ? ValueText(*value, entries) : "";
}

std::string ValueText(const Argument& argument) {
  return std::visit([&argument](const auto* value) { return ValueText(*value, argument.entries); },
                    argument.field);
}

// A pool's stride that is its kernel's size need not be said.
void LeaveOutStride(network::LayerKind& kind) {
  const auto leave_out = [](auto& pool) {
    if (pool.stride == pool.kernel_size) pool.stride.clear();
  };
  if (auto* const max = std::get_if<network::MaxPool>(&kind)) leave_out(*max);
  if (auto* const average = std::get_if<network::AvgPool>(&kind)) leave_out(*average);
}

// "NAME { ... }" with what is required or not as in `defaults`, which lists the same arguments.
std::string ArgumentsText(const std::string& name, const std::vector<Argument>& arguments,
                          const std::vector<Argument>& defaults) {
  std::vector<std::string> fields;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    // Compared as text: one size and the same for each dimension are alike.
    const std::string text = ValueText(arguments[i]);
    if (text == ValueText(defaults[i]) && !arguments[i].required) continue;
    fields.push_back(absl::StrCat(arguments[i].name, ": ", text));
  }
  if (fields.empty()) return name + " {}";
  return absl::StrCat(name, " { ", absl::StrJoin(fields, " "), " }");
}

// "name: \"fc1\" input: \"x\" ", each where there is one.
std::string NamesText(const std::string& name, const std::vector<std::string>& inputs) {
  std::string text;
  if (!name.empty()) absl::StrAppend(&text, "name: ", QuotedText(name), " ");
  for (const std::string& input : inputs) {
    absl::StrAppend(&text, "input: ", QuotedText(input), " ");
  }
  return text;
}

std::string EntryText(const network::Layer& layer, const std::string& indent) {
  std::string text = absl::StrCat(indent, "layer { ", NamesText(layer.name, layer.inputs));
  if (!layer.parameters_of.empty()) {
    absl::StrAppend(&text, "parameters_of: ", QuotedText(layer.parameters_of), " ");
  }
  return absl::StrCat(text, LayerKindText(layer.kind), " }\n");
}

std::string EntryText(const network::Block& block, const std::string& indent) {
  std::string text =
      absl::StrCat(indent, "layer { ", NamesText(block.name, block.inputs), "block {");
  if (block.repeat) absl::StrAppend(&text, " repeat: ", *block.repeat);
  if (block.first != 0) absl::StrAppend(&text, " first: ", block.first);
  return absl::StrCat(text, "\n", EntriesText(block.entries, indent + "  "), indent, "} }\n");
}

}  // namespace

std::string LayerKindText(const network::LayerKind& kind) {
  const std::string name = network::KindName(kind);
  network::LayerKind written = kind;
  network::LayerKind plain = *network::KindNamed(name);
  LeaveOutStride(written);
  return ArgumentsText(name, network::ArgumentsOf(written), network::ArgumentsOf(plain));
}

std::string FamilyText(const network::Family& family) {
  const std::string name = network::FamilyName(family);
  network::Family written = family;
  network::Family plain = *network::FamilyNamed(name);
  return ArgumentsText(name, network::ArgumentsOf(written), network::ArgumentsOf(plain));
}

std::string EntriesText(const std::vector<network::BlockEntry>& entries,
                        const std::string& indent) {
  std::string text;
  for (const network::BlockEntry& entry : entries) {
    text += std::visit([&indent](const auto& what) { return EntryText(what, indent); }, entry.what);
  }
  return text;
}

std::string QuotedText(const std::string& bytes) {
  return absl::StrCat("\"", absl::Utf8SafeCEscape(bytes), "\"");
}

}  // namespace relight::config
