#include "storage/safetensors_writer.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "storage/buffered_sink.h"
#include "storage/element_values.h"
#include "storage/error.h"
#include "storage/safetensors_format.h"
#include "storage/strided.h"
#include "storage/tensor_stream.h"
#include "storage/write_plan.h"

namespace relight::storage {
namespace {

constexpr std::size_t kHeaderAlignment = 8;

// Tensors that agree in this are tied.
using View = std::tuple<std::uint32_t, DType, std::int64_t, std::vector<std::int64_t>,
                        std::vector<std::int64_t>, bool, bool>;

struct Entry {
  std::string name;
  const TensorInfo* tensor = nullptr;
  std::uint64_t begin_bytes = 0;  // In the data.
  std::uint64_t size_bytes = 0;
};

struct Plan {
  std::string header;          // Its length before it, padded.
  std::vector<Entry> entries;  // In the order of the data.
  std::uint64_t data_bytes = 0;
  WriteReport report;
};

std::string Quoted(const std::string& text) { return nlohmann::json(text).dump(); }

class Planner {
 public:
  Planner(const Tree& tree, NodeId state_dict) : tree_(tree), state_dict_(state_dict) {}

  absl::StatusOr<Plan> Make() {
    if (!tree_.IsDict(state_dict_)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "safetensors holds the tensors of a dict, not ", ClassOf(tree_, state_dict_)));
    }
    for (const auto& [key, value] : tree_.pairs(state_dict_)) Take(key, value);
    TakeAttributes();
    RELIGHT_RETURN_IF_ERROR(CheckProblems());
    FindTies();
    ReportConversions();
    RELIGHT_RETURN_IF_ERROR(Place());
    RELIGHT_RETURN_IF_ERROR(WriteHeader());
    plan_.report = {std::move(left_out_).Take(), std::move(converted_).Take()};
    return std::move(plan_);
  }

 private:
  void Take(NodeId key, NodeId value) {
    if (!tree_.Is(key, NodeKind::kString)) {
      left_out_.Add(
          absl::StrCat("/<", std::string(Name(tree_.kind(key))), ">: a key that is no string"));
      return;
    }
    const std::string name(tree_.text(key));
    if (!tree_.Is(value, NodeKind::kTensor)) {
      left_out_.Add(absl::StrCat("/", Escape(name), ": ", ClassOf(tree_, value)));
      return;
    }
    const TensorInfo& tensor = tree_.tensor(value);
    if (name == kSafetensorsMetadata) {
      problems_.push_back(
          absl::StrCat(kSafetensorsMetadata, " is a name that the format keeps to itself"));
    } else if (!IsUtf8(name)) {
      problems_.push_back(absl::StrCat(Escape(name), " is a name that is not UTF-8"));
    } else if (!SafetensorsName(tensor.dtype).has_value()) {
      problems_.push_back(
          absl::StrCat(Escape(name), " has dtype ", std::string(relight::Name(tensor.dtype))));
    } else if (tensor.neg && !CanNegate(tensor.dtype)) {
      problems_.push_back(absl::StrCat(Escape(name), " is lazily negated and no float"));
    }
    in_order_.push_back({name, &tensor});
  }

  // A plain dict has the metadata of a safetensors file, an OrderedDict what a pickle gave it.
  void TakeAttributes() {
    const NodeId attributes = tree_.attributes(state_dict_);
    if (attributes == kNoNode) return;
    for (const auto& [key, value] : tree_.pairs(attributes)) {
      const bool named = tree_.Is(key, NodeKind::kString);
      if (tree_.Is(state_dict_, NodeKind::kDict) && named &&
          tree_.text(key) == kSafetensorsMetadata) {
        TakeMetadata(value);
      } else {
        left_out_.Add(absl::StrCat("/@attributes/", named ? Escape(tree_.text(key)) : "?", ": ",
                                   ClassOf(tree_, value)));
      }
    }
  }

  void TakeMetadata(NodeId metadata) {
    if (!tree_.IsDict(metadata)) return;
    for (const auto& [name, text] : tree_.pairs(metadata)) {
      if (!tree_.Is(name, NodeKind::kString) || !tree_.Is(text, NodeKind::kString)) continue;
      metadata_.emplace(std::string(tree_.text(name)), std::string(tree_.text(text)));
    }
  }

  absl::Status CheckProblems() const {
    if (problems_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(problems_.size(), " tensors cannot be written as safetensors (",
                     FirstLines(problems_), "): ask for a state dict"));
  }

  // Of tied tensors the first is kept: in a state dict as a rule the one that has its own weight,
  // in a file of this format the one that is in the file.
  void FindTies() {
    if (metadata_.empty()) metadata_.emplace("format", "pt");
    std::map<View, const Entry*> first_of_view;
    std::vector<const Entry*> kept;
    for (const Entry& entry : in_order_) {
      const TensorInfo& info = *entry.tensor;
      if (CountElements(info.shape) == 0) continue;
      const auto [known, is_new] =
          first_of_view.emplace(View{info.storage, info.dtype, info.offset_elements, info.shape,
                                     info.stride, info.conj, info.neg},
                                &entry);
      if (is_new) {
        kept.push_back(&entry);
      } else {
        dropped_[entry.name] = known->second->name;
      }
    }
    FindOverlaps(std::move(kept));
    NoteTies();
  }

  // The names of tensors that lie, or whose elements lie between each other's, in the same bytes.
  void FindOverlaps(std::vector<const Entry*> entries) {
    const auto begin = [](const Entry* entry) {
      return static_cast<std::uint64_t>(entry->tensor->offset_elements) *
             ItemSize(entry->tensor->dtype);
    };
    const auto end = [&begin](const Entry* entry) {
      const TensorInfo& info = *entry->tensor;
      return begin(entry) + (static_cast<std::uint64_t>(LastOffset(info.shape, info.stride)) + 1) *
                                ItemSize(info.dtype);
    };
    std::sort(entries.begin(), entries.end(), [&begin](const Entry* a, const Entry* b) {
      return std::pair(a->tensor->storage, begin(a)) < std::pair(b->tensor->storage, begin(b));
    });
    const Entry* farthest = nullptr;
    for (const Entry* entry : entries) {
      const bool same_storage =
          farthest != nullptr && farthest->tensor->storage == entry->tensor->storage;
      if (same_storage && begin(entry) < end(farthest)) {
        overlapping_.insert(entry->name);
        overlapping_.insert(farthest->name);
      }
      if (!same_storage || end(entry) > end(farthest)) farthest = entry;
    }
  }

  void NoteTies() {
    for (const auto& [name, kept] : dropped_) {
      if (metadata_.contains(name) && name != "format") {
        left_out_.Add(absl::StrCat("/@attributes/", kSafetensorsMetadata, "/", Escape(name),
                                   ": metadata under the name of a tensor"));
      }
      metadata_[name] = kept;
    }
  }

  void ReportConversions() {
    for (const Entry& entry : in_order_) {
      const auto add = [&](const char* what) {
        converted_.Add(absl::StrCat("/", Escape(entry.name), ": ", what));
      };
      if (entry.tensor->is_parameter) add("parameter, written as a plain tensor");
      if (overlapping_.contains(entry.name)) {
        add("shares memory with another tensor, written apart");
      } else if (!IsDense(entry.tensor->shape, entry.tensor->stride)) {
        add("strided view, written dense");
      }
    }
  }

  absl::Status Place() {
    for (const Entry& entry : in_order_) {
      if (!dropped_.contains(entry.name)) plan_.entries.push_back(entry);
    }
    std::sort(plan_.entries.begin(), plan_.entries.end(), [](const Entry& a, const Entry& b) {
      const int rank_a = SafetensorsRank(a.tensor->dtype);
      const int rank_b = SafetensorsRank(b.tensor->dtype);
      return rank_a != rank_b ? rank_a > rank_b : a.name < b.name;
    });
    for (Entry& entry : plan_.entries) {
      entry.begin_bytes = plan_.data_bytes;
      entry.size_bytes = CountElements(entry.tensor->shape) * ItemSize(entry.tensor->dtype);
      const auto end = CheckedAdd(plan_.data_bytes, entry.size_bytes);
      if (!end.has_value()) {
        return MakeError(ErrorCode::kLimitExceeded, "the tensors need more than 64 bits of bytes");
      }
      plan_.data_bytes = *end;
    }
    return absl::OkStatus();
  }

  absl::Status WriteHeader() {
    std::map<std::string_view, const Entry*> by_name;
    for (const Entry& entry : plan_.entries) by_name.emplace(entry.name, &entry);
    std::vector<std::string> members;
    for (const auto& [name, text] : metadata_) {
      members.push_back(absl::StrCat(Quoted(name), ":", Quoted(text)));
    }
    std::string json =
        absl::StrCat("{\"", kSafetensorsMetadata, "\":{", absl::StrJoin(members, ","), "}");
    for (const Entry& named : in_order_) {
      const auto found = by_name.find(named.name);
      if (found == by_name.end()) continue;
      const Entry& entry = *found->second;
      absl::StrAppend(&json, ",", Quoted(entry.name), ":{\"dtype\":\"",
                      std::string(*SafetensorsName(entry.tensor->dtype)), "\",\"shape\":[",
                      absl::StrJoin(entry.tensor->shape, ","), "],\"data_offsets\":[",
                      entry.begin_bytes, ",", entry.begin_bytes + entry.size_bytes, "]}");
    }
    json += "}";
    json.append((kHeaderAlignment - json.size() % kHeaderAlignment) % kHeaderAlignment, ' ');
    if (json.size() > kMaxSafetensorsHeaderBytes) {
      return MakeError(ErrorCode::kLimitExceeded,
                       absl::StrCat("the names of the tensors need a header of ", json.size(),
                                    " bytes, safetensors allows ", kMaxSafetensorsHeaderBytes,
                                    ": ask for a state dict"));
    }
    for (std::size_t i = 0; i < 8; ++i) {
      plan_.header.push_back(static_cast<char>(std::uint64_t{json.size()} >> (8 * i)));
    }
    plan_.header += json;
    return absl::OkStatus();
  }

  const Tree& tree_;
  const NodeId state_dict_;
  std::vector<Entry> in_order_;                 // The dict's tensors, tied ones too.
  std::map<std::string, std::string> dropped_;  // Tied names, and the one that is kept of each.
  std::set<std::string> overlapping_;           // Names of the kept ones that overlap another.
  std::map<std::string, std::string> metadata_;
  std::vector<std::string> problems_;
  ReportLines left_out_;
  ReportLines converted_;
  Plan plan_;
};

absl::Status WriteTensor(const Entry& entry, const StorageSource& source, BufferedSink& out) {
  std::uint64_t written = 0;
  RELIGHT_RETURN_IF_ERROR(
      StreamDense(*entry.tensor, source, [&](absl::Span<const std::byte> bytes) {
        written += bytes.size();
        return out.Put(bytes);
      }));
  if (written == entry.size_bytes) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("tensor ", Escape(entry.name), " gave ", written,
                                          " bytes, not ", entry.size_bytes));
}

}  // namespace

absl::StatusOr<WriteReport> WriteSafetensors(const Tree& tree, NodeId state_dict,
                                             const StorageSource& source,
                                             const WriteOptions& options, const ByteSink& sink) {
  RELIGHT_ASSIGN_OR_RETURN(Plan plan, Planner(tree, state_dict).Make());
  if (options.lossless) RELIGHT_RETURN_IF_ERROR(CheckLossless(plan.report.left_out));
  BufferedSink out(sink);
  RELIGHT_RETURN_IF_ERROR(out.Put(plan.header));
  for (const Entry& entry : plan.entries) {
    RELIGHT_RETURN_IF_ERROR(WriteTensor(entry, source, out));
  }
  RELIGHT_RETURN_IF_ERROR(out.Flush());
  return std::move(plan.report);
}

absl::StatusOr<std::uint64_t> PredictSafetensorsBytes(const Tree& tree, NodeId state_dict) {
  RELIGHT_ASSIGN_OR_RETURN(const Plan plan, Planner(tree, state_dict).Make());
  return plan.header.size() + plan.data_bytes;
}

}  // namespace relight::storage
