// The format of torch.save since 1.6: a ZIP archive of data.pkl and one record per storage.
#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "libdeflate.h"
#include "storage/bytes.h"
#include "storage/container.h"
#include "storage/dict_keys.h"
#include "storage/error.h"
#include "storage/object_factory.h"
#include "storage/parse_context.h"
#include "storage/pickle_machine.h"
#include "storage/tree_audit.h"
#include "storage/zip_index.h"

namespace relight::storage {
namespace {

constexpr std::string_view kDataFolder = "data/";
constexpr std::uint64_t kMaxSmallRecordBytes = 4096;

std::uint32_t SwapUnit(DType dtype, bool untyped) {
  if (untyped) return 1;
  const auto bytes = static_cast<std::uint32_t>(ItemSize(dtype));
  return IsComplex(dtype) ? bytes / 2 : bytes;
}

// One archive; not reused.
class ZipReader final : public StorageLocator {
 public:
  ZipReader(const InputFile& file, const ReadOptions& options) : file_(file), options_(options) {}

  absl::StatusOr<Contents> Read() {
    RELIGHT_ASSIGN_OR_RETURN(index_, ZipIndex::Read(file_, options_));
    RELIGHT_RETURN_IF_ERROR(CheckKind());
    RELIGHT_RETURN_IF_ERROR(CheckRecordNames());
    RELIGHT_RETURN_IF_ERROR(CheckVersion());
    RELIGHT_RETURN_IF_ERROR(ReadByteOrder());
    RELIGHT_RETURN_IF_ERROR(CheckAlignment());
    RELIGHT_RETURN_IF_ERROR(ReadPickle());
    Summarise();
    return std::move(contents_);
  }

  absl::Status Locate(const ParseContext& context, StorageInfo& info) const override {
    const ZipEntry* entry = index_.Find(absl::StrCat(std::string(kDataFolder), info.key));
    if (entry == nullptr) {
      // A tensor on the meta device has no bytes.
      if (info.location == "meta") {
        info.size_bytes = 0;
        return absl::OkStatus();
      }
      return context.Error(ErrorCode::kMissingRecord,
                           absl::StrCat("the record ", std::string(kDataFolder), info.key,
                                        " of a storage is missing"));
    }
    const std::uint64_t item_bytes = ItemSize(info.dtype);
    if (entry->size_bytes < info.size_bytes || entry->size_bytes - info.size_bytes >= item_bytes) {
      return context.Error(ErrorCode::kStorageSizeMismatch,
                           absl::StrCat("storage ", info.key, " is said to have ", info.size_bytes,
                                        " bytes, its record has ", entry->size_bytes));
    }
    info.tail_bytes = entry->size_bytes - info.size_bytes;
    info.file_offset = entry->data_offset;
    if (contents_.summary.big_endian) info.swap_unit_bytes = SwapUnit(info.dtype, info.untyped);
    if (entry->crc32 != 0 || entry->size_bytes == 0) info.crc32 = entry->crc32;
    if (!info.crc32.has_value() && options_.require_crc) {
      return context.Error(ErrorCode::kCrcMismatch,
                           absl::StrCat("the record of storage ", info.key, " has no CRC-32"));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Error(ErrorCode code, std::string_view message) const {
    return MakeError(code, absl::StrCat(file_.shown_name(), ": ", std::string(message)));
  }

  absl::Status CheckKind() const {
    if (index_.IsTorchScript()) {
      return Error(ErrorCode::kTorchScriptArchive,
                   "is a TorchScript (or C++) archive, which holds code, where a checkpoint is "
                   "expected; save model.state_dict() with torch.save, or configure a torchscript "
                   "network");
    }
    if (index_.Find(".data/extern_modules") != nullptr) {
      return Error(ErrorCode::kUnsupportedFormat,
                   "is a torch.package archive; save model.state_dict() with torch.save");
    }
    if (index_.Find("archive_format") != nullptr) {
      return Error(ErrorCode::kUnsupportedFormat,
                   "is a PT2 archive of torch.export; save model.state_dict() with torch.save");
    }
    if (index_.Find("data.pkl") == nullptr) {
      return Error(ErrorCode::kMissingRecord,
                   "is a zip file without data.pkl, so not one of torch.save");
    }
    return absl::OkStatus();
  }

  static bool IsExpected(const ZipEntry& entry) {
    const std::string_view name = entry.name;
    if (name == "data.pkl" || name == "version" || name == "byteorder") return true;
    if (name.empty() || name == kDataFolder || name == ".data/") return true;  // Empty folders.
    if (name.starts_with(kDataFolder)) return IsStorageKey(name.substr(kDataFolder.size()));
    return name.starts_with(".") && entry.size_bytes <= kMaxSmallRecordBytes;
  }

  absl::Status CheckRecordNames() const {
    for (const ZipEntry& entry : index_.entries()) {
      if (IsExpected(entry)) continue;
      return Error(ErrorCode::kZipBadName, absl::StrCat("holds the record ", Escape(entry.name),
                                                        ", which torch.save never writes"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> ReadRecord(const ZipEntry& entry, std::uint64_t max_bytes) {
    if (entry.size_bytes > max_bytes) {
      return Error(ErrorCode::kLimitExceeded,
                   absl::StrCat("record ", Escape(entry.name), " has ", entry.size_bytes,
                                " bytes, the limit is ", max_bytes));
    }
    RELIGHT_ASSIGN_OR_RETURN(std::string bytes,
                             file_.ReadText(entry.data_offset, entry.size_bytes));
    const std::uint32_t crc = libdeflate_crc32(0, bytes.data(), bytes.size());
    if (crc == entry.crc32) return bytes;
    if (entry.crc32 == 0 && !options_.require_crc) {
      contents_.summary.crc_absent = true;
      return bytes;
    }
    return Error(ErrorCode::kCrcMismatch,
                 absl::StrCat("record ", Escape(entry.name),
                              entry.crc32 == 0 ? " has no CRC-32"
                                               : " does not have the CRC-32 that the file gives: "
                                                 "it was damaged"));
  }

  // The text of an optional small record; nullopt where it is missing.
  absl::StatusOr<std::optional<std::string>> ReadSmallRecord(std::string_view name) {
    const ZipEntry* entry = index_.Find(name);
    if (entry == nullptr) return std::nullopt;
    RELIGHT_ASSIGN_OR_RETURN(std::string text, ReadRecord(*entry, kMaxSmallRecordBytes));
    return text;
  }

  static std::optional<std::uint64_t> ParseDecimal(std::string_view text) {
    if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    if (text.empty() || text.size() > 19) return std::nullopt;
    std::uint64_t value = 0;
    for (const char c : text) {
      if (c < '0' || c > '9') return std::nullopt;
      value = value * 10 + static_cast<std::uint64_t>(c - '0');
    }
    return value;
  }

  absl::Status CheckVersion() {
    constexpr std::uint64_t kMaxVersion = 10;
    RELIGHT_ASSIGN_OR_RETURN(std::optional<std::string> text, ReadSmallRecord(".data/version"));
    if (!text.has_value()) {
      RELIGHT_ASSIGN_OR_RETURN(text, ReadSmallRecord("version"));
    }
    if (!text.has_value()) return Error(ErrorCode::kMissingRecord, "has no version record");
    const std::optional<std::uint64_t> version = ParseDecimal(*text);
    if (version.has_value() && *version >= 1 && *version <= kMaxVersion) return absl::OkStatus();
    return Error(ErrorCode::kBadVersion, absl::StrCat("has the archive version '", Escape(*text),
                                                      "'; 1 to ", kMaxVersion, " are read"));
  }

  absl::Status ReadByteOrder() {
    RELIGHT_ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadSmallRecord("byteorder"));
    if (!text.has_value() || *text == "little") return absl::OkStatus();
    if (*text != "big") {
      return Error(ErrorCode::kBadVersion,
                   absl::StrCat("has the unknown byte order '", Escape(*text), "'"));
    }
    contents_.summary.big_endian = true;
    return absl::OkStatus();
  }

  absl::Status CheckAlignment() {
    RELIGHT_ASSIGN_OR_RETURN(const std::optional<std::string> text,
                             ReadSmallRecord(".storage_alignment"));
    if (!text.has_value() || ParseDecimal(*text).value_or(0) != 0) return absl::OkStatus();
    return Error(ErrorCode::kBadVersion,
                 absl::StrCat("has the storage alignment '", Escape(*text), "'"));
  }

  absl::Status ReadPickle() {
    RELIGHT_ASSIGN_OR_RETURN(
        const std::string pickle,
        ReadRecord(*index_.Find("data.pkl"), options_.limits.max_pickle_bytes));
    const std::string where = absl::StrCat(file_.shown_name(), ": data.pkl");
    ParseContext context(*contents_.tree, options_, where, pickle.size());
    DictKeys keys(context);
    TorchObjectFactory factory(context, keys, *this, StorageTable::Ids::kZip,
                               contents_.summary.big_endian);
    PickleMachine machine(context, keys, &factory);
    RELIGHT_ASSIGN_OR_RETURN(const PickleMachine::Result result, machine.Run(AsBytes(pickle), 0));
    if (result.end != pickle.size()) {
      context.set_offset(result.end);
      return context.Error(ErrorCode::kPickleBadValue, "there are bytes behind the end");
    }
    contents_.tree->set_root(result.root);
    contents_.summary.locations = factory.storages().locations();
    contents_.storages = factory.storages().TakeStorages();
    contents_.summary.opaque_classes = factory.TakeOpaqueClasses();
    return AuditTree(*contents_.tree, options_.limits, where);
  }

  void Summarise() {
    Summary& summary = contents_.summary;
    summary.format = Format::kZip;
    if (index_.Find(".format_version") != nullptr) {
      summary.torch_version_guess = ">= 2.7";
    } else if (index_.Find(".data/serialization_id") != nullptr ||
               index_.Find("byteorder") != nullptr) {
      summary.torch_version_guess = ">= 2.1";
    } else {
      summary.torch_version_guess = "1.6 to 2.0";
    }
    std::size_t records = 0;
    for (const ZipEntry& entry : index_.entries()) {
      if (entry.name.starts_with(kDataFolder) && entry.name.size() > kDataFolder.size()) ++records;
    }
    std::size_t used = 0;
    for (const StorageInfo& storage : contents_.storages) {
      if (index_.Find(absl::StrCat(std::string(kDataFolder), storage.key)) != nullptr) ++used;
      if (!storage.crc32.has_value() && storage.size_bytes > 0) summary.crc_absent = true;
    }
    if (records > used) {
      summary.notes.push_back(absl::StrCat(records - used,
                                           " storages are in the file that nothing "
                                           "in it refers to"));
    }
  }

  const InputFile& file_;
  const ReadOptions& options_;
  ZipIndex index_;
  Contents contents_;
};

}  // namespace

absl::StatusOr<Contents> ReadZip(const InputFile& file, const ReadOptions& options) {
  return ZipReader(file, options).Read();
}

}  // namespace relight::storage
