// An index of shards (*.index.json): which file holds which key, and all of them read as one.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "nlohmann/json.hpp"
#include "storage/container.h"
#include "storage/error.h"
#include "storage/state_dict_finder.h"

namespace relight::storage {
namespace {

constexpr std::uint64_t kMaxIndexBytes = std::uint64_t{64} << 20;
constexpr std::size_t kMaxShards = 10'000;
constexpr std::size_t kMaxTensors = 1'048'576;
constexpr int kMaxDepth = 16;

// Takes "weight_map" out of the index as it is parsed, so that repeated keys are seen.
class IndexHandler final : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<std::pair<std::string, std::string>> weight_map;  // Tensor to file.
  bool has_weight_map = false;
  std::string problem;

  bool null() override { return Value(); }
  bool boolean(bool) override { return Value(); }
  bool number_integer(number_integer_t) override { return Value(); }
  bool number_unsigned(number_unsigned_t) override { return Value(); }
  bool number_float(number_float_t, const string_t&) override { return Value(); }
  bool binary(binary_t&) override { return Value(); }
  bool string(string_t& value) override {
    if (depth_ == 2 && in_map_) {
      weight_map.back().second = std::move(value);
      return true;
    }
    return Value();
  }
  bool start_object(std::size_t) override {
    if (depth_ == 1 && in_map_) {
      has_weight_map = true;
      ++depth_;
      return true;
    }
    return Open();
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ == 0) return Fail("is no JSON object");
    return Open();
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& value) override {
    if (depth_ == 1) {
      in_map_ = value == "weight_map";
      if (in_map_ && has_weight_map) return Fail("has two weight maps");
    } else if (depth_ == 2 && in_map_) {
      if (weight_map.size() == kMaxTensors) {
        return Fail(absl::StrCat("names more than ", kMaxTensors, " tensors, which is the limit"));
      }
      if (!names_.emplace(value, 0).second) {
        return Fail(absl::StrCat("names ", Escape(value), " twice"));
      }
      weight_map.emplace_back(std::move(value), "");
    }
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("is not JSON at byte ", position));
  }

 private:
  bool Fail(std::string what) {
    problem = std::move(what);
    return false;
  }
  bool Value() {
    if (in_map_ && depth_ >= 1) return Fail("maps a tensor to something that is no file name");
    return true;
  }
  bool Open() {
    if (in_map_) return Fail("maps a tensor to something that is no file name");
    if (depth_ >= kMaxDepth) return Fail("nests too deeply");
    ++depth_;
    return true;
  }

  int depth_ = 0;
  bool in_map_ = false;
  std::unordered_map<std::string, int> names_;
};

bool IsPlainFileName(std::string_view name) {
  constexpr std::size_t kMaxNameBytes = 255;
  return !name.empty() && name.size() <= kMaxNameBytes && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

class IndexReader {
 public:
  IndexReader(const InputFile& index, const std::string& path, const ReadOptions& options)
      : index_(index), path_(path), options_(options) {}

  absl::StatusOr<ShardedContents> Read() {
    RELIGHT_RETURN_IF_ERROR(Parse());
    RELIGHT_RETURN_IF_ERROR(GroupByFile());
    RELIGHT_ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder());
    nodes_.resize(handler_.weight_map.size(), kNoNode);
    Summary& summary = result_.contents.summary;
    summary.format = Format::kShardedIndex;
    for (const std::string& file : files_) {
      RELIGHT_RETURN_IF_ERROR(ReadShard(folder.get(), file));
    }
    Tree& tree = *result_.contents.tree;
    const NodeId root = tree.Add(NodeKind::kDict);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      const NodeId key = tree.AddText(NodeKind::kString, handler_.weight_map[i].first);
      tree.SetItem(root, key, nodes_[i]);
    }
    tree.set_root(root);
    return std::move(result_);
  }

 private:
  absl::Status Invalid(std::string_view message) const {
    return MakeError(ErrorCode::kIndexInvalid,
                     absl::StrCat(index_.shown_name(), ": ", std::string(message)));
  }

  absl::Status Parse() {
    if (index_.size_bytes() > kMaxIndexBytes) {
      return MakeError(ErrorCode::kLimitExceeded,
                       absl::StrCat(index_.shown_name(), ": is ", index_.size_bytes(),
                                    " bytes long, the limit for an index is ", kMaxIndexBytes));
    }
    RELIGHT_ASSIGN_OR_RETURN(const std::string text, index_.ReadText(0, index_.size_bytes()));
    if (!nlohmann::json::sax_parse(text, &handler_)) return Invalid(handler_.problem);
    if (!handler_.has_weight_map || handler_.weight_map.empty()) {
      return Invalid("has no weight_map, so it is no index of shards");
    }
    return absl::OkStatus();
  }

  absl::Status GroupByFile() {
    for (std::size_t i = 0; i < handler_.weight_map.size(); ++i) {
      const std::string& file = handler_.weight_map[i].second;
      if (!IsPlainFileName(file)) {
        return Invalid(absl::StrCat("names the shard ", Escape(file),
                                    ", which is not a plain file name beside the index"));
      }
      std::vector<std::size_t>& tensors = tensors_of_[file];
      if (tensors.empty()) files_.push_back(file);
      tensors.push_back(i);
    }
    if (files_.size() <= kMaxShards) return absl::OkStatus();
    return Invalid(absl::StrCat("names ", files_.size(), " shards, the limit is ", kMaxShards));
  }

  absl::StatusOr<UniqueFd> OpenFolder() const {
    const std::size_t slash = path_.find_last_of('/');
    const std::string folder = slash == std::string::npos ? "."
                               : slash == 0               ? "/"
                                                          : path_.substr(0, slash);
    UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (fd.valid()) return fd;
    return MakeError(ErrorCode::kIoError,
                     absl::StrCat(index_.shown_name(), ": its folder cannot be opened: ",
                                  std::generic_category().message(errno)));
  }

  absl::Status ReadShard(int folder_fd, const std::string& name) {
    RELIGHT_ASSIGN_OR_RETURN(
        InputFile shard, InputFile::OpenInFolder(folder_fd, name, options_.limits.max_file_bytes));
    RELIGHT_ASSIGN_OR_RETURN(const Format format, SniffFormat(shard, name));
    RELIGHT_ASSIGN_OR_RETURN(Contents contents, ReadSingleFile(shard, format, options_));
    RELIGHT_ASSIGN_OR_RETURN(const StateDict state_dict,
                             FindStateDictInTree(*contents.tree, shard.shown_name(), {}));
    RELIGHT_RETURN_IF_ERROR(TakeTensors(contents, state_dict, name, shard.shown_name()));
    MergeSummary(contents.summary);
    const auto file = static_cast<std::uint32_t>(result_.shards.size() + 1);
    for (StorageInfo& storage : contents.storages) {
      storage.file = file;
      storage.key = absl::StrCat(result_.contents.storages.size());
      result_.contents.storages.push_back(std::move(storage));
    }
    result_.shards.push_back(std::move(shard));
    return absl::OkStatus();
  }

  absl::Status TakeTensors(const Contents& contents, const StateDict& state_dict,
                           const std::string& file, const std::string& shown_file) {
    Tree& tree = *result_.contents.tree;
    const auto first_storage = static_cast<std::uint32_t>(result_.contents.storages.size());
    std::unordered_map<std::string_view, NodeId> by_key;
    for (const StateDictEntry& entry : state_dict.entries) {
      by_key.emplace(entry.original_key, entry.node);
    }
    std::unordered_map<NodeId, NodeId> taken;  // Tied weights stay one node.
    for (const std::size_t i : tensors_of_[file]) {
      const std::string& key = handler_.weight_map[i].first;
      const auto found = by_key.find(key);
      if (found == by_key.end()) {
        return Invalid(absl::StrCat("says that tensor ", Escape(key), " is in ", shown_file,
                                    ", where it is not"));
      }
      const auto [known, is_new] = taken.emplace(found->second, kNoNode);
      if (is_new) {
        TensorInfo info = contents.tree->tensor(found->second);
        info.storage += first_storage;
        known->second =
            contents.tree->Is(found->second, NodeKind::kTensor)
                ? tree.AddTensor(std::move(info))
                : tree.AddUnsupportedTensor(std::move(info), contents.tree->text(found->second));
      }
      nodes_[i] = known->second;
    }
    if (state_dict.entries.size() > tensors_of_[file].size()) {
      AddNote(absl::StrCat(shown_file, " holds ",
                           state_dict.entries.size() - tensors_of_[file].size(),
                           " tensors that the index does not name"));
    }
    return absl::OkStatus();
  }

  void AddNote(std::string note) {
    constexpr std::size_t kMaxNotes = 16;
    std::vector<std::string>& notes = result_.contents.summary.notes;
    if (notes.size() < kMaxNotes) notes.push_back(std::move(note));
  }

  void MergeSummary(const Summary& shard) {
    Summary& summary = result_.contents.summary;
    if (!summary.shard_format.has_value()) summary.shard_format = shard.format;
    summary.crc_absent = summary.crc_absent || shard.crc_absent;
    summary.big_endian = summary.big_endian || shard.big_endian;
    if (summary.torch_version_guess.empty()) {
      summary.torch_version_guess = shard.torch_version_guess;
    }
    const auto merge = [](std::vector<std::string>& into, const std::vector<std::string>& from) {
      constexpr std::size_t kMaxMerged = 64;
      for (const std::string& item : from) {
        if (into.size() < kMaxMerged && std::find(into.begin(), into.end(), item) == into.end()) {
          into.push_back(item);
        }
      }
    };
    merge(summary.locations, shard.locations);
    merge(summary.opaque_classes, shard.opaque_classes);
    for (const std::string& note : shard.notes) AddNote(note);
  }

  const InputFile& index_;
  const std::string& path_;
  const ReadOptions& options_;
  IndexHandler handler_;
  std::vector<std::string> files_;  // In order of first mention.
  std::unordered_map<std::string, std::vector<std::size_t>> tensors_of_;
  std::vector<NodeId> nodes_;  // Of the tensors of the weight map.
  ShardedContents result_;
};

}  // namespace

absl::StatusOr<ShardedContents> ReadShardedIndex(const InputFile& index, const std::string& path,
                                                 const ReadOptions& options) {
  return IndexReader(index, path, options).Read();
}

}  // namespace relight::storage
