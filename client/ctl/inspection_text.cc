#include "client/ctl/inspection_text.h"

#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "client/ctl/held_text.h"
#include "client/ctl/inspection_lists.h"
#include "client/ctl/output.h"
#include "client/ctl/value_text.h"
#include "storage/input_file.h"
#include "storage/state_dict_finder.h"

namespace relight::ctl {
namespace {

using storage::CrcStatus;
using storage::NodeId;
using storage::Tree;

constexpr std::size_t kLabelWidth = 11;
constexpr std::size_t kMaxShownNames = 8;

std::string SizeText(std::uint64_t bytes) {
  if (bytes < 1024) return FormatBytes(bytes);
  return absl::StrCat(FormatBytes(bytes), " (", Grouped(bytes), " bytes)");
}

class Writer {
 public:
  Writer(const Inspection& inspection, const InspectionStyle& style)
      : inspection_(inspection),
        checkpoint_(*inspection.checkpoint),
        tree_(checkpoint_.tree()),
        style_(style) {}

  std::string Write() {
    WriteFile();
    WriteWeights();
    WriteHeld();
    WriteConfig();
    return std::move(out_);
  }

 private:
  void Heading(std::string_view title, std::string_view rest, Color color = Color::kNone) {
    if (!out_.empty()) out_ += '\n';
    const std::size_t indent = TextWidth(title) + 2;
    absl::StrAppend(&out_, Paint(title, Color::kBold, style_.color), rest.empty() ? "" : "  ",
                    Paint(Wrap(rest, indent, style_.width), color, style_.color), "\n");
  }

  void Line(std::string_view label, std::string_view text, Color color = Color::kNone) {
    const std::size_t indent = 2 + kLabelWidth;
    absl::StrAppend(&out_, "  ", Paint(label, Color::kDim, style_.color),
                    std::string(kLabelWidth - label.size(), ' '),
                    Paint(Wrap(text, indent, style_.width), color, style_.color), "\n");
  }

  void WriteFile() {
    const storage::Summary& summary = checkpoint_.summary();
    const std::vector<storage::InputFile>& files = checkpoint_.files();
    Heading(files[0].shown_name(), FormatText());
    std::uint64_t total = 0;
    for (const storage::InputFile& file : files) total += file.size_bytes();
    Line("size", absl::StrCat(SizeText(total), files.size() > 1 ? " in " : "",
                              files.size() > 1 ? absl::StrCat(files.size(), " files") : "",
                              ", written ", FormatLocalTime(checkpoint_.identity().modified)));
    if (inspection_.files.empty()) {
      Line("contents", "not read (--quick): no digests, checksums or values", Color::kYellow);
    } else {
      Line("sha256", inspection_.files[0].sha256);
      WriteChecksums();
    }
    if (summary.big_endian) Line("bytes", "big-endian; swapped as they are read");
    if (summary.locations.size() > 1 ||
        (summary.locations.size() == 1 && summary.locations[0] != "cpu")) {
      Line("saved from", EscapeList(summary.locations, kMaxShownNames));
    }
    if (!summary.opaque_classes.empty()) {
      Line("classes", absl::StrCat(EscapeList(summary.opaque_classes, kMaxShownNames),
                                   ": read as data, never executed"));
    }
    for (const std::string& note : summary.notes) Line("note", Escape(note, 512));
    if (inspection_.files.size() > 1) {
      out_ += '\n';
      out_ += Indented(FilesList(inspection_, style_));
    }
  }

  std::string FormatText() const {
    const storage::Summary& summary = checkpoint_.summary();
    const std::string version = VersionText(summary);
    switch (summary.format) {
      case storage::Format::kZip:
        return absl::StrCat("torch.save, laid out as ", version, " does");
      case storage::Format::kLegacyStream:
        return "torch.save in the stream format of before PyTorch 1.6";
      case storage::Format::kSafetensors:
        return "safetensors";
      case storage::Format::kShardedIndex:
        return absl::StrCat(
            "index of ", checkpoint_.files().size() - 1, " shards",
            version.empty() ? "" : absl::StrCat(", laid out as ", version, " does"));
    }
    return "";
  }

  void WriteChecksums() {
    std::map<CrcStatus, std::size_t> count;
    std::size_t records = 0;
    for (const storage::FileAudit& file : inspection_.files) {
      for (const storage::RecordAudit& record : file.records) ++count[record.crc];
      records += file.records.size();
    }
    if (records == 0) {
      Line("checksums", "none: the format has no CRC-32", Color::kDim);
      return;
    }
    if (const std::size_t damaged = count[CrcStatus::kDiffers]; damaged > 0) {
      Line("checksums",
           absl::StrCat(Grouped(damaged), " of ", Grouped(records), " records ",
                        damaged == 1 ? "is" : "are", " damaged:"),
           Color::kRed);
      out_ += Indented(DamagedList(inspection_, style_), 4);
    } else if (count[CrcStatus::kAbsent] > 0) {
      Line("checksums",
           absl::StrCat(Grouped(count[CrcStatus::kAbsent]), " of ", Grouped(records),
                        " records have none, the others match"),
           Color::kYellow);
    } else {
      Line("checksums", absl::StrCat("all ", Grouped(records), " records match their CRC-32"),
           Color::kGreen);
    }
  }

  void WriteWeights() {
    if (!inspection_.state_dict.has_value()) {
      Heading("weights", "none found", Color::kRed);
      return;
    }
    const storage::StateDict& found = *inspection_.state_dict;
    Heading("weights", WeightsTitle(found));
    WriteDigest();
    WriteTypes();
    WriteNonFinite();
    const std::uint64_t stored = inspection_.held.weight_bytes;
    if (stored > inspection_.element_bytes) {
      Line("stored", absl::StrCat(FormatBytes(stored), ": views of storages that hold more"));
    } else if (stored < inspection_.element_bytes) {
      Line("stored", absl::StrCat(FormatBytes(stored), ": views that overlap"));
    }
    if (!found.stripped_prefix.empty()) {
      Line("stripped", absl::StrCat("\"", Escape(found.stripped_prefix), "\" from every key"));
    }
    if (!found.other_keys.empty())
      Line("not tensors", EscapeList(found.other_keys, kMaxShownNames));
    if (!found.other_locations.empty()) {
      Line("also at",
           absl::StrCat(EscapeList(found.other_locations, kMaxShownNames), " (--key chooses)"));
    }
    WriteMetadata(found);
    if (inspection_.weights.empty()) return;
    out_ += '\n';
    out_ += Indented(WeightsList(inspection_, style_));
  }

  std::string WeightsTitle(const storage::StateDict& found) const {
    const std::string where =
        found.location.empty() ? "" : absl::StrCat("at ", Escape(found.location, 512), ", ");
    const std::string module =
        found.from_module ? absl::StrCat("a whole ", Escape(found.module_class), ", ") : "";
    const std::size_t tensors = found.entries.size();
    return absl::StrCat(where, module, Grouped(tensors), tensors == 1 ? " tensor, " : " tensors, ",
                        Grouped(inspection_.elements), " numbers, ",
                        FormatBytes(inspection_.element_bytes));
  }

  void WriteDigest() {
    if (inspection_.digest.has_value()) {
      Line("digest", inspection_.digest->ToHex());
    } else if (!inspection_.weights_error.ok()) {
      Line("digest", "none: the weights cannot be read as they are", Color::kRed);
    }
  }

  void WriteTypes() {
    std::map<DType, std::size_t> count;
    for (const storage::StateDictEntry& entry : inspection_.state_dict->entries) {
      ++count[tree_.tensor(entry.node).dtype];
    }
    if (count.size() < 2) return;
    std::vector<std::string> texts;
    for (const auto& [dtype, number] : count) {
      texts.push_back(absl::StrCat(Grouped(number), " ", std::string(Name(dtype))));
    }
    Line("types", absl::StrJoin(texts, ", "));
  }

  void WriteNonFinite() {
    std::size_t bad = 0;
    for (const InspectedWeight& weight : inspection_.weights) {
      if (weight.non_finite.has_value()) ++bad;
    }
    if (bad > 0) {
      Line("values", absl::StrCat(Grouped(bad), " of the tensors hold NaN or infinity"),
           Color::kRed);
    }
  }

  // The versions that modules gave themselves.
  void WriteMetadata(const storage::StateDict& found) {
    const NodeId metadata = storage::MetadataOf(tree_, found.container);
    if (metadata == storage::kNoNode || !tree_.IsDict(metadata)) return;
    std::map<std::int64_t, std::size_t> modules_of_version;
    for (const auto& [module, values] : tree_.pairs(metadata)) {
      const NodeId version =
          tree_.IsDict(values) ? tree_.Find(values, "version") : storage::kNoNode;
      if (version == storage::kNoNode || !tree_.Is(version, storage::NodeKind::kInt)) continue;
      ++modules_of_version[tree_.integer(version)];
    }
    const std::size_t modules = tree_.pairs(metadata).size();
    std::vector<std::string> texts;
    for (const auto& [version, count] : modules_of_version) {
      if (texts.size() == kMaxShownNames) break;
      const std::string number = count == modules ? "" : Grouped(count) + " ";
      texts.push_back(absl::StrCat(number, "of version ", version));
    }
    Line("_metadata", absl::StrCat(Grouped(modules), modules == 1 ? " module" : " modules",
                                   texts.empty()      ? ""
                                   : texts.size() > 1 ? ": "
                                                      : " ",
                                   absl::StrJoin(texts, ", ")));
  }

  void WriteHeld() {
    const HeldValues& held = inspection_.held;
    if (held.values.empty()) return;
    Heading(inspection_.state_dict.has_value() ? "beside the weights" : "in the file", "");
    out_ += HeldText(inspection_, style_);
    if (style_.all && !held.tensors.empty()) {
      out_ += '\n';
      out_ += Indented(HeldTensorsList(inspection_, style_));
    }
  }

  void WriteConfig() {
    if (!inspection_.config.has_value()) return;
    const ConfigFindings& config = *inspection_.config;
    const std::string name = Escape(style_.config_name, 1024);
    switch (inspection_.outcome) {
      case Outcome::kAcceptable:
        Heading(name,
                inspection_.files.empty() ? "accepts its names, shapes and types" : "accepts it",
                Color::kGreen);
        if (!config.left_aside.empty()) {
          out_ += Indented(absl::StrCat("left aside, because the graph does not know them: ",
                                        EscapeList(config.left_aside, kMaxShownNames), "\n"));
        }
        return;
      case Outcome::kUndecided:
        Heading(name, "has a TorchScript graph: only relightd can tell", Color::kYellow);
        return;
      default:
        break;
    }
    const std::string summary = MismatchSummary(config.mismatch);
    Heading(name, summary.empty() ? "would not accept it" : "would not accept it: " + summary,
            Color::kRed);
    out_ += Indented(ProblemsList(inspection_, style_));
  }

  const Inspection& inspection_;
  const storage::Checkpoint& checkpoint_;
  const Tree& tree_;
  const InspectionStyle& style_;
  std::string out_;
};

}  // namespace

std::string InspectionText(const Inspection& inspection, const InspectionStyle& style) {
  return Writer(inspection, style).Write();
}

std::string MismatchSummary(const ParameterMismatch& mismatch) {
  std::vector<std::string> parts;
  const auto add = [&](std::size_t count, const char* what) {
    if (count > 0) parts.push_back(absl::StrCat(Grouped(count), " ", what));
  };
  add(mismatch.missing.size(), "missing");
  add(mismatch.unexpected.size(), "unexpected");
  add(mismatch.misshaped.size(), "of another shape");
  add(mismatch.mistyped.size(), "of another type");
  return absl::StrJoin(parts, ", ");
}

std::string VersionText(const storage::Summary& summary) {
  const std::string& guess = summary.torch_version_guess;
  if (guess.empty()) return "";
  if (guess.starts_with(">= ")) return absl::StrCat("PyTorch ", guess.substr(3), " or newer");
  return absl::StrCat("PyTorch ", guess);
}

}  // namespace relight::ctl
