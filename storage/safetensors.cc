// The safetensors format: a length, a JSON header, the bytes.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "storage/bytes.h"
#include "storage/container.h"
#include "storage/error.h"
#include "storage/safetensors_format.h"

namespace relight::storage {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::size_t kMaxMetadata = 65'536;

struct Record {
  std::string name;
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::vector<std::uint64_t> data_offsets;
  bool has_shape = false;
};

// Takes the header apart as it is parsed, so that repeated names and deep nesting are seen, which a
// parsed document would hide.
class HeaderHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderHandler(std::uint64_t max_rank, std::uint64_t max_entries)
      : max_rank_(max_rank), max_entries_(max_entries) {}

  std::vector<Record> records;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::string problem;
  bool too_many = false;  // Why it was given up before its end.

  bool null() override { return Fail("holds a null"); }
  bool boolean(bool) override { return Fail("holds a boolean"); }
  bool number_integer(number_integer_t) override { return Fail("holds a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return Fail("holds a number that is no unsigned 64-bit integer");
  }
  bool binary(binary_t&) override { return Fail("holds binary data"); }
  bool number_unsigned(number_unsigned_t value) override {
    if (list_ == nullptr) return Fail("holds a number where none belongs");
    if (list_->size() >= max_rank_) return Fail("holds a list that is too long");
    list_->push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata_) {
      metadata.back().second = std::move(value);
      return true;
    }
    if (depth_ != 2 || list_ != nullptr || field_ != "dtype") {
      return Fail("holds text where none belongs");
    }
    records.back().dtype = std::move(value);
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ >= 2 || list_ != nullptr) return Fail("nests too deeply");
    ++depth_;
    return true;
  }
  bool end_object() override {
    --depth_;
    fields_seen_.clear();
    field_.clear();
    return true;
  }
  bool key(string_t& value) override {
    if (depth_ == 1) return BeginMember(value);
    if (in_metadata_) {
      if (!metadata_names_.emplace(value, 0).second) return Fail("repeats a key of its metadata");
      if (metadata.size() == kMaxMetadata) return FailForSize("texts of metadata", kMaxMetadata);
      metadata.emplace_back(std::move(value), "");
      return true;
    }
    if (std::find(fields_seen_.begin(), fields_seen_.end(), value) != fields_seen_.end()) {
      return Fail("repeats a field of a tensor");
    }
    if (value != "dtype" && value != "shape" && value != "data_offsets") {
      return Fail("has an unknown field of a tensor");
    }
    field_ = value;
    fields_seen_.push_back(std::move(value));
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || list_ != nullptr || in_metadata_) return Fail("nests too deeply");
    if (field_ == "shape") {
      list_ = &records.back().shape;
      records.back().has_shape = true;
      return true;
    }
    if (field_ != "data_offsets") return Fail("holds a list where none belongs");
    list_ = &records.back().data_offsets;
    return true;
  }
  bool end_array() override {
    list_ = nullptr;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("is not JSON at its byte ", position));
  }

 private:
  bool Fail(std::string what) {
    problem = std::move(what);
    return false;
  }
  bool FailForSize(std::string_view of_what, std::uint64_t limit) {
    too_many = true;
    return Fail(
        absl::StrCat("names more than ", limit, " ", std::string(of_what), ", which is the limit"));
  }
  bool BeginMember(std::string& name) {
    in_metadata_ = name == kSafetensorsMetadata;
    if (!names_.emplace(name, 0).second) {
      return Fail(absl::StrCat("names ", Escape(name), " twice"));
    }
    if (in_metadata_) return true;
    if (records.size() == max_entries_) return FailForSize("tensors", max_entries_);
    records.emplace_back();
    records.back().name = std::move(name);
    return true;
  }

  const std::uint64_t max_rank_;
  const std::uint64_t max_entries_;
  int depth_ = 0;
  bool in_metadata_ = false;
  std::string field_;
  std::vector<std::string> fields_seen_;
  std::vector<std::uint64_t>* list_ = nullptr;
  std::unordered_map<std::string, int> names_;
  std::unordered_map<std::string, int> metadata_names_;
};

class SafetensorsReader {
 public:
  SafetensorsReader(const InputFile& file, const ReadOptions& options)
      : file_(file), handler_(options.limits.max_rank, options.limits.max_entries) {}

  absl::StatusOr<Contents> Read() {
    RELIGHT_RETURN_IF_ERROR(ReadHeader());
    RELIGHT_RETURN_IF_ERROR(CheckTiling());
    Tree& tree = *contents_.tree;
    root_ = tree.Add(NodeKind::kDict);
    tree.set_root(root_);
    for (const Record& record : handler_.records) RELIGHT_RETURN_IF_ERROR(AddTensor(record));
    AddMetadata();
    contents_.summary.format = Format::kSafetensors;
    contents_.summary.crc_absent = true;
    return std::move(contents_);
  }

 private:
  absl::Status Invalid(std::string_view message) const {
    return MakeError(ErrorCode::kSafetensorsInvalid,
                     absl::StrCat(file_.shown_name(), ": ", std::string(message)));
  }
  absl::Status BadTensor(const Record& record, std::string_view message) const {
    return Invalid(absl::StrCat("tensor ", Escape(record.name), " ", std::string(message)));
  }

  absl::Status ReadHeader() {
    RELIGHT_ASSIGN_OR_RETURN(const std::string length, file_.ReadText(0, kLengthBytes));
    const auto header_bytes = LoadLittle<std::uint64_t>(length.data());
    if (header_bytes > kMaxSafetensorsHeaderBytes ||
        header_bytes > file_.size_bytes() - kLengthBytes) {
      return Invalid(absl::StrCat("claims a header of ", header_bytes, " bytes"));
    }
    RELIGHT_ASSIGN_OR_RETURN(const std::string header, file_.ReadText(kLengthBytes, header_bytes));
    data_offset_ = kLengthBytes + header_bytes;
    if (!header.starts_with('{')) return Invalid("has a header that is no JSON object");
    if (nlohmann::json::sax_parse(header, &handler_)) return absl::OkStatus();
    const std::string problem = absl::StrCat("its header ", handler_.problem);
    if (!handler_.too_many) return Invalid(problem);
    return MakeError(ErrorCode::kLimitExceeded, absl::StrCat(file_.shown_name(), ": ", problem));
  }

  // The tensors fill the data area without gap or overlap.
  absl::Status CheckTiling() const {
    std::vector<const Record*> order;
    for (const Record& record : handler_.records) {
      if (record.data_offsets.size() != 2 || !record.has_shape || record.dtype.empty()) {
        return BadTensor(record, "lacks a dtype, a shape or two data offsets");
      }
      order.push_back(&record);
    }
    std::sort(order.begin(), order.end(),
              [](const Record* a, const Record* b) { return a->data_offsets < b->data_offsets; });
    std::uint64_t at = 0;
    for (const Record* record : order) {
      if (record->data_offsets[0] != at || record->data_offsets[1] < at) {
        return BadTensor(*record, absl::StrCat("does not begin at byte ", at,
                                               " of the data, where the one before it ends"));
      }
      at = record->data_offsets[1];
    }
    if (at == file_.size_bytes() - data_offset_) return absl::OkStatus();
    return Invalid(absl::StrCat("has ", file_.size_bytes() - data_offset_,
                                " bytes of data, its tensors need ", at));
  }

  absl::StatusOr<DType> DTypeOf(const Record& record) const {
    if (const std::optional<DType> dtype = DTypeFromSafetensorsName(record.dtype)) return *dtype;
    if (IsSubByteSafetensorsName(record.dtype)) {
      return MakeError(
          ErrorCode::kUnsupportedDType,
          absl::StrCat(file_.shown_name(), ": tensor ", Escape(record.name), " has dtype ",
                       record.dtype, ", which is narrower than a byte"));
    }
    return BadTensor(record, absl::StrCat("has the unknown dtype ", Escape(record.dtype)));
  }

  absl::Status AddTensor(const Record& record) {
    TensorInfo info;
    RELIGHT_ASSIGN_OR_RETURN(info.dtype, DTypeOf(record));
    info.stride.resize(record.shape.size());
    std::optional<std::int64_t> count = 1;
    for (std::size_t i = record.shape.size(); i-- > 0;) {
      if (record.shape[i] > INT64_MAX) return BadTensor(record, "has a size beyond 63 bits");
      info.stride[i] = std::max<std::int64_t>(*count, 1);
      count = CheckedMul(*count, static_cast<std::int64_t>(record.shape[i]));
      if (!count.has_value()) return BadTensor(record, "has more elements than fit 64 bits");
    }
    const std::optional<std::int64_t> bytes =
        CheckedMul(*count, static_cast<std::int64_t>(ItemSize(info.dtype)));
    const std::uint64_t size_bytes = record.data_offsets[1] - record.data_offsets[0];
    if (!bytes.has_value() || static_cast<std::uint64_t>(*bytes) != size_bytes) {
      return BadTensor(
          record, absl::StrCat("has ", size_bytes, " bytes, which is not what its shape needs"));
    }
    info.shape.assign(record.shape.begin(), record.shape.end());
    info.storage = static_cast<std::uint32_t>(contents_.storages.size());

    StorageInfo storage;
    storage.key = absl::StrCat(contents_.storages.size());
    storage.dtype = info.dtype;
    storage.size_bytes = size_bytes;
    storage.location = "cpu";
    storage.file_offset = data_offset_ + record.data_offsets[0];
    contents_.storages.push_back(std::move(storage));

    Tree& tree = *contents_.tree;
    const NodeId key = tree.AddText(NodeKind::kString, record.name);
    const NodeId tensor = tree.AddTensor(std::move(info));
    tree.SetItem(root_, key, tensor);
    by_name_.emplace(record.name, tensor);
    return absl::OkStatus();
  }

  // The format cannot say that two names share a tensor; its writers note the names that they left
  // out in the metadata, as "left out": "kept". The rest is kept as attributes of the dict:
  // {'__metadata__': {...}}.
  void AddMetadata() {
    Tree& tree = *contents_.tree;
    NodeId metadata = kNoNode;
    for (const auto& [name, value] : handler_.metadata) {
      const NodeId key = tree.AddText(NodeKind::kString, name);
      const auto kept = by_name_.find(value);
      if (kept != by_name_.end() && !by_name_.contains(name)) {
        const NodeId tensor = kept->second;
        tree.SetItem(root_, key, tensor);
        by_name_.emplace(name, tensor);
        continue;
      }
      if (metadata == kNoNode) metadata = tree.Add(NodeKind::kDict);
      tree.SetItem(metadata, key, tree.AddText(NodeKind::kString, value));
      if (contents_.summary.notes.size() < kMaxNotes) {
        contents_.summary.notes.push_back(
            absl::StrCat("metadata ", Escape(name), ": ", Escape(value)));
      }
    }
    if (metadata == kNoNode) return;
    const NodeId attributes = tree.Add(NodeKind::kDict);
    tree.SetItem(attributes, tree.AddText(NodeKind::kString, kSafetensorsMetadata), metadata);
    tree.SetAttributes(root_, attributes);
  }

  static constexpr std::size_t kMaxNotes = 16;

  const InputFile& file_;
  HeaderHandler handler_;
  Contents contents_;
  NodeId root_ = kNoNode;
  std::uint64_t data_offset_ = 0;
  std::unordered_map<std::string, NodeId> by_name_;
};

}  // namespace

absl::StatusOr<Contents> ReadSafetensors(const InputFile& file, const ReadOptions& options) {
  return SafetensorsReader(file, options).Read();
}

}  // namespace relight::storage
