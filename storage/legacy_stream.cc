// The format before torch 1.6, section by section: three small pickles that identify it, the
// object, the list of storage keys, and the storages in that order.
#include <algorithm>
#include <limits>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/bytes.h"
#include "storage/container.h"
#include "storage/dict_keys.h"
#include "storage/error.h"
#include "storage/object_factory.h"
#include "storage/parse_context.h"
#include "storage/pickle_machine.h"
#include "storage/tree_audit.h"

namespace relight::storage {
namespace {

// Nothing says how long the pickles are. A window of the file's first bytes is tried, then a larger
// one from the start.
constexpr std::uint64_t kFirstWindowBytes = std::uint64_t{1} << 20;
constexpr std::uint64_t kWindowGrowth = 8;

constexpr std::int64_t kProtocolVersion = 1001;

// The sizes come behind the pickles, so until then a storage is what its id claims.
class NoLocator final : public StorageLocator {
 public:
  absl::Status Locate(const ParseContext&, StorageInfo&) const override { return absl::OkStatus(); }
};

class LegacyReader {
 public:
  LegacyReader(const InputFile& file, const ReadOptions& options)
      : file_(file), options_(options) {}

  absl::StatusOr<Contents> Read() {
    const std::uint64_t largest = std::min(file_.size_bytes(), options_.limits.max_pickle_bytes);
    std::uint64_t window = std::min(kFirstWindowBytes, largest);
    while (true) {
      RELIGHT_ASSIGN_OR_RETURN(const std::string bytes, file_.ReadText(0, window));
      contents_ = Contents();
      keys_.clear();
      ran_out_ = false;
      const absl::Status status = ReadPickles(bytes);
      if (status.ok()) break;
      if (!ran_out_ || window == file_.size_bytes()) return status;
      if (window == largest) {
        return Error(ErrorCode::kLimitExceeded,
                     absl::StrCat("its pickles are longer than the limit of ", largest, " bytes"));
      }
      window = std::min(window * kWindowGrowth, largest);
    }
    RELIGHT_RETURN_IF_ERROR(ReadStorages());
    Summary& summary = contents_.summary;
    summary.format = Format::kLegacyStream;
    summary.torch_version_guess = "<= 1.5, or saved in the old format on purpose";
    summary.crc_absent = true;
    return std::move(contents_);
  }

 private:
  absl::Status Error(ErrorCode code, std::string_view message) const {
    return MakeError(code, absl::StrCat(file_.shown_name(), ": ", std::string(message)));
  }

  absl::Status ReadPickles(const std::string& bytes) {
    std::size_t at = 0;
    RELIGHT_RETURN_IF_ERROR(SkipMagic(bytes, at));
    RELIGHT_RETURN_IF_ERROR(CheckProtocolVersion(bytes, at));
    RELIGHT_RETURN_IF_ERROR(CheckSystemInfo(bytes, at));
    RELIGHT_RETURN_IF_ERROR(ReadObject(bytes, at));
    RELIGHT_RETURN_IF_ERROR(ReadKeys(bytes, at));
    raw_offset_ = at;
    return absl::OkStatus();
  }

  // Runs the pickle at `at` for plain values only, and moves `at` behind it.
  absl::StatusOr<NodeId> RunPlain(const std::string& bytes, std::size_t& at, Tree& tree,
                                  std::string_view part) {
    ParseContext context(tree, options_, Where(part), bytes.size());
    DictKeys keys(context);
    PickleMachine machine(context, keys, nullptr);
    const absl::StatusOr<PickleMachine::Result> result = machine.Run(AsBytes(bytes), at);
    ran_out_ = machine.ran_out();
    RELIGHT_RETURN_IF_ERROR(result.status());
    at = result->end;
    return result->root;
  }
  std::string Where(std::string_view part) const {
    return absl::StrCat(file_.shown_name(), ": ", std::string(part));
  }

  absl::Status SkipMagic(const std::string& bytes, std::size_t& at) {
    Tree tree;  // The value is what the file was recognised by.
    return RunPlain(bytes, at, tree, "magic number").status();
  }

  absl::Status CheckProtocolVersion(const std::string& bytes, std::size_t& at) {
    Tree tree;
    RELIGHT_ASSIGN_OR_RETURN(const NodeId root, RunPlain(bytes, at, tree, "protocol version"));
    if (tree.Is(root, NodeKind::kInt) && tree.integer(root) == kProtocolVersion) {
      return absl::OkStatus();
    }
    return Error(ErrorCode::kUnsupportedFormat, "its stream format has another version than 1001");
  }

  absl::Status CheckSystemInfo(const std::string& bytes, std::size_t& at) {
    Tree tree;
    RELIGHT_ASSIGN_OR_RETURN(const NodeId root, RunPlain(bytes, at, tree, "system information"));
    if (tree.IsDict(root)) return absl::OkStatus();
    return Error(ErrorCode::kPickleBadValue, "its system information is not a dict");
  }

  absl::Status ReadObject(const std::string& bytes, std::size_t& at) {
    ParseContext context(*contents_.tree, options_, Where("object"), bytes.size());
    DictKeys keys(context);
    const NoLocator locator;
    TorchObjectFactory factory(context, keys, locator, StorageTable::Ids::kLegacyStream,
                               /*big_endian=*/false);
    PickleMachine machine(context, keys, &factory);
    const absl::StatusOr<PickleMachine::Result> result = machine.Run(AsBytes(bytes), at);
    ran_out_ = machine.ran_out();
    RELIGHT_RETURN_IF_ERROR(result.status());
    at = result->end;
    contents_.tree->set_root(result->root);
    contents_.summary.locations = factory.storages().locations();
    contents_.storages = factory.storages().TakeStorages();
    contents_.summary.opaque_classes = factory.TakeOpaqueClasses();
    return AuditTree(*contents_.tree, options_.limits, Where("object"));
  }

  absl::Status ReadKeys(const std::string& bytes, std::size_t& at) {
    Tree tree;
    RELIGHT_ASSIGN_OR_RETURN(const NodeId root, RunPlain(bytes, at, tree, "list of storages"));
    if (!tree.Is(root, NodeKind::kList)) {
      return Error(ErrorCode::kPickleBadValue, "its list of storages is not a list");
    }
    for (const NodeId item : tree.items(root)) {
      if (!tree.Is(item, NodeKind::kString)) {
        return Error(ErrorCode::kPickleBadValue, "its list of storages holds what is no name");
      }
      keys_.emplace_back(tree.text(item));
    }
    return absl::OkStatus();
  }

  absl::Status ReadStorages() {
    std::unordered_map<std::string, std::size_t> named;
    for (std::size_t i = 0; i < contents_.storages.size(); ++i) {
      named.emplace(contents_.storages[i].key, i);
    }
    std::uint64_t at = raw_offset_;
    for (const std::string& key : keys_) {
      const auto found = named.find(key);
      if (found == named.end()) {
        return Error(ErrorCode::kBadStorageRef,
                     absl::StrCat("lists the storage ", Escape(key),
                                  " twice, or although no tensor names it"));
      }
      RELIGHT_RETURN_IF_ERROR(ReadStorage(contents_.storages[found->second], at));
      named.erase(found);
    }
    if (!named.empty()) {
      return Error(ErrorCode::kMissingRecord,
                   absl::StrCat("does not hold the storage ", Escape(named.begin()->first),
                                " that a tensor names"));
    }
    if (at != file_.size_bytes()) {
      return Error(ErrorCode::kPickleBadValue,
                   absl::StrCat("has ", file_.size_bytes() - at, " bytes behind its last storage"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadStorage(StorageInfo& storage, std::uint64_t& at) const {
    constexpr std::uint64_t kCountBytes = 8;
    const auto cut = [&] {
      return Error(ErrorCode::kStorageSizeMismatch,
                   absl::StrCat("ends within storage ", storage.key, ": it was cut off"));
    };
    if (file_.size_bytes() - at < kCountBytes) return cut();
    RELIGHT_ASSIGN_OR_RETURN(const std::string count_text, file_.ReadText(at, kCountBytes));
    const auto count = LoadLittle<std::int64_t>(count_text.data());
    const auto claimed = static_cast<std::int64_t>(storage.size_bytes / ItemSize(storage.dtype));
    if (count != claimed) {
      return Error(ErrorCode::kStorageSizeMismatch,
                   absl::StrCat("storage ", storage.key, " has ", count,
                                " elements, its tensors were told ", claimed));
    }
    at += kCountBytes;
    if (file_.size_bytes() - at < storage.size_bytes) return cut();
    storage.file_offset = at;
    at += storage.size_bytes;
    return absl::OkStatus();
  }

  const InputFile& file_;
  const ReadOptions& options_;
  Contents contents_;
  std::vector<std::string> keys_;
  std::uint64_t raw_offset_ = 0;
  bool ran_out_ = false;
};

}  // namespace

absl::StatusOr<Contents> ReadLegacyStream(const InputFile& file, const ReadOptions& options) {
  return LegacyReader(file, options).Read();
}

}  // namespace relight::storage
