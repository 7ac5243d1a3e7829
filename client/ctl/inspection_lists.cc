#include "client/ctl/inspection_lists.h"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/escape.h"
#include "client/ctl/output.h"
#include "client/ctl/value_text.h"
#include "server/network/nearest_name.h"
#include "server/network/tensor_spec.h"
#include "storage/input_file.h"
#include "storage/strided.h"

namespace relight::ctl {
namespace {

using storage::NodeKind;
using storage::TensorInfo;

constexpr std::size_t kShownRows = 100;
constexpr std::size_t kMaxHints = 64;
constexpr std::size_t kMaxKeyBytes = 512;

std::size_t RowsToShow(std::size_t count, const InspectionStyle& style) {
  return style.all ? count : std::min(count, kShownRows);
}

// What follows a list that shows `shown` of `count` rows.
std::string Rest(std::size_t shown, std::size_t count, const InspectionStyle& style) {
  if (shown == count) return "";
  const char* const advice = style.all ? "" : "; --all lists them";
  return Paint(absl::StrCat("and ", Grouped(count - shown), " more", advice), Color::kDim,
               style.color) +
         "\n";
}

std::string TypeText(const storage::Tree& tree, storage::NodeId node) {
  return std::string(Name(tree.tensor(node).dtype));
}

std::string PositionText(std::uint64_t index, const std::vector<std::int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(storage::PositionOf(index, shape), ", "), "]");
}

std::string ValuesText(const storage::NonFinite& found, const std::vector<std::int64_t>& shape) {
  std::vector<std::string> parts;
  if (found.nans > 0) {
    parts.push_back(
        absl::StrCat(Grouped(found.nans), " NaN, first at ", PositionText(found.first_nan, shape)));
  }
  if (found.infinities > 0) {
    parts.push_back(absl::StrCat(Grouped(found.infinities), " infinite, first at ",
                                 PositionText(found.first_infinity, shape)));
  }
  return absl::StrJoin(parts, "; ");
}

struct Note {
  std::string text;
  Color color = Color::kDim;
};

Note NoteOf(const Inspection& inspection, const InspectedWeight& weight) {
  const storage::Tree& tree = inspection.checkpoint->tree();
  const TensorInfo& info = tree.tensor(weight.node);
  if (tree.Is(weight.node, NodeKind::kUnsupportedTensor)) {
    return {absl::StrCat(Escape(tree.text(weight.node)), ": cannot be served"), Color::kRed};
  }
  std::vector<std::string> parts;
  if (weight.non_finite.has_value()) parts.push_back(ValuesText(*weight.non_finite, info.shape));
  if (weight.tied_to.has_value()) {
    const auto& tied = inspection.state_dict->entries[*weight.tied_to];
    parts.push_back(absl::StrCat("tied to ", Escape(tied.key)));
  } else if (weight.shares_storage) {
    parts.push_back(absl::StrCat(
        "view of storage ", Escape(inspection.checkpoint->storages()[info.storage].key), " from ",
        Grouped(static_cast<std::uint64_t>(info.offset_elements)), " on"));
  }
  if (!weight.contiguous) parts.push_back(absl::StrCat("stride ", ShapeText(info.stride)));
  if (info.conj) parts.emplace_back("conjugated on load");
  if (info.neg) parts.emplace_back("negated on load");
  return {absl::StrJoin(parts, ", "), weight.non_finite.has_value() ? Color::kRed : Color::kDim};
}

// The names of the tensors in each storage, by where it lies: a file and an offset in it.
using NamesAt = std::map<std::pair<std::uint32_t, std::uint64_t>, std::vector<std::string>>;
constexpr std::size_t kMaxNamesAt = 3;

NamesAt TensorsByPlace(const Inspection& inspection) {
  NamesAt names;
  const storage::Tree& tree = inspection.checkpoint->tree();
  const auto take = [&](storage::NodeId node, const std::string& name) {
    if (!tree.Is(node, NodeKind::kTensor)) return;
    const storage::StorageInfo& storage =
        inspection.checkpoint->storages()[tree.tensor(node).storage];
    if (storage.size_bytes == 0) return;
    std::vector<std::string>& there = names[{storage.file, storage.file_offset}];
    if (there.size() == kMaxNamesAt) there.emplace_back("...");
    if (there.size() < kMaxNamesAt) there.push_back(Escape(name));
  };
  for (const InspectedWeight& weight : inspection.weights) take(weight.node, weight.key);
  for (const HeldTensor& tensor : inspection.held.tensors) take(tensor.node, tensor.at);
  return names;
}

}  // namespace

std::string Indented(std::string_view text, std::size_t columns) {
  std::string out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) out.append(columns, ' ');
    absl::StrAppend(&out, std::string(text.substr(0, end)), "\n");
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

std::string FilesList(const Inspection& inspection, const InspectionStyle& style) {
  Table table({"FILE", "SIZE", "SHA-256"});
  table.AlignRight(1);
  const std::size_t shown = RowsToShow(inspection.files.size(), style);
  for (std::size_t i = 0; i < shown; ++i) {
    const storage::FileAudit& file = inspection.files[i];
    const bool narrow = style.width != 0 && style.width < 120;
    table.Add(
        {file.name, FormatBytes(file.size_bytes), narrow ? ShortDigest(file.sha256) : file.sha256});
  }
  return table.Render(style.color) + Rest(shown, inspection.files.size(), style);
}

std::string DamagedList(const Inspection& inspection, const InspectionStyle& style) {
  Table table({"RECORD", "SIZE", "HOLDS"});
  table.AlignRight(1);
  const NamesAt names = TensorsByPlace(inspection);
  std::size_t count = 0;
  std::size_t shown = 0;
  for (std::size_t f = 0; f < inspection.files.size(); ++f) {
    const storage::FileAudit& file = inspection.files[f];
    for (const storage::RecordAudit& record : file.records) {
      if (record.crc != storage::CrcStatus::kDiffers) continue;
      ++count;
      if (shown == RowsToShow(count, style)) continue;
      ++shown;
      const std::string where = inspection.files.size() > 1 ? file.name + ": " : "";
      const auto holds = names.find({static_cast<std::uint32_t>(f), record.file_offset});
      table.Add({absl::StrCat(where, Escape(record.name, kMaxKeyBytes)),
                 FormatBytes(record.size_bytes),
                 holds == names.end() ? "" : absl::StrJoin(holds->second, ", ")});
    }
  }
  if (count == 0) return "";
  return table.Render(style.color) + Rest(shown, count, style);
}

std::string WeightsList(const Inspection& inspection, const InspectionStyle& style) {
  const storage::Tree& tree = inspection.checkpoint->tree();
  const std::size_t count = inspection.weights.size() + inspection.omitted_weights;
  const std::size_t shown = RowsToShow(inspection.weights.size(), style);
  std::vector<Note> notes;
  bool any_note = false;
  Table beside({"KEY", "TYPE", "SHAPE", "SIZE", "NOTES"});
  Table below({"KEY", "TYPE", "SHAPE", "SIZE"});
  beside.AlignRight(3);
  below.AlignRight(3);
  for (std::size_t i = 0; i < shown; ++i) {
    const InspectedWeight& weight = inspection.weights[i];
    std::vector<Table::Cell> row = {Escape(weight.key, kMaxKeyBytes), TypeText(tree, weight.node),
                                    ShapeText(tree.tensor(weight.node).shape),
                                    FormatBytes(weight.size_bytes)};
    notes.push_back(NoteOf(inspection, weight));
    any_note = any_note || !notes.back().text.empty();
    below.Add(row);
    row.emplace_back(notes.back().text, notes.back().color);
    beside.Add(std::move(row));
  }
  const std::string rest = Rest(shown, count, style);
  if (!any_note) return below.Render(style.color) + rest;
  if (style.width == 0 || beside.Width() + 2 <= style.width) {
    return beside.Render(style.color) + rest;
  }
  const std::vector<std::string> lines = absl::StrSplit(below.Render(style.color), '\n');
  std::string out = lines[0] + "\n";
  for (std::size_t i = 0; i < shown; ++i) {
    absl::StrAppend(&out, lines[i + 1], "\n");
    if (notes[i].text.empty()) continue;
    constexpr std::size_t kIndent = 2;
    absl::StrAppend(
        &out, std::string(kIndent, ' '),
        Paint(Wrap(notes[i].text, kIndent, style.width - 2), notes[i].color, style.color), "\n");
  }
  return out + rest;
}

std::string HeldTensorsList(const Inspection& inspection, const InspectionStyle& style) {
  const storage::Tree& tree = inspection.checkpoint->tree();
  Table table({"AT", "TYPE", "SHAPE", "SIZE"});
  table.AlignRight(3);
  for (const HeldTensor& tensor : inspection.held.tensors) {
    const TensorInfo& info = tree.tensor(tensor.node);
    table.Add({Escape(tensor.at, kMaxKeyBytes), TypeText(tree, tensor.node), ShapeText(info.shape),
               FormatBytes(storage::CountElements(info.shape) * ItemSize(info.dtype))});
  }
  const std::size_t shown = inspection.held.tensors.size();
  if (shown == 0) return "";
  return table.Render(style.color) + Rest(shown, shown + inspection.held.omitted_tensors, style);
}

std::string ProblemsList(const Inspection& inspection, const InspectionStyle& style) {
  const ConfigFindings& config = *inspection.config;
  const storage::Tree& tree = inspection.checkpoint->tree();
  std::unordered_map<std::string_view, const ParameterSpec*> needed;
  for (const ParameterSpec& spec : config.parameters) needed.emplace(spec.name, &spec);
  std::unordered_map<std::string_view, const InspectedWeight*> offered;
  for (const InspectedWeight& weight : inspection.weights) offered.emplace(weight.key, &weight);

  const auto offer_text = [&](const std::string& key) {
    const auto found = offered.find(key);
    if (found == offered.end()) return std::string();
    return absl::StrCat(TypeText(tree, found->second->node), " ",
                        ShapeText(tree.tensor(found->second->node).shape));
  };
  Table table({"PROBLEM", "KEY", "CHECKPOINT", "GRAPH NEEDS"});
  std::size_t count = 0;
  const auto add = [&](const char* problem, const std::string& key, std::string has,
                       std::string needs) {
    ++count;
    if (style.all || count <= kShownRows) {
      table.Add(
          {{problem, Color::kRed}, Escape(key, kMaxKeyBytes), std::move(has), std::move(needs)});
    }
  };
  for (const std::string& name : config.mismatch.missing) {
    // The nearest name takes a while to find.
    const auto nearest =
        count < kMaxHints ? network::NearestName(name, config.mismatch.unexpected) : std::nullopt;
    const ParameterSpec& spec = *needed.at(name);
    add("missing", name, nearest.has_value() ? absl::StrCat("is it ", Escape(*nearest), "?") : "",
        absl::StrCat(std::string(Name(spec.dtype)), " ", ShapeText(spec.shape)));
  }
  for (const std::string& key : config.mismatch.unexpected) {
    add("unexpected", key, offer_text(key), "");
  }
  for (const ShapeMismatch& shape : config.mismatch.misshaped) {
    add("shape", shape.name, ShapeText(shape.offered), ShapeText(shape.needed));
  }
  for (const TypeMismatch& type : config.mismatch.mistyped) {
    add("type", type.name, std::string(Name(type.offered)), AcceptedTypes(type.needed));
  }
  for (const InspectedWeight& weight : inspection.weights) {
    if (!weight.non_finite.has_value() || config.allow_non_finite) continue;
    const auto spec = needed.find(weight.key);
    const bool buffer = spec != needed.end() && spec->second->buffer;
    if (buffer && weight.non_finite->nans == 0) continue;
    add("values", weight.key, ValuesText(*weight.non_finite, tree.tensor(weight.node).shape),
        buffer ? "no NaN" : "finite values");
  }
  if (count == 0) return "";
  const std::size_t shown = style.all ? count : std::min(count, kShownRows);
  return table.Render(style.color) + Rest(shown, count, style);
}

}  // namespace relight::ctl
